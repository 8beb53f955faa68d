"""What every figure needs: programs, rounds that take turns, rows of the table."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from portals import Portal

ROOT = Path(__file__).resolve().parent.parent
S = ROOT / ".services"
BENCH = S / "bench"
E = os.environ
PG_BIN, CKAN = E["DBMANAGE_PG_BIN"], str(S / "venv/bin/ckan")
SITE_ID = "dbmanage_bench"  # stands in the comment of each database a restore makes
NGINX = shutil.which("nginx", path=f"/usr/sbin:{E['PATH']}")
# the environment would win over the configuration file
ENV = {k: v for k, v in E.items() if not k.startswith("CKAN")}
ENV |= {"PGPASSWORD": E["DBMANAGE_CKAN_PASSWORD"], "PGHOST": "127.0.0.1"}
ENV |= {"PGPORT": E["DBMANAGE_PG_PORT"], "PGUSER": "ckan_default"}
ENV["PATH"] = f"{S / 'venv/bin'}:{E['PATH']}"  # ckanapi looks for ckan there

#: a figure prints its rows; it takes the portal and the number of rounds
Figure = Callable[["Portal", int], None]


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ programs


@contextmanager
def started(
    *command: str,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs, and is ended with all that it started when the block ends.

    In a session of its own: Ctrl-C reaches the benchmark alone, which then ends it.
    """
    process = subprocess.Popen(
        command, env=ENV, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program of `started`, which may have ended already."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)  # a restore drops what it made
            return


class Done(NamedTuple):
    """What a program that has ended took and said; `cpu` of all that it started."""

    seconds: float
    memory: float  # its peak, MB
    out: str
    err: str
    cpu: float  # seconds


def run(*command: str, ok: tuple[int, ...] = (0,)) -> Done:
    """Runs a program to its end."""
    # files of its own: two programs would write into each other's
    with TemporaryFile(dir=BENCH) as out, TemporaryFile(dir=BENCH) as err:
        begun = time.monotonic()
        with started(*command, stdout=out, stderr=err) as process:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begun
            process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        told = err.read().decode()
        if process.returncode not in ok:
            sys.exit(f"bench: {command} failed:\n{told[-3000:]}")
        cpu = usage.ru_utime + usage.ru_stime
        return Done(seconds, usage.ru_maxrss / 1024, out.read().decode(), told, cpu)


def psql(database: str, *statements: str) -> str:
    """What the statements select."""
    command = [f"{PG_BIN}/psql", "-qXAt", "-v", "ON_ERROR_STOP=1", "-d", database]
    for statement in statements:
        command += ["-c", statement]
    return run(*command).out.strip()


def pg_dump(database: str, file: str) -> float:
    """Seconds of `pg_dump`."""
    return run(f"{PG_BIN}/pg_dump", "-Fc", "-f", file, "-d", database).seconds


def read_rows(database: str) -> float:
    """Seconds in which `pg_dump` reads all rows and keeps none."""
    return run(f"{PG_BIN}/pg_dump", "-f", "/dev/null", "-d", database).seconds


def pg_restore(file: str, database: str, ok: tuple[int, ...] = (0,)) -> float:
    """Seconds of `pg_restore`, as CKAN's manual has it."""
    manual = ("--clean", "--if-exists", "-d", database, file)
    return run(f"{PG_BIN}/pg_restore", *manual, ok=ok).seconds


def ckan(portal: Portal, *arguments: str) -> float:
    """Seconds of a command of today's CKAN."""
    return run(CKAN, "-c", portal.ini, *arguments).seconds


def inside(what: str, portal: Portal, *arguments: str) -> tuple[str, ...]:
    """The command of a function of `inside.py`."""
    return (sys.executable, str(ROOT / "bench/inside.py"), what, portal.ini, *arguments)


def child(portal: Portal, what: str, *arguments: str) -> dict[str, Any]:
    """What a process with our code and nothing else measured, and its `memory`."""
    done = run(*inside(what, portal, *arguments))
    return json.loads(done.out) | {"memory": done.memory}


def create(name: str, template: str = "template0") -> None:
    drop(name)
    psql("postgres", f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")


def drop(*names: str) -> None:
    for name in names:
        # FORCE is refused while autovacuum is in there; without it autovacuum is ended
        ends = f"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = '{name}' AND usename IN (SELECT current_user)"""
        psql("postgres", ends, f"DROP DATABASE IF EXISTS {name}")


def anew(repository: Path) -> None:
    """Empties a repository, and says that this is meant: else a backup is refused."""
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir(parents=True)
    (repository / ".anew").touch()


def drop_all() -> None:
    """Drops every database of a benchmark, and what its restores made."""
    ours = f"""SELECT datname FROM pg_database WHERE datdba = 'ckan_default'::regrole AND
      (datname ~ '^bench_' OR datname ~ '^dbm_.*(scratch|undo)$' AND
       shobj_description(oid, 'pg_database') LIKE '%site ''{SITE_ID}''%')"""
    drop(*psql("postgres", ours).split())


# ------------------------------------------------------------ rounds and rows


class Row(NamedTuple):
    """What was measured; the values are in `unit`."""

    name: str
    ours: float
    peer: float
    target: float | None  # None: it is shown beside others
    unit: str = "s"
    of: float | None = None  # what is judged, if it is not the ratio
    floor: float | None = None  # what no program can do without
    sample: int = 0  # with so many the peer was measured, then scaled up; 0: with all

    @property
    def ratio(self) -> float:
        return self.ours / self.peer if self.peer else 0.0

    @property
    def met(self) -> bool:
        judged = self.ratio if self.of is None else self.of
        return self.target is None or judged <= self.target


class Missing(Exception):
    """A program that a figure needs is not there."""


#: of all figures measured so far
ROWS: list[Row] = []
#: of more things than this a peer that takes hours is measured with a sample
_MANY, _SAMPLE = 20_000, 2_000
#: seconds that are waited for a quiet moment; how often there was none
_patience, _busy = 60, 0


def do_not_wait() -> None:
    """Measures at once, however busy the machine is."""
    global _patience
    _patience = 0


def busy() -> int:
    """How often others were at work when something was measured."""
    return _busy


def quiet() -> None:
    """Waits, at most one minute, until others leave the processors to us."""
    global _busy

    def ticks() -> list[int]:
        first = Path("/proc/stat").read_text().split("\n")[0]
        return [int(number) for number in first.split()[1:9]]

    end = time.monotonic() + _patience
    while True:
        before = ticks()
        time.sleep(1)
        spent = [b - a for a, b in zip(before, ticks(), strict=True)]
        if spent[3] + spent[4] > 0.85 * sum(spent):
            return
        if time.monotonic() > end:
            break
    _busy += 1
    say(f"the machine is busy (load {os.getloadavg()[0]:.1f}): measuring all the same")


def turns(rounds: int, *works: Callable[[], float]) -> list[float]:
    """The best result of each, taken in turns at quiet moments."""
    results = []
    for _ in range(rounds):
        row = []
        for work in works:
            quiet()
            row.append(work())
        say(" ".join(f"{seconds:.2f}" for seconds in row))
        results.append(row)
    return [min(column) for column in zip(*results, strict=True)]


def pairs(rounds: int, *works: Callable[[], float], number: int = 20) -> list[float]:
    """The best result of each of some short works, one after the other each time.

    What others do meanwhile falls on all of them.
    """
    results = []
    for _ in range(rounds):
        quiet()
        results += [[work() for work in works] for _ in range(number)]
    best = [min(column) for column in zip(*results, strict=True)]
    say(" ".join(f"{seconds:.4f}" for seconds in best))
    return best


def figure(
    name: str,
    ours: float,
    peer: float,
    target: float | None,
    unit: str = "s",
    of: float | None = None,
    floor: float | None = None,
    sample: int = 0,
) -> None:
    """Keeps a row, and prints it; one without a target is shown beside others."""
    row = Row(name, ours, peer, target, unit, of, floor, sample)
    limit = ""
    if target is not None:
        limit = f"≤ {target:g}" if of is None else f"≤ {target:g} {unit}"
    least = "" if floor is None else f"{floor:.2f} {unit:2}"
    ROWS.append(row)
    if len(ROWS) == 1:
        heads = ("OURS", "PEER", "FLOOR")
        print(f"{'':38}" + "".join(f"{head:>12}" for head in heads), end="")
        print(f"{'RATIO':>9}{'TARGET':>10}", flush=True)
    print(
        f"{name:38}{ours:>9.2f} {unit:2}{peer:>9.2f} {unit:2}{least:>12}{row.ratio:>9.2f}"
        f"{limit:>10}  {'MISSED' if not row.met else 'met' if limit else 'shown'}",
        flush=True,
    )


def sampled(number: int) -> int:
    """With how many of so many things a slow peer is measured; 0: with all."""
    return _SAMPLE if number > _MANY else 0


def scaled(seconds: float, number: int, sample: int, start: float) -> float:
    """What all take, by what a sample takes; what starts once is not scaled."""
    return start + (seconds - start) * number / sample if sample else seconds


def core_rebuild(portal: Portal) -> float:
    """Seconds of core's rebuild of the search index, of many datasets scaled up."""
    sample = sampled(portal.datasets)
    if not sample:
        return ckan(portal, "search-index", "rebuild")
    ckan(portal, "search-index", "clear")
    start = ckan(portal, "db", "version")
    seconds = run(*inside("index", portal, "0", "1", str(sample))).seconds
    return scaled(seconds, portal.datasets, sample, start)


def needs_nginx(measured: Figure) -> Figure:
    """A figure that is not measured where there is no nginx."""

    @functools.wraps(measured)
    def measure(portal: Portal, rounds: int) -> None:
        if NGINX is None:
            raise Missing("apt-get install nginx-light")
        measured(portal, rounds)

    return measure
