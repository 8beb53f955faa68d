"""What nobody may do with a page, a form or a cookie of somebody else, and what is not told."""

from __future__ import annotations

import re
import signal

from sqlalchemy.engine import make_url

from ...support.cluster import SUPERUSER, query
from ...support.pages import BACKUPS, text
from ...support.site import SYSADMIN, Session, Site


def test_a_cookie_is_not_enough_for_the_api(
    site: Site, me: Session, token: str
) -> None:
    """Whatever cookie signs somebody in: a browser sends it for any other site too."""
    path = "/api/3/action/dbmanage_maintenance_update"
    sso = site.session()
    sso.cookies.set("sso", SYSADMIN)
    for browser in (me, sso):
        assert browser.ask("GET", "/api/3/action/dbmanage_status").status_code == 200
        for kind in ("json", "data"):
            answer = browser.ask("POST", path, **{kind: {"level": "read-only"}})
            assert answer.status_code == 403 and "CSRF" in answer.text, answer.text
        answer = browser.ask(
            "POST", path, json={"level": "off"}, headers={"Authorization": token}
        )
        assert answer.status_code == 200, answer.text
    assert site.act("dbmanage_maintenance_show", token) == {"level": "off"}


def test_a_form_that_is_sent_too_late_says_what_to_do(site: Site, me: Session) -> None:
    came = {"Referer": f"{site.base}{BACKUPS}journal"}
    late = me.ask("POST", f"{BACKUPS}new", data={"note": "x"}, headers=came)
    assert late.status_code == 400 and "was open for too long" in late.text
    assert f'href="{BACKUPS}journal"' in late.text
    gone = site.session().ask("POST", f"{BACKUPS}new", data={"note": "x"}, headers=came)
    assert gone.status_code in (400, 403) and "You were signed out" in gone.text
    assert f"/user/login?came_from={BACKUPS}journal" in gone.text.replace("%2F", "/")
    for answer in (late, gone):
        assert "Nothing was done" in answer.text
    elsewhere = {"Referer": "http://evil.test/ckan-admin/backups/x"}
    late = me.ask("POST", f"{BACKUPS}new", data={}, headers=elsewhere)
    assert "evil" not in late.text


def test_security_headers_stand_on_refusals_too(site: Site, me: Session) -> None:
    user = site.session("user-3")
    for browser, method, path, status in (
        (me, "GET", "", 200),
        (me, "GET", "20200101T000000Z", 404),
        (me, "GET", "job/x", 404),
        (me, "GET", "job/x/live", 404),
        (me, "GET", "file/x/y", 404),
        (me, "POST", "new", 400),
        (me, "PUT", "new", 405),
        (user, "GET", "", 403),
        (site.session(), "GET", "", 302),
        (site.session(), "GET", "job/x/live", 403),
    ):
        answer = browser.ask(method, BACKUPS + path)
        assert answer.status_code == status, (path, answer.status_code)
        if status == 405:  # no route of ours, so core's own answer
            continue
        headers = answer.headers
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Referrer-Policy"] == "same-origin", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["Cache-Control"] == "no-store, private", path


def test_error_pages_tell_nothing(site: Site, me: Session) -> None:
    """Nothing of passwords, addresses of servers, or code, whatever is away."""
    name = site.portal.names["database"]
    words = (
        make_url(site.portal.url("database")).password or "", "portal-secret",
        "Traceback", "psycopg2", "sqlalchemy", "site-packages",
    )  # fmt: skip
    # the digits of the port may be those of a sum, too
    secret = re.compile(rf"{'|'.join(map(re.escape, words))}|\b{SUPERUSER.port}\b")
    paths = ("", "latest", "latest/restore", "journal", "tables", "job/x", "job/x/live")

    def look(status: int) -> str:
        pages = []
        for path in paths:
            answer = me.ask("GET", BACKUPS + path)
            assert answer.status_code < 600
            # the commands of a restore by hand name the server that they are for
            rest = re.sub(
                '<section aria-labelledby="hand-h">.*?</section>', "", answer.text,
                flags=re.DOTALL,
            )  # fmt: skip
            assert not secret.findall(rest), path
            pages.append((path, answer.status_code, text(answer.text)))
        answer = me.ask("GET", "/api/3/action/dbmanage_status")
        assert not secret.findall(answer.text)
        assert status in [code for _, code, _ in pages], pages
        return pages[0][2]

    server = site.redis
    assert server is not None
    server.send_signal(signal.SIGSTOP)
    try:
        page = look(200)
        assert "Redis does not answer" in page and "Recent activity" in page
    finally:
        server.send_signal(signal.SIGCONT)
    query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
          "postgres", name)  # fmt: skip
    try:
        look(500)
    finally:
        query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert "Redis" not in look(200)
