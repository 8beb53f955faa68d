"""What the page says of nights and of rules of retention."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ckanext.dbmanage.engine.clock import now, parse_id, stamp
from ckanext.dbmanage.operations.nights import remember

from ...support.nights import night, year
from ...support.pages import BACKUPS
from ...support.site import Session, Site


@pytest.fixture(autouse=True)
def no_nights(site: Site) -> Iterator[None]:
    yield
    (site.portal.repository / ".nights.json").unlink(missing_ok=True)


def _status(site: Site, token: str) -> dict[str, Any]:
    return site.act("dbmanage_status", token)


def _text(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_before_any_night_the_page_says_how_to_have_some(
    site: Site, me: Session, token: str, backup: str
) -> None:
    status = _status(site, token)
    assert status["night"] is None and status["next_night"] is None
    assert status["forecast"]["known"] == "few"
    page = me.ask("GET", BACKUPS).text
    assert "db nightly --install" in page and "No night was done yet." in page
    days = dict(status["year"])
    assert days.pop(stamp(parse_id(backup))[:10]) == "verified"
    assert set(days.values()) == {""}


def test_a_year_of_nights(site: Site, me: Session, token: str) -> None:
    _, repository = site.portal.engine()
    made = year(repository)
    status = _status(site, token)
    assert status["night"]["begun"] == stamp(made[0].begun)
    due = {"time": stamp(made[0].begun + timedelta(days=1)), "known": "rhythm"}
    assert status["next_night"] == due
    assert status["forecast"]["known"] in ("day", "far")
    days = dict(status["year"])
    at = {number: days[stamp(made[0].begun - timedelta(days=number))[:10]]
          for number in (1, 3, 6, 80)}  # fmt: skip
    assert at == {1: "verified", 3: "failed", 6: "proven", 80: "none"}
    page = me.ask("GET", BACKUPS).text
    assert page.count('class="dbm-day is-') > 330
    # a sign, and words for who does not see it
    for state, sign in (("failed", "×"), ("proven", "★"), ("none", "–")):
        assert re.search(rf'is-{state}" role="img" title="\d+: [^"]+">{sign}<', page)
    # a step failed, and that is told
    assert re.search(
        r"Thinning out .*?Failed", _text(page[page.index('id="nights"') :])
    )


def test_a_night_that_was_killed_is_told(site: Site, me: Session, token: str) -> None:
    _, repository = site.portal.engine()
    begun = now().replace(microsecond=0) - timedelta(hours=1)
    killed = replace(night(begun), ended=None, steps=())
    remember(repository, killed, ())
    status = _status(site, token)
    assert status["state"] == "unended" and status["night"]["ended"] is None
    assert "It did not come to its end" in me.ask("GET", BACKUPS).text
    with repository.night():
        status = _status(site, token)
        assert status["night_running"] == stamp(begun) and status["night"] is None
        assert "A night is under way since" in me.ask("GET", BACKUPS).text


def test_rules_are_looked_at_before_they_are_written_down(
    site: Site, me: Session, token: str, backup: str
) -> None:
    found = site.act("dbmanage_retention_show", token)
    assert found["rules"]["daily"] == "7" and found["lines"] == []
    assert [(e["id"], e["forget"]) for e in found["backups"]] == [(backup, False)]
    ids = [site.portal.backup().name for _ in range(2)]
    none = dict.fromkeys(("last", "daily", "weekly", "monthly"), "0")
    found = site.act("dbmanage_retention_show", token, **none)
    assert found["forgets"] == 2 and found["now"] == 0
    assert found["lines"][0] == "ckanext.dbmanage.keep_last = 0"
    page = _text(
        me.ask("GET", f"{BACKUPS}retention?last=1&daily=0&weekly=0&monthly=0").text
    )
    assert "2 backups would be forgotten by these rules." in page
    assert "ckanext.dbmanage.keep_last = 1" in page
    assert sorted(e["id"] for e in site.portal.backups()) == sorted([backup, *ids])
    wrong = me.ask("GET", f"{BACKUPS}retention?daily=many").text
    assert "&#39;many&#39;, not a number" in wrong and 'value="many"' in wrong
    there = site.act("dbmanage_retention_show", token, there=True)
    assert there["backups"] == [] and there["rules"]["daily"] == "14"
    for id in ids:
        shutil.rmtree(site.portal.repository / id)
