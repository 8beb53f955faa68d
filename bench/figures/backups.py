"""Figures of backup, restore, undo and upgrade, against PostgreSQL's own programs."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from portals import OLD, Portal
from tools import (
    BENCH,
    CKAN,
    anew,
    child,
    ckan,
    core_rebuild,
    create,
    drop,
    end,
    figure,
    needs_nginx,
    pg_dump,
    pg_restore,
    quiet,
    read_rows,
    run,
    sampled,
    say,
    started,
    turns,
)
from visitors import Visitors, before_two, web


def dump(portal: Portal, rounds: int) -> None:
    """The main database into segments; the floor is `pg_dump` that keeps nothing."""
    sizes = []

    def ours() -> float:
        done = child(portal, "dump")
        sizes.append(done["bytes"])
        return done["seconds"]

    best, peer, floor = turns(
        rounds, ours, lambda: portal.dump_file()[0], lambda: read_rows(portal.main)
    )
    figure("dump, against pg_dump -Fc", best, peer, 0.35, floor=floor)
    file = (BENCH / "peer.dump").stat().st_size
    figure("its file", sizes[-1] / 1e6, file / 1e6, 1.0, "MB")


def backup(portal: Portal, rounds: int) -> None:
    """The main database dumped and checked, against `pg_dump -Fc`, which is not checked."""
    whole, start, peer, floor = turns(
        rounds,
        lambda: ckan(portal, "db", "backup", "--only", "database", "--quiet"),
        lambda: ckan(portal, "db", "version"),
        lambda: portal.dump_file()[0],
        lambda: read_rows(portal.main),
    )
    figure("ckan db backup less CKAN's start", whole - start, peer, 0.6, floor=floor)


def startup(portal: Portal, rounds: int) -> None:
    """The start of a command of ours, and of one of CKAN's own."""
    ours, peer = turns(
        7 if rounds > 1 else 1,
        lambda: ckan(portal, "db", "backups"),
        lambda: ckan(portal, "db", "version"),
    )
    figure("ckan db backups, against db version", ours, peer, 1.05)


def without_ckan(portal: Portal, *arguments: str) -> tuple[str, ...]:
    """The command of a backup that does not start CKAN."""
    command = (sys.executable, "-m", "ckanext.dbmanage", "-c", portal.ini, "backup")
    return (*command, "--quiet", *arguments)


def memory(portal: Portal, rounds: int) -> None:
    """The peaks of a backup and of a restore, with ten times the datasets."""
    big = Portal("bench_big", 10 * portal.datasets).make()
    peaks = []
    for site in (portal, big):
        done = run(*without_ckan(site))
        restored = child(site, "restore", done.out.strip())
        drop(*restored["replaced"])
        say(f"{site.datasets} datasets: restored in {restored['seconds']:.0f} s")
        peaks.append((done.memory, restored["memory"]))
    drop(big.main, big.datastore)
    times = f"{big.datasets} : {portal.datasets}"
    for what, peer, ours in zip(("backup", "restore"), *peaks, strict=True):
        figure(f"memory of {what}, {times}", ours, peer, 1.1, "MB")


def restore(portal: Portal, rounds: int) -> None:
    """The main database, checked; the floor is PostgreSQL's own copy of its files."""
    backup_id, (_, file) = portal.back_up("--only", "database"), portal.dump_file()
    create("bench_copy", portal.main)

    def ours() -> float:
        done = child(portal, "restore", backup_id)
        drop(*done["replaced"])
        say("phases: " + ", ".join(f"{n} {s:.2f}" for n, s in done["phases"].items()))
        return done["seconds"]

    def copied() -> float:
        drop("bench_bare")
        begun = time.monotonic()
        create("bench_bare", portal.main)
        return time.monotonic() - begun

    best, peer, floor = turns(
        rounds, ours, lambda: pg_restore(file, "bench_copy"), copied
    )
    drop("bench_copy", "bench_bare")
    figure("restore, against pg_restore --clean", best, peer, 0.95, floor=floor)


def traffic(portal: Portal, rounds: int) -> None:
    """A restore with 2,000 uploads while 20 requests a second are asked.

    The peer is `pg_restore --clean` into the live database.
    """
    portal.upload(2_000, 20_000)
    backup_id, (_, file) = portal.back_up(), portal.dump_file()
    create("bench_copy", portal.main)
    ours, peer = [], []
    for _ in range(rounds):
        quiet()
        with Visitors(portal) as visitors:
            done = child(portal, "restore", backup_id)
        drop(*done["replaced"])
        ours.append(visitors.seen())
        quiet()
        with Visitors(portal) as visitors:
            # it may lose tables to its readers: that is the manual's way too
            pg_restore(file, portal.main, ok=(0, 1))
        peer.append(visitors.seen())
        create(portal.main, "bench_copy")  # whatever it left
    drop("bench_copy")
    shutil.rmtree(portal.storage / "resources")
    worst, best = max(gap for gap, _ in ours), min(gap for gap, _ in peer)
    figure("no good answer during a restore", worst, best, 1, of=worst)
    errors, theirs = sum(bad for _, bad in ours), min(bad for _, bad in peer)
    figure("error pages and wrong pages then", errors, theirs, 0, "", of=errors)


def undo(portal: Portal, rounds: int) -> None:
    """`ckan db undo` until the site is back, against the way that CKAN's manual gives."""
    _, file = portal.dump_file()
    backup_id = portal.back_up()
    ckan(portal, "db", "restore", backup_id, "--yes", "--no-backup", "--quiet")

    def ours() -> float:
        command = (CKAN, "-c", portal.ini, "db", "undo", "--yes", "--quiet")
        begun = time.monotonic()
        with started(*command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            back = time.monotonic() - begun
            process.stdout.read()
            process.wait()
        if not first.startswith(b"undone"):
            sys.exit("bench: the undo failed")
        say(f"back after {back:.2f} s, the index looked through after "
            f"{time.monotonic() - begun:.2f} s, CKAN's start included")  # fmt: skip
        return back

    best, start = turns(rounds, ours, lambda: ckan(portal, "db", "version"))
    seconds = ckan(portal, "db", "clean", "--yes", "--no-backup")
    seconds += pg_restore(file, portal.main, ok=(0, 1))
    seconds += core_rebuild(portal)
    took, sample = best - start, sampled(portal.datasets)
    name = "undo less CKAN's start, the manual's way"
    figure(name, took, seconds, 1, of=took, sample=sample)


def uploads(portal: Portal, rounds: int) -> None:
    """A second backup of the same uploads, against the first; the floor is `find`."""
    number = 100_000 if rounds > 1 else 5_000
    say(f"making {number} uploads of 100 kB")
    portal.upload(number, 100_000)
    command = without_ckan(portal, "--only", "files")
    first = run(*command).seconds
    again = min(run(*command).seconds for _ in range(rounds))
    look = ("find", str(portal.storage / "resources"), "-printf", "%s %T@ %i\n")
    floor = min(run(*look).seconds for _ in range(rounds))
    shutil.rmtree(portal.storage)
    anew(portal.storage / "dbmanage/backups")
    figure(f"a backup of {number} uploads again", again, first, 0.05, floor=floor)


@needs_nginx
def upgrade(portal: Portal, rounds: int) -> None:
    """From 2.10 to 2.12 while 20 requests a second are asked, and the manual's way."""
    old = Portal("bench_old", portal.datasets, OLD, "ckan_test_210").make()
    new = copy.copy(old)  # the same databases, the new code
    new.program, new.ini = CKAN, str(BENCH / "bench_new.ini")
    text = Path(old.ini).read_text().replace("ckan_test_210", "ckan")
    Path(new.ini).write_text(text)
    bare = str(BENCH / "bench_bare.ini")  # other plugins commented out
    Path(bare).write_text(text.replace("= dbmanage datastore", "= datastore"))
    say(run(CKAN, "-c", new.ini, "db", "upgrade", "--rehearse", "-q").out.strip())
    for name in (old.main, old.datastore):
        create(f"{name}_copy", name)
    with (
        before_two() as (first, second, port),
        web(old, first),
        web(new, second),
        Visitors(old, port) as visitors,
    ):
        ckan(new, "db", "upgrade", "-q")
    gap, _ = visitors.seen()
    for name in (old.main, old.datastore):
        create(name, f"{name}_copy")
    with (
        before_two() as (first, second, port),
        ExitStack() as afterwards,
        web(old, first) as process,
        Visitors(old, port) as visitors,
    ):
        end(process)
        pg_dump(old.main, str(BENCH / "peer.dump"))
        run(CKAN, "-c", bare, "db", "upgrade")
        old.set_permissions(CKAN, bare)
        afterwards.enter_context(web(new, second))
    theirs, _ = visitors.seen()
    figure("no good answer, 2.10 to 2.12", gap, theirs, 1, of=gap)
    for name in (old.main, old.datastore):
        drop(name, f"{name}_copy")
