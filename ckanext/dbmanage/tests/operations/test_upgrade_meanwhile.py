"""What others do while an upgrade runs, and what it must not reach."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest

from ckanext.dbmanage.engine.errors import Written
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres import writes
from ckanext.dbmanage.engine.restore import switch
from ckanext.dbmanage.engine.restore.copies import loaded_copies
from ckanext.dbmanage.engine.restore.source import open_source

from ..support.cluster import SUPERUSER
from ..support.portal import Portal, own
from ..support.web import Web


def test_a_rehearsal_names_what_nobody_could_read(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    code = 'op.execute("ALTER TABLE package ADD COLUMN of_bad int"); time.sleep(2)'
    done = portal.module("upgrade", "--rehearse", env=bad(code))
    assert re.search(r"locked against readers: public\.package$", done.stdout, re.M)


def test_a_write_meanwhile_is_in_another_copy_or_nothing_is_switched(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    environment = bad("time.sleep(2)")
    writer = psycopg2.connect(portal.url("database"), application_name="harvester")
    stop = threading.Event()

    def write() -> None:
        nonlocal writer
        while not stop.wait(0.5):
            try:
                with writer, writer.cursor() as cursor:
                    cursor.execute("UPDATE package SET notes = 'new' WHERE id = 'id-1'")
            except psycopg2.Error:
                writer = psycopg2.connect(
                    portal.url("database"), application_name="harvester"
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        done = portal.module("upgrade", code=1, env=environment)
    finally:
        stop.set()
        thread.join()
        writer.close()
    assert done.stderr.count("Another copy is made") == 2
    assert "database: public.package were written" in done.stderr
    assert "application 'harvester'" in done.stderr
    assert not portal.copies(), done.stderr
    assert len(portal.oids()) == 2

    started = portal.start("upgrade", env=environment)
    said = ""
    while "migrate …" not in said:
        said += started.stderr.read(1)
    # what leaves no rows to be counted, too
    portal.sql("UPDATE package SET notes = 'in time' WHERE id = 'id-1'")
    portal.sql('DROP TABLE "00000000-0000-4000-8000-000000000000"', "datastore")
    portal.sql("TRUNCATE tag CASCADE")
    said += started.communicate(timeout=300)[1]
    assert started.returncode == 0 and said.count("Another copy is made") == 1, said
    assert "1 rows of database: public.package were written" in said
    assert "database: public.tag was made, altered or emptied" in said
    assert "datastore: public.00000000" in said
    assert portal.sql("SELECT notes FROM package WHERE id = 'id-1'") == [("in time",)]
    assert portal.sql("SELECT count(*) FROM tag") == [(0,)]
    left = portal.sql(
        "SELECT to_regclass('\"00000000-0000-4000-8000-000000000000\"')::text",
        "datastore",
    )
    assert left == [(None,)]


@pytest.mark.smoke
def test_what_was_written_before_is_in_the_first_copy(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    # PostgreSQL counts what an idle session wrote up to ten seconds later
    with closing(psycopg2.connect(portal.url("database"))) as idle:
        for number in range(5):
            with idle, idle.cursor() as cursor:
                cursor.execute("UPDATE package SET notes = %s", (f"{number}",))
        # nor does a busy server end it at once when it is told to
        pid = idle.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        started = portal.start("upgrade", env=bad("time.sleep(9)"))
        status, told = Path(f"/proc/{pid}/status"), 1 << signal.SIGTERM - 1
        pending = re.compile(r"^ShdPnd:\s*(\w+)", re.M)
        while not int(pending.findall(status.read_text())[0], 16) & told:
            time.sleep(0.05)
        time.sleep(4)
        os.kill(pid, signal.SIGCONT)
        said = started.communicate(timeout=300)[1]
    assert started.returncode == 0 and "Another copy" not in said, said
    assert portal.sql("SELECT DISTINCT notes FROM package") == [("4",)]


def test_who_reads_with_a_token_does_not_hinder_it(
    portal: Portal, bad: Callable[[str], dict[str, str]], serve: Callable[[Portal], Web]
) -> None:
    web = serve(portal)
    token = portal.ckan("user", "token", "add", "user-2", "t", "-q").stdout.split()[-1]
    environment = bad("time.sleep(2)")
    portal.sql('UPDATE "user" SET last_active = NULL')
    seen = "SELECT last_access FROM api_token"
    ((before,),) = portal.sql(seen)
    started = portal.start("upgrade", env=environment)
    said = ""
    while "migrate …" not in said:
        said += started.stderr.read(1)
    path = "/api/3/action/package_show?id=dataset-1"
    assert web.ask(path, Authorization=token).status == 200
    assert portal.sql(seen) != [(before,)]
    said += started.communicate(timeout=300)[1]
    assert started.returncode == 0 and "Another copy" not in said, said


def test_a_write_at_the_last_moment_is_not_left_behind(portal: Portal) -> None:
    portal.backup()
    site, repository = portal.engine()
    source = open_source(site, repository, "latest")
    before, oids = portal.state(), portal.oids()
    op = Operation(site, repository)
    with (
        repository.lock("restore"),
        loaded_copies(op, source, lambda *_: None) as scratches,
        closing(site.databases["database"].maintenance()) as connection,
        pytest.raises(Written, match="written to at the last moment"),
    ):
        pairs = [scratch.pair for scratch in scratches.values()]
        known = {p.live_oid: writes.tuples(connection, p.live_oid) for p in pairs}
        own(portal, "UPDATE package SET notes = 'late' WHERE id = 'id-1'")
        switch.switch(op, pairs, [], known)
    assert portal.oids() == oids and portal.state() != before
    assert portal.sql("SELECT notes FROM package WHERE id = 'id-1'") == [("late",)]
    assert not portal.copies()


def test_no_live_service_is_within_reach(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    told = portal.directory / "told.json"
    environment = bad(
        "import json; from ckan.common import config; "
        f"json.dump({{k: str(v) for k, v in config.items()}}, open({str(told)!r}, 'w'))"
    )
    # a socket in the address, and the site's address in the environment only
    socket = os.environ["DBMANAGE_PG_SOCKET"]
    live = {
        option: f"{portal.url(part).partition('@')[0]}@/{portal.names[part]}"
        f"?host={quote(socket, safe='')}&port={SUPERUSER.port}"
        for part, option in (
            ("database", "sqlalchemy.url"),
            ("datastore", "ckan.datastore.write_url"),
        )
    }
    others = {
        "ckanext.xloader.jobs_db.uri": live["sqlalchemy.url"],
        "ckanext.other.store": "postgresql://who@db.example.com/other",
        "ckanext.other.cache": "redis://cache.example.com:6379/3",
        "ckan.harvest.mq.hostname": "mq.example.com",
        "smtp.server": "mail.example.com",
    }
    portal.write(**live, **others)
    del portal.options["ckan.site_url"]
    portal.write()
    environment["CKAN_SITE_URL"] = "http://of.the.environment"
    portal.module("upgrade", env=environment)
    seen = json.loads(told.read_text())
    assert seen["ckan.site_url"] == "http://of.the.environment"
    named = [v for v in seen.values() if "example.com" in v]
    # the `+` of a driver, or a name of a live database
    for option in (*live, "ckan.datastore.read_url", "ckanext.xloader.jobs_db.uri"):
        assert "dbm_" in seen[option] and "_scratch" in seen[option], option
    for option in ("ckan.redis.url", "solr_url"):
        assert "127.0.0.1:9" in seen[option]
    assert named == [] and str(portal.storage) not in seen["ckan.storage_path"]


def test_a_session_that_holds_a_lock_is_waited_for_and_named(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    # in the live database this migration would wait for ever
    environment = bad('op.execute("ALTER TABLE package ADD COLUMN of_bad int")')
    holder = psycopg2.connect(portal.url("database"), application_name="holder")
    with closing(holder), holder.cursor() as cursor:
        cursor.execute("LOCK TABLE package IN SHARE ROW EXCLUSIVE MODE")
        done = portal.module("upgrade", env=environment)
    assert "still at work in the live databases, and ended" in done.stderr
    assert "application 'holder'" in done.stderr
    assert portal.sql("SELECT count(of_bad) FROM package") == [(0,)]
