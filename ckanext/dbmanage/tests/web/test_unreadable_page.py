"""The page where a backup is another user's: it says so, and offers what mends it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ..support.browser import BACKUPS, looked, opened
from ..support.portal import Portal
from ..support.site import QUIET, Site, cloned
from ..support.waiting import wait_until
from ..support.web import Web

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="is about two users")
#: root that may read its own files only, as anybody else
PLAIN = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.fixture
def site(template: Portal, tmp_path: Path) -> Iterator[Site]:
    webs = []

    def serve(portal: Portal) -> Web:
        webs.append(Web(portal, *QUIET, under=PLAIN))
        wait_until(webs[0].up)
        return webs[0]

    with cloned(template, tmp_path) as portal:
        try:
            yield Site(portal, serve)
        finally:
            for web in webs:
                web.process.terminate()
                web.process.wait()


def test_a_backup_that_cannot_be_read_is_not_called_damaged(
    browser: Browser, site: Site
) -> None:
    theirs = site.portal.backup("--only", "database")
    ours = site.portal.backup()
    subprocess.run(["chown", "-R", "33", theirs], check=True)
    page = opened(browser, site)
    page.goto(BACKUPS)
    expect(page.locator(".dbm-health")).to_have_class(re.compile("is-warn"))
    expect(page.locator(".dbm-health")).not_to_contain_text("amaged")
    row = page.locator(".dbm-list tbody tr", has_text=theirs.name)
    expect(row.locator(".dbm-state")).to_have_text("Cannot be read")
    row.locator("summary").click()
    expect(row.locator(".dbm-menu")).to_contain_text(f"{theirs}")
    expect(row.locator(".dbm-menu")).not_to_contain_text("Delete")
    looked(page, "unreadable-list", (1280, 390))
    page.goto(BACKUPS + theirs.name)
    expect(page.locator(".dbm-note").first).to_contain_text("chown")
    assert page.locator(".dbm-head a:has-text('Delete'), .dbm-head form").count() == 0
    looked(page, "unreadable", (1280, 768, 390))
    page.goto(BACKUPS + ours.name)
    expect(page.locator(".dbm-note").first).to_contain_text("Verified")
    page.context.close()
