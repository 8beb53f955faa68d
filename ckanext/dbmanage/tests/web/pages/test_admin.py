"""The sysadmin page in a real browser; each screen leaves a picture in .services/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ckanext.dbmanage.engine.redis.maintenance import AWAY, Maintenance

from ...support.browser import BACKUPS, SHOTS, done, looked, menu, opened
from ...support.site import PASSWORD, SYSADMIN, Site


@pytest.fixture
def backup(site: Site) -> Path:
    return site.portal.backup()


def test_the_first_backup_waits_for_a_worker_and_is_seen_when_it_ends(
    browser: Browser, site: Site
) -> None:
    page = opened(browser, site)
    page.goto("/ckan-admin/")
    page.click("text=Backups")
    expect(page.locator(".dbm-health")).to_contain_text("No backup yet.")
    expect(page.locator(".dbm-notes")).to_contain_text(
        f"-c {site.portal.ini} db worker"
    )
    looked(page, "empty")

    page.click("text=Make the first backup")
    expect(page.locator("#job-live")).to_contain_text("No worker runs.")
    looked(page, "queued")
    # a look that comes while the site is away says nothing; the next one tells
    of_it, _ = site.portal.engine()
    keeper = Maintenance(of_it.redis_url, of_it.databases["database"].url)
    with keeper.held("a test", "restore", print) as to:
        to(AWAY)  # when an operation needs it so, not even sysadmins are let in
        with page.expect_response(lambda r: "/live" in r.url and r.status == 503):
            pass
    with page.expect_response(lambda r: "/live" in r.url and r.status == 200):
        pass
    assert "Service Unavailable" not in page.inner_text("body")
    page.goto(BACKUPS)
    # that nobody works weighs less, and is told below
    expect(page.locator(".dbm-health")).to_contain_text("No backup yet.")
    looked(page, "offline")
    page.click("text=Show it on its own page")
    page.locator("#job-h").wait_for()
    site.start_worker()
    done(page)  # the page notices by itself
    page.click("text=Show the backup")
    expect(page.locator("h1")).to_contain_text("Backup of")
    expect(page.locator(".dbm-note").first).to_contain_text("Verified")
    page.context.close()


def test_a_backup_is_verified_and_proven(
    browser: Browser, site: Site, backup: Path
) -> None:
    site.start_worker()
    page = opened(browser, site)
    page.goto(f"{BACKUPS}{backup.name}")
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
    page.context.close()


def test_a_backup_that_is_held_is_not_deleted(
    browser: Browser, site: Site, backup: Path
) -> None:
    page = opened(browser, site)
    page.goto(BACKUPS)
    menu(page, backup.name, "retention never deletes it")
    expect(page.locator(".dbm-kept")).to_have_text("Held")
    page.click("text=Delete…")
    expect(page.locator(".dbm")).to_contain_text("it is held")
    looked(page, "delete")
    page.context.close()


def test_a_file_is_downloaded_with_an_operator_s_word_and_a_password(
    browser: Browser, site: Site, backup: Path, tmp_path: Path
) -> None:
    page = opened(browser, site)
    page.goto(f"{BACKUPS}{backup.name}/download")
    expect(page.locator("#cmd-arm")).to_have_text(
        re.compile(rf"/ckan -c \S+ db arm {backup.name} --to download$")
    )
    assert page.is_disabled("button:has-text('Make a link')")
    looked(page, "download-off")
    site.arm(backup.name, "download")
    page.reload()
    page.check("input[value='database.list']")
    page.fill("#field-password", "wrong")
    page.click("text=Make a link")
    expect(page.locator("#pw-err")).to_contain_text("not your password")
    looked(page, "download")
    page.fill("#field-password", PASSWORD)
    page.click("text=Make a link")
    with page.expect_download() as waited:
        page.click("text=Download database.list")
    waited.value.save_as(tmp_path / "dump")
    assert (tmp_path / "dump").read_bytes() == (backup / "database.list").read_bytes()
    page.context.close()


def test_the_journal_says_what_was_done_and_who_did_it(
    browser: Browser, site: Site, backup: Path
) -> None:
    site.start_worker()
    proof = site.act("dbmanage_backup_verify", id=backup.name, prove=True)
    assert site.ended(site.token, proof["id"])["state"] == "done"
    site.arm(backup.name, "download")
    site.act("dbmanage_backup_download", id=backup.name, file="manifest.json")
    page = opened(browser, site)
    page.goto(f"{BACKUPS}journal")
    for said in ("Download", "Proof", SYSADMIN, "127.0.0.1"):
        expect(page.locator(".dbm-events")).to_contain_text(said)
    looked(page, "journal")
    page.context.close()


def test_exported_and_published_it_is_all_in_the_list(
    browser: Browser, site: Site, backup: Path
) -> None:
    site.start_worker()
    page = opened(browser, site)
    for form, word in (("Export", "exported"), ("Publish now", "new:")):
        page.goto(BACKUPS)
        page.click(f"button:has-text('{form}')")
        done(page)
        expect(page.locator(".dbm-log")).to_contain_text(word)
    page.goto(BACKUPS)
    expect(page.locator("#out-h + p")).to_contain_text("Public dumps")
    page.locator(".dbm-bars th", has_text="resource").first.wait_for()  # by htmx
    looked(page, "index", (1280, 1100, 800, 390))
    page.locator(".dbm-split summary").click()
    page.screenshot(path=SHOTS / "menu.png")
    page.keyboard.press("Escape")
    expect(page.locator(".dbm-split details")).not_to_have_attribute("open", "")
    page.context.close()
