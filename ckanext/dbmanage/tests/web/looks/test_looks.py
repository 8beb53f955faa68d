"""What is found in the list and in the journal; and each screen of them looked at.

Each screen is seen at three widths, in three languages, without JavaScript and printed,
and leaves a picture in `.services/screens/looks/`. One site serves them all.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from babel.messages.pofile import read_po
from playwright.sync_api import Browser, Page, expect

import ckanext.dbmanage

from ..support.browser import BACKUPS, SHOTS, accessible, aged, opened
from ..support.portal import Portal
from ..support.site import PASSWORD, SYSADMIN, Session, Site, hosted, own_redis

LOOKS = SHOTS / "looks"
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


@pytest.fixture(scope="module")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    shutil.rmtree(LOOKS, ignore_errors=True)
    with (
        own_redis() as (server, address),
        hosted(
            template, tmp_path_factory.mktemp("looks"), **{"ckan.redis.url": address}
        ) as made,
    ):
        made.redis, made.token = server, made.api_token()
        yield made


@pytest.fixture(scope="module")
def shelf(site: Site) -> dict[str, str]:
    """Backups of each kind by a name: a dozen, some with notes, one of another site."""
    portal = site.portal
    table = "00000000-0000-4000-8000-000000000000"
    portal.sql(f"UPDATE resource SET id = '{table}', name = 'Luftqualität, stündlich"
               " seit 1999 (alle Messstellen)' WHERE id = 'upload-1'")  # fmt: skip
    newest = portal.backup("--note", "before bulk import").name
    portal.module("verify", newest, "--prove")
    names = {"proven": newest}
    for days in range(1, 13):
        note = ("", "before bulk import", "Vor dem Umzug nach Köln")[days % 3]
        reason = "before restore of x" if days == 4 else "manual"
        names[f"day {days}"] = aged(site, newest, days, note=note, reason=reason)
    portal.db("keep", names["day 2"])
    damaged = portal.repository / names["day 5"] / "database.dump.zst"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    portal.module("verify", names["day 5"], code=1)
    foreign = portal.repository / "20200101T000000Z"
    shutil.copytree(portal.repository / newest, foreign)
    site.act("dbmanage_backup_create", note="waits for a worker")
    (job,) = site.act("dbmanage_job_list")
    site.act("dbmanage_job_cancel", id=job["id"])
    return names | {"job": job["id"], "foreign": foreign.name}


@pytest.fixture(scope="module")
def me(site: Site) -> Session:
    return site.session(SYSADMIN)


# ---------------------------------------------------------------------------- found


def test_backups_are_found_by_what_is_known_of_them(
    site: Site, shelf: dict[str, str]
) -> None:
    day = {number: shelf[f"day {number}"] for number in range(1, 13)}
    whole = ["database", "datastore", "files"]
    iso = f"{day[3][:4]}-{day[3][4:6]}-{day[3][6:8]}"

    def found(**asked: Any) -> list[str]:
        return [each["id"] for each in site.act("dbmanage_backup_list", **asked)]

    every = found()
    assert len(every) == 14
    assert found(q=day[3]) == found(q=iso) == [day[3]]
    assert found(q="KÖLN umzug") == [day[2], day[5], day[8], day[11]]
    assert found(q="before restore") == found(reason="before restore") == [day[4]]
    assert found(q="no such words") == []
    assert found(state="damaged") == [day[5]]
    assert found(state="foreign") == [shelf["foreign"]]
    assert found(held=True) == [day[2]]
    assert found(held=False) == [id for id in every if id != day[2]]
    assert found(parts=whole, held="") == [id for id in every if id != shelf["foreign"]]
    assert found(parts=["database"]) == []
    assert found(q="import", state="verified", before=day[4], limit=1) == [day[7]]
    # a day as the visitor's language writes it
    german = f"{day[3][6:8]}.{day[3][4:6]}.{day[3][:4]}"
    path = f"/de/api/3/action/dbmanage_backup_list?q={german}"
    answer = site.web.ask(path, Authorization=site.token)
    assert [each["id"] for each in answer.json["result"]] == [day[3]]
    # a wrong word is no answer that there is none
    refused = site.act("dbmanage_backup_list", state="damged")
    assert "damaged" in str(refused["error"]["state"])


def test_the_list_is_searched_in_the_address(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    def shown(query: str) -> tuple[str, list[str]]:
        answer = me.ask("GET", BACKUPS + query)
        assert answer.status_code == 200
        table = answer.text.partition('<tbody role="rowgroup">')[2].partition(
            "</tbody>"
        )[0]
        return answer.text, re.findall(r"<code>(\w{16})</code>", table)

    page, ids = shown("")
    assert len(ids) == 10 and "1 to 10 of 14" in page
    page, ids = shown(f"?before={ids[-1]}")
    assert len(ids) == 4 and "11 to 14 of 14" in page and "Newer backups" in page
    page, ids = shown("?q=import&state=verified")
    assert ids == [shelf[f"day {n}"] for n in (1, 4, 7, 10)] and "4 of 14" in page
    assert 'name="q" value="import"' in page
    # a note is a tag that leads to those that have it
    note = quote("Vor dem Umzug nach Köln", safe="").replace("%20", "+")
    assert f'href="{BACKUPS}?q={note}#list-h"' in html.unescape(page)
    page, ids = shown("?q=%3Cscript%3Ealert%281%29")
    assert (
        ids == [] and "No backup is like that." in page and "<script>alert" not in page
    )
    assert "No backup yet" not in page
    # what may not be chosen is left out
    assert len(shown("?state=nonsense&held=perhaps&parts=x")[1]) == 10


def test_the_journal_is_searched_by_what_who_and_when(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    def found(**asked: Any) -> set[str]:
        return {line["what"] for line in site.act("dbmanage_journal", **asked)["lines"]}

    every = site.act("dbmanage_journal")
    assert {"backup", "proof", "verify", "keep", "cancel"} <= set(every["whats"])
    assert SYSADMIN in every["whos"] and len(every["whos"]) == 2
    assert found(what="keep") == {"keep"}
    assert found(who=SYSADMIN) == {"backup", "cancel"}
    today = every["lines"][0]["time"][:10]
    assert found(since=today, until=today) == found()
    assert found(until="2020-01-01") == found(since="2100-01-01") == set()
    last = every["lines"][-1]["time"]
    assert site.act("dbmanage_journal", until=last)["lines"][-1] == every["lines"][-1]
    short = site.act("dbmanage_journal", limit=2)
    assert len(short["lines"]) == 2 and short["count"] == every["count"]
    for wrong in ("yesterday", "2026-13-01", "20261126", "2026-11-26T00:00"):
        refused = site.act("dbmanage_journal", since=wrong)
        assert "A day as 2026-11-23" in str(refused["error"]["since"]), wrong

    page = me.ask("GET", f"{BACKUPS}journal?what=keep&since={today}").text
    assert "1 line" in page and f'value="{today}"' in page
    assert '<option value="keep" selected>' in page
    page = me.ask("GET", f"{BACKUPS}journal?since=yesterday").text
    assert "A day as 2026-11-23" in page


def test_odd_values_to_look_for_are_refused(site: Site, shelf: dict[str, str]) -> None:
    fields = {
        "dbmanage_backup_list": ("q", "state", "held", "reason"),
        "dbmanage_journal": ("what", "who", "since"),
    }
    odd = ([], {}, [1], {"a": 1}, -1, 10**30, "\x00", "\udc80", "../x", "x" * 50_000)
    for name, names in fields.items():
        for field in names:
            for value in odd:
                answer = site.web.ask(
                    f"/api/3/action/{name}", "POST", {field: value},
                    Authorization=site.token,
                )  # fmt: skip
                assert answer.status < 500, (name, field, value, answer.body)


# ------------------------------------------------------------------- sizes and links


def test_a_download_has_the_size_that_was_said_and_a_used_link_says_so(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    id = shelf["proven"]
    shown = site.act("dbmanage_backup_show", id=id, sizes=True)["download_sizes"]
    assert "download_sizes" not in site.act("dbmanage_backup_show", id=id)
    for name in ("all.tar", "manifest.json"):
        site.arm(id, "download")
        made = me.post(f"{BACKUPS}{id}/download", file=name, password=PASSWORD)
        (path,) = set(re.findall(rf'{BACKUPS}file/[^"]+', made.text))
        assert len(me.ask("GET", path).content) == shown[name], name
    again = me.ask("GET", path)
    assert again.status_code == 410
    assert re.search(r"This link was used at \d+ \w+ \d{4}, \d\d:\d\d", again.text)
    assert f'href="{BACKUPS}{id}/download"' in again.text
    other = me.ask("GET", f"{BACKUPS}file/nobody-s/all.tar")
    assert other.status_code == 404 and "not good any more" in other.text


def test_the_evidence_of_a_proof_is_shown_and_runs_nothing(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    path = f"{BACKUPS}{shelf['proven']}"
    assert site.act("dbmanage_backup_show", id=shelf["proven"])["evidence"] is True
    assert f'href="{path}/evidence"' in me.ask("GET", path).text
    answer = me.ask("GET", f"{path}/evidence")
    assert (
        answer.status_code == 200 and "Rows, as many as in the manifest" in answer.text
    )
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    other = f"{BACKUPS}{shelf['day 1']}"
    assert "/evidence" not in me.ask("GET", other).text
    assert me.ask("GET", f"{other}/evidence").status_code == 404
    assert site.session("user-3").ask("GET", f"{path}/evidence").status_code == 403


def test_tables_are_named_by_their_resource_and_dataset(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    largest = site.act("dbmanage_status", tables=True)["tables"]["datastore"]["largest"]
    named = {each["table"]: each["resource"] for each in largest}
    assert named["00000001-0000-4000-8000-000000000000"] is None
    known = named["00000000-0000-4000-8000-000000000000"]
    assert known["dataset"] == "dataset-1" and known["name"].startswith("Luftqualität")
    page = me.ask("GET", f"{BACKUPS}tables").text
    assert "/dataset/dataset-1/resource/00000000-0000-4000-8000-000000000000" in page
    assert "of no resource" in page


# --------------------------------------------------------------------------- looked at


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
        "tables": f"{BACKUPS}tables",
        "undo": f"{BACKUPS}undo",
        "dump": "/dump/",
    }


#: the screens with more than a sentence of their own: seen in each language
MANY_WORDS = ("list", "details", "damaged", "restore", "delete", "download", "journal")


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
    for name in ("list", "details", "restore", "journal", "tables", "dump"):
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
