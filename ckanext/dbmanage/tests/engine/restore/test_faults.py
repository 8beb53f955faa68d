"""Broken on purpose: killed, cut off, out of room. Old or new, and nothing between."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from ...support.cluster import (
    Cluster,
    query,
    superuser,
    wait_for_the_last_statement,
)
from ...support.portal import Portal, fill, own, refused, slowed
from ...support.rows import SLOW_IN_COPIES
from ...support.waiting import end_group, wait_until

#: kills of one command, each in a slice of its time
TIMES = 8


def whole(portal: Portal) -> None:
    """Nothing half-made is listed, and the next commands work and clean up."""
    for backup in portal.backups():
        assert backup["state"] in ("verified", "unverified")
        portal.module("verify", backup["id"])
    path = portal.backup()
    assert not [p.name for p in portal.repository.glob(".*.partial")]
    assert not [name for name in portal.copies() if name.endswith("_scratch")]
    portal.module("verify", path.name)


def moments(portal: Portal, *arguments: str) -> Iterator[float]:
    """Runs a command, and says when to kill it: at some moment of each slice of it."""
    begun = time.monotonic()
    portal.module(*arguments)
    piece = (time.monotonic() - begun) * 1.1 / TIMES
    chance = random.Random(os.getpid())
    return (chance.uniform(n, n + 1) * piece for n in range(TIMES))


def test_backup_killed_at_random_moments(portal: Portal) -> None:
    fill(portal)
    before = portal.state()
    for seconds in moments(portal, "backup"):
        process = portal.start("backup")
        time.sleep(seconds)
        process.kill()  # alone: its children find out by themselves
        process.communicate()
    whole(portal)
    assert portal.state() == before


def test_restore_killed_at_random_moments(portal: Portal) -> None:
    """Whenever it dies, the live databases are exactly the old or exactly the new."""
    fill(portal)
    name = portal.backup().name
    new = portal.state()
    restore = ("restore", name, "--yes", "--no-backup")
    for number, seconds in enumerate(moments(portal, *restore)):
        portal.sql("UPDATE package SET title = 'old' WHERE id = 'id-1'")
        portal.sql(
            'UPDATE "00000001-0000-4000-8000-000000000000" SET "a b" = \'old\'',
            "datastore",
        )
        old = portal.state()
        process = portal.start(*restore)
        time.sleep(seconds)
        if number % 2:
            process.kill()
            process.communicate()
        else:
            end_group(process)
        wait_for_the_last_statement()
        assert portal.state() in (old, new)
    whole(portal)


PHASES = ("unpack", "load", "check", "switch")


@pytest.mark.parametrize("phase", PHASES)
def test_restore_killed_in_each_phase(portal: Portal, phase: str) -> None:
    fill(portal)
    portal.backup()
    new = portal.state()
    portal.damage()
    old = portal.state()
    process = portal.start("restore", "latest", "--yes", "--no-backup")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(phase):
            break
    else:
        pytest.fail(f"{phase} did not come")
    end_group(process)
    wait_for_the_last_statement()
    assert portal.state() in (old, new)
    whole(portal)
    portal.module("restore", "oldest", "--yes", "--no-backup")
    assert portal.state() == new


@contextmanager
def locked(portal: Portal) -> Iterator[None]:
    """pg_dump waits meanwhile, once it has a lock of each table of the DataStore."""
    sequence = '"00000001-0000-4000-8000-000000000000__id_seq"'
    with closing(superuser(portal.names["datastore"])) as holding:
        holding.autocommit = False
        holding.cursor().execute(f"ALTER SEQUENCE {sequence} RENAME TO other")
        yield


def wait_for_a_program(portal: Portal) -> None:
    """Waits until one of PostgreSQL's is in the middle of its work."""
    waits = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = ANY(%s)"
        " AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')"
    )

    def works() -> list[tuple]:
        names = [*portal.names.values(), *portal.copies()]
        return query(waits, "postgres", names)

    wait_until(works)


@pytest.mark.parametrize(
    ("command", "program"),
    [("backup", "pg_dump"), ("backup", "pg_restore"), ("restore", "pg_restore")],
)
def test_a_killed_child_is_a_failure_that_is_told(
    portal: Portal, command: str, program: str
) -> None:
    if command == "restore":
        own(portal, SLOW_IN_COPIES)
        portal.backup()
    elif program == "pg_restore":
        fill(portal, 400_000)
    before = portal.state()
    listed = [backup["id"] for backup in portal.backups()]
    arguments = ["restore", "latest", "--yes"] if command == "restore" else ["backup"]
    killed: list[int] = []
    # not the question for its version, nor one that has just ended
    working = b"snapshot" if program == "pg_dump" else b"-"

    def end(child: int) -> None:
        entry = Path(f"/proc/{child}")
        if (entry / "comm").read_text().strip() != program:
            return
        if working not in (entry / "cmdline").read_bytes():
            return
        os.kill(child, signal.SIGSTOP)
        # one that stands still has not ended meanwhile
        while (
            state := (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        ) != "T":
            if state in "ZX":
                return
        os.kill(child, signal.SIGKILL)
        killed.append(child)

    def kill() -> None:
        while process.poll() is None and not killed:
            # all of it, a thread, or a child, may be gone before it is read
            with suppress(OSError):
                for thread in Path(f"/proc/{process.pid}/task").iterdir():
                    with suppress(OSError):
                        for child in (thread / "children").read_text().split():
                            end(int(child))

    with locked(portal) if program == "pg_dump" else nullcontext():
        process = portal.start(*arguments)
        watcher = threading.Thread(target=kill)
        watcher.start()
        _, said = process.communicate(timeout=300)
        watcher.join()
    assert killed and process.returncode == 1
    assert program in said and "Traceback" not in said
    assert portal.state() == before
    assert [backup["id"] for backup in portal.backups()] == listed
    assert not list(portal.repository.glob(".*.partial"))
    whole(portal)


@pytest.mark.smoke
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cleans_up(portal: Portal, number: int) -> None:
    own(portal, SLOW_IN_COPIES)
    portal.backup()
    before = portal.state()
    for command, phase, where in (
        (["backup"], "dump", locked(portal)),
        (["restore", "latest", "--yes"], "load", nullcontext()),
    ):
        left, listed = portal.copies(), portal.backups()
        with where:
            process = portal.start(*command)
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(phase):
                    break
            wait_for_a_program(portal)
            os.killpg(process.pid, number)
            _, said = process.communicate(timeout=300)
        assert process.returncode not in (0, None) and "Traceback" not in said
        assert "Nothing live was changed." in said
        assert not list(portal.repository.glob(".*.partial"))
        assert portal.copies() == left
        assert [b["id"] for b in portal.backups()] == [b["id"] for b in listed]
    assert portal.state() == before


@pytest.mark.parametrize("moment", ["switch", "dump"])
def test_ctrl_c_says_on_which_side_of_the_switch_it_came(
    portal: Portal, moment: str
) -> None:
    portal.backup("--only", "datastore")
    slowed(portal, "pg_dump")  # the safety backup lasts until the signal comes
    before = portal.oids()
    process = portal.start("restore", "latest", "--yes")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in said
    switched = portal.oids() != before
    assert switched or moment == "switch"
    if not switched:
        assert said.endswith("Nothing live was changed.\n")
        return
    assert re.sub(r"`\S+ -m ckanext.dbmanage", "`ckan db", said).endswith(
        "The restore is done; `ckan db undo` goes back; the safety backup was not "
        "finished: `ckan db backup`.\n"
    )
    lines = (portal.repository / "journal.jsonl").read_text().splitlines()
    ends = [e for e in map(json.loads, lines) if e.get("what") == "restore"]
    assert [e["event"] for e in ends] == ["begin", "done"]


def test_the_disk_of_the_repository_is_full(
    portal: Portal, small_disk: Callable[[str], Path]
) -> None:
    fill(portal)
    disk = small_disk("1m")
    portal.write(**{"ckanext.dbmanage.repository": str(disk / "backups")})
    done = portal.module("backup", code=1)
    assert "No space left on device" in done.stderr and str(disk) in done.stderr
    assert "Traceback" not in done.stderr
    assert portal.module("backups").stdout == ""
    assert not list((disk / "backups").glob(".*.partial"))
    done = portal.module("dump", str(disk / "x.dump"), code=1)
    assert "No space left" in done.stderr
    assert [f.name for f in disk.iterdir()] == ["backups"]
    # room for the backup, none to unpack it
    portal.write(**{"ckanext.dbmanage.repository": ""})
    taken = portal.backup()
    need = sum(f.stat().st_size for f in taken.iterdir())
    disk = small_disk(str(need + 2_000_000))
    portal.write(**{"ckanext.dbmanage.repository": str(disk / "backups")})
    portal.backup()
    assert "No space left on device" in refused(portal, "latest")
    assert not list((disk / "backups").glob(".*.partial"))


def test_the_disk_of_the_server_is_full(
    portal: Portal,
    make_cluster: Callable[..., Cluster],
    small_disk: Callable[[str], Path],
) -> None:
    cluster = make_cluster()
    name = cluster.onto_small_disk(portal, small_disk("100m"), 60000)
    portal.backup()
    done = portal.module("restore", "latest", "--yes", code=1)
    assert "No space left on device" in done.stderr, done.stderr
    assert cluster.sql("SELECT count(*) FROM filler", name) == [(60000,)]
    assert (
        cluster.sql("SELECT datname FROM pg_database WHERE datname LIKE 'dbm%'") == []
    )


def test_the_server_stops_in_the_middle(
    portal: Portal, make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster()
    for part in portal.names:
        cluster.copy(portal, part)
    name = portal.names["database"]
    cluster.sql(
        "CREATE TABLE filler AS SELECT i, repeat(md5(i::text), 9) AS t FROM"
        " generate_series(1, 150000) i; ALTER TABLE filler OWNER TO ckan_default",
        name,
    )
    portal.backup()
    for command, phase in (
        (["backup"], "dump"),
        (["restore", "latest", "--yes"], "load"),
    ):
        process = portal.start(*command)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(phase):
                break
        cluster.stop()
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1 and said and "Traceback" not in said
        cluster.start()
        assert cluster.sql("SELECT count(*) FROM filler", name) == [(150000,)]
        assert len(portal.backups()) == 1
    portal.module("restore", "latest", "--yes", "--no-backup")
    names = {row[0] for row in cluster.sql("SELECT datname FROM pg_database")}
    assert not {n for n in names if n.endswith("_scratch")}
