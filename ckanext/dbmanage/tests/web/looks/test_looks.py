"""Each screen looked at: at three widths, in three languages, printed, without JavaScript.

Each leaves a picture in `.services/screens/looks/`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from playwright.sync_api import Browser, Page, expect

import ckanext.dbmanage

from ...support.browser import BACKUPS, LOOKS, accessible, opened
from ...support.site import Site

WIDTHS = (1280, 768, 390)
#: what no page says to anybody: an empty value, a field that nobody filled, markup
FAULT = re.compile(r"\bNone\b|\bundefined\b|\bNaN\b|\{\w*\}|&\w+;|</?\w+>|Traceback")
#: what stands out of the window, or out of the page's frame; CKAN's own pages scroll
#: 6 px sideways on a phone
STANDS_OUT = """
    (frame => [...document.querySelectorAll('.dbm *')].filter(e => (at => at.width > 1
        && (at.right > Math.min(innerWidth, frame.right) + 7
            || at.left < Math.max(0, frame.left) - 7))(e.getBoundingClientRect())
        && !e.closest('pre, .dbm-log, .visually-hidden, .dbm-tags'))
        .map(e => e.outerHTML.slice(0, 200)))
    (document.querySelector('.dbm').getBoundingClientRect())"""


def pages(shelf: dict[str, str]) -> dict[str, str]:
    """The screens, by name."""
    proven = f"{BACKUPS}{shelf['proven']}"
    return {
        "list": BACKUPS,
        "found": f"{BACKUPS}?q=import&state=verified",
        "not-found": f"{BACKUPS}?q=nothing",
        "details": f"{proven}?compare=1",
        "damaged": f"{BACKUPS}{shelf['day 5']}",
        "foreign": f"{BACKUPS}{shelf['foreign']}",
        "restore": f"{proven}/restore",
        "delete": f"{BACKUPS}{shelf['day 7']}/delete",
        "download": f"{proven}/download",
        "exports": f"{BACKUPS}exports/download",
        "link": f"{BACKUPS}file/nobody-s/all.tar",
        "job": f"{BACKUPS}job/{shelf['job']}",
        "journal": f"{BACKUPS}journal?what=backup",
        "history": f"{BACKUPS}history?kind=dataset&name=dataset-7",
        "history-none": f"{BACKUPS}history?kind=user&name=nobody",
        "thing": f"{BACKUPS}thing/{shelf['thing']}",
        "tables": f"{BACKUPS}tables",
        "rules": f"{BACKUPS}retention?daily=1&weekly=0",
        "undo": f"{BACKUPS}undo",
        "dump": "/dump/",
    }


#: the screens with more than a sentence of their own: seen in each language
MANY_WORDS = (
    "list", "details", "damaged", "restore", "delete", "download", "journal", "rules",
    "history", "thing",
)  # fmt: skip


def pictured(page: Page, name: str) -> None:
    """A picture at each width; nothing stands out of the window, nothing is empty."""
    LOOKS.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=LOOKS / f"{name}-{width}.png", full_page=True)
        assert page.evaluate(STANDS_OUT) == [], f"{name} at {width}"
    said = text_of(page)
    assert not FAULT.search(said), (name, FAULT.findall(said))


@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_each_screen_fits_its_window(
    browser: Browser, site: Site, shelf: dict[str, str], language: str
) -> None:
    page = opened(browser, site)
    for name, path in pages(shelf).items():
        if language != "en" and name not in MANY_WORDS:
            continue
        page.goto(path if language == "en" else f"/{language}{path}")
        if name == "list":  # what htmx brings
            page.locator(".dbm-bars th", has_text="resource").first.wait_for()
        pictured(page, f"{language}-{name}")
        if language == "de":
            assert english(page) == [], name
    page.context.close()


def text_of(page: Page) -> str:
    """What a page says, without the commands that are for a shell."""
    said = page.inner_text(".dbm")
    for command in page.locator(".dbm pre").all_inner_texts():
        said = said.replace(command, "")
    return said


def english(page: Page) -> list[str]:
    """The page's texts that have a German translation and stand there in English."""
    catalogue = Path(ckanext.dbmanage.__file__).parent / "i18n/de/LC_MESSAGES"
    with open(catalogue / "ckanext-dbmanage.po", "rb") as file:
        known = read_po(file)
    said = {m.id: m.string for m in known if isinstance(m.id, str) and len(m.id) > 3}
    lines = {line.strip() for line in text_of(page).splitlines()}
    return sorted(line for line in lines if said.get(line, line) != line)


def test_printed_and_without_javascript(
    browser: Browser, site: Site, shelf: dict[str, str]
) -> None:
    page = opened(browser, site, java_script_enabled=False)
    for name in ("list", "details", "restore", "journal", "thing", "tables", "dump"):
        page.goto(pages(shelf)[name])
        pictured(page, f"no-script-{name}")
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 720, "height": 1000})  # of A4, in its margins
        page.screenshot(path=LOOKS / f"print-{name}.png", full_page=True)
        assert page.evaluate(STANDS_OUT) == [], name
        page.emulate_media(media="screen")
    page.context.close()


def test_the_page_stands_where_core_s_own_tabs_stand(
    browser: Browser, site: Site, shelf: dict[str, str]
) -> None:
    page = opened(browser, site)
    where = """['.wrapper', '.nav-tabs', '.secondary', '.primary'].map(name => {
        const at = document.querySelector(name).getBoundingClientRect();
        return [at.left, at.top, at.width].map(Math.round) })"""
    for width in (1280, 800):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto("/ckan-admin/")
        core = page.evaluate(where)
        page.goto(BACKUPS)
        assert page.evaluate(where) == core
    # on a phone what matters comes first
    page.set_viewport_size({"width": 390, "height": 900})
    boxes = [page.locator(name).bounding_box() for name in (".dbm", ".secondary")]
    assert boxes[0] and boxes[1] and boxes[0]["y"] < boxes[1]["y"]
    # no card stands alone beside a blank, at any width
    for width, columns in ((1280, 2), (768, 1)):
        page.set_viewport_size({"width": width, "height": 900})
        edges = page.evaluate(
            "[...document.querySelectorAll('.dbm-card')].map(e =>"
            " e.getBoundingClientRect()).map(at => [at.left, at.right].map(Math.round))"
        )
        assert len({left for left, _ in edges}) == columns
        inner = page.locator(".dbm-cards").bounding_box()
        assert inner and max(right for _, right in edges) == round(
            inner["x"] + inner["width"]
        )
    page.context.close()


def test_everything_is_reached_by_the_keyboard(
    browser: Browser, site: Site, shelf: dict[str, str]
) -> None:
    page = opened(browser, site)
    page.goto(pages(shelf)["thing"])
    accessible(page)
    page.goto(BACKUPS)
    page.locator(".dbm-bars th", has_text="resource").first.wait_for()  # by htmx
    accessible(page)
    wanted = page.evaluate(
        "(all => all.forEach((e, n) => e.dataset.n = n) || all.length)"
        "([...document.querySelectorAll('.dbm :is(a, button, input, select, summary,"
        " [tabindex])')].filter(e => e.checkVisibility() && e.type != 'hidden'))"
    )
    page.locator("#find-q").focus()
    seen = set()
    for _ in range(wanted + 60):
        page.keyboard.press("Tab")
        number, outline = page.evaluate(
            "(e => [e.dataset.n, getComputedStyle(e).outlineStyle])"
            "(document.activeElement)"
        )
        if number is not None:
            assert outline != "none", page.evaluate("document.activeElement.outerHTML")
            seen.add(int(number))
    missed = set(range(wanted)) - seen
    assert not missed, missed
    # and used by it
    page.locator("#find-q").focus()
    page.keyboard.type("umzug")
    page.keyboard.press("Enter")
    expect(page.locator("#list-h")).to_contain_text("4 of 14")
    page.context.close()
