"""The benchmarks, which nobody watches to their end."""

from __future__ import annotations

import signal
import subprocess

from .support.cluster import query
from .support.imports import PACKAGE
from .support.waiting import wait_until

ROOT = PACKAGE.parents[1]


def _databases() -> set[str]:
    return {row[0] for row in query("SELECT datname FROM pg_database")}


def test_a_benchmark_that_is_ended_leaves_only_logs() -> None:
    with subprocess.Popen(
        [ROOT / "bench" / "run", "--quick", "startup"], stderr=subprocess.DEVNULL
    ) as process:
        # CKAN makes its tables meanwhile
        wait_until(lambda: "bench_main_datastore" in _databases())
        process.send_signal(signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT
    assert not [name for name in _databases() if name.startswith("bench_")]
    left = (ROOT / ".services" / "bench").iterdir()
    assert not [file for file in left if file.suffix != ".log"]
