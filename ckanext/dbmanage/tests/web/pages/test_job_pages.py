"""The page of a job in a real browser: its progress, its end, two tabs."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from ...support.browser import BACKUPS, accessible, done, looked, opened
from ...support.cluster import PG_BIN
from ...support.portal import slowed
from ...support.site import Site


def begun(page: Page) -> None:
    """Asks for the first backup; the page of its job."""
    page.goto(BACKUPS)
    page.click("text=Make the first backup")
    page.wait_for_url(re.compile("/job/"))


def states(site: Site) -> list[str]:
    return [each["state"] for each in site.act("dbmanage_job_list")]


def test_two_tabs_make_one_job(browser: Browser, site: Site) -> None:
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
    assert states(site) == ["cancelled"]
    page.context.close()


def test_a_running_job_is_cancelled_and_leaves_nothing(
    browser: Browser, site: Site
) -> None:
    slowed(site.portal)
    there = site.portal.copies()
    site.start_worker()
    page = opened(browser, site)
    begun(page)
    expect(page.locator(".dbm-job-state")).to_contain_text("Running", timeout=60_000)
    expect(page.locator(".dbm-phases .now")).to_be_visible()
    page.click("text=Cancel this job")
    done(page, "Cancelled")
    assert site.portal.copies() == there
    assert not [p for p in site.portal.repository.iterdir() if p.name[0] in ".2"
                and p.is_dir()]  # fmt: skip
    page.context.close()


def test_who_was_signed_out_is_told_that_nothing_was_done(
    browser: Browser, site: Site
) -> None:
    page = opened(browser, site)
    page.goto(BACKUPS)
    page.context.clear_cookies()
    page.click("text=Make the first backup")
    expect(page.locator("h1")).to_have_text("Nothing was done")
    expect(page.locator("main")).to_contain_text("You were signed out")
    page.click("text=Sign in again")
    expect(page.locator("#field-login")).to_be_visible()
    assert states(site) == []
    page.context.close()


def test_a_page_that_watches_a_job_says_who_was_signed_out_and_asks_no_more(
    browser: Browser, site: Site
) -> None:
    page = opened(browser, site)
    begun(page)
    page.context.clear_cookies()
    expect(page.locator("#job-gone")).to_be_visible()
    expect(page.locator("#job-gone p >> visible=true")).to_have_text(
        "You were signed out. The job goes on. Sign in again"
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)  # it asks every two seconds
    assert asked == []
    assert "403" not in page.inner_text("body")
    accessible(page)
    page.context.close()


#: a pg_dump, byte for byte the same, that comes to no end before the file `go` is there
SLOW_DUMP = f"""#!/usr/bin/python3
import os, pathlib, subprocess, sys, time
if "--version" in sys.argv:
    os.execv("{PG_BIN / "pg_dump"}", sys.argv)
go = pathlib.Path(__file__).with_name("go")
dump = subprocess.Popen(["{PG_BIN / "pg_dump"}", *sys.argv[1:]], stdout=subprocess.PIPE)
while chunk := dump.stdout.read(1024):
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    time.sleep(0 if go.exists() else 0.1)
while not go.exists():
    time.sleep(0.1)
sys.exit(dump.wait())
"""


def slow_worker(site: Site) -> Path:
    """Starts a worker whose dumps go on to their end once the file is there."""
    slowed(site.portal)
    directory = site.portal.directory / "slow"
    (directory / "pg_dump").write_text(SLOW_DUMP)
    site.start_worker()
    return directory / "go"


def test_a_backup_by_the_keyboard_alone_with_its_progress(
    browser: Browser, site: Site
) -> None:
    go = slow_worker(site)
    page = opened(browser, site)
    page.goto(BACKUPS)
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("by hand")
    accessible(page)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/job/"))
    expect(page.locator(".dbm-phases .now")).to_contain_text("Dump", timeout=60_000)
    expect(page.locator(".dbm-progress-line")).to_contain_text(
        re.compile(r"\d+\s?% · Dump: [\d.,]+ [kMG]B of about [\d.,]+ [kMG]B"),
        timeout=60_000,
    )
    while page.evaluate("!document.activeElement.classList.contains('dbm-log')"):
        page.keyboard.press("Tab")
    # what is read keeps its focus, what was told stays, and more comes to its end
    log = page.locator(".dbm-log")
    before = log.inner_text()
    say = page.locator("#job-say").element_handle()
    looked(page, "running", (1280, 390))
    go.touch()
    done(page)
    assert page.evaluate("document.activeElement.classList.contains('dbm-log')")
    assert log.inner_text().startswith(before) and "verified" in log.inner_text()
    times = page.locator(".dbm-log time").count()
    assert times == len(
        site.act("dbmanage_job_show", id=page.url.rpartition("/")[2])["log"]
    )
    # the region that speaks is the same one, and says how it ended
    assert (
        say is not None and say.evaluate("e => e.isConnected && e.innerText") == "Done"
    )
    for phase in ("Dump", "Verify"):
        expect(page.locator(".dbm-phases")).to_contain_text(phase)
    page.context.close()


def test_the_list_follows_a_job_to_its_end_but_not_while_somebody_types(
    browser: Browser, site: Site
) -> None:
    site.portal.backup()
    go = slow_worker(site)
    page = opened(browser, site)
    page.goto(BACKUPS)
    page.click("button:has-text('Back up now')")
    for typing in (True, False):
        page.wait_for_url(re.compile("/job/"))
        expect(page.locator(".dbm-job-state")).to_contain_text("Running")
        page.goto(BACKUPS)
        expect(page.locator(".dbm-job")).to_be_visible()
        if typing:
            looked(page, "list-running", (1280,))
            page.locator(".dbm-split summary").click()
            page.fill("#field-note", "half a sen")
            go.touch()
            done(page)
            page.wait_for_timeout(1000)
            assert page.input_value("#field-note") == "half a sen"
            go.unlink()
            page.click("button:has-text('Back up with these options')")
        else:
            go.touch()
            expect(page.locator(".dbm-list tbody tr")).to_have_count(3, timeout=60_000)
            assert page.locator(".dbm-job").count() == 0
    page.context.close()
