"""The figure of an import, against `ckanapi load`."""

from __future__ import annotations

import sys
from pathlib import Path

from figures.records import OURS, exported
from portals import Portal
from tools import BENCH, CKAN, S, ckan, drop, figure, psql, run, scaled, turns

#: datasets that ckanapi loads; it takes minutes for more
_MOST = 500


def import_(portal: Portal, rounds: int) -> None:
    """Datasets into an empty portal, by two processes each, to the index.

    End to end, CKAN's start included.
    """
    exported(portal, "--fresh")
    lines = OURS.read_bytes().splitlines(keepends=True)
    few, number = BENCH / "some.jsonl", min(_MOST, len(lines))
    few.write_bytes(b"".join(lines[:number]))
    other = Portal("bench_import", 0).make()
    ini = ("-c", other.ini)

    def into_empty(number: int, *command: str) -> float:
        psql(
            other.main,
            "TRUNCATE package, tag, activity CASCADE",
            "DELETE FROM member WHERE table_name = 'package'",
        )
        ckan(other, "search-index", "clear")
        seconds = run(*command).seconds
        if psql(other.main, "SELECT count(*) FROM package") != str(number):
            sys.exit(f"bench: {command} has not imported all")
        if "not indexed = 0" not in run(CKAN, *ini, *_CHECK).out:
            sys.exit(f"bench: {command} has not indexed all")
        return seconds

    def imported(file: Path, number: int) -> float:
        command = ("db", "import", "datasets", str(file), "--jobs", "2")
        return into_empty(number, CKAN, *ini, *command)

    def loaded() -> float:
        command = ("load", "datasets", "-I", str(few), *ini, "-p", "2", "-q")
        return into_empty(number, str(S / "venv/bin/ckanapi"), *command)

    ours, theirs = turns(rounds, lambda: imported(few, number), loaded)
    figure(f"import of {number}, ckanapi load", ours, theirs, 1 / 4)
    if len(lines) > number:
        ours = imported(OURS, len(lines))
        start = ckan(other, "db", "version")
        theirs = scaled(theirs, len(lines), number, start)
        figure("import of all, ckanapi load", ours, theirs, 1 / 4, sample=number)
    ckan(other, "search-index", "clear")
    drop(other.main, other.datastore)


_CHECK = ("search-index", "check")
import_.__name__ = "import"  # as it is asked for
