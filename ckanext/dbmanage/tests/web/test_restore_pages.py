"""Restore and undo in a real browser, while others read."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Browser, Page, expect

from ..support.browser import BACKUPS, done, looked, menu, opened
from ..support.site import PASSWORD, SYSADMIN, TITLE, Site


def test_restore_while_others_read_then_undo(browser: Browser, site: Site) -> None:
    id = site.portal.backup().name
    before = site.portal.sql("SELECT count(*) FROM resource")
    # as CKAN would: what it shows from the index it tells by this time
    site.portal.sql(
        "DELETE FROM resource; UPDATE package SET metadata_modified = now()"
    )
    site.start_worker()
    page = opened(browser, site)
    page.goto(BACKUPS)
    menu(page, id, "shows first what would change")
    expect(page.locator("#cmd-arm")).to_have_text(
        re.compile(rf"/ckan -c \S+ db arm {id}$")
    )
    assert page.is_disabled("button:has-text('Restore to')")
    looked(page, "restore-off")
    page.click("text=Show what would change")
    done(page)
    page.click("text=Show what a restore would change")
    expect(page.locator(".dbm-table tr", has_text="Resources")).to_contain_text(
        "bring back 45"
    )
    page.click("summary:has-text('Datasets: 40 would go back to an older state')")
    expect(
        page.locator("section:has(#diff-h) li", has_text="dataset-10")
    ).to_be_visible()
    expect(page.locator("section:has(#diff-h)")).to_contain_text("and 20 more")
    looked(page, "restore-preview")
    site.portal.db("arm", id)
    page.reload()
    page.fill("#field-confirm", "Riverland")
    page.fill("#field-password", "wrong")
    page.click("button:has-text('Restore to')")
    expect(page.locator("#errors")).to_be_focused()
    expect(page.locator("#errors")).to_contain_text("not the name of this site")
    looked(page, "restore-errors")

    looked(page, "restore-armed", (1280,))
    page.fill("#field-note", "resources deleted by mistake")
    page.fill("#field-confirm", TITLE.lower())
    page.fill("#field-password", PASSWORD)
    page.click("button:has-text('Restore to')")
    assert "dataset" in read_meanwhile(browser, site, page)
    done(page)
    expect(page.locator(".dbm-log")).to_contain_text("resources deleted by mistake")
    looked(page, "restored")
    assert site.portal.sql("SELECT count(*) FROM resource") == before
    page.goto(BACKUPS)
    expect(page.locator(".dbm-notes")).to_contain_text(f"Restored from backup {id}")
    looked(page, "undo")
    page.click("text=Undo…")
    assert page.is_disabled("button:has-text('Undo the last restore')")
    looked(page, "undo-off", (1280,))
    site.portal.db("arm", "undo")
    # the page looks by itself whether it is armed
    expect(page.locator("button:has-text('Undo the last restore')")).to_be_enabled()
    page.fill("#field-confirm", TITLE)
    page.fill("#field-password", PASSWORD)
    page.click("button:has-text('Undo the last restore')")
    assert read_meanwhile(browser, site, page)
    done(page)
    assert site.portal.sql("SELECT count(*) FROM resource") == [(0,)]
    page.goto(BACKUPS)
    expect(page.locator(".dbm-notes")).to_contain_text(
        f"The restore from backup {id} was undone"
    )
    page.click("text=Redo…")
    expect(page.locator("h1")).to_have_text(f"Redo the restore of {TITLE}")
    expect(page.locator("h1 + p")).to_contain_text("0 datasets changed since then")
    looked(page, "redo", (1280, 390))
    journal = (site.portal.repository / "journal.jsonl").read_text()
    switched = [json.loads(e) for e in journal.splitlines() if '"switched"' in e]
    assert [e["user"] for e in switched] == [SYSADMIN, SYSADMIN]


def read_meanwhile(browser: Browser, site: Site, page: Page) -> list[str]:
    """What a visitor with a browser of their own sees until the page's job ends."""
    context, seen = browser.new_context(base_url=site.base), []
    visitor = context.new_page()
    state = page.locator(".dbm-job-state .dbm-state")
    while state.inner_text() in ("Waiting", "Running"):
        answer = visitor.goto("/dataset/dataset-1", timeout=60_000)
        assert answer is not None
        said = visitor.inner_text("body")
        if answer.status == 200 and "Dataset" in visitor.inner_text("h1"):
            seen.append("dataset")
        elif answer.status == 503 and "Back in a moment" in said:
            seen.append("away")
        else:
            seen.append(f"{answer.status}: {said[:500]}")
    context.close()
    assert set(seen) <= {"dataset", "away"}, seen
    return seen
