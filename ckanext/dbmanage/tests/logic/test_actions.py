"""The action API: what it does, for whom, and with what."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from ckanext.dbmanage.logic import action

from ..support.pages import READING
from ..support.portal import Portal
from ..support.site import (
    ORG_ADMIN,
    PASSWORD,
    SYSADMIN,
    TITLE,
    USER,
    Site,
    hosted,
)
from ..support.waiting import wait_until


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
    shared.clear()
    return shared


@pytest.fixture
def worked(site: Site) -> Site:
    """A site whose worker runs."""
    token = site.api_token()
    site.start_worker()
    wait_until(lambda: site.act("dbmanage_status", token)["worker"]["count"])
    site.token = token
    return site


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
    assert worked.ended(token, proof["id"])["state"] == "done"
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

    state = worked.rows
    undone = worked.act("dbmanage_undo", token, confirm=TITLE)
    assert "nothing to undo" in str(undone["error"])
    refused = worked.act("dbmanage_restore", token, id=backup["id"], confirm=TITLE)
    assert " db arm" in refused["error"]["message"]
    assert worked.rows == state
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
    assert len(names) == 22
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
        for field in ("id", "limit", "log", "parts", "kind", "level", "note", "file"):
            for odd in ([], {}, -1, 10**30, "\x00", "../../etc", "x" * 100_000, None):
                answer = site.web.ask(
                    f"/api/3/action/{name}", "POST", {field: odd},
                    Authorization=sysadmin,
                )  # fmt: skip
                assert answer.status < 500, (name, field, odd, answer.body)
                said = answer.json.get("error", {}).get(field)
                if said == unknown["error"]["nonsense"]:
                    break  # it has no such field, whatever is in there


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
        assert secret not in journal + log + str(values(site.in_redis))


def values(client: redis.Redis) -> list[Any]:
    """All that a Redis holds."""
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
