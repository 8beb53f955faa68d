"""A real browser at a portal; each screen that is looked at leaves a picture."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

import ckanext.dbmanage
from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.engine.signature import dumped, sign

from .pages import BACKUPS as BACKUPS
from .site import PASSWORD, SYSADMIN, Site

SHOTS = Path(ckanext.dbmanage.__file__).parents[2] / ".services" / "screens"
LOOKS = SHOTS / "looks"
#: the one thing that axe finds in core's frame, on each page of CKAN: the bar with the
#: account's links lies in no landmark (rule `region`)
CORE = [[".account-masthead"]]
# playwright's own five seconds are over before a slow machine has started a job
expect.set_options(timeout=60_000)
#: Debian's Chromium asks nobody outside
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-background-networking --no-first-run "
    "--disable-component-update --disable-sync --disable-quic"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=OPTIONS.split()
        )


def opened(browser: Browser, site: Site, name: str = SYSADMIN, **options: Any) -> Page:
    """A page of somebody who is signed in; nothing outside the site is asked for.

    Each signs in once at a site.
    """
    options["storage_state"] = site.known.get(name)
    context = browser.new_context(base_url=site.base, **options)
    context.route(
        lambda url: not url.startswith(site.base), lambda route: route.abort()
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    if name and name not in site.known:
        page.goto("/user/login")
        page.fill("#field-login", name)
        page.fill("#field-password", PASSWORD)
        page.click("main button[type=submit], .form-actions button[type=submit]")
        page.wait_for_url(lambda url: "/user/login" not in url)
        site.known[name] = context.storage_state()
    return page


def accessible(page: Page) -> None:
    """axe, as npm has it, finds nothing on the whole page, core's frame included."""
    found = Axe().run(page, context={"exclude": CORE})
    assert found.violations_count == 0, found.generate_report()


def looked(page: Page, name: str, widths: tuple[int, ...] = (1280, 390)) -> None:
    """A picture of a screen, wide and narrow; nothing hinders anybody in reading it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=SHOTS / f"{name}-{width}.png", full_page=True)
        accessible(page)
        # CKAN's own pages scroll 6 px sideways on a phone
        wide = page.evaluate(
            "(frame => [...document.querySelectorAll('.dbm *')].filter(e => "
            "(at => at.width > 1 && (at.right > Math.min(innerWidth, frame.right) + 7"
            " || at.left < Math.max(0, frame.left) - 7))(e.getBoundingClientRect()) && "
            "!e.closest('pre, .dbm-log')).map(e => e.outerHTML.slice(0, 200)))"
            "(document.querySelector('.dbm').getBoundingClientRect())"
        )
        assert not wide, wide
        scrolls = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert scrolls <= 7, f"{name} at {width} scrolls {scrolls} px sideways"
    page.set_viewport_size({"width": 1280, "height": 900})


def done(page: Page, word: str = "Done") -> None:
    """Waits, without a reload, until the job on the page has ended."""
    expect(page.locator(".dbm-job-state .dbm-state")).to_have_text(
        word, timeout=120_000
    )


def menu(page: Page, id: str, item: str) -> None:
    """Chooses what the menu of a backup in the list offers."""
    row = page.locator(".dbm-list tbody tr", has_text=id)
    row.locator("summary").click()
    row.get_by_text(item, exact=False).first.click()


def aged(site: Site, id: str, days: float, **facts: Any) -> str:
    """A backup as it was made some days ago, with all its signatures.

    `facts` are of its manifest.
    """
    _, repository = site.portal.engine()
    whole, moment = repository.find(id), now() - timedelta(days=days)
    name = f"{moment:%Y%m%dT%H%M%SZ}"
    subprocess.run(["cp", "-a", whole.path, site.portal.repository / name], check=True)
    manifest = whole.manifest | {"id": name, "created": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}
    manifest |= facts
    secret = site.portal.options["SECRET_KEY"]
    path = site.portal.repository / name / "manifest.json"
    path.write_bytes(dumped(sign(manifest, secret, "manifest")))
    repository.find(name).remember(
        verified={"time": manifest["created"], "problems": []}
    )
    return name
