"""The sysadmin page in a real browser; each screen leaves a picture in .services/."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

import ckanext.dbmanage

from .admin_site import PASSWORD, SYSADMIN, TITLE, Site
from .conftest import Portal, Web
from .test_actions import slowed

SHOTS = Path(ckanext.dbmanage.__file__).parents[2] / ".services" / "screens"
BACKUPS = "/ckan-admin/backups/"
#: Debian's Chromium asks nobody outside
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-background-networking --no-first-run "
    "--disable-component-update --disable-sync --disable-quic"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=OPTIONS.split()
        )


@pytest.fixture
def site(portal: Portal, serve: Callable[[Portal], Web]) -> Iterator[Site]:
    made = Site(portal, serve)
    yield made
    made.stop()


@pytest.fixture
def queue(site: Site) -> str:
    done = site.session(SYSADMIN).ask("GET", BACKUPS).text
    found = re.search(r"ckan jobs worker (dbmanage-\w+)", done)
    assert found, done
    return found[1]


def opened(browser: Browser, site: Site, name: str = SYSADMIN, **options: Any) -> Page:
    """A page of somebody who is signed in; nothing outside the site is asked for."""
    context = browser.new_context(base_url=site.base, **options)
    context.route(
        lambda url: not url.startswith(site.base), lambda route: route.abort()
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    if name:
        page.goto("/user/login")
        page.fill("#field-login", name)
        page.fill("#field-password", PASSWORD)
        page.click("main button[type=submit], .form-actions button[type=submit]")
        page.wait_for_url(lambda url: "/user/login" not in url)
    return page


def looked(page: Page, name: str) -> None:
    """A picture of a screen, wide and narrow; nothing hinders anybody in reading it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=SHOTS / f"{name}-{width}.png", full_page=True)
        found = Axe().run(page, context=".dbm")
        assert found.violations_count == 0, found.generate_report()
        # CKAN's own pages scroll 6 px sideways on a phone
        wide = page.evaluate(
            "[...document.querySelectorAll('.dbm *')].filter(e => "
            "e.getBoundingClientRect().right > innerWidth + 7 && "
            "!e.closest('pre, .dbm-log')).map(e => e.outerHTML.slice(0, 200))"
        )
        assert not wide, wide
    page.set_viewport_size({"width": 1280, "height": 900})


def done(page: Page, word: str = "Done") -> None:
    """Waits, without a reload, until the job on the page has ended."""
    expect(page.locator(".dbm-job-state .dbm-state")).to_have_text(
        word, timeout=120_000
    )


def menu(page: Page, id: str, item: str) -> None:
    row = page.locator(".dbm-list tbody tr", has_text=id)
    row.locator("summary").click()
    row.get_by_text(item, exact=False).first.click()


def test_back_up_verify_prove_hold_download(
    browser: Browser, site: Site, queue: str, tmp_path: Path
) -> None:
    page = opened(browser, site)
    page.goto("/ckan-admin/")
    page.click("text=Backups")
    expect(page.locator(".dbm-health")).to_contain_text("No backup yet.")
    expect(page.locator(".dbm-notes")).to_contain_text(f"ckan jobs worker {queue}")
    looked(page, "empty")

    page.click("text=Make the first backup")
    expect(page.locator("#job-live")).to_contain_text("It waits for the worker.")
    looked(page, "queued")
    # a look that comes while the site is away says nothing; the next one tells
    site.portal.db("maintenance", "on", "--for", "3s")
    with page.expect_response(lambda r: "/live" in r.url and r.status == 503):
        pass
    with page.expect_response(lambda r: "/live" in r.url and r.status == 200):
        pass
    assert "Service Unavailable" not in page.inner_text("body")
    page.goto(BACKUPS)
    expect(page.locator(".dbm-health")).to_contain_text("worker does not answer")
    looked(page, "offline")
    page.locator("#job-h").wait_for()
    site.start_worker(queue)
    done(page)  # the page notices by itself
    page.click("text=Show the backup")
    (backup,) = [p for p in site.portal.repository.iterdir() if p.name.endswith("Z")]
    expect(page.locator("h1")).to_contain_text("Backup of")
    expect(page.locator(".dbm-note").first).to_contain_text("Verified")

    page.click("button:has-text('Verify')")
    done(page)
    page.goto(f"{BACKUPS}{backup.name}")
    page.click("button:has-text('Prove')")
    done(page)
    looked(page, "job-done")
    page.click("text=Show the backup")
    expect(page.locator(".dbm-note").first).to_contain_text("It was restored beside")
    page.click("text=Count the live rows")
    expect(page.locator(".dbm")).to_contain_text("Rows then and now")
    looked(page, "backup")

    page.goto(BACKUPS)
    expect(page.locator(".dbm-health")).to_contain_text("Protected.")
    menu(page, backup.name, "retention will not remove it")
    expect(page.locator(".dbm-kept")).to_have_text("Held")
    page.click("text=Delete…")
    expect(page.locator(".dbm")).to_contain_text("it is held")
    looked(page, "delete")

    page.goto(f"{BACKUPS}{backup.name}/download")
    page.check("input[value='database.dump.zst']")
    page.fill("#field-password", "wrong")
    page.click("text=Make a link")
    expect(page.locator("#pw-err")).to_contain_text("not your password")
    looked(page, "download")
    page.fill("#field-password", PASSWORD)
    page.click("text=Make a link")
    with page.expect_download() as waited:
        page.click("text=Download database.dump.zst")
    waited.value.save_as(tmp_path / "dump")
    assert (tmp_path / "dump").read_bytes() == (
        backup / "database.dump.zst"
    ).read_bytes()
    page.goto(f"{BACKUPS}journal")
    for said in ("Download", "Proof", SYSADMIN, "127.0.0.1"):
        expect(page.locator(".dbm-events")).to_contain_text(said)
    looked(page, "journal")

    for form, word in (("Export", "exported"), ("Publish now", "new:")):
        page.goto(BACKUPS)
        page.click(f"button:has-text('{form}')")
        done(page)
        expect(page.locator(".dbm-log")).to_contain_text(word)
    site.portal.backup()
    page.goto(BACKUPS)
    expect(page.locator("#out-h + p")).to_contain_text("Public dumps")
    page.locator(".dbm-bars th", has_text="resource").first.wait_for()  # by htmx
    looked(page, "index")
    page.locator(".dbm-split summary").click()
    page.screenshot(path=SHOTS / "menu.png")
    page.keyboard.press("Escape")
    expect(page.locator(".dbm-split details")).not_to_have_attribute("open", "")


def test_restore_while_others_read_then_undo(
    browser: Browser, site: Site, queue: str
) -> None:
    id = site.portal.backup().name
    before = site.portal.sql("SELECT count(*) FROM resource")
    site.portal.sql("DELETE FROM resource")
    site.start_worker(queue)
    page = opened(browser, site)
    page.goto(BACKUPS)
    menu(page, id, "shows first what would change")
    expect(page.locator("#cmd-arm")).to_have_text(f"ckan db arm {id}")
    assert page.is_disabled("button:has-text('Restore to')")
    looked(page, "restore-off")
    page.click("text=Count what would change")
    done(page)
    page.click("text=Show what a restore would change")
    expect(page.locator(".dbm-table tr", has_text="Resources")).to_contain_text(
        "bring back 45"
    )
    site.portal.db("arm", id)
    page.reload()
    page.fill("#field-confirm", "Riverland")
    page.fill("#field-password", "wrong")
    page.click("button:has-text('Restore to')")
    expect(page.locator("#errors")).to_be_focused()
    expect(page.locator("#errors")).to_contain_text("not the name of this site")
    looked(page, "restore-errors")

    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            with suppress(OSError):  # the development server drops some at a switch
                seen.add(site.web.ask("/dataset/dataset-1").status)
            time.sleep(0.05)

    reader = threading.Thread(target=read)
    reader.start()
    page.fill("#field-note", "resources deleted by mistake")
    page.fill("#field-confirm", TITLE.lower())
    page.fill("#field-password", PASSWORD)
    page.click("button:has-text('Restore to')")
    done(page)
    expect(page.locator(".dbm-log")).to_contain_text("resources deleted by mistake")
    looked(page, "restored")
    assert site.portal.sql("SELECT count(*) FROM resource") == before
    page.goto(BACKUPS)
    expect(page.locator(".dbm-notes")).to_contain_text(f"Restored from backup {id}")
    looked(page, "undo")
    page.click("text=Undo…")
    assert page.is_disabled("button:has-text('Undo the last restore')")
    site.portal.db("arm", "undo")
    page.reload()
    page.fill("#field-confirm", TITLE)
    page.fill("#field-password", PASSWORD)
    page.click("button:has-text('Undo the last restore')")
    done(page)
    stop.set()
    reader.join()
    assert site.portal.sql("SELECT count(*) FROM resource") == [(0,)]
    assert 200 in seen
    journal = (site.portal.repository / "journal.jsonl").read_text()
    switched = [json.loads(e) for e in journal.splitlines() if '"switched"' in e]
    assert [e["user"] for e in switched] == [SYSADMIN, SYSADMIN]


def test_cancel_two_tabs_and_an_expired_session(
    browser: Browser, site: Site, queue: str
) -> None:
    page = opened(browser, site)
    page.goto(BACKUPS)
    other = page.context.new_page()
    other.goto(BACKUPS)
    for tab in (page, other):
        tab.click("text=Make the first backup")
        tab.wait_for_url(re.compile("/job/"))
    assert page.url == other.url
    page.click("text=Cancel this job")
    expect(page.locator(".dbm-job-state")).to_contain_text("Cancelled")

    slowed(site.portal)
    there = site.portal.copies()
    site.start_worker(queue)
    page.goto(BACKUPS)
    page.click("text=Make the first backup")
    expect(page.locator(".dbm-job-state")).to_contain_text("Running", timeout=60_000)
    expect(page.locator(".dbm-phases .now")).to_be_visible()
    page.screenshot(path=SHOTS / "running.png")
    page.click("text=Cancel this job")
    done(page, "Cancelled")
    assert site.portal.copies() == there
    assert not [p for p in site.portal.repository.iterdir() if p.name[0] in ".2"
                and p.is_dir()]  # fmt: skip

    page.goto(BACKUPS)
    page.context.clear_cookies()
    page.click("text=Make the first backup")
    page.wait_for_timeout(2000)  # to the page for signing in, of the site's own URL
    answer = site.session().ask("GET", BACKUPS)
    assert "/user/login" in answer.headers["Location"]
    token = site.api_token()
    states = [e["state"] for e in site.act("dbmanage_job_list", token)]
    assert states == ["cancelled", "cancelled"]


def test_without_javascript(browser: Browser, site: Site, queue: str) -> None:
    site.start_worker(queue)
    page = opened(browser, site, java_script_enabled=False)
    page.goto(BACKUPS)
    page.click("text=Make the first backup")
    # the page asks anew by itself until the job has ended
    page.click("text=Show the backup", timeout=60_000)
    page.click("button:has-text('Hold')")
    assert page.locator(".dbm-kept").count()
    page.goto(BACKUPS)
    page.locator(".dbm-list summary").click()
    page.click(".dbm-list a:has-text('Delete…')")
    assert "it is held" in page.content()
    page.goto(BACKUPS)
    page.click("text=Show the largest tables")
    page.locator(".dbm-bars th", has_text="resource").first.wait_for()
    page.goto(BACKUPS)
    page.click("summary:has-text('Pause saving')")
    page.click("button:has-text('Pause saving now')")
    assert "The site is read-only" in page.content()
    page.click("text=Let people save again")
    assert "The site is read-only" not in page.content()


def test_in_a_language_from_right_to_left(browser: Browser, site: Site) -> None:
    site.portal.backup()
    page = opened(browser, site)
    page.goto(f"/ar{BACKUPS}")
    assert page.evaluate(
        "getComputedStyle(document.querySelector('.dbm')).direction"
    ) == ("rtl")
    looked(page, "rtl")
    page.locator(".dbm-split summary").click()
    box = page.locator(".dbm-panel").bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= 1280
