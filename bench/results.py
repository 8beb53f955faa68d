"""The file of results: a line of JSON for each figure and size, and what can be said of it.

A line has `figure`, `datasets`, `rounds`, `rows` as `tools.Row` has them, `seconds` that
it took to measure, `busy`: how often others were at work then, `date`, and `machine`.
"""

from __future__ import annotations

import json
import os
import platform
import urllib.request
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tools import BENCH, Row, psql, run

#: figures that are measured once, and why: they do not grow with the portal
ONCE = {
    "startup": "it reads no data",
    "uploads": "its size is the number of uploads",
    "middleware": "its size is one key of Redis",
    "hooks": "it is told per dataset",
    "serving": "its size is a file of 100 MB",
    "page": "its size is 500 backups, and files of 1 and 2 GB",
    "metrics": "its size is 20 backups",
    "memory": "it makes a portal of ten times the datasets itself",
    "export_memory": "it makes a portal of five times the datasets itself",
    "prune": "its size is the number of backups and objects",
    "push": "its size is the number of uploads",
    "history": "its size is 365 backups",
    "year": "its size is 366 nights",
}
_MIDDLE = 20_000


class Result(NamedTuple):
    """A line of the file."""

    figure: str
    datasets: int
    rounds: int
    rows: Sequence[Row]
    seconds: float
    busy: int
    date: str
    machine: dict[str, Any]


def middle(sizes: Iterable[int]) -> int:
    """The size whose figures stand for all: 20,000 datasets, or what comes next to it."""
    sizes = set(sizes)
    return max((each for each in sizes if each <= _MIDDLE), default=min(sizes))


def read(file: Path) -> list[Result]:
    """All results, in the order in which they were measured."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text("utf-8").splitlines():
        about = json.loads(line)
        about["rows"] = tuple(Row(**row) for row in about["rows"])
        found.append(Result(**about))
    return found


def line(result: Result) -> str:
    """A result as it is kept: six figures of a number are more than was measured."""
    rows = [
        {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in row._asdict().items()
        }
        for row in result.rows
    ]
    return json.dumps(result._asdict() | {"rows": rows}, ensure_ascii=False) + "\n"


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def machine(solr: str) -> dict[str, Any]:
    """What has to be known of a machine to compare with it; neither names nor paths."""
    with urllib.request.urlopen(f"{solr}/admin/info/system?wt=json") as answer:
        of_solr = json.load(answer)["lucene"]["solr-spec-version"]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        ),
        "disk": _disk(),
        "fsync": psql("postgres", "SHOW fsync"),
        "versions": {
            "ckanext-dbmanage": version("ckanext-dbmanage"),
            "CKAN": version("ckan"),
            "PostgreSQL": psql("postgres", "SHOW server_version").split()[0],
            "Solr": of_solr,
            "ckanapi": version("ckanapi"),
            "restic": _said("restic", "version"),
            "borg": _said("borg", "--version"),
            "Python": platform.python_version(),
        },
    }


def _said(program: str, option: str) -> str:
    """The version of a program that need not be there."""
    try:
        return run(program, option).out.split()[1]
    except FileNotFoundError:
        return "none"


def _processor() -> str:
    for each in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = each.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _disk() -> str:
    """The file system of what is measured, and the kind of its disk, if that is known."""
    place = os.stat(BENCH).st_dev
    number = f"{os.major(place)}:{os.minor(place)}"
    kind = ""
    for each in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = each.partition(" - ")
        if before.split()[2] == number:
            kind = after.split()[0]
    device = Path(f"/sys/dev/block/{number}").resolve()
    if "/virtio" in str(device):
        return f"{kind} on a virtual disk"
    for queue in (device / "queue", device.parent / "queue"):  # of a partition
        if queue.exists():
            turns = (queue / "rotational").read_text().strip() == "1"
            return f"{kind} on {'a disk that turns' if turns else 'an SSD'}"
    return kind


# ---------------------------------------------------------------- how long it takes


def estimate(name: str, datasets: int, rounds: int, known: Iterable[Result]) -> float:
    """Seconds that a figure takes at most, by what it took; 0 where nothing is known.

    One size says what ten times it takes at most, two say how it grows.
    """
    took = {
        each.datasets: each.seconds * rounds / each.rounds
        for each in known
        if each.figure == name
    }
    if not took:
        return 0
    if datasets in took or name in ONCE:
        return took.get(datasets) or max(took.values())
    *less, largest = sorted(took)
    if not less:
        times = datasets / largest
        return took[largest] * max(1, times) if times <= 10 else 0
    slope = (took[largest] - took[less[-1]]) / (largest - less[-1])
    return max(took[largest] + slope * (datasets - largest), 0)


def plan(
    names: Collection[str], sizes: Collection[int], known: Iterable[Result]
) -> list[tuple[int, list[str]]]:
    """The figures to measure at each size, the smallest first; not what is known."""
    there = {(each.figure, each.datasets) for each in known}
    # one of them makes a portal of ten times the size
    once = middle(sizes) if min(sizes) <= _MIDDLE else None
    once_there = ONCE.keys() & {figure for figure, _ in there}

    def wanted(name: str, size: int) -> bool:
        if name in ONCE:
            return size == once and name not in once_there
        return (name, size) not in there

    return [
        (size, [name for name in names if wanted(name, size)]) for size in sorted(sizes)
    ]


def times(
    planned: Iterable[tuple[int, list[str]]], rounds: int, known: Sequence[Result]
) -> list[str]:
    """A sentence for each size: how long it takes."""
    told = []
    for size, names in planned:
        each = [estimate(name, size, rounds, known) for name in names]
        minutes = sum(each) / 60
        unknown = sum(1 for seconds in each if not seconds)
        told.append(
            f"{size} datasets, {len(names)} figures: {minutes:.0f} minutes at most"
            + (f", and {unknown} of which nothing is known" if unknown else "")
        )
    return told
