"""What a stolen session can do: nothing that cannot be taken back, or hands out all.

A session, or an API token made with it, and even the password (which a session can set
anew) are not enough: an operator on the server has to arm it. All tests share a site.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.client import key_of
from ckanext.dbmanage.logic import action

from ..support.pages import BACKUPS, READING
from ..support.portal import Portal
from ..support.site import PASSWORD, SYSADMIN, TITLE, Session, Site, hosted
from ..support.waiting import wait_until

#: each of them is of a site that has backups
pytestmark = pytest.mark.usefixtures("old")


@pytest.fixture(scope="module")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosted(template, tmp_path_factory.mktemp("armed")) as made:
        made.token = made.api_token()
        yield made


@pytest.fixture(scope="module")
def old(site: Site) -> str:
    """A backup that is held and not the newest, so that nothing else keeps it."""
    held = site.portal.backup("--keep", "--only", "files").name
    site.portal.backup()
    return held


@pytest.fixture(scope="module")
def me(site: Site) -> Session:
    return site.session(SYSADMIN)


def there(site: Site) -> list[Path]:
    return sorted(p for p in site.portal.repository.iterdir() if p.name[0] == "2")


@pytest.mark.smoke
def test_backups_are_released_and_deleted_by_an_operator_s_word_alone(
    site: Site, me: Session, old: str
) -> None:
    before = there(site)
    path = f"{BACKUPS}{old}"
    # the API as much as the page, whoever holds the password
    for name, data in (
        ("backup_keep", {"release": True}), ("backup_delete", {}),
    ):  # fmt: skip
        refused = site.act(f"dbmanage_{name}", id=old, **data)
        assert not refused.get("success", True), refused
    answer = me.post(f"{path}/release", password=PASSWORD)
    assert answer.status_code == 400
    assert f" db arm {old} --to release" in answer.text
    assert "Somebody with a stolen password must not be able to do this" in answer.text
    me.post(f"{path}/keep", release="1")
    assert site.act("dbmanage_backup_show", id=old)["keep"] is True

    # armed is one thing, to one backup: no other, no restore, no download
    site.arm(old, "delete")
    refused = site.act("dbmanage_backup_keep", id=old, release=True)
    assert "--to release" in refused["error"]["message"]
    refused = site.act("dbmanage_restore", id=old, confirm=TITLE)
    assert refused["error"]["__type"] == "Authorization Error"
    refused = site.act("dbmanage_backup_download", id=old, file="all.tar")
    assert "--to download" in refused["error"]["message"]
    assert "it is held" in str(site.act("dbmanage_backup_delete", id=old)["error"])

    done = site.portal.module("arm", old, "--to", "release", "--for", "5m")
    assert f"{old}  armed to release until " in done.stdout
    page = me.ask("GET", f"{path}/release").text
    assert "on the server, for one time" in page and "<fieldset disabled>" not in page
    wrong = me.post(f"{path}/release", password="no")
    assert wrong.status_code == 400 and "not your password" in wrong.text
    # what could not be done gives the word back
    _, repository = site.portal.engine()
    with repository.lock("a test"):
        busy = me.post(f"{path}/release", password=PASSWORD)
        assert busy.status_code == 400 and "is in use: a test" in busy.text
    assert me.post(f"{path}/release", password=PASSWORD).status_code == 302
    assert site.act("dbmanage_backup_show", id=old)["keep"] is False
    assert there(site) == before
    answer = me.post(f"{path}/delete", password=PASSWORD)
    assert f" db arm {old} --to delete" in answer.text
    site.arm(old, "delete")
    assert me.post(f"{path}/delete", password=PASSWORD).status_code == 302
    assert [p.name for p in there(site)] == [p.name for p in before if p.name != old]
    whats = [(e.get("what"), e["event"], e.get("error")) for e in site.journal]
    for what in ("release", "delete", "download"):
        assert (what, "refused", "not armed") in whats
    undo = site.portal.module("arm", "undo", "--to", "delete", code=2)
    assert "there is no --to for undo" in undo.stderr


def link(site: Site, browser: Session, file: str) -> str:
    id = there(site)[-1].name
    site.arm(id, "download")
    page = browser.post(f"{BACKUPS}{id}/download", file=file, password=PASSWORD).text
    found = re.search(rf'{BACKUPS}file/[^"]+', page)
    assert found, page
    return found[0]


def test_a_backup_is_handed_out_by_an_operator_s_word_alone(
    site: Site, me: Session
) -> None:
    id = there(site)[-1].name
    refused = site.act("dbmanage_backup_download", id=id, file="all.tar")
    assert f" db arm {id} --to download" in refused["error"]["message"]
    page = me.ask("GET", f"{BACKUPS}{id}/download").text
    assert "This is off on the web" in page and "<fieldset disabled>" in page
    answer = me.post(f"{BACKUPS}{id}/download", file="all.tar", password=PASSWORD)
    assert answer.status_code == 400 and "/file/" not in answer.text
    site.arm(id, "download")
    made = [
        site.act("dbmanage_backup_download", id=id, file="all.tar") for _ in range(2)
    ]
    assert "url" in made[0] and made[1]["error"]["__type"] == "Authorization Error"


def test_a_used_link_is_taken_up_by_whoever_began_it(site: Site, me: Session) -> None:
    path = link(site, me, "database.list")
    thief = site.session()  # with the session of a moment ago
    thief.cookies.update(me.cookies)
    rest = {"Range": "bytes=1-"}
    whole = me.ask("GET", path)
    assert whole.status_code == 200
    etag = {"If-Range": whole.headers["ETag"]}
    for headers in (rest, rest | etag, {"Range": "bytes=0-"}, {"Range": "bytes=-9"}):
        assert thief.ask("GET", path, headers=headers).status_code == 410, headers
    assert me.ask("GET", path, headers=rest).content == whole.content[1:]
    assert me.ask("GET", path).status_code == 410
    # a cookie of another link is none of this one
    other = link(site, me, "manifest.json")
    assert me.ask("GET", other).status_code == 200
    thief.cookies.set(cookie(path), me.cookies[cookie(other)])
    assert thief.ask("GET", path, headers=rest).status_code == 410


def cookie(path: str) -> str:
    """The name of a link's cookie."""
    token = path.split("/file/")[1].split("/")[0]
    return f"dbmanage-{hashlib.sha256(token.encode()).hexdigest()[:16]}"


@pytest.mark.smoke
def test_what_changes_something_is_no_head(site: Site, me: Session) -> None:
    """CKAN refuses it by GET; by HEAD no form's token would be looked at."""
    id, journal = there(site)[-1].name, len(site.journal)
    for name in sorted(set(action.functions()) - READING):
        path = (
            f"/api/3/action/{name}?id={id}&level=read-only&kind=datasets&file=all.tar"
        )
        for headers in ({}, {"Authorization": site.token}, me.token()):
            answer = me.ask("HEAD", path, headers=headers)
            assert answer.status_code == 403, (name, headers, answer.status_code)
            assert me.ask("GET", path, headers=headers).status_code in (400, 403), name
    assert site.act("dbmanage_job_list") == [] and len(site.journal) == journal
    assert site.act("dbmanage_maintenance_show") == {"level": "off"}


def test_a_queued_job_that_was_rewritten_is_not_done(site: Site) -> None:
    """Who writes to Redis makes a restore out of a verification, or repeats one."""
    id, before = there(site)[-1].name, site.portal.oids()
    client = redis.Redis.from_url(site.portal.options["ckan.redis.url"])
    url = make_url(site.portal.options["sqlalchemy.url"])
    worker = site.paused_worker()
    try:
        job = site.act("dbmanage_backup_verify", id=id)
        place = key_of(url, f"job:{job['id']}")
        wanted = json.loads(client.hget(place, "wanted") or b"")
        wanted |= {"kind": "restore", "arguments": {"id": id, "parts": [], "note": ""}}
        client.hset(place, "wanted", json.dumps(wanted))
        assert site.act("dbmanage_job_list") == []
        page = site.session(SYSADMIN).ask("GET", BACKUPS)
        assert page.status_code == 200 and job["id"] not in page.text
        # and one that ran is put back into the queue as it was
        site.arm(id)
        once = site.act("dbmanage_restore", id=id, parts=["files"], confirm=TITLE)
        saved = client.hgetall(key_of(url, f"job:{once['id']}"))
        queued = client.hgetall(f"rq:job:{once['id']}")
        worker.send_signal(signal.SIGCONT)
        assert site.ended(site.token, once["id"])["state"] == "done"
        switched = [e for e in site.journal if e["event"] == "switched"]
        client.delete(key_of(url, f"job:{once['id']}"))
        client.hset(key_of(url, f"job:{once['id']}"), mapping=saved)
        client.hset(f"rq:job:{once['id']}", mapping=queued)
        client.rpush(f"rq:queue:{queued[b'origin'].decode()}", once["id"])
        again = site.ended(site.token, once["id"])
    finally:
        site.stop()
    assert again["state"] == "failed" and "begun before" in again["error"]
    assert [e for e in site.journal if e["event"] == "switched"] == switched
    assert len(switched) == 1 and site.portal.oids() == before
    assert site.act("dbmanage_status")["armed"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
def test_a_web_process_of_root_s_writes_nowhere_that_is_not_root_s(site: Site) -> None:
    before = site.journal
    os.chown(site.portal.storage, 1234, 1234)
    try:
        refused = site.act("dbmanage_backup_create")
        # what only reads goes on
        assert site.act("dbmanage_status")["count"]
    finally:
        os.chown(site.portal.storage, 0, 0)
    assert "sudo -u '#1234' " in refused["error"]["message"][0]
    assert site.journal == before


def test_half_of_what_redis_knows_is_no_error(site: Site, me: Session) -> None:
    """As when Redis is full, and lets go of keys that are still written to."""
    client = redis.Redis.from_url(site.portal.options["ckan.redis.url"])
    url = make_url(site.portal.options["sqlalchemy.url"])
    site.act("dbmanage_publish")
    for key in client.scan_iter(key_of(url, "*")):
        client.delete(key)
    id = f"20261101T030000Z-{secrets.token_hex(4)}"
    client.lpush(key_of(url, "jobs"), id)
    client.hset(key_of(url, f"job:{id}"), mapping={"error": "x", "done": "y"})
    client.set(key_of(url, "armed"), b"[" * 4000)
    client.set(key_of(url), b'{"level": ' * 400)
    try:
        for path in (BACKUPS, "/", f"{BACKUPS}{there(site)[-1].name}/restore"):
            assert me.ask("GET", path).status_code == 200
        assert me.ask("GET", f"{BACKUPS}job/{id}").status_code == 404
        wait_until(lambda: site.act("dbmanage_status")["jobs"] == [])
    finally:
        client.delete(key_of(url), key_of(url, "armed"))
