"""Maintenance: visitors are told calmly, and nothing gets stuck."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import redis
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.clock import parse_stamp
from ckanext.dbmanage.engine.errors import DbmanageError
from ckanext.dbmanage.engine.redis.client import LIMIT
from ckanext.dbmanage.engine.redis.maintenance import AWAY, READ_ONLY, Maintenance
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.web.maintenance import MaintenanceMiddleware

from ..support.maintenance import keeper, moved_away
from ..support.portal import Portal
from ..support.waiting import wait_until
from ..support.web import Web


@pytest.mark.smoke
def test_read_only_and_away(portal: Portal, serve: Callable[[Portal], Web]) -> None:
    portal.write(**{"ckan.site_title": "Riverland <script>alert(1)</script>"})
    web = serve(portal)

    portal.module("maintenance", "on", "--read-only")
    assert web.ask("/dataset/").status == 200
    search = web.ask("/api/3/action/package_search", "POST", {"rows": 0})
    assert search.status == 200 and search.json["success"]
    saving = web.ask("/api/action/package_create", "POST", {"name": "x"})
    assert saving.status == 503 and saving.json["success"] is False
    assert saving.json["error"]["__type"] == "Service Unavailable"
    assert saving.headers["Retry-After"]
    body = {"name": "x"}  # core refuses it by GET, but not by HEAD
    assert web.ask("/api/3/action/package_create", "HEAD", body).status == 503
    assert web.ask("/api/3/action/nosuch", "POST", {}).status in (400, 404)
    form = web.ask("/user/login", "POST", "login=x", Accept_Language="de")
    assert form.status == 503 and "Was Sie eben abgeschickt haben" in form.body
    assert 'id="post" hidden' not in form.body

    portal.module("maintenance", "on")
    with moved_away(portal):
        page = web.ask("/dataset/")
        assert page.status == 503 and page.headers["Retry-After"] == "20"
        assert page.headers["Cache-Control"] == "no-store"
        assert "text/html" in page.headers["Content-Type"]
        until = (keeper(portal).status() or {})["until"][11:16]
        # past midnight it has its day
        assert re.search(f"Back at about (.*, )?{until} UTC", page.body)
        assert 'id="post" hidden' in page.body
        assert "<script>alert" not in page.body and "Riverland &lt;script" in page.body
        # nothing is loaded from anywhere, and nothing else may run
        loaded = re.findall(r'(?:src|href)="([^"]*)"', page.body)
        assert all(address.startswith("data:") for address in loaded)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        german = web.ask("/de/dataset/")
        assert re.search(f"Gegen (.*, )?{until} UTC wieder da", german.body)
        assert 'lang="de"' in german.body
        arabic = web.ask("/dataset/", Accept_Language="ar-EG,ar;q=0.9")
        assert 'dir="rtl"' in arabic.body
        for path in ("/api/3/action/package_search", "/de/api/action/package_list"):
            answer = web.ask(path)
            assert answer.status == 503 and answer.json["success"] is False
        head = web.ask("/", "HEAD")
        assert (head.status, head.body) == (503, "")
        health = web.ask("/api/3/action/status_show")
        assert health.status == 200 and health.json["result"] == {"maintenance": "away"}
    assert "): by hand, since " in portal.module("maintenance", "status").stdout
    portal.module("maintenance", "off")
    assert web.ask("/dataset/").status == 200
    assert "off" in portal.module("maintenance", "status").stdout


def test_a_moment_is_a_minute_at_most(portal: Portal) -> None:
    """For longer the page names the time, in the zone and the language of the site."""
    one = keeper(portal)
    portal.options["ckan.display_timezone"] = "Asia/Kolkata"
    one.by_hand(AWAY, 50)
    assert "Back in a moment" in page_of(portal)[1]
    one.by_hand(READ_ONLY, 50)
    posted = page_of(portal, "POST")[1]
    assert "Saving waits for a moment" in posted and "in a few seconds" in posted
    one.on(READ_ONLY, 50, "upgrade")  # its copy is migrated meanwhile
    assert "Saving waits for some minutes" in page_of(portal, "POST")[1]
    one.by_hand(READ_ONLY, 3600)
    until = parse_stamp((one.status() or {})["until"]) + timedelta(hours=5, minutes=30)
    posted = page_of(portal, "POST")[1]
    assert re.search(f"Saving waits until about (.*, )?{until:%H:%M}<", posted)
    one.by_hand(AWAY, 3600)
    body = page_of(portal)[1]
    assert re.search(f"Back at about (.*, )?{until:%H:%M}<", body)
    assert re.search(
        f"The site cannot be reached until about (.*, )?{until:%H:%M}\\.", body
    )
    one.by_hand(AWAY, 86_400)  # of another day
    day = f"{int(f'{until + timedelta(hours=23):%d}')} "
    assert re.search(
        rf"Back at about {day}[A-Z][a-z]+ \d{{4}}, \d\d:\d\d<", page_of(portal)[1]
    )
    one.off()


def test_it_ends_by_itself(portal: Portal, serve: Callable[[Portal], Web]) -> None:
    web = serve(portal)
    portal.module("maintenance", "on", "--for", "8s")
    assert web.ask("/").status == 503
    wait_until(lambda: web.ask("/").status == 200)
    done = portal.module("maintenance", "on", "--for", "soon", code=2)
    assert "30m" in done.stderr
    journal = (portal.repository / "journal.jsonl").read_text()
    assert "maintenance away" in journal


def test_portals_that_share_a_redis_do_not_mix(
    make_portal: Callable[..., Portal], serve: Callable[[Portal], Web]
) -> None:
    one, two = make_portal(), make_portal()
    web = serve(two)
    one.module("maintenance", "on")
    assert web.ask("/").status == 200
    assert "off" in two.module("maintenance", "status").stdout
    one.module("maintenance", "off")


def application(environ: dict, start_response: Callable) -> list[bytes]:
    start_response("200 OK", [])
    return [b"through"]


def timed(middleware: MaintenanceMiddleware) -> float:
    begun = time.monotonic()
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": ""}
    assert middleware(environ, lambda *_: None) == [b"through"]
    return time.monotonic() - begun


def test_redis_down_lets_everything_through(portal: Portal) -> None:
    with socket.socket() as listening:  # one that never answers
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        hanging = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
        for url in ("redis://:s3cret-pw@127.0.0.1:9/0", hanging):
            options = portal.options | {"ckan.redis.url": url}
            middleware = MaintenanceMiddleware(application, Options(options))
            assert timed(middleware) < 5
            # it is left alone for a second: nobody waits a quarter of one again
            assert min(timed(middleware) for _ in range(3)) < 0.05
    portal.backup()
    before = portal.state()
    portal.damage()
    portal.write(**{"ckan.redis.url": "redis://:s3cret-pw@127.0.0.1:9/0"})
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert "Redis does not answer" in done.stderr
    assert portal.state() == before
    for command in (["status"], ["on"]):
        done = portal.module("maintenance", *command, code=1)
        assert "Redis does not answer" in done.stderr and "s3cret" not in done.stderr
    assert "Redis does not answer" in portal.module("doctor", code=1).stdout


@pytest.mark.parametrize(
    ("options", "path", "language", "inner"),
    [
        ({}, "/api/3/action/x", "en", "/api/3/action/x"),
        ({}, "/fr/api/3/action/x", "fr", "/api/3/action/x"),
        ({}, "/nl/dataset", "en", "/dataset"),
        ({}, "/pt_BR/api/x", "en", "/api/x"),
        ({"ckan.locales_offered": "en es"}, "/de/dataset", "en", "/de/dataset"),
        ({"ckan.locales_offered": ["en", "es"]}, "/es", "es", "/"),
        ({"ckan.locale_default": "de"}, "/dataset", "de", "/dataset"),
        ({"ckan.root_path": "/data/{{LANG}}"}, "/data/de/api/x", "de", "/api/x"),
        ({"ckan.root_path": "/data/{{LANG}}"}, "/data/api/x", "en", "/api/x"),
        ({"ckan.root_path": "/data/{{LANG}}"}, "/de/api/x", "de", "/api/x"),
        ({"ckan.root_path": "/{{LANG}}/data"}, "/es/data/api/x", "es", "/api/x"),
    ],
)
def test_where_a_request_goes(
    portal: Portal, options: dict, path: str, language: str, inner: str
) -> None:
    middleware = MaintenanceMiddleware(application, Options(portal.options | options))
    environ = {"PATH_INFO": path, "SCRIPT_NAME": "/mounted"}
    assert middleware._language_and_path(environ) == (language, inner)


def test_a_value_that_is_not_ours_locks_nobody_out(portal: Portal) -> None:
    client = redis.Redis.from_url(portal.options["ckan.redis.url"])
    one, told = keeper(portal), []
    odd = '{"level": "away", "since": 5}'
    for value in ("nonsense", "[]", "7", "{}", '{"level": "gone"}', b"\xff", odd):
        client.set(one.key, value, ex=5)
        assert timed(MaintenanceMiddleware(application, Options(portal.options))) < 5
        assert one.status() is None
    with one.held("restore", "", told.append) as to:
        to(AWAY)
        assert (one.status() or {})["reason"] == "restore"
    assert one.status() is None and not told
    client.close()


def page_of(portal: Portal, method: str = "GET") -> tuple[str, str]:
    """The middleware's own answer: status and body."""
    told: list[str] = []
    body = MaintenanceMiddleware(application, Options(portal.options))(
        {"REQUEST_METHOD": method, "PATH_INFO": "/"},
        lambda status, headers: told.append(status),
    )
    return told[0], b"".join(body).decode()


def test_the_page_says_why_and_since_when(portal: Portal) -> None:
    one = keeper(portal)
    portal.options["ckan.locales_offered"] = "en de"
    for reason, said in (
        ("restore", "saved copy. The site cannot be reached for less than a minute."),
        ("upgrade", "being upgraded. The site cannot be reached for a few minutes."),
    ):
        one.on(AWAY, 50, reason, "reference-7")
        body = page_of(portal)[1]
        assert said in body and "<bdi>reference-7</bdi>" in body
        since = (one.status() or {})["since"]
        assert f"Began at {since[11:16]}" in body
        # only what the site offers is written in
        assert "Deutsch" in body and "Espa" not in body
    one.off()


def test_the_first_requests_may_come_together(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None finds a client that another is still making."""
    make = redis.Redis.from_url

    def slowly(*arguments: object, **options: object) -> object:
        time.sleep(0.05)
        return make(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(redis.Redis, "from_url", slowly)
    middleware, answers = (
        MaintenanceMiddleware(application, Options(portal.options)),
        [],
    )
    threads = [
        threading.Thread(target=lambda: answers.append(timed(middleware)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4


def test_one_question_a_request(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    execute = redis.Redis.execute_command

    def counted(self: redis.Redis, *arguments: object, **options: object) -> object:
        asked.append(arguments)
        return execute(self, *arguments, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", counted)
    middleware = MaintenanceMiddleware(application, Options(portal.options))
    for _ in range(3):
        timed(middleware)
    assert asked == [("GETRANGE", keeper(portal).key, 0, LIMIT - 1)] * 3


@pytest.mark.parametrize(
    "url", ["redis://u:s3cr#et@127.0.0.1:6379/0", "redis://:s3cr/et@h:1/0", "s3cr://h"]
)
def test_an_address_that_is_none_is_a_redis_that_does_not_answer(
    portal: Portal, url: str
) -> None:
    """What redis-py says of it holds pieces of the password."""
    options = portal.options | {"ckan.redis.url": url}
    middleware, told = MaintenanceMiddleware(application, Options(options)), []
    for _ in range(2):
        assert timed(middleware) < 5
    one = Maintenance(url, make_url(options["sqlalchemy.url"]))
    with pytest.raises(DbmanageError) as raised:
        one.status()
    with one.held("restore", "", told.append) as to:
        to(READ_ONLY)
        to(AWAY)
    assert len(told) == 1 and "Redis does not answer" in told[0]
    assert "s3cr" not in f"{raised.value}{told}"
