"""The figure of an import, against `ckanapi load`."""

from __future__ import annotations

import sys

from figures.records import OURS, exported
from portals import Portal
from tools import BENCH, CKAN, S, ckan, drop, figure, psql, run, turns

#: datasets of the file; ckanapi takes minutes for more
_MOST = 500


def import_(portal: Portal, rounds: int) -> None:
    """The same datasets into an empty portal, by two processes each, to the index.

    End to end, CKAN's start included.
    """
    exported(portal, "--fresh")
    some = OURS.read_bytes().splitlines(keepends=True)[: min(_MOST, portal.datasets)]
    file = BENCH / "some.jsonl"
    file.write_bytes(b"".join(some))
    other = Portal("bench_import", 0).make()

    def into_empty(*command: str) -> float:
        psql(
            other.main,
            "TRUNCATE package, tag, activity CASCADE",
            "DELETE FROM member WHERE table_name = 'package'",
        )
        ckan(other, "search-index", "clear")
        seconds = run(*command).seconds
        if psql(other.main, "SELECT count(*) FROM package") != str(len(some)):
            sys.exit(f"bench: {command} has not imported all")
        if "not indexed = 0" not in run(CKAN, "-c", other.ini, *_CHECK).out:
            sys.exit(f"bench: {command} has not indexed all")
        return seconds

    ini, lines = ("-c", other.ini), ("datasets", str(file))
    ours, theirs = turns(
        rounds,
        lambda: into_empty(CKAN, *ini, "db", "import", *lines, "--jobs", "2"),
        lambda: into_empty(
            str(S / "venv/bin/ckanapi"), "load", "datasets", "-I", str(file), *ini,
            "-p", "2", "-q",
        ),
    )  # fmt: skip
    figure(f"import of {len(some)}, ckanapi load", ours, theirs, 1 / 4)
    ckan(other, "search-index", "clear")
    drop(other.main, other.datastore)


_CHECK = ("search-index", "check")
import_.__name__ = "import"  # as it is asked for
