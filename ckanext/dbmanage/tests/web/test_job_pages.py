"""The sysadmin page in a real browser; each screen leaves a picture in .services/."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from ckanext.dbmanage.engine.redis.maintenance import AWAY, Maintenance

from ..support.browser import BACKUPS, SHOTS, accessible, aged, looked, opened
from ..support.cluster import PG_BIN
from ..support.portal import Portal
from ..support.site import PASSWORD, SYSADMIN, TITLE, Site, hosted, own_redis, slowed
from ..support.web import Web


@pytest.fixture
def site(portal: Portal, serve: Callable[[Portal], Web]) -> Iterator[Site]:
    made = Site(portal, serve)
    yield made
    made.stop()


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
    browser: Browser, site: Site, tmp_path: Path
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
    menu(page, backup.name, "retention never deletes it")
    expect(page.locator(".dbm-kept")).to_have_text("Held")
    page.click("text=Delete…")
    expect(page.locator(".dbm")).to_contain_text("it is held")
    looked(page, "delete")

    page.goto(f"{BACKUPS}{backup.name}/download")
    expect(page.locator("#cmd-arm")).to_have_text(
        re.compile(rf"/ckan -c \S+ db arm {backup.name} --to download$")
    )
    assert page.is_disabled("button:has-text('Make a link')")
    looked(page, "download-off")
    site.arm(backup.name, "download")
    page.reload()
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
    looked(page, "index", (1280, 1100, 800, 390))
    page.locator(".dbm-split summary").click()
    page.screenshot(path=SHOTS / "menu.png")
    page.keyboard.press("Escape")
    expect(page.locator(".dbm-split details")).not_to_have_attribute("open", "")


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
    assert read_meanwhile(browser, site, page).count("dataset") > 3
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
    expect(page.locator("button:has-text('Undo the last restore')")).to_be_enabled(
        timeout=30_000
    )
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


# --------------------------------------------------------------------- every state


@pytest.fixture(scope="module")
def shared(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site for looks at states that are not made by the browser."""
    with (
        own_redis() as (server, address),
        hosted(
            template, tmp_path_factory.mktemp("states"), **{"ckan.redis.url": address}
        ) as made,
    ):
        made.redis, made.token = server, made.api_token()
        yield made


def test_each_state_is_said_and_can_be_read(browser: Browser, shared: Site) -> None:
    site, portal = shared, shared.portal
    page = opened(browser, site)
    health = page.locator(".dbm-health")

    def at(path: str, name: str, *words: str) -> None:
        page.goto(BACKUPS + path)
        for word in words:
            expect(page.locator(".dbm")).to_contain_text(word)
        looked(page, name, (1280,))

    portal.write(**{"ckanext.dbmanage.pg_bin": "/nonexistent"})
    portal.module("backup", code=1)
    portal.write(**{"ckanext.dbmanage.pg_bin": ""})
    at("", "failed", "The last backup failed.", "Try again now", "no pg_dump was found")
    half = portal.backup("--only", "database").name
    at("", "failed-still", "The last backup failed.")
    newest = portal.backup()
    at("", "unproven", "Backed up, but not proven.", "no uploads")
    portal.db("maintenance", "on", "--read-only")
    at("", "read-only", "The site is read-only", "Let people save again")
    portal.db("maintenance", "off")
    _, repository = portal.engine()
    repository.mark("reindex", True)
    at("", "half-way", "db doctor --fix")
    repository.mark("reindex", False)
    at(f"{newest.name}/restore", "blocked", "This cannot start now:", "no worker runs")

    foreign = portal.repository / "20200101T000000Z"
    subprocess.run(["cp", "-a", newest, foreign], check=True)
    at("20200101T000000Z", "foreign", "Not signed by this site.")
    at("20200101T000000Z/restore", "no-fit", "The newest that can be restored")
    dump = portal.repository / half / "database.dump.zst"
    dump.write_bytes(dump.read_bytes()[:-1] + b"?")
    portal.module("verify", half, code=1)
    at(half, "damaged", "Damaged: do not rely on it.", "checksum")

    job = site.act("dbmanage_backup_create", note="lost")
    client = redis.Redis.from_url(portal.options["ckan.redis.url"])
    client.hset(f"rq:job:{job['id']}", "status", "failed")  # as RQ notes a dead process
    at("", "lost", "The last backup failed.", "the worker's own log says why")
    at(f"job/{job['id']}", "job-lost", "Its worker died")
    site.redis.send_signal(signal.SIGSTOP)
    try:
        at("", "redis-away", "Redis does not answer")
    finally:
        site.redis.send_signal(signal.SIGCONT)
    client.delete(*client.scan_iter("dbmanage:*:job*"))

    old = aged(site, newest.name, 3)
    (portal.repository / "journal.jsonl").unlink()  # which tells of today's backups
    for name in (newest.name, half, foreign.name):
        subprocess.run(["rm", "-r", portal.repository / name], check=True)
    at("", "overdue", "A backup is overdue.", "Expected by")
    expect(health).to_have_class(re.compile("is-warn"))
    at("tables", "tables", "What fills the databases")
    at(f"{old}/delete", "delete-newest", "This is the newest good backup")

    page.goto(f"/de{BACKUPS}")
    expect(health).to_contain_text("Eine Sicherung ist überfällig.")
    assert page.locator("html").get_attribute("lang") == "de"
    looked(page, "german", (1280, 1100, 800, 390))
    page.goto(f"/de{BACKUPS}{old}/restore")
    expect(page.locator(".dbm")).to_contain_text("Zeigen, was sich ändern würde")
    plain = opened(browser, site, java_script_enabled=False)
    for path, name in (("", "list"), (old, "backup"), (f"{old}/restore", "restore")):
        plain.goto(BACKUPS + path)
        plain.screenshot(path=SHOTS / f"no-script-{name}.png", full_page=True)
    expect(plain.locator(".dbm-confirm")).to_contain_text("Check again whether")


def test_the_restore_page_notices_that_it_was_armed(
    browser: Browser, shared: Site
) -> None:
    """What was left out by then stays left out."""
    id = shared.portal.backup().name
    worker = shared.paused_worker()
    try:
        page = opened(browser, shared)
        page.goto(f"{BACKUPS}{id}/restore")
        page.uncheck("input[type=checkbox][value=files]")
        button = page.locator("button:has-text('Restore to')")
        expect(button).to_be_disabled()
        shared.portal.db("arm", id)
        expect(button).to_be_enabled(timeout=30_000)
        assert not page.is_checked("input[type=checkbox][value=files]")
        assert page.is_checked("input[type=checkbox][value=database]")
    finally:
        worker.kill()
        shared.stop()


def test_without_javascript(browser: Browser, site: Site) -> None:
    site.start_worker()
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


def test_in_a_language_from_right_to_left(browser: Browser, shared: Site) -> None:
    shared.portal.backup()
    page = opened(browser, shared)
    page.goto(f"/ar{BACKUPS}")
    assert page.evaluate(
        "getComputedStyle(document.querySelector('.dbm')).direction"
    ) == ("rtl")
    looked(page, "rtl", (1280, 1100, 800, 390))
    page.locator(".dbm-split summary").click()
    box = page.locator(".dbm-panel").bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= 1280
