"""What Redis says is believed only where this site has signed it.

Everybody who can write to CKAN's Redis may change, take away and bring back all of it.
No CKAN is started: a Redis, a site's configuration, a directory for its backups.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from ckanext.dbmanage.engine.backup.downloads import ALL
from ckanext.dbmanage.engine.clock import id_stamp, now, stamp
from ckanext.dbmanage.engine.errors import DbmanageError, Refused
from ckanext.dbmanage.engine.redis import sealed
from ckanext.dbmanage.engine.redis.arming import DELETE, DOWNLOAD, Arming
from ckanext.dbmanage.engine.redis.client import key_of
from ckanext.dbmanage.engine.redis.links import Links
from ckanext.dbmanage.engine.redis.maintenance import Maintenance, understood
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.jobs.queue import Jobs
from ckanext.dbmanage.jobs.record import expired, is_lost
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.site import build_site
from ckanext.dbmanage.web.maintenance import MaintenanceMiddleware

ID = "20261101T030000Z"
#: what is no JSON of ours: nested, of other types, cut off, no text
ODD = (
    b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"null", b"7", b"\xff\xfe",
    b'{"level": "away"}', b'{"level": "away", "since": {"a": 1}}',
    b'{"level": "away", "token": [], "since": "2026-11-01T03:00:00Z"}',
    b'{"level": "away", "since": "2026-99-99T03:00:00Z"}', b"9" * 5000, b"NaN", b"-1",
    b"1e999", b'[{"phase": 1}]', b'[{"phase": "a", "seconds": "x"}]',
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "SECRET_KEY": "a secret of this site",
        "sqlalchemy.url": f"postgresql://ckan@db.test/{secrets.token_hex(6)}",
        "ckan.redis.url": f"redis://127.0.0.1:{os.environ['DBMANAGE_REDIS_PORT']}/2",
        "ckanext.dbmanage.repository": str(tmp_path / "backups"),
    }


@pytest.fixture
def site(settings: dict[str, str], tmp_path: Path) -> Site:
    (tmp_path / "backups").mkdir()
    return build_site(Options(settings))


@pytest.fixture
def server(settings: dict[str, str], site: Site) -> Iterator[Any]:
    client = redis.Redis.from_url(settings["ckan.redis.url"])
    yield client
    for key in client.scan_iter(key_of(site.databases["database"].url, "*")):
        client.delete(key)


def key(site: Site, name: str) -> str:
    return key_of(site.databases["database"].url, name)


# --------------------------------------------------------------------------- arming


def test_an_arming_that_is_used_up_does_not_come_back(site: Site, server: Any) -> None:
    arming = Arming(site)
    arming.arm(ID, 600, "an operator")
    saved = server.get(key(site, "armed"))
    assert arming.use(ID, DELETE) is None and arming.use("20261102T030000Z") is None
    assert arming.use(ID)
    # all that Redis knew of it is gone, and the arming is there again
    for each in server.scan_iter(key(site, "*")):
        server.delete(each)
    server.set(key(site, "armed"), saved)
    assert arming.armed() is None and arming.use(ID) is None
    # so does one that wrong passwords, or another arming, took back
    arming.arm(ID, 600, "an operator", DOWNLOAD)
    saved = server.get(key(site, "armed"))
    arming.off()
    server.set(key(site, "armed"), saved)
    assert arming.armed() is None
    arming.arm(ID, 600, "an operator", DOWNLOAD)
    saved = server.get(key(site, "armed"))
    arming.arm(ID, 600, "an operator", DELETE)
    server.set(key(site, "armed"), saved)
    assert arming.armed() is None


def test_an_arming_is_good_at_its_place_and_in_its_time_alone(
    site: Site, settings: dict[str, str], server: Any
) -> None:
    arming = Arming(site)
    used = arming.arm(ID, 600, "an operator") | {"token": "x"}
    saved = json.loads(server.get(key(site, "armed")))
    for change in (
        {"until": "2036-01-01T00:00:00Z"}, {"to": DELETE}, {"hmac": "0" * 64},
        {"backup": "20261102T030000Z"}, {"token": "0" * 16},
    ):  # fmt: skip
        server.set(key(site, "armed"), json.dumps(saved | change))
        assert arming.armed() is None, change
    # another portal with the same secret
    other = build_site(
        Options(settings | {"sqlalchemy.url": "postgresql://ckan@db.test/b"})
    )
    server.set(key(other, "armed"), json.dumps(saved), ex=5)
    assert Arming(other).armed() is None
    server.delete(key(other, "armed"))
    # given back for no longer than it was good, and not in place of another one
    server.delete(key(site, "armed"))
    assert arming.again(used) and (arming.armed() or {})["until"] == used["until"]
    assert not arming.again(used)
    assert not arming.again(used | {"until": "2020-01-01T00:00:00Z"})


def test_marks_of_what_is_used_go_when_nobody_could_use_it(site: Site) -> None:
    soon, late = (stamp(now() + timedelta(minutes=m)) for m in (-1500, 9))
    path = Path(site.repository)
    assert sealed.use(path, "aa", late) and not sealed.use(path, "aa", late)
    assert sealed.use(path, "bb", soon)
    assert sealed.use(path, "cc", late)
    marks = sorted(p.name for p in (path / "state" / "used").iterdir())
    assert marks == [f"{late}-aa", f"{late}-cc"]
    assert (path / "state" / "used" / marks[0]).stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="not a token"):
        sealed.use(path, "../../x", late)


def test_no_link_leads_the_marks_elsewhere(site: Site, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    kept = [others / ".profile", others / "1.txt", others / "2020-01-01T00:00:00Z-aa"]
    for file in kept:
        file.write_text("somebody's own")
    path, late = Path(site.repository), stamp(now() + timedelta(minutes=9))
    sealed.use(path, "aa", late)
    used = path / "state" / "used"
    used.rename(path / "state" / "before")
    used.symlink_to(others)
    with pytest.raises(DbmanageError, match="no link to another"):
        sealed.use(path, "bb", late)
    assert sorted(others.iterdir()) == sorted(kept)


def test_nothing_is_used_that_cannot_be_noted(site: Site, server: Any) -> None:
    """A disk that is full must not make one restore into many."""
    arming = Arming(site)
    arming.arm(ID, 600, "an operator")
    Path(site.repository, "state").write_text("in the way")
    with pytest.raises((OSError, DbmanageError)):
        arming.use(ID)


# ----------------------------------------------------------------------------- links


def test_a_link_is_what_was_signed_and_begins_once(site: Site, server: Any) -> None:
    links = Links(site)
    token = links.make("user-1", ID, ALL)["token"]
    (place,) = server.scan_iter(key(site, "link:*"))
    found = links.find(token, "user-1")
    assert found is not None and (found["backup"], found["file"]) == (ID, ALL)
    assert links.find(token, "user-2") is None and links.find(token, "") is None
    proof = links.begin(token, found)
    assert proof and links.begun(token, proof)
    assert not links.begun(token, "") and not links.begun(token, "x")
    server.delete(f"{place.decode()}:begun")
    assert links.begin(token, found) == "" and not links.begun(token, proof)
    # one that Redis alone has made, of a record that was signed for another token
    forged = key(site, "link:" + "0" * 64)
    server.set(forged, server.get(place))
    server.set(place, json.dumps(json.loads(server.get(place)) | {"file": "x"}))
    assert links.find(token, "user-1") is None
    for odd in ODD:
        server.set(place, odd)
        assert links.find(token, "user-1") is None
        server.set(f"{place.decode()}:begun", odd)
        assert not links.begun(token, proof)


# ------------------------------------------------------------------------------ jobs


def job(site: Site, server: Any, **change: Any) -> str:
    """A job that waits, as it stands in Redis."""
    id = f"{id_stamp()}-{secrets.token_hex(4)}"
    wanted = {
        "kind": "verify", "arguments": {"id": ID, "prove": False}, "until": "",
        "asked": stamp(), "armed": None, "user": "user-1", "address": "",
        "forwarded": "",
    }  # fmt: skip
    place = key(site, f"job:{id}")
    signed = sealed.seal(place, wanted | change, site.secrets)
    server.hset(place, mapping={"wanted": signed, "state": "queued"})
    server.lpush(key(site, "jobs"), id)
    return id


def test_a_job_that_was_rewritten_is_none(
    site: Site, settings: dict[str, str], server: Any
) -> None:
    jobs, id = Jobs(Options(settings)), job(site, server)
    assert jobs.show(id)["kind"] == jobs.list()[0]["kind"] == "verify"
    place = key(site, f"job:{id}")
    signed = json.loads(server.hget(place, "wanted"))
    for change in (
        {"kind": "restore", "arguments": {"id": ID, "parts": [], "note": ""}},
        {"until": "2036-01-01T00:00:00Z"},
        {"armed": {"backup": ID, "to": "restore", "until": "2036-01-01T00:00:00Z"}},
        {"user": "somebody-else"},
    ):  # fmt: skip
        server.hset(place, "wanted", json.dumps(signed | change))
        with pytest.raises(Refused, match="no job"):
            jobs.show(id)
        assert jobs.list() == []
    # nor is a record good under another job's id
    other = job(site, server)
    server.hset(key(site, f"job:{other}"), "wanted", json.dumps(signed))
    with pytest.raises(Refused, match="no job"):
        jobs.show(other)


def test_half_a_job_is_none_and_an_odd_one_harms_nobody(
    site: Site, settings: dict[str, str], server: Any
) -> None:
    jobs, id = Jobs(Options(settings)), job(site, server)
    sound, place = job(site, server), key(site, f"job:{id}")
    whole = server.hgetall(place)
    fields = (
        "wanted", "state", "begun", "ended", "phase", "phases", "done", "about",
        "phase_begun", "unit", "final", "error", "result", "lines",
    )  # fmt: skip
    for field in fields:
        for odd in ODD:
            server.hset(place, field, odd)
            server.rpush(f"{place}:log", odd)
            try:
                shown = jobs.show(id)
            except Refused:
                shown = None
            listed = {each["id"]: each for each in jobs.list()}
            assert sound in listed and (id in listed) == (shown is not None)
            if shown is not None:
                assert shown["result"] is None and json.dumps(shown)
                assert all("\n" not in line["text"] for line in shown["log"])
        server.delete(place, f"{place}:log")
        server.hset(place, mapping=whole)
    for gone in ("wanted", "state"):  # evicted, then written to by its worker
        server.hdel(place, gone)
        with pytest.raises(Refused, match="no job"):
            jobs.show(id)
        server.hset(place, mapping=whole)
    for kind in ("string", "list"):  # of another type
        server.delete(place)
        server.set(place, "x") if kind == "string" else server.rpush(place, "x")
        with pytest.raises(Refused, match="no job"):
            jobs.show(id)
        assert [each["id"] for each in jobs.list()] == [sound]
    server.delete(place)
    server.lpush(key(site, "jobs"), b"\xff\xfe\x00", b"../../x")
    assert [each["id"] for each in jobs.list()] == [sound]


# ----------------------------------------------------------------------- maintenance


def test_an_odd_maintenance_locks_nobody_out(
    site: Site, settings: dict[str, str], server: Any
) -> None:
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    let_in = MaintenanceMiddleware(lambda *_: [b"let in"], Options(settings))
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/dataset/new"}
    for odd in ODD:
        server.set(keeper.key, odd)
        assert understood(odd) is None and keeper.status() is None
        assert let_in(environ, lambda *_: None) == [b"let in"]
        with keeper.held("a test", "a test", print) as to:
            to("read-only")
            assert keeper.status()["held"]  # type: ignore[index]
            server.set(keeper.key, odd)
        keeper.by_hand("read-only", 60)
        status = keeper.status()
        assert status is not None and not status["held"]
    said = {"level": "away", "since": stamp(), "reason": "a\n\x1b[31mb"}
    server.set(keeper.key, json.dumps(said))
    assert (keeper.status() or {})["reason"] == "a ?[31mb"
    assert let_in(environ, lambda *_: None) != [b"let in"]


def test_an_odd_count_of_wrong_passwords_is_no_error(site: Site, server: Any) -> None:
    for odd in ODD:
        server.set(key(site, "armed:wrong"), odd)
        assert Arming(site).tries() >= 0


def test_what_a_wrong_clock_has_allowed_is_void_when_it_is_set(
    site: Site, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis keeps by its own clock, which was wrong too: for years."""
    arming, links = Arming(site), Links(site)
    with monkeypatch.context() as wrong:
        ahead = now() + timedelta(days=9000)
        for module in ("arming", "links"):
            place = f"ckanext.dbmanage.engine.redis.{module}"
            wrong.setattr(f"{place}.now", lambda: ahead)
            wrong.setattr(f"{place}.stamp", lambda moment=None: stamp(moment or ahead))
        used = arming.arm(ID, 600, "an operator", DELETE)
        link = links.make("user-1", ID, "all.tar")
    assert used["until"] > stamp(now() + timedelta(days=8000))
    assert arming.armed() is None and arming.use(ID, DELETE) is None
    assert not arming.again(used)
    assert links.find(link["token"], "user-1") is None
    # nor does a job of then wait for ever, or begin
    assert expired(used["until"]) and not expired(stamp(now() + timedelta(hours=1)))
    assert is_lost("queued", used["until"], 0, [None, None])
    assert not is_lost("queued", stamp(), 0, [None, None])
