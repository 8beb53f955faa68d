"""What becomes of a job when its worker, PostgreSQL or time does not play along.

All tests share one site and one worker; each leaves them as they were.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
import rq

from ckanext.dbmanage.engine.clock import parse_stamp

from ..support import forked
from ..support.cluster import BIN, query
from ..support.portal import Portal
from ..support.site import SYSADMIN, TITLE, Site, hosted
from ..support.waiting import wait_until

#: a worker that waits for a job that hangs not as long as one of a portal
HASTY = """
import sys
from ckanext.dbmanage.jobs import worker
worker._PATIENCE = 3.0
from ckan.cli.cli import ckan
sys.argv[0] = "ckan"
ckan()
"""


@pytest.fixture(scope="module")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosted(template, tmp_path_factory.mktemp("jobs")) as made:
        made.token = made.api_token()
        made.start_worker([sys.executable, "-c", HASTY])
        wait_until(lambda: made.act("dbmanage_status")["worker"]["count"])
        yield made


@pytest.fixture(scope="module")
def backup(site: Site) -> str:
    return site.portal.backup().name


@pytest.fixture
def asleep(site: Site) -> Iterator[None]:
    """The worker is there and takes nothing, until it is awake."""
    assert site.worker is not None
    site.worker.send_signal(signal.SIGSTOP)
    yield
    site.worker.send_signal(signal.SIGCONT)


def wake(site: Site, id: str) -> dict[str, Any]:
    """The job once the worker has come to it."""
    assert site.worker is not None
    site.worker.send_signal(signal.SIGCONT)
    return site.ended(site.token, id)


def test_a_restore_is_not_made_later_than_it_was_armed_for(
    site: Site, backup: str, asleep: None
) -> None:
    before, job = site.portal.oids(), {}
    for seconds in (8, 30, 120):  # as long as this machine needs to ask within it
        site.portal.db("arm", backup, "--for", f"{seconds}s")
        job = site.act("dbmanage_restore", id=backup, confirm=TITLE)
        if job.get("until"):
            break
    assert job["state"] == "queued", job
    wait_until(lambda: site.act("dbmanage_job_show", id=job["id"])["state"] == "failed")
    # so it is said while no worker has looked; and the worker looks too
    status = site.act("dbmanage_status")
    assert status["jobs"] == [] and "until" in status["ended"]["error"]
    done = wake(site, job["id"])
    wait_until(lambda: site.act("dbmanage_job_show", id=job["id"])["ended"])
    assert done["state"] == "failed" and "confirm it anew" in done["error"]
    assert site.portal.oids() == before
    assert site.act("dbmanage_status")["armed"] is None


def test_a_restore_that_was_refused_at_its_turn_stays_armed(
    site: Site, backup: str, asleep: None
) -> None:
    site.portal.db("arm", backup)
    armed = site.act("dbmanage_status")["armed"]
    job = site.act("dbmanage_restore", id=backup, confirm=TITLE)
    assert site.act("dbmanage_status")["armed"] is None
    _, repository = site.portal.engine()
    with repository.lock("a test"):
        done = wake(site, job["id"])
    assert done["state"] == "failed" and "is in use: a test" in done["error"]
    assert "armed again" in done["log"][-2]["text"]
    assert site.act("dbmanage_status")["armed"] == armed
    # one restore, no more: this one is cancelled, which is no failure
    site.worker.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    job = site.act("dbmanage_restore", id=backup, confirm=TITLE)
    assert site.act("dbmanage_job_cancel", id=job["id"])["state"] == "cancelled"
    assert site.act("dbmanage_status")["armed"] is None


def test_an_undo_takes_back_what_was_shown_and_nothing_else(
    site: Site, backup: str, asleep: None
) -> None:
    site.portal.module("restore", backup, "--yes", "--no-backup")
    shown = site.act("dbmanage_status")["undo"]
    site.portal.db("arm", backup)
    refused = site.act("dbmanage_undo", confirm=TITLE, operation=shown["operation"])
    assert refused["error"]["__type"] == "Authorization Error"  # armed is a restore
    site.portal.db("arm", "undo")
    refused = site.act("dbmanage_restore", id=backup, confirm=TITLE)
    assert refused["error"]["__type"] == "Authorization Error"  # and the other way
    job = site.act("dbmanage_undo", confirm=TITLE, operation=shown["operation"])
    assert job["state"] == "queued", job
    # somebody restores on the command line before the worker comes to it
    site.portal.module("restore", backup, "--yes", "--no-backup")
    live = site.portal.oids()
    done = wake(site, job["id"])
    assert done["state"] == "failed" and "another switch was made" in done["error"]
    assert site.portal.oids() == live
    refused = site.act("dbmanage_undo", confirm=TITLE, operation=shown["operation"])
    assert "Another switch" in str(refused["error"]["operation"])


def test_why_is_in_the_journal_and_on_the_page(site: Site, backup: str) -> None:
    typed, asked = "a bulk import went <wrong>", "it was right after all"
    site.portal.module(
        "restore",
        backup,
        "--only",
        "datastore",
        "--no-backup",
        "--yes",
        "--note",
        typed,
    )
    site.portal.db("arm", "undo", "--note", "for Ana")
    job = site.act("dbmanage_undo", confirm=TITLE, note=asked)
    done = site.ended(site.token, job["id"])
    assert done["state"] == "done"
    found = {(e.get("what"), e["event"]): e.get("note") for e in site.journal}
    for what, event, note in (
        ("restore", "begin", typed), ("restore", "done", typed), ("arm", "done", "for Ana"),
        ("undo", "asked", asked), ("undo", "done", asked),
    ):  # fmt: skip
        assert found[what, event] == note
    page = site.session(SYSADMIN).ask("GET", "/ckan-admin/backups/journal").text
    assert '<q dir="auto">a bulk import went &lt;wrong&gt;</q>' in page
    assert asked in page and "for Ana" in page
    # who watches it is told what visitors have waited, and what to do
    assert done["result"]["away"] > 0
    page = site.session(SYSADMIN).ask(
        "GET", f"/ckan-admin/backups/job/{job['id']}/live"
    )
    away = f"{done['result']['away']:g}"  # a page writes no 1.0
    assert f"for {away} seconds of that the site was away" in page.text
    assert "What to do next" in page.text


def test_a_job_that_dies_before_it_begins_is_lost_at_once(site: Site) -> None:
    """The worker's process makes a connection of its own; the web process has one."""
    name = site.portal.names["database"]
    query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        job = site.act("dbmanage_backup_create", note="dies")

        def lost() -> bool:
            return site.act("dbmanage_job_show", id=job["id"])["state"] == "lost"

        wait_until(lost)
    finally:
        query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    shown = site.act("dbmanage_job_show", id=job["id"])
    assert "worker's own log" in shown["error"]
    status = site.act("dbmanage_status")
    assert status["jobs"] == [] and status["state"] == "failed"
    assert "worker's own log" in status["failed"]["error"]
    page = site.session(SYSADMIN).ask("GET", "/ckan-admin/backups/").text
    assert "The last backup failed." in page
    # nor is its kind blocked; and a good one ends the alarm
    again = site.act("dbmanage_backup_create", note="dies")
    assert again["id"] != job["id"]
    assert site.ended(site.token, again["id"])["state"] == "done"
    assert site.act("dbmanage_status")["failed"] is None


def test_a_job_that_no_signal_ends_leaves_nothing_behind(
    site: Site, backup: str
) -> None:
    """A statement that waits for a lock: psycopg2 does not come back from it."""
    portal = site.portal

    def there() -> list[Path]:
        found = [*portal.repository.iterdir()]
        found += (portal.repository / "exports").glob("*")
        return sorted(found)

    (portal.repository / "exports").mkdir(mode=0o700, exist_ok=True)
    copies, before = portal.copies(), there()
    undo = site.act("dbmanage_status")["undo"]

    def waits() -> list[tuple]:
        return query(
            "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE NOT granted AND datname = %s",
            "postgres", portal.names["database"],
        )  # fmt: skip

    for name, data in (
        ("backup_create", {"note": "hangs"}),
        ("export", {"kind": "datasets"}),
        ("publish", {}),
        ("bring_back", {"id": backup, "kind": "dataset", "names": ["dataset-8"]}),
    ):
        with closing(psycopg2.connect(portal.url("database"))) as other:
            other.cursor().execute("LOCK TABLE package IN ACCESS EXCLUSIVE MODE")
            job = site.act(f"dbmanage_{name}", **data)
            wait_until(waits)
            site.act("dbmanage_job_cancel", id=job["id"])
            assert site.ended(site.token, job["id"])["state"] == "cancelled"
            kinds = {e["kind"]: e for e in reversed(site.act("dbmanage_job_list"))}
            assert site.ended(site.token, kinds["tidy"]["id"])["state"] == "done"
        assert there() == before, name
    assert portal.copies() == copies
    status = site.act("dbmanage_status")
    assert status["failed"] is None and status["undo"] == undo
    asked = [e for e in site.journal if e.get("what") == "cancel"]
    assert {e["user"] for e in asked[-3:]} == {SYSADMIN}


def test_an_export_and_a_publication_are_journalled_with_who_asked(site: Site) -> None:
    asked = {}
    for name, data in (("export", {"kind": "groups"}), ("publish", {})):
        asked[name] = site.act(f"dbmanage_{name}", **data)["id"]
        assert site.ended(site.token, asked[name])["state"] == "done"
    done = {e.get("what"): e for e in site.journal if e["event"] == "done"}
    for name, job in asked.items():
        assert (done[name]["job"], done[name]["user"]) == (job, SYSADMIN)
    assert done["export"]["operation"] == "groups.jsonl.gz"
    assert done["publish"]["rows"]["organizations"] == 1


def test_a_worker_of_this_site_does_what_waits_and_ends(
    site: Site, asleep: None
) -> None:
    """Jobs of before an upgrade too: what RQ calls had another name then."""
    # the one that sleeps may have taken the first
    kinds = ("organizations", "groups", "users")
    first, old, new = (site.act("dbmanage_export", kind=kind)["id"] for kind in kinds)
    client = redis.Redis.from_url(site.portal.options["ckan.redis.url"])
    job = rq.job.Job.fetch(old, connection=client)
    assert job.func_name == "ckanext.dbmanage.jobs.run"
    job.func_name = "ckanext.dbmanage.jobs.worker.run"
    job.save()
    site.portal.db("worker", "--burst")
    for id in (old, new):
        assert site.act("dbmanage_job_show", id=id)["state"] == "done"
    assert wake(site, first)["state"] == "done"


def test_what_is_armed_ends_by_itself(site: Site, backup: str, asleep: None) -> None:
    site.portal.db("arm", backup, "--for", "1s")
    time.sleep(1.1)
    assert site.act("dbmanage_status")["armed"] is None
    refused = site.act("dbmanage_restore", id=backup, confirm=TITLE)
    assert refused["error"]["__type"] == "Authorization Error"


def test_the_configuration_allows_it_always_or_never(
    site: Site, backup: str, asleep: None
) -> None:
    def restore() -> str:
        arguments = [f"id={backup}", f"confirm={TITLE}", "-c", site.portal.ini]
        done = forked.run(
            [BIN / "ckanapi", "action", "dbmanage_restore", *arguments],
            env=site.portal.environment, text=True,
        )  # fmt: skip
        return done.stdout if done.returncode == 0 else done.stderr

    site.portal.db("arm", backup)
    try:
        site.portal.write(**{"ckanext.dbmanage.web_restore": "never"})
        assert "web_restore is `never`" in restore()
        assert site.act("dbmanage_status")["armed"] is not None
        site.portal.write(**{"ckanext.dbmanage.web_restore": "always"})
        job = json.loads(restore())
    finally:
        site.portal.write(**{"ckanext.dbmanage.web_restore": "armed"})
    assert job["state"] == "queued"
    begun, until = (parse_stamp(job[key]) for key in ("asked", "until"))
    assert timedelta(minutes=29) < until - begun < timedelta(minutes=31)
    # what an operator has armed is not used up by what needs no arming
    assert site.act("dbmanage_status")["armed"]["backup"] == backup
    site.act("dbmanage_job_cancel", id=job["id"])


@pytest.mark.smoke
def test_the_pages_from_the_list_to_the_end_of_a_job(site: Site) -> None:
    me, path = site.session(SYSADMIN), "/ckan-admin/backups/"

    def look(path: str, *words: str) -> str:
        page = me.ask("GET", path)
        assert page.status_code == 200, (path, page.status_code)
        assert not [w for w in words if w not in page.text], (path, words)
        return page.text

    made = me.post(f"{path}new", boxes="1", parts=["database", "files"], note="walk")
    job = made.headers["Location"].removeprefix(site.base)
    look(job, "walk", "Asked for by user-1", 'id="job-log"', "http-equiv")
    done = site.ended(site.token, job.rpartition("/")[2])
    assert done["state"] == "done", done
    look(job, "verified", "Show the backup")
    live = me.ask("GET", f"{job}/live?lines={done['lines'] - 1}&said=")
    assert live.status_code == 286 and live.text.count("<time") == 1
    id = done["result"]["backup"]
    look(path, id, "walk", "Export as JSON Lines")
    look(path + id, "Verified", "sha256sum -c SHA256SUMS")
    look(f"{path}{id}?compare=1", "Rows then and now")
    look(
        f"{path}{id}/restore",
        "Restoring from the web is off",
        f"{site.portal.ini} db arm {id}",
    )
    look(f"{path}{id}/download", "all.tar", "Your password, again")
    look(f"{path}{id}/delete", "other backup")
    look(f"{path}journal", "127.0.0.1")
    look(f"{path}tables", "resource")
    look(f"/de{path}", "Sicherung")
    late = me.ask("POST", f"{path}publish")
    assert late.status_code == 400 and "Nothing was done" in late.text
    gone = site.session().ask("POST", f"{path}publish")
    assert gone.status_code in (400, 403) and "You were signed out" in gone.text


@pytest.mark.smoke
def test_one_thing_from_the_search_to_its_undo(site: Site) -> None:
    """Purged, looked at, brought back, taken back: without a script, without arming."""
    me, path = site.session(SYSADMIN), "/ckan-admin/backups/"
    backup = site.portal.backup("--only", "database").name
    there = "SELECT name, state, title FROM package WHERE id = 'id-9'"
    before = site.portal.sql(there)
    purged = "DELETE FROM {} WHERE {} = 'id-9';"
    tables = (("package_tag", "package_id"), ("member", "table_id"),
              ("resource", "package_id"), ("package", "id"))  # fmt: skip
    site.portal.sql(" ".join(purged.format(*each) for each in tables))

    def ended(answer: Any, *words: str) -> str:
        """The page of a job that a form has begun, at its end."""
        assert answer.status_code == 302, answer.text
        where = answer.headers["Location"].removeprefix(site.base)
        done = site.ended(site.token, where.rpartition("/")[2])
        assert done["state"] == "done", (done.get("error"), done.get("log"))
        page = me.ask("GET", where).text
        assert not [word for word in words if word not in page], words
        return where

    page = me.ask("GET", f"{path}history?kind=dataset&name=dataset-9").text
    assert "Look at what would come back" in page and ">gone<" in page
    form = {"id": backup, "kind": "dataset", "name": "id-9"}
    look = ended(
        me.post(f"{path}thing", **form),
        "It is not there now", "dataset-9", "Bring it back", f"{path}{backup}",
    )  # fmt: skip
    assert site.portal.sql(there) == []
    ended(
        me.post(look, note="a harvester did it"),
        "made again", 'href="/dataset/dataset-9"', "a harvester did it", "Undo…",
    )  # fmt: skip
    assert site.portal.sql(there) == before
    found = "/api/3/action/package_search?q=name:dataset-9"
    assert site.web.ask(found).json["result"]["count"] == 1
    shown = me.ask("GET", path).text
    assert "Brought back from" in shown and "dataset dataset-9" in shown
    page = me.ask("GET", f"{path}undo").text
    assert "Undo what came back" in page and "password" not in page
    undo = {"operation": site.act("dbmanage_status")["undo"]["operation"]}
    ended(me.post(f"{path}undo", **undo), "taken away again", "Redo…")
    assert site.portal.sql(there) == []
    assert "Bring it back again" in me.ask("GET", f"{path}undo").text
    refused = site.act("dbmanage_undo", **undo)
    assert "Another switch" in str(refused["error"]["operation"])
    page = me.ask("GET", f"{path}journal?what=thing").text
    assert "dataset dataset-9" in page and "a harvester did it" in page
