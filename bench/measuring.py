"""All figures, how one is measured, and how everything is cleaned up."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from figures import (
    backups,
    history,
    imports,
    nightly,
    offsite,
    records,
    segments,
    thing,
    web,
)
from portals import Portal
from tools import BENCH, ROWS, SITE_ID, E, Missing, Row, S, drop_all, psql, say

_ALL = (
    backups.dump, backups.backup, backups.startup, backups.restore, backups.traffic,
    backups.undo, backups.uploads, web.middleware, records.export, records.hooks,
    records.users, imports.import_, web.serving, web.page, web.metrics, records.reindex, backups.upgrade,
    backups.memory, records.export_memory, segments.nights, segments.prune,
    offsite.push, offsite.recover,
    history.index, history.history,
    nightly.nightly, nightly.year, thing.thing,
)  # fmt: skip
FIGURES = {measure.__name__: measure for measure in _ALL}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def measure(name: str, portal: Portal, rounds: int) -> list[Row]:
    """The rows of a figure, printed too; none where a program is missing."""
    say(f"{name} (load {os.getloadavg()[0]:.1f})")
    before = len(ROWS)
    try:
        FIGURES[name](portal, rounds)
    except Missing as error:
        say(f"{name} is not measured: {error}")
    return ROWS[before:]


@contextmanager
def cleaned_up() -> Iterator[None]:
    """Leaves nothing behind, whatever ends it; one benchmark at a time."""

    def end(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second one would end the cleaning
        say("ending: what was made is cleaned up first")
        sys.exit(128 + number)

    before = os.umask(0o077)
    BENCH.mkdir(exist_ok=True)
    rights = "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user"
    if psql("postgres", rights) != "t":
        sys.exit(
            "bench: CKAN's role may not create databases: bin/services grant-createdb"
        )
    with (S / "bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for each in _SIGNALS:
            signal.signal(each, end)
        clean_up()  # after a run that was killed
        try:
            yield
        finally:
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_IGN)
            clean_up()
            os.umask(before)


def clean_up() -> None:
    drop_all()
    for core in ("ckan", "ckan_test_210"):
        clear_index(f"http://127.0.0.1:{E['DBMANAGE_SOLR_PORT']}/solr/{core}")
    for path in BENCH.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".log":
            path.unlink()


def clear_index(solr: str) -> None:
    query = f"<delete><query>+site_id:{SITE_ID}</query></delete>".encode()
    request = urllib.request.Request(
        f"{solr}/update?commit=true", query, {"Content-Type": "text/xml"}
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except OSError as error:
        say(f"{solr} was not cleaned up: {error}")
