"""What only reads goes on after a broken connection and a deadlock, and says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ..support import forked
from ..support.cluster import BIN, query, superuser
from ..support.portal import Portal
from ..support.published import folder, is_whole
from ..support.waiting import wait_until

#: a sequence that pg_dump reads once it holds a lock of each table, and its table
SEQUENCE = '"00000001-0000-4000-8000-000000000000__id_seq"'
TABLE = '"00000001-0000-4000-8000-000000000000"'


@contextmanager
def holding(portal: Portal, part: str, statement: str) -> Iterator[Any]:
    """A session that holds a lock, and that no deadlock of others ends."""
    connection = superuser(portal.names[part])
    connection.autocommit = False
    connection.cursor().execute(f"SET deadlock_timeout = '5min'; {statement}")
    yield connection
    connection.close()


def start(portal: Portal, *words: str, **options: Any) -> subprocess.Popen:
    common: dict[str, Any] = {"stdout": subprocess.DEVNULL, "text": True}
    return forked.start(
        [BIN / "ckan", "-c", portal.ini, "db", *words], stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env=portal.environment, **common | options,
    )  # fmt: skip


def wait_for_lock(portal: Portal, part: str) -> None:
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    )
    wait_until(lambda: query(waiting, "postgres", portal.names[part]))


def cut_off(portal: Portal, part: str) -> None:
    """Ends the sessions of a database that wait for a lock, and no others."""
    query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = %s AND wait_event_type = 'Lock'",
        "postgres", portal.names[part],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "doing"),
    [
        (["export", "datasets", "--fresh", "-O", "FILE"], "the export of datasets"),
        (["publish", "--fresh"], "the publication"),
        (["reindex"], "indexing"),
    ],
)
def test_what_reads_records_begins_again(
    portal: Portal, words: list[str], doing: str
) -> None:
    file = portal.directory / "d.jsonl"
    portal.sql("UPDATE package SET metadata_modified = now()")
    with holding(portal, "database", "LOCK TABLE package_tag"):
        process = start(portal, *(str(file) if w == "FILE" else w for w in words))
        wait_for_lock(portal, "database")
        cut_off(portal, "database")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"{doing} did not work, and is tried again: " in said
    if words[0] == "export":
        assert len(file.read_text().splitlines()) == 36
        assert not list(portal.directory.glob(".d.jsonl*"))
    elif words[0] == "publish":
        published = is_whole(folder(portal))
        assert published and published.files["datasets.jsonl.gz"].rows == 36
        assert not (folder(portal) / ".next").exists()
    else:
        assert "search index: 40 datasets indexed" in said


def test_a_dump_into_a_file_begins_again_after_a_deadlock(portal: Portal) -> None:
    name, file = portal.names["datastore"], portal.directory / "x.dump"
    query(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '5s'")
    rename = f"ALTER SEQUENCE {SEQUENCE} RENAME TO other"
    with holding(portal, "datastore", rename) as lock:
        process = start(portal, "dump", str(file), "--only", "datastore")
        wait_for_lock(portal, "datastore")
        # each waits for the other now, until the server ends pg_dump
        lock.cursor().execute(f"LOCK TABLE {TABLE}")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "dumping the DataStore did not work, and is tried again: " in said
    assert "deadlock detected" in said
    portal.module("load", str(file), "--only", "datastore", "--yes", "--no-backup")
    assert not list(portal.directory.glob(".x.dump*"))


def test_half_a_dump_on_a_pipe_is_not_begun_again(portal: Portal) -> None:
    rows = "SELECT md5(g::text) FROM generate_series(1, 400000) g"
    portal.sql(f'INSERT INTO {TABLE} ("a b") {rows}', "datastore")
    process = start(
        portal, "dump", "-", "--only", "datastore", stdout=subprocess.PIPE, text=False
    )
    # nobody reads the pipe: the server waits amid a table, and is cut off there
    cut = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = %s AND query LIKE 'COPY%%' AND wait_event = 'ClientWrite'"
    )
    wait_until(lambda: query(cut, "postgres", portal.names["datastore"]))
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 1 and printed.startswith(b"PGDMP")
    assert b"pg_dump of " in said and b"tried again" not in said, said


def test_a_proof_whose_reader_is_cut_off_is_no_fault_of_the_backup(
    portal: Portal,
) -> None:
    portal.backup("--only", "database")
    process = start(portal, "verify", "--prove")
    os.setpriority(os.PRIO_PROCESS, process.pid, 19)  # so that we are not too late
    copy = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname ="
        " ANY(%s) AND application_name <> 'dbmanage' AND query LIKE '%%FROM package%%'"
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("read"):
            break
    wait_until(lambda: query(copy, "postgres", list(portal.copies())))
    _, rest = process.communicate(timeout=300)
    assert process.returncode == 0, [*said, rest]
    assert "reading the copy did not work, and is tried again: " in rest
    assert [each["state"] for each in portal.backups()] == ["proven"]
