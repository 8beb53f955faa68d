"""Advisory locks: lost ones, and those of others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.errors import Busy, ToolFailed
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres import database
from ckanext.dbmanage.engine.postgres.locks import live_lock, lock_key
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore.scratch import scratch_database
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import Cluster, query
from ...support.heard import Heard
from ...support.portal import Portal
from ...support.server import main
from ...support.waiting import wait_until


def test_a_lost_lock_ends_the_operation(server: Cluster, site: Site) -> None:
    with live_lock(site.main) as held:
        held()
        server.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
        )
        with pytest.raises(ToolFailed, match=main(site).name) as failed:
            held()
        # the server's own reason is told: it ends with "administrator", in any language
        assert "dministrator" in str(failed.value)


def test_a_restore_whose_lock_was_lost_switches_nothing(portal: Portal) -> None:
    portal.backup()
    portal.damage()
    before, oids = portal.state(), portal.oids()
    key = lock_key("live", portal.names["database"])
    process = portal.start("restore", "latest", "--yes", "--no-backup")
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        f" AND (classid::bigint << 32 | objid::bigint) = {key}"
    )
    assert process.stderr is not None
    for line in process.stderr:  # not the lock of the tidying before
        if line.startswith("load"):
            process.send_signal(signal.SIGSTOP)  # or it may be done by then
            break
    assert query(ended) == [(True,)]
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1 and "was lost" in said
    assert "terminating connection due to administrator command" in said
    assert portal.state() == before and portal.oids() == oids


def test_a_lock_of_a_role_that_has_no_part_in_it(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    other, key = login(), lock_key("live", main(site).name)
    repository = Repository(Path(site.repository), site.secrets)
    Path(site.repository).mkdir()
    with closing(server.connect("postgres", other)) as connection:
        database.query(connection, f"SELECT pg_advisory_lock({key})")
        with pytest.raises(Busy) as failed, live_lock(site.main):
            pass
        pid = connection.info.backend_pid
        assert f"process {pid}, role '{other}'" in str(failed.value)
        assert f"SELECT pg_terminate_backend({pid});" in str(failed.value)
        with live_lock(site.main, foreign=True):
            pass
        assert take.take(Operation(site, repository), parts=("database",)).signed
    # a role that may switch the database is waited for, whoever it is
    member = login("IN ROLE ckan_default")
    with closing(server.connect("postgres", member)) as connection:
        database.query(connection, f"SELECT pg_advisory_lock({key})")
        with (
            pytest.raises(Busy, match="wait for its end"),
            live_lock(site.main, foreign=True),
        ):
            pass


def test_a_copy_is_dropped_whoever_has_its_lock(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    repository = Repository(Path(site.repository), site.secrets)
    Path(site.repository).mkdir()
    heard = Heard()
    with closing(server.connect("postgres", login())) as connection:
        op = Operation(site, repository, heard)
        with scratch_database(op, "database") as made:
            name = made.pair.scratch
            lock = f"SELECT pg_advisory_lock({lock_key('ours', name)})"
            waiting = threading.Thread(target=database.query, args=(connection, lock))
            waiting.start()
            wait_until(lambda: server.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
        waiting.join()
    assert not heard.warned
    assert not server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
