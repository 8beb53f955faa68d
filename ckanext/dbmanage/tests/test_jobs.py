"""What becomes of a job when its worker, PostgreSQL or time does not play along.

All tests share one site and one worker; each leaves them as they were.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from .admin_site import SYSADMIN, TITLE, Site, hosted
from .conftest import Portal, query, wait_until

#: a worker that waits for a job that hangs not as long as one of a portal
HASTY = """
import sys
from ckanext.dbmanage import jobs
jobs._PATIENCE = 3.0
from ckan.cli.cli import ckan
sys.argv[0] = "ckan"
ckan()
"""


@pytest.fixture(scope="module")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosted(template, tmp_path_factory.mktemp("jobs")) as made:
        made.token = made.api_token()
        made.start_worker(made.queue, [sys.executable, "-c", HASTY])
        wait_until(lambda: made.act("dbmanage_status")["worker"]["count"], 90)
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
    site.portal.db("arm", backup, "--for", "12s")
    before = site.portal.oids()
    job = site.act("dbmanage_restore", id=backup, confirm=TITLE)
    assert job["state"] == "queued" and job["until"], job
    wait_until(
        lambda: site.act("dbmanage_job_show", id=job["id"])["state"] == "failed", 30
    )
    # so it is said while no worker has looked; and the worker looks too
    status = site.act("dbmanage_status")
    assert status["jobs"] == [] and "until" in status["ended"]["error"]
    done = wake(site, job["id"])
    wait_until(lambda: site.act("dbmanage_job_show", id=job["id"])["ended"], 60)
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


def test_a_job_that_dies_before_it_begins_is_lost_at_once(site: Site) -> None:
    """The worker's process makes a connection of its own; the web process has one."""
    name = site.portal.names["database"]
    query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        job = site.act("dbmanage_backup_create", note="dies")

        def lost() -> bool:
            return site.act("dbmanage_job_show", id=job["id"])["state"] == "lost"

        wait_until(lost, 60)
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
    there, before = site.portal.copies(), sorted(site.portal.repository.iterdir())
    with closing(psycopg2.connect(site.portal.url("database"))) as other:
        other.cursor().execute("LOCK TABLE package_tag IN ACCESS EXCLUSIVE MODE")
        job = site.act("dbmanage_backup_create", note="hangs")

        def waits() -> bool:
            return bool(query(
                "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                " WHERE NOT granted AND datname = %s AND application_name = 'dbmanage'",
                "postgres", site.portal.names["database"],
            ))  # fmt: skip

        wait_until(waits, 60)
        site.act("dbmanage_job_cancel", id=job["id"])
        assert site.ended(site.token, job["id"])["state"] == "cancelled"
        tidied = next(e for e in site.act("dbmanage_job_list") if e["kind"] == "tidy")
        assert site.ended(site.token, tidied["id"])["state"] == "done"
    assert sorted(site.portal.repository.iterdir()) == before
    assert site.portal.copies() == there
    assert site.act("dbmanage_status")["failed"] is None
