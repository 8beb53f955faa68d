"""The page says where each backup is, and copies one elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ..support.browser import BACKUPS, looked, opened
from ..support.offsite import set_remote, snapshots
from ..support.portal import Portal
from ..support.site import Site
from ..support.web import Web


@pytest.fixture
def site(
    portal: Portal, serve: Callable[[Portal], Web], tmp_path: Path
) -> Iterator[Site]:
    set_remote(portal, str(tmp_path / "there"))
    made = Site(portal, serve)
    yield made
    made.stop()


def test_a_backup_is_copied_from_the_page(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    id = site.portal.backup().name
    page = opened(browser, site)
    page.goto(BACKUPS)
    expect(page.locator("#remote")).to_contain_text("Nobody has looked")
    row = page.locator(".dbm-list tbody tr", has_text=id)
    expect(row).to_contain_text("only here")
    site.start_worker()
    row.locator("summary").click()
    row.get_by_text("Copy to the other place").click()
    state = page.locator(".dbm-job-state .dbm-state")
    expect(state).to_have_text("Done", timeout=120_000)
    assert [each["tags"][1] for each in snapshots(str(tmp_path / "there"))] == [id]

    page.goto(BACKUPS)
    expect(row).to_contain_text("here and elsewhere")
    told = f"1 backup is at the other place, {tmp_path / 'there'}, as seen "
    expect(page.locator("#remote")).to_contain_text(told)
    looked(page, "remote")
    page.goto(f"{BACKUPS}{id}")
    expect(page.locator(".dbm-facts")).to_contain_text("at the other place")
    # whatever becomes of the place, a page asks nobody
    shutil.rmtree(tmp_path / "there")
    second = site.portal.backup("--only", "files").name
    site.portal.module("forget", id, "--newest", "--yes")
    page.goto(BACKUPS)
    expect(page.locator("#remote")).to_contain_text(id)
    expect(page.locator("#remote")).to_contain_text("brought back by “ckan db pull”")
    assert second in page.inner_text(".dbm-list")
