"""The action API, its jobs, arming and downloads, on a running portal."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.client import key_of
from ckanext.dbmanage.logic import action

from ..support import forked
from ..support.cluster import PG_BIN
from ..support.portal import Portal
from ..support.site import (
    ORG_ADMIN,
    PASSWORD,
    SYSADMIN,
    TITLE,
    USER,
    Session,
    Site,
    hosted,
    slowed,
)
from ..support.waiting import wait_until
from ..support.web import Web

READING = {
    "dbmanage_status", "dbmanage_backup_list", "dbmanage_backup_show",
    "dbmanage_job_show", "dbmanage_job_list", "dbmanage_maintenance_show",
    "dbmanage_journal",
}  # fmt: skip


@pytest.fixture
def site(portal: Portal, serve: Callable[[Portal], Web]) -> Iterator[Site]:
    made = Site(portal, serve)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site without a worker, for what neither switches nor counts backups."""
    with hosted(template, tmp_path_factory.mktemp("actions")) as made:
        made.token = made.api_token()
        yield made


@pytest.fixture
def quiet(shared: Site) -> Site:
    """The same, with nothing in Redis: no job and no wrong password."""
    client = redis.Redis.from_url(shared.portal.options["ckan.redis.url"])
    queue = client.scan_iter(f"rq:queue:*{shared.queue}")
    for key in (*keys(shared.portal), *queue):
        client.delete(key)
    return shared


@pytest.fixture
def worked(site: Site) -> Site:
    """A site whose worker runs."""
    token = site.api_token()
    site.start_worker()
    wait_until(lambda: site.act("dbmanage_status", token)["worker"]["count"], 60)
    site.token = token
    return site


def rows(portal: Portal) -> dict[str, Any]:
    """All there is, but for when somebody was seen last."""
    seen = ("database:api_token", "database:user")
    return {k: v for k, v in portal.state().items() if k not in seen}


def keys(portal: Portal) -> list[bytes]:
    client = redis.Redis.from_url(portal.options["ckan.redis.url"])
    pattern = key_of(make_url(portal.options["sqlalchemy.url"]), "*")
    return sorted(client.scan_iter(pattern))


@pytest.mark.smoke
def test_a_backup_by_the_api(worked: Site) -> None:
    token, before = worked.token, worked.portal.copies()
    job = worked.act("dbmanage_backup_create", token, note="before import", keep=True)
    assert job["state"] in ("queued", "running") and job["user"] == SYSADMIN
    done = worked.ended(token, job["id"])
    assert done["state"] == "done", done
    phases = [f"{e['phase']} {e['part']}".strip() for e in done["phases"]]
    assert phases == ["dump", "uploads", "verify files", "verify"]
    (backup,) = worked.act("dbmanage_backup_list", token)
    assert backup["id"] == done["result"]["backup"] and backup["keep"]
    assert backup["note"] == "before import"
    assert sum(backup["sizes"].values()) <= backup["bytes"]
    lines = (worked.portal.repository / "journal.jsonl").read_text().splitlines()
    journal = [json.loads(line) for line in lines]
    asked = next(e for e in journal if e["event"] == "asked")
    taken = next(e for e in journal if e["event"] == "done")
    assert asked["user"] == taken["user"] == SYSADMIN
    assert asked["address"] == taken["address"] == "127.0.0.1"

    proof = worked.act("dbmanage_backup_verify", token, id="latest", prove=True)
    assert worked.ended(token, proof["id"], 120)["state"] == "done"
    shown = worked.act("dbmanage_backup_show", token, id="latest", compare=True)
    assert shown["state"] == "proven" and shown["fits"] == ""
    assert "held" in shown["stays"]
    # the job's own token was used since: nothing else differs
    assert {row["table"] for row in shown["differing"]} <= {"public.api_token"}
    worked.portal.sql("DELETE FROM resource")
    shown = worked.act("dbmanage_backup_show", token, id="latest", compare=True)
    found = {row["table"]: (row["then"], row["now"]) for row in shown["differing"]}
    assert found["public.resource"] == (45, 0)
    assert worked.portal.copies() == before

    refused = worked.act("dbmanage_backup_delete", token, id=backup["id"])
    assert "held" in str(refused["error"])
    worked.arm(backup["id"], "release")
    released = worked.act("dbmanage_backup_keep", token, id=backup["id"], release=True)
    assert released == {"id": backup["id"], "keep": False}
    refused = worked.act("dbmanage_backup_delete", token, id=backup["id"])
    assert "newest proven" in str(refused["error"]["newest"])
    second = worked.act("dbmanage_backup_create", token, parts=["database"])
    id = worked.ended(token, second["id"])["result"]["backup"]
    worked.arm(id, "delete")
    assert worked.act("dbmanage_backup_delete", token, id=id) == {"id": id}
    assert [e["id"] for e in worked.act("dbmanage_backup_list", token)] == [
        backup["id"]
    ]

    state = rows(worked.portal)
    undone = worked.act("dbmanage_undo", token, confirm=TITLE)
    assert "nothing to undo" in str(undone["error"])
    refused = worked.act("dbmanage_restore", token, id=backup["id"], confirm=TITLE)
    assert " db arm" in refused["error"]["message"]
    assert rows(worked.portal) == state
    worked.portal.db("arm", backup["id"])
    wrong = worked.act("dbmanage_restore", token, id=backup["id"], confirm="nonsense")
    assert "confirm" in wrong["error"]
    job = worked.act(
        "dbmanage_restore", token, id=backup["id"], confirm=TITLE, note="an error"
    )
    assert worked.ended(token, job["id"])["state"] == "done"
    assert worked.portal.sql("SELECT count(*) FROM resource") == [(45,)]
    status = worked.act("dbmanage_status", token)
    assert status["undo"]["user"] == SYSADMIN and status["armed"] is None
    assert (status["undo"]["way"], status["undo"]["of"]) == ("undo", "restore")
    # once: the second needs another word of the operator
    again = worked.act("dbmanage_restore", token, id=backup["id"], confirm=TITLE)
    assert again["error"]["__type"] == "Authorization Error"
    worked.portal.db("arm", "undo", "--for", "5m")
    job = worked.act("dbmanage_undo", token, confirm=TITLE.upper())
    assert worked.ended(token, job["id"])["state"] == "done"
    assert worked.portal.sql("SELECT count(*) FROM resource") == [(0,)]
    status = worked.act("dbmanage_status", token, undo=True)
    assert (status["undo"]["way"], status["undo"]["changed"]) == ("redo", 0)
    assert status["undo"]["source"] == f"backup {backup['id']}"


def test_who_may_call_the_actions_and_with_what(quiet: Site) -> None:
    site, sysadmin = quiet, quiet.token
    others = ["", site.api_token(USER), site.api_token(ORG_ADMIN)]
    names = sorted(action.functions())
    assert len(names) == 18
    for name in names:
        for token in others:
            answer = site.web.ask(
                f"/api/3/action/{name}", "POST", {"id": "x"}, Authorization=token
            )
            assert answer.status == 403, (name, answer.body)
        reads = site.web.ask(f"/api/3/action/{name}", Authorization=sysadmin)
        assert (reads.status != 400 or "POST" not in reads.body) == (name in READING)
        unknown = site.act(name, sysadmin, nonsense=1)
        assert unknown["error"]["nonsense"], name
        for odd in ([], {}, -1, 10**30, "\x00", "../../etc", "x" * 100_000, None):
            fields = ("id", "limit", "log", "parts", "kind", "level", "note", "file")
            for field in fields:
                answer = site.web.ask(
                    f"/api/3/action/{name}", "POST", {field: odd},
                    Authorization=sysadmin,
                )  # fmt: skip
                assert answer.status < 500, (name, field, odd, answer.body)


def test_a_fresh_site_is_not_restored_from_the_web(site: Site) -> None:
    """An empty repository, no dataset, a sysadmin's token: still an operator's word."""
    site.portal.backup()
    token = site.api_token()
    for options in ({}, {"ckanext.dbmanage.web_restore": "never"}):
        site.portal.write(**options)
        refused = site.act("dbmanage_restore", token, id="latest", confirm=TITLE)
        assert refused["error"]["__type"] == "Authorization Error"
    assert "never" in site.portal.db("arm", "latest", code=1).stderr
    assert site.act("dbmanage_job_list", token) == []


def test_wrong_passwords_take_the_arming_back(quiet: Site) -> None:
    site, id = quiet, quiet.portal.backup().name
    site.portal.db("arm", id)
    browser = site.session(SYSADMIN)
    path = f"/ckan-admin/backups/{id}/restore"
    for number in range(4):
        answer = browser.post(path, confirm=TITLE, password=f"guess {number}")
        assert answer.status_code == 400 and "not your password" in answer.text
    answer = browser.post(path, confirm=TITLE, password=PASSWORD)
    assert answer.status_code == 400 and " db arm" in answer.text
    for _ in range(6):
        browser.post(
            f"/ckan-admin/backups/{id}/download", file="all.tar", password="no"
        )
    answer = browser.post(
        f"/ckan-admin/backups/{id}/download", file="all.tar", password=PASSWORD
    )
    assert "in an hour" in answer.text
    journal = (site.portal.repository / "journal.jsonl").read_text()
    assert "refused" in journal
    log = site.web.log.read_text()
    for secret in (PASSWORD, "guess"):
        assert secret not in journal + log + str(values(site.portal))


def values(portal: Portal) -> list[Any]:
    """All that Redis holds."""
    client = redis.Redis.from_url(portal.options["ckan.redis.url"])
    found: list[Any] = []
    for key in client.scan_iter("*"):
        kind = client.type(key)
        found.append(key)
        if kind == b"string":
            found.append(client.get(key))
        elif kind == b"hash":
            found.append(client.hgetall(key))
        elif kind == b"list":
            found.append(client.lrange(key, 0, -1))
    return found


def test_two_clicks_make_one_job(quiet: Site) -> None:
    site, token = quiet, quiet.token
    found: list[str] = []

    def click() -> None:
        known = site.act("dbmanage_backup_create", token, note="twice")
        found.append(known.get("id") or str(known))

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1, found
    other = site.act("dbmanage_publish", token)
    status = site.act("dbmanage_status", token)
    # what was never backed up weighs more than that nobody works
    assert status["headline"]["colour"] in ("red", "amber")
    assert (status["worker"]["count"], status["worker"]["waiting"]) == (0, 2)
    for id in (found[0], other["id"]):
        assert site.act("dbmanage_job_cancel", token, id=id)["state"] == "cancelled"
    assert site.act("dbmanage_status", token)["worker"]["waiting"] == 0
    third = site.act("dbmanage_backup_create", token, note="twice")
    assert third["id"] != found[0]
    refused = site.act("dbmanage_job_cancel", token, id=found[0])
    assert "has ended already" in str(refused["error"])


def test_cancel_leaves_nothing_behind(site: Site) -> None:
    token, portal = site.api_token(), site.portal
    id = portal.backup().name
    slowed(portal)
    site.start_worker()
    before = sorted(p.name for p in portal.repository.iterdir())
    there, rows_before = portal.copies(), rows(portal)
    portal.db("arm", id)
    for name, data, phase in (
        ("dbmanage_backup_create", {"note": "later"}, "dump"),
        ("dbmanage_backup_verify", {"id": id, "prove": True}, "load"),
        ("dbmanage_restore", {"id": id, "confirm": TITLE}, "load"),
    ):
        job = site.act(name, token, **data)

        def under_way(id: str = job["id"], phase: str = phase) -> bool:
            return site.act("dbmanage_job_show", token, id=id)["phase"] == phase

        wait_until(under_way, 60)
        time.sleep(0.5)
        asked = site.act("dbmanage_job_cancel", token, id=job["id"])
        assert asked.get("state") == "running", asked
        done = site.ended(token, job["id"])
        assert done["state"] == "cancelled", done
        assert sorted(p.name for p in portal.repository.iterdir()) == before
        assert portal.copies() == there
    assert rows(portal) == rows_before
    assert site.act("dbmanage_backup_show", token, id=id)["state"] == "verified"
    status = site.act("dbmanage_status", token)
    assert status["failed"] is None and not status["half_way"]
    left = [k for k in keys(portal) if b"once:" in k or b":alive" in k]
    assert not left


def test_a_worker_that_dies_is_shown_and_locks_nobody_out(site: Site) -> None:
    worked, token = site, site.api_token()
    slowed(site.portal)
    site.start_worker()
    job = worked.act("dbmanage_backup_create", token)
    wait_until(lambda: worked.act("dbmanage_job_show", token, id=job["id"])["phase"])
    assert worked.worker is not None
    pid = worked.worker.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)
    worked.worker.wait()

    def lost() -> bool:
        shown = worked.act("dbmanage_job_show", token, id=job["id"])
        return shown["state"] == "lost"

    wait_until(lost, 30)
    status = worked.act("dbmanage_status", token)
    assert status["worker"]["count"] == 0 and status["jobs"] == []
    page = worked.session(SYSADMIN).ask("GET", "/ckan-admin/backups/").text
    assert "No worker runs." in page and status["worker"]["command"] in page
    worked.portal.write(**{"ckanext.dbmanage.pg_bin": str(PG_BIN)})
    assert worked.portal.backup().is_dir()
    assert not list(worked.portal.repository.glob(".*.partial"))
    worked.start_worker()
    again = worked.act("dbmanage_backup_create", token)
    assert again["id"] != job["id"]
    assert worked.ended(token, again["id"])["state"] == "done"


def test_portals_on_one_redis_do_not_mix(
    make_portal: Callable[..., Portal], serve: Callable[[Portal], Web]
) -> None:
    sites = [Site(make_portal({"ckan.site_id": "default"}), serve) for _ in range(2)]
    tokens = [site.api_token() for site in sites]
    jobs = [
        site.act("dbmanage_backup_create", token)
        for site, token in zip(sites, tokens, strict=True)
    ]
    commands = [
        site.act("dbmanage_status", token)["worker"]["command"]
        for site, token in zip(sites, tokens, strict=True)
    ]
    assert commands[0] != commands[1]
    try:
        sites[0].start_worker()
        assert sites[0].ended(tokens[0], jobs[0]["id"])["state"] == "done"
        (other,) = sites[1].act("dbmanage_job_list", tokens[1])
        assert other["id"] == jobs[1]["id"] and other["state"] == "queued"
        assert sites[1].act("dbmanage_status", tokens[1])["worker"]["count"] == 0
        missing = sites[1].act("dbmanage_job_show", tokens[1], id=jobs[0]["id"])
        assert not missing["success"]
    finally:
        sites[0].stop()


def link(site: Site, browser: Session, id: str, file: str) -> str:
    site.arm(id, "download")
    answer = browser.post(
        f"/ckan-admin/backups/{id}/download", file=file, password=PASSWORD
    )
    assert answer.status_code == 200, answer.text
    page = answer.text
    return page.split("/ckan-admin/backups/file/")[1].split('"')[0]


def test_downloads_are_for_one_user_once_and_can_be_resumed(
    site: Site, tmp_path: Path
) -> None:
    backup = site.portal.backup()
    browser, other = site.session(SYSADMIN), site.session()
    site.portal.sql("UPDATE \"user\" SET sysadmin = true WHERE name = 'user-4'")
    other.sign_in("user-4")
    path = "/ckan-admin/backups/file/" + link(
        site, browser, backup.name, "database.dump.zst"
    )
    assert other.ask("GET", path).status_code == 404
    assert site.session().ask("GET", path).status_code == 302
    assert browser.ask("HEAD", path).status_code == 200
    content = (backup / "database.dump.zst").read_bytes()
    # what sends nothing does not use it up
    there = browser.ask("GET", path, headers={"If-None-Match": "*"})
    assert (there.status_code, there.content) == (304, b"")
    beyond = browser.ask("GET", path, headers={"Range": f"bytes={10**12}-"})
    assert beyond.status_code == 416
    # cut after a while, taken up again, not begun again
    first = browser.ask("GET", path, headers={"Range": "bytes=0-999"})
    assert first.status_code == 206 and first.content == content[:1000]
    assert first.headers["Content-Disposition"].startswith("attachment")
    assert first.headers["Cache-Control"] == "no-store, private"
    rest = browser.ask("GET", path, headers={"Range": "bytes=1000-"})
    assert rest.status_code == 206 and first.content + rest.content == content
    assert browser.ask("GET", path).status_code == 410
    assert browser.ask("GET", path, headers={"Range": "bytes=0-"}).status_code == 410

    # the whole backup is a tar that the command line restores
    path = "/ckan-admin/backups/file/" + link(site, browser, backup.name, "all.tar")
    whole = browser.ask("GET", path)
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    path = "/ckan-admin/backups/file/" + link(site, browser, backup.name, "all.tar")
    pieces = [browser.ask("GET", path, headers={"Range": "bytes=0-0"}).content]
    for begin in range(1, len(whole.content), 70_001):
        asked = {"Range": f"bytes={begin}-{begin + 70_000}"}
        pieces.append(browser.ask("GET", path, headers=asked).content)
    assert hashlib.sha256(b"".join(pieces)).digest() == (
        hashlib.sha256(whole.content).digest()
    )
    (tmp_path / "all.tar").write_bytes(whole.content)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", "../all.tar"], cwd=tmp_path / "out", check=True)
    unpacked = tmp_path / "out" / backup.name
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=unpacked, check=True,
                   capture_output=True)  # fmt: skip
    before = rows(site.portal)
    site.portal.damage()
    site.portal.module("restore", str(unpacked), "--yes")
    assert rows(site.portal) == before

    # with a token, by the address that visitors see
    token = site.api_token()
    site.arm(backup.name, "download")
    made = site.act(
        "dbmanage_backup_download", token, id=backup.name, file="manifest.json"
    )
    base = site.portal.options["ckan.site_url"]
    assert made["url"].startswith(f"{base}/ckan-admin/backups/file/")
    path = made["url"].removeprefix(base)
    answer = site.session().ask("GET", path, headers={"Authorization": token})
    assert answer.content == (backup / "manifest.json").read_bytes()

    for file in ("../../journal.jsonl", "/etc/passwd", "state", "%2e%2e/x", ""):
        answer = browser.post(
            f"/ckan-admin/backups/{backup.name}/download", file=file, password=PASSWORD
        )
        assert answer.status_code == 400, file
    wrong = browser.post(
        f"/ckan-admin/backups/{backup.name}/download", file="all.tar", password="no"
    )
    assert wrong.status_code == 400 and "not your password" in wrong.text


def test_a_hostile_backup_is_shown_and_harms_nobody(quiet: Site) -> None:
    site, backup = quiet, quiet.portal.backup()
    foreign = backup.parent / "20200101T000000Z"
    subprocess.run(["cp", "-a", backup, foreign], check=True)
    manifest = json.loads((foreign / "manifest.json").read_text())
    script = "<script>alert(1)</script>"
    manifest |= {"note": script, "reason": script, "created": script, "seconds": script}
    manifest["contents"] = {"../../../etc/passwd": {"bytes": script, "sha256": script}}
    (foreign / "manifest.json").write_text(json.dumps(manifest))
    garbage = backup.parent / "20200102T000000Z"
    garbage.mkdir()
    (garbage / "manifest.json").write_bytes(b"\xff{")
    (backup.parent / "20200103T000000Z").mkdir()
    browser = site.session(SYSADMIN)
    for path in ("", foreign.name, garbage.name, f"{foreign.name}/restore",
                 f"{foreign.name}/download", f"{garbage.name}/delete", "journal"):  # fmt: skip
        answer = browser.ask("GET", f"/ckan-admin/backups/{path}")
        assert answer.status_code == 200, (path, answer.text[-3000:])
        assert script not in answer.text and "/etc/passwd" not in answer.text
    page = browser.ask("GET", f"/ckan-admin/backups/{foreign.name}/restore").text
    assert "not signed by this site" in page


ROUTES = """
import json, sys
from ckan.cli import load_config
from ckan.config.middleware import make_app
app = make_app(load_config(sys.argv[1]))._wsgi_app
def ours(endpoint):
    module = getattr(app.view_functions[endpoint], "__module__", "")
    return endpoint.startswith("dbmanage") or module.startswith("ckanext.dbmanage")
found = [[rule.rule, sorted(rule.methods), sorted(rule.arguments), rule.endpoint]
         for rule in app.url_map.iter_rules() if ours(rule.endpoint)]
print("ROUTES", json.dumps(found))
"""

#: what anybody may see: the page of the public dumps, and nothing else
PUBLIC = {"dbmanage.dumps": 200, "dbmanage.dumps_slash": 308}


@pytest.mark.smoke
def test_every_route_is_guarded(quiet: Site) -> None:
    site = quiet
    command = [sys.executable, "-c", ROUTES, site.portal.ini]
    done = forked.run(command, text=True, env=site.portal.environment)
    routes = json.loads(done.stdout.split("ROUTES", 1)[1])
    endpoints = {endpoint for *_, endpoint in routes}
    assert set(PUBLIC) < endpoints
    assert len(endpoints) >= 21, endpoints
    id = site.portal.backup().name
    people = {name: site.session(name) for name in ("", USER, ORG_ADMIN, SYSADMIN)}
    tokens = {name: browser.token() for name, browser in people.items()}
    asked = site.act("dbmanage_publish")
    for rule, methods, arguments, endpoint in routes:
        if endpoint in PUBLIC:
            answer = people[""].ask("GET", rule)
            assert answer.status_code == PUBLIC[endpoint] and id not in answer.text
            assert people[""].ask("POST", rule).status_code == 405
            continue
        assert "backups" in rule, rule
        value = {
            "id": asked["id"] if "/job/" in rule else id,
            "token": "x",
            "name": "y",
        }
        path = rule
        for argument in arguments:
            path = path.replace(f"<{argument}>", value[argument])
        for name, browser in people.items():
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
                for token in (False, True) if method == "POST" else (False,):
                    data = tokens[name] if token else {}
                    answer = browser.ask(method, path, data=data or None)
                    where = (method, path, name, token, answer.status_code)
                    if name != SYSADMIN:
                        login = answer.headers.get("Location", "").split("?")[0]
                        there = (403,) if method in methods else (403, 404, 405)
                        assert answer.status_code in there or (
                            name == "" and login.endswith("/user/login")
                        ), where
                        assert id in path or id not in answer.text, where
                    elif method == "POST" and not token and "POST" in methods:
                        assert answer.status_code == 400, where  # no CSRF token
                    else:
                        assert answer.status_code < 500, (where, answer.text[-2000:])
                        assert answer.status_code != 403, where
                    if method in methods and name == SYSADMIN:
                        assert answer.headers["X-Frame-Options"] == "DENY", where
                        assert answer.headers["Cache-Control"] == "no-store, private"
