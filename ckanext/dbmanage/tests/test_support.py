"""What a run of the tests that was killed leaves behind is gone with the next run."""

from __future__ import annotations

import subprocess

import pytest

from .support.cluster import BIN, query

_RUN = """
from ckanext.dbmanage.tests.support.cluster import in_memory, query
with in_memory() as where:
    name = "".join(where.split()[-1:])
    if name:
        query(f"CREATE DATABASE db_{name} TEMPLATE template0 {where}")
    print(name, flush=True)
    input()
"""


def _run() -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [BIN / "python", "-c", _RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def _there(*names: str) -> list[bool]:
    known = "SELECT spcname FROM pg_tablespace UNION SELECT datname FROM pg_database"
    found = {name for (name,) in query(known)}
    assert all((name in found) == (f"db_{name}" in found) for name in names)
    return [name in found for name in names]


def test_what_a_dead_run_has_left_is_dropped_and_nothing_else(memory: str) -> None:
    if not memory:
        pytest.skip("there is no room in memory here")
    (alive, living), (dead, left) = _run(), _run()
    if not (living and left):
        pytest.skip("there is no room in memory any more")
    dead.kill()
    dead.communicate()
    assert _there(living, left) == [True, True]
    last, name = _run()
    assert _there(living, left, name) == [True, False, True]
    own = "SELECT 1 FROM pg_tablespace WHERE spcname = %s"
    assert query(own, "postgres", memory.split()[-1])
    for process in (alive, last):
        process.communicate("\n")
    assert _there(living, name) == [False, False]
