"""Readers side by side: in bounds, of one moment, and none is left behind."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path

from ..support import forked
from ..support.cluster import BIN, query, superuser
from ..support.portal import Portal
from ..support.waiting import wait_until


def test_memory_is_bounded_by_bytes_and_not_by_rows(portal: Portal) -> None:
    """220 MB of long lines, from what is one batch of rows."""
    portal.sql("""
        INSERT INTO package (id, name, title, notes, state, type, private,
          metadata_created, metadata_modified)
        SELECT md5(g::text), 'long-' || g, 'Long', repeat('long ', 400000), 'active',
          'dataset', false, now(), now() FROM generate_series(1, 110) g""")

    def peak(*arguments: str) -> float:
        """MB of the largest of a command's processes."""
        process = subprocess.Popen(
            [BIN / "ckan", "-c", portal.ini, "db", *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=portal.environment,
        )  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        assert process.returncode == 0, said
        return usage.ru_maxrss / 1024

    bare = peak("version")
    assert peak("export", "datasets", "--check", "9", "-O", os.devnull) < bare + 64
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_killed_it_leaves_no_process_and_no_file(
    portal: Portal, tmp_path: Path
) -> None:
    """A reader that is killed is named; a parent that is killed takes them along."""
    portal.sql("INSERT INTO package (id, name, title, state, type, private, metadata_created, metadata_modified)"
               " SELECT md5(g::text), 'more-' || g, 'More', 'active', 'dataset', false, now(), now()"
               " FROM generate_series(1, 20000) g")  # fmt: skip
    into = tmp_path / "into"
    into.mkdir()
    target = into / "d.jsonl"

    def children(process: subprocess.Popen) -> list[int]:
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [int(n) for n in path.read_text().split()] if path.exists() else []

    def readers(process: subprocess.Popen) -> list[int]:
        # the first child of one that was forked is the one that would fork for it
        return children(process)[isinstance(process, forked.Forked) :]

    def start() -> tuple[subprocess.Popen, list[int]]:
        before = set(into.iterdir())
        process = forked.start(
            [BIN / "ckan", "-c", portal.ini, "db", "export", "datasets", "-q", "-O", target],
            stderr=subprocess.PIPE, text=True, env=portal.environment,
        )  # fmt: skip
        # of its own: what was killed before is swept away a moment after the fork
        wait_until(lambda: len(readers(process)) == 2 and {*into.iterdir()} - before)
        found = readers(process)
        time.sleep(random.random() * 0.3)
        return process, found

    process, found = start()
    os.kill(found[0], signal.SIGKILL)
    assert process.wait() == 1
    assert process.stderr is not None
    assert "ended before its time (exit code -9)" in process.stderr.read()
    process.stderr.close()
    assert not any(into.iterdir())
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        # also of what the killed one left: it may hold secrets
        process, found = start()
        process.send_signal(number)
        assert process.wait() == code
        wait_until(
            lambda found=found: not any(Path(f"/proc/{pid}").exists() for pid in found)
        )
        process.communicate()
        left = [path.stat().st_mode & 0o777 for path in into.iterdir()]
        assert left == ([0o644] if number == signal.SIGKILL else [])


def test_one_moment(portal: Portal) -> None:
    """What is changed while it runs is in none of the lines."""
    portal.sql("UPDATE package SET notes = repeat('x', 400000)")
    process = forked.start(
        [BIN / "ckan", "-c", portal.ini, "db", "export", "datasets", "-q", "--fresh"],
        stdout=subprocess.PIPE, env=portal.environment,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.read(1)
    portal.sql("UPDATE package SET title = 'Later'; DELETE FROM package_tag")
    rest = process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    lines = (first + rest).splitlines()
    assert len(lines) == 36
    assert all(b"Later" not in line and b"air quality" in line for line in lines)


def test_readers_whose_snapshot_is_gone_begin_again(portal: Portal) -> None:
    """No record is missing for it."""
    name = portal.names["database"]
    with closing(superuser(name)) as holding:
        holding.autocommit = False
        holding.cursor().execute("LOCK TABLE package_tag")
        process = forked.start(
            [BIN / "ckan", "-c", portal.ini, "db", "export", "datasets", "--fresh"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=portal.environment,
        )  # fmt: skip
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        wait_until(lambda: query(waiting, "postgres", name))
        query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> %s",
            "postgres", name, holding.info.backend_pid,
        )  # fmt: skip
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    # it begins again, but where the readers had all before the server was cut off
    assert len(printed.splitlines()) == 36
