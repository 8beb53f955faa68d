"""The switch of databases, on one server and over two."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.restore import restore
from ckanext.dbmanage.engine.restore.preflight import preflight

from ...support.cluster import Cluster, query, wait_for_the_last_statement
from ...support.portal import Portal
from ...support.small import Small
from ...support.waiting import end_group, wait_until


def test_a_comment_in_the_database_s_own_encoding_is_kept(
    small: Callable[..., Small],
) -> None:
    made = small("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    made.own(
        'CREATE TABLE "Übersicht" AS SELECT \'Größe\' AS "Größe";'
        f"COMMENT ON DATABASE {made.name} IS 'f''ür\\alle $$'"
    )
    comment = (
        "SELECT textsend(shobj_description(oid, 'pg_database'))::text"
        f" FROM pg_database WHERE datname = '{made.name}'"
    )
    before = query(comment)
    assert before == [("\\x" + "f'ür\\alle $$".encode("latin-1").hex(),)]
    source = made.backup()
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'Übersicht'"
    made.own('DROP TABLE "Übersicht"')
    with made.repository.lock("restore"):
        preflight(made.site, made.repository, source)
        restore.restore_backup(Operation(made.site, made.repository), source)
    for count in (1, 0, 1):
        assert query(tables, made.name) == [(count,)]
        assert query(comment) == before
        with made.repository.lock("undo"):
            restore.undo_switch(Operation(made.site, made.repository))
    query(f"COMMENT ON DATABASE {made.name} IS NULL")
    with made.repository.lock("undo"):
        restore.undo_switch(Operation(made.site, made.repository))
    assert query(comment) == [(None,)]


@pytest.fixture
def rows_elsewhere(
    portal: Portal, make_cluster: Callable[..., Cluster]
) -> Callable[[], int]:
    """Counts a table of the portal's DataStore, which is on another server.

    It was backed up with 50 rows, and has none now.
    """
    cluster, name = make_cluster(), portal.names["datastore"]
    cluster.copy(portal, "datastore")
    portal.backup()
    table = '"00000001-0000-4000-8000-000000000000"'
    cluster.sql(f"DELETE FROM {table}", name)
    return lambda: cluster.sql(f"SELECT count(*) FROM {table}", name)[0][0]


def test_two_servers_switch_by_the_journal(
    portal: Portal, rows_elsewhere: Callable[[], int]
) -> None:
    portal.sql("DELETE FROM package_tag")
    portal.module("restore", "latest", "--yes")
    assert rows_elsewhere() == 50
    assert portal.sql("SELECT count(*) > 0 FROM package_tag") == [(True,)]


def test_a_switch_over_two_servers_that_was_killed_is_completed(
    portal: Portal, rows_elsewhere: Callable[[], int]
) -> None:
    """Killed at some moment after the journal says that it switches."""
    portal.sql("DELETE FROM package_tag")
    process = portal.start("restore", "latest", "--yes", "--no-backup")
    journal = portal.repository / "journal.jsonl"
    wait_until(lambda: journal.exists() and '"switch"' in journal.read_text())
    pairs = next(
        json.loads(line)["pairs"]
        for line in journal.read_text().splitlines()
        if '"event": "switch"' in line
    )
    main = next(pair for pair in pairs if pair["part"] == "database")
    end_group(process)
    wait_for_the_last_statement()
    # whatever of the two was done, the next command settles both the same way
    done = portal.module("backup")
    live = query(
        "SELECT oid::bigint FROM pg_database WHERE datname = %s",
        "postgres",
        main["live"],
    )
    tags = portal.sql("SELECT count(*) FROM package_tag")
    if live == [(main["scratch_oid"],)]:
        assert rows_elsewhere() == 50 and tags[0][0] > 0, done.stderr
    else:
        assert rows_elsewhere() == 0 and tags == [(0,)], done.stderr


def test_half_a_switch_over_two_servers_is_completed(
    portal: Portal, rows_elsewhere: Callable[[], int]
) -> None:
    """Exactly half: the engine is stopped between the two renames."""
    portal.sql("DELETE FROM package_tag")
    script = (
        "import os, sys\n"
        "from ckanext.dbmanage.engine.restore import switch\n"
        "rename = switch.rename\n"
        "def once(*arguments, **options):\n"
        "    rename(*arguments, **options)\n"
        "    os.kill(os.getpid(), 9)\n"
        "switch.rename = once\n"
        "from ckanext.dbmanage.__main__ import main\n"
        "main()\n"
    )
    arguments = ["-c", str(portal.ini), "restore", "latest", "--yes", "--no-backup"]
    killed = subprocess.run(
        [portal.module_command[0], "-c", script, *arguments],
        env=portal.environment, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert killed.returncode == -9
    assert rows_elsewhere() == 50
    assert portal.sql("SELECT count(*) FROM package_tag") == [(0,)]
    done = portal.module("backup")
    assert "half-way has been completed" in done.stderr
    assert portal.sql("SELECT count(*) > 0 FROM package_tag") == [(True,)]
