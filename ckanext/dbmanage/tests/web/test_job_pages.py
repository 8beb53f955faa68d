"""The page of a job in a real browser: its progress, its end, two tabs."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, expect

from ..support.browser import BACKUPS, accessible, looked, opened
from ..support.cluster import PG_BIN
from ..support.site import Site, slowed


def done(page: Page, word: str = "Done") -> None:
    """Waits, without a reload, until the job on the page has ended."""
    expect(page.locator(".dbm-job-state .dbm-state")).to_have_text(
        word, timeout=120_000
    )


def test_cancel_two_tabs_and_an_expired_session(browser: Browser, site: Site) -> None:
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
    site.start_worker()
    page.goto(BACKUPS)
    page.click("text=Make the first backup")
    expect(page.locator(".dbm-job-state")).to_contain_text("Running", timeout=60_000)
    expect(page.locator(".dbm-phases .now")).to_be_visible()
    page.click("text=Cancel this job")
    done(page, "Cancelled")
    assert site.portal.copies() == there
    assert not [p for p in site.portal.repository.iterdir() if p.name[0] in ".2"
                and p.is_dir()]  # fmt: skip

    page.goto(BACKUPS)
    page.context.clear_cookies()
    page.click("text=Make the first backup")
    expect(page.locator("h1")).to_have_text("Nothing was done")
    expect(page.locator("main")).to_contain_text("You were signed out")
    page.click("text=Sign in again")
    expect(page.locator("#field-login")).to_be_visible()
    token = site.api_token()
    states = [e["state"] for e in site.act("dbmanage_job_list", token)]
    assert states == ["cancelled", "cancelled"]

    # a page that watches a job says it too, and asks no more
    page = opened(browser, site)
    page.goto(BACKUPS)
    page.click("text=Make the first backup")
    page.wait_for_url(re.compile("/job/"))
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


#: a pg_dump that takes its time, byte for byte the same
SLOW_DUMP = f"""#!/usr/bin/python3
import subprocess, sys, time
dump = subprocess.Popen(["{PG_BIN / "pg_dump"}", *sys.argv[1:]], stdout=subprocess.PIPE)
while chunk := dump.stdout.read(1024):
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    time.sleep(0.1)
sys.exit(dump.wait())
"""


def test_a_backup_by_the_keyboard_alone_with_its_progress(
    browser: Browser, site: Site
) -> None:
    slowed(site.portal)
    (site.portal.directory / "slow" / "pg_dump").write_text(SLOW_DUMP)
    site.start_worker()
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
        re.compile(r"\d+\s?% · Dump: [\d.,]+ [kMG]B of about [\d.,]+ [kMG]B")
    )
    while page.evaluate("!document.activeElement.classList.contains('dbm-log')"):
        page.keyboard.press("Tab")
    # what is read keeps its focus, what was told stays, and more comes to its end
    log = page.locator(".dbm-log")
    before = log.inner_text()
    say = page.locator("#job-say").element_handle()
    looked(page, "running", (1280, 390))
    done(page)
    assert page.evaluate("document.activeElement.classList.contains('dbm-log')")
    assert log.inner_text().startswith(before) and "verified" in log.inner_text()
    times = page.locator(".dbm-log time").count()
    assert times == len(site.act("dbmanage_job_show", site.api_token(),
                                 id=page.url.rpartition("/")[2])["log"])  # fmt: skip
    # the region that speaks is the same one, and says how it ended
    assert (
        say is not None and say.evaluate("e => e.isConnected && e.innerText") == "Done"
    )
    for phase in ("Dump", "Verify"):
        expect(page.locator(".dbm-phases")).to_contain_text(phase)

    # the list follows to the end too, but not while somebody types
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
            done(page)
            page.wait_for_timeout(1000)
            assert page.input_value("#field-note") == "half a sen"
            page.click("button:has-text('Back up with these options')")
        else:
            expect(page.locator(".dbm-list tbody tr")).to_have_count(3, timeout=60_000)
            assert page.locator(".dbm-job").count() == 0
