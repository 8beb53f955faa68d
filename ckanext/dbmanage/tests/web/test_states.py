"""Each state of a site is said on the page, in a real browser, and can be read."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
import redis
from playwright.sync_api import Browser, expect

from ..support.browser import BACKUPS, SHOTS, aged, looked, opened
from ..support.portal import Portal
from ..support.site import Site, hosted_with_redis


@pytest.fixture(scope="module")
def shared(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site for looks at states that are not made by the browser."""
    with hosted_with_redis(template, tmp_path_factory.mktemp("states")) as made:
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
    _, repository = portal.engine()
    repository.record("x", "failed", what="push", error="no way there")
    at("", "push-failed", "The last copy to the other place failed.", "Last backup")
    repository.record("x", "done", what="push")
    portal.db("maintenance", "on", "--read-only")
    at("", "read-only", "The site is read-only", "Let people save again")
    portal.db("maintenance", "off")
    repository.mark("reindex", True)
    at("", "half-way", "db doctor --fix")
    repository.mark("reindex", False)
    at(f"{newest.name}/restore", "blocked", "This cannot start now:", "no worker runs")

    foreign = portal.repository / "20200101T000000Z"
    subprocess.run(["cp", "-a", newest, foreign], check=True)
    at("20200101T000000Z", "foreign", "Not signed by this site.")
    at("20200101T000000Z/restore", "no-fit", "The newest that can be restored")
    dump = portal.repository / half / "database.list"
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
    site, backup = shared, shared.portal.backup().name
    site.paused_worker()
    try:
        page = opened(browser, site)
        page.goto(f"{BACKUPS}{backup}/restore")
        page.uncheck("input[type=checkbox][value=files]")
        button = page.locator("button:has-text('Restore to')")
        expect(button).to_be_disabled()
        site.portal.db("arm", backup)
        expect(button).to_be_enabled()
        assert not page.is_checked("input[type=checkbox][value=files]")
        assert page.is_checked("input[type=checkbox][value=database]")
    finally:
        site.stop()


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
