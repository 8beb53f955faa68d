"""Figures of the index of records: what it costs, and a history over a year's nights."""

from __future__ import annotations

from portals import Portal
from tools import anew, child, figure, run, say, turns

from .backups import without_ckan
from .segments import Filled, shell, told

NIGHTS = 365


def index(portal: Portal, rounds: int) -> None:
    """A backup's databases, with the index of their records and without.

    A backup is all of its parts: uploads would make the index cost less still. Of the
    main database alone it is told too.
    """
    site, sizes = Filled(portal), {}

    def dumped(indexed: str, *parts: str) -> float:
        done = child(portal, "dump", indexed, *(parts or site.databases))
        sizes.update({name: size for name, size in done.items() if size})
        return done["seconds"]

    ours, without = turns(rounds, lambda: dumped("yes"), lambda: dumped(""))
    figure("a backup with its index, without", ours, without, 1.03)
    say(f"the index takes {ours - without:.2f} s of {without:.1f} s")
    mine, whole = sizes["index"] / 1e6, sizes["bytes"] / 1e6
    figure("bytes of the index, of the dumps", mine, whole, 0.03, "MB")
    main, less = turns(
        rounds, lambda: dumped("yes", "database"), lambda: dumped("", "database")
    )
    say(f"of the main database alone: {main:.2f} s with it, {less:.2f} s without")


def history(portal: Portal, rounds: int) -> None:
    """One dataset by its name over a year, less the start of Python."""
    portal.back_up("--only", "database")
    repository = portal.storage / "dbmanage/backups"
    start = without_ckan(portal)
    start = start[: start.index("backup")]
    command = (*start, "history", "dataset", "dataset-77")
    alone = run(*command)
    say(f"making the indexes of {NIGHTS} backups")
    child(portal, "nights", str(NIGHTS))
    peaks = []

    def ours() -> float:
        done = run(*command)
        assert f"{NIGHTS} backups looked at" in done.out, done.out
        peaks.append(done.memory)
        return told(done)

    def grep() -> float:
        said = shell(f"""cd {repository}
            for index in *Z/records.jsonl.zst
            do zstd -dcq $index | grep -F '"name":"dataset-77",'; done""")
        assert len(said.out.splitlines()) == NIGHTS
        return told(said)

    began = (*start, "backups", "latest")
    whole, begin, peer = turns(rounds, ours, lambda: told(run(*began)), grep)
    seconds = whole - begin
    say(f"{whole:.2f} s, of it {begin:.2f} s the start of Python, which is taken off")
    what = f"history of {NIGHTS} backups, zstd | grep"
    figure(what, seconds, peer, 2, of=seconds)
    figure("memory of it, against one backup", min(peaks), alone.memory, 1.25, "MB")
    anew(repository)
