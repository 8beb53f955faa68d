"""Sysadmins are let in while visitors see the maintenance page, when it was set by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ckanext.dbmanage.engine.redis.maintenance import AWAY, READ_ONLY, Maintenance
from ckanext.dbmanage.web.sysadmins import COOKIE

from ...support.maintenance import keeper, moved_away
from ...support.pages import BACKUPS
from ...support.site import PASSWORD, SYSADMIN, USER, Session, Site


@pytest.fixture(scope="module")
def user(site: Site) -> Session:
    """Somebody who was signed in before the maintenance began."""
    return site.session(USER)


@pytest.fixture
def away(site: Site, me: Session, user: Session) -> Iterator[Maintenance]:
    """Visitors see the maintenance page."""
    of_it = keeper(site.portal)
    of_it.by_hand(AWAY, 3600)
    yield of_it
    of_it.off()


def test_a_sysadmin_looks_and_is_told_what_visitors_see(
    away: Maintenance, me: Session, user: Session
) -> None:
    until = (away.status() or {})["until"][11:16]
    # past midnight it has its day
    banner = f"Visitors see the maintenance page until (.*, )?{until} UTC."
    for path in ("/dataset/", "/dataset/dataset-1", BACKUPS):
        assert re.search(banner, me.ask("GET", path).text), path
        assert user.ask("GET", path).status_code == 503, path
    # to look, not to save
    assert me.post("/dataset/delete/dataset-1").status_code == 503


def test_the_mark_of_a_sysadmin_s_browser_opens_nothing_by_itself(
    site: Site, away: Maintenance, me: Session, user: Session
) -> None:
    """CKAN says whose session it is."""
    assert me.ask("GET", "/dataset/").status_code == 200
    for mark in (me.cookies[COOKIE], "InVzZXItMSI.forged"):
        thief = site.session()
        thief.cookies.update(user.cookies)
        thief.cookies.set(COOKIE, mark, domain="127.0.0.1", path="/")
        assert thief.ask("GET", "/dataset/").status_code == 503


@pytest.mark.parametrize(
    ("name", "password", "answered", "then"),
    [
        (SYSADMIN, "wrong", 200, 503),
        (SYSADMIN, PASSWORD, 302, 200),
        (USER, PASSWORD, 503, 503),
    ],
)
def test_who_is_not_signed_in_yet_may_do_so_and_nothing_else(
    site: Site, away: Maintenance, name: str, password: str, answered: int, then: int
) -> None:
    stranger = site.session()
    assert 'action="/user/login"' in stranger.ask("GET", "/").text
    data = {"login": name, "password": password} | stranger.token()
    answer = stranger.ask("POST", "/user/login", data=data)
    assert answer.status_code == answered
    assert stranger.ask("GET", "/dataset/").status_code == then
    assert stranger.ask("GET", "/user/register").status_code == then


def test_a_database_that_is_away_is_no_error_page_for_a_sysadmin(
    site: Site, away: Maintenance, me: Session
) -> None:
    with moved_away(site.portal):
        assert me.ask("GET", "/dataset/").status_code == 503
        assert site.session().ask("GET", "/user/login").status_code == 503


def test_nobody_gets_in_while_an_operation_is_at_work(
    away: Maintenance, me: Session
) -> None:
    with away.held("restore", "r", print) as to:
        to(AWAY)
        assert me.ask("GET", "/dataset/").status_code == 503
        assert me.ask("GET", "/user/login").status_code == 503


def test_the_banner_s_form_ends_it(
    site: Site, away: Maintenance, me: Session, user: Session
) -> None:
    """No form without its token does, and nobody else's."""
    form = {"level": "off"}
    assert me.ask("POST", f"{BACKUPS}maintenance", data=form).status_code == 400
    assert user.ask("POST", f"{BACKUPS}maintenance", data=form).status_code == 503
    assert me.post(f"{BACKUPS}maintenance", **form).status_code == 302
    assert away.status() is None
    assert site.session().ask("GET", "/dataset/").status_code == 200


def test_a_sysadmin_who_signs_in_while_saving_waits_is_told_so(
    site: Site, away: Maintenance
) -> None:
    away.by_hand(READ_ONLY, 3600)
    page = site.session(SYSADMIN).ask("GET", "/dataset/").text
    assert "Visitors can read, and cannot save until" in page
    assert "cannot save until" not in site.session().ask("GET", "/dataset/").text
