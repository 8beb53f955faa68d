"""The benchmarks, which nobody watches to their end."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.cluster import query
from .support.imports import PACKAGE
from .support.waiting import wait_until

ROOT = PACKAGE.parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One of these tests at a time: the benchmarks share their databases."""
    with (ROOT / ".services" / "test_bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _databases() -> set[str]:
    return {row[0] for row in query("SELECT datname FROM pg_database")}


def _only_logs_are_left() -> bool:
    left = (ROOT / ".services" / "bench").iterdir()
    return not [file for file in left if file.suffix != ".log"] and not [
        name for name in _databases() if name.startswith("bench_")
    ]


def _report(output: Path, *options: str) -> None:
    command = [ROOT / "bench" / "report", *options, "--output", output]
    subprocess.run(command, check=True, capture_output=True)


def _words(chart: Path) -> list[str]:
    """The title, the labels and the numbers of a chart."""
    return re.findall(r"<(?:text|title)[^>]*>([^<]*)", chart.read_text())


def test_a_benchmark_that_is_ended_leaves_only_logs() -> None:
    with subprocess.Popen(
        [ROOT / "bench" / "run", "--quick", "startup"], stderr=subprocess.DEVNULL
    ) as process:
        # CKAN makes its tables meanwhile
        wait_until(lambda: "bench_main_datastore" in _databases())
        process.send_signal(signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT
    assert _only_logs_are_left()


def test_a_report_that_was_ended_goes_on_and_is_drawn(tmp_path: Path) -> None:
    """On a tiny portal: of two figures one is measured already."""
    shutil.copy(ROOT / "README.rst", tmp_path)
    output = tmp_path / "docs"
    file = output / "figures" / "results.jsonl"
    file.parent.mkdir(parents=True)
    line = (DOCS / "figures" / "results.jsonl").read_text().splitlines()[0]
    before = json.loads(line) | {"figure": "restore", "datasets": 40}
    about = {"name": "restore, against pg_restore --clean", "unit": "s", "of": None}
    about |= {"ours": 1234.5, "peer": 0.5, "floor": None, "sample": 0, "target": 0.95}
    file.write_text(json.dumps(before | {"rows": [about]}) + "\n")
    names = ("--figures", "restore", "dump", "--sizes", "40", "--rounds", "1")
    _report(output, "--resume", "--busy", *names)
    assert _only_logs_are_left()
    kept, new = map(json.loads, file.read_text().splitlines())
    assert kept["rows"] == [about]
    assert new["figure"] == "dump" and new["datasets"] == 40
    seconds, size = new["rows"]
    assert seconds["floor"] > 0 and 0 < size["ours"] < 1
    assert new["machine"]["versions"]["CKAN"].startswith("2.")
    # who reads it learns neither where it was nor on what machine
    assert str(ROOT) not in file.read_text()
    shown = (output / "figures.rst").read_text()
    for row in (about, seconds, size):
        assert row["name"] in shown
    assert "1,234 s" in (tmp_path / "README.rst").read_text()
    assert "1,234" in _words(file.with_name("restore.svg"))
    assert "1,234" in _words(file.with_name("overview.svg"))


def test_the_figures_that_are_shown_are_those_that_were_measured(
    tmp_path: Path,
) -> None:
    """The page, its charts and the README: else bench/report --draw writes them."""
    output = tmp_path / "docs"
    (output / "figures").mkdir(parents=True)
    shutil.copy(ROOT / "README.rst", tmp_path)
    shutil.copy(DOCS / "figures" / "results.jsonl", output / "figures")
    _report(output, "--draw")
    for name in ("README.rst", "docs/figures.rst"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()
    drawn, there = (
        {chart.name: _words(chart) for chart in (place / "figures").glob("*.svg")}
        for place in (output, DOCS)
    )
    assert drawn == there and "overview.svg" in drawn


def test_a_soak_loses_nothing() -> None:
    done = subprocess.run(
        [ROOT / "bench" / "run", "soak", "--cycles", "1", "--seed", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.startswith("1 cycles, ")
    assert done.stdout.endswith("seed 1; lost: nothing\n")
    assert _only_logs_are_left()
