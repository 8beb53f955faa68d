"""Figures of databases in segments: nights, beside restic's and borg's; prune."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from portals import Portal
from tools import (
    BENCH,
    PG_BIN,
    ROOT,
    Done,
    Missing,
    anew,
    child,
    drop,
    figure,
    psql,
    run,
    say,
    turns,
)

from .backups import without_ckan

NIGHTS = 2
#: a dump as all get it: not compressed, through a pipe
_DUMP = f"{PG_BIN}/pg_dump -Fc -Z0"
_RESTIC, _BORG = BENCH / "restic", BENCH / "borg"


class Filled:
    """A portal with a DataStore of 300 tables, and what its nights change.

    The DataStore is of 1.6 GB at most: more only takes longer.
    """

    def __init__(self, portal: Portal) -> None:
        self.portal, self.scale = portal, min(portal.datasets / 20_000, 1)
        # another figure of the same run may have done so
        if not psql(portal.datastore, "SELECT to_regclass('bench.phrase')"):
            say(f"filling the DataStore: {1600 * self.scale:.0f} MB of a dump")
            psql(portal.datastore, f"\\set scale {self.scale}", _read("datastore"))
            psql(portal.datastore, "VACUUM ANALYZE")
            portal.upload(2_000, 100_000)
        self.databases = {"database": portal.main, "datastore": portal.datastore}

    def night(self, number: int) -> None:
        """What changes in one: 1 % of the datasets, 3 % of the tables."""
        psql(self.portal.main, f"\\set v {number}", _read("night"))
        psql(self.portal.datastore, f"SELECT bench.night({number}, {self.scale})")
        psql(self.portal.datastore, "VACUUM ANALYZE")

    @property
    def repository(self) -> Path:
        return self.portal.storage / "dbmanage/backups"

    def ours(self, *parts: str) -> float:
        """Seconds of a backup of the databases, checked, the start of Python included."""
        chosen = [f"--only={part}" for part in parts or self.databases]
        return told(run(*without_ckan(self.portal, *chosen)))

    def start(self) -> float:
        """Seconds of the start alone."""
        command = without_ckan(self.portal)
        return run(*command[: command.index("backup")], "backups").seconds

    def files(self) -> float:
        """Seconds of today's way: a whole file of each, its rows counted, read again."""
        count = "SELECT format('SELECT count(*) FROM %I.%I', schemaname, tablename)"
        count += " FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
        return self._each(
            f"""echo "{count} \\gexec" | {PG_BIN}/psql -qXAt -d $name >/dev/null &
            {_DUMP} -d $name | zstd -q -3 -f -o {BENCH}/$name.zst
            sync {BENCH}/$name.zst
            zstd -dcq {BENCH}/$name.zst | {PG_BIN}/pg_restore -f /dev/null
            wait
            rm {BENCH}/$name.zst"""
        )

    def restic(self) -> float:
        return self._each(f"""{_DUMP} -d $name |
            restic backup -q --stdin --stdin-filename $name.dump""", wait=True)  # fmt: skip

    def borg(self) -> float:
        return self._each(
            f"{_DUMP} -d $name | borg create -C zstd,3 ::$name-{{now:%s%f}} -",
            wait=True,
        )

    def _each(self, script: str, wait: bool = False) -> float:
        """Runs this for each database; both at once unless one has to `wait`."""
        works = [f"( name={name}; {script} )" for name in self.databases.values()]
        joined = "\n".join(works) if wait else " &\n".join([*works, "wait"])
        return told(shell(joined))

    def manifest(self) -> dict[str, Any]:
        """Of the newest backup."""
        newest = sorted(self.repository.glob("*Z"))[-1]
        return json.loads((newest / "manifest.json").read_bytes())


def told(done: Done) -> float:
    """Its seconds; those of the processors are said, for others may be at work."""
    say(f"{done.seconds:.1f} s, {done.cpu:.1f} s of CPU, {done.memory:.0f} MB")
    return done.seconds


def shell(script: str) -> Done:
    """Runs a script, with what restic and borg need."""
    environment = f"""set -eu
        export RESTIC_REPOSITORY={_RESTIC} RESTIC_PASSWORD=bench
        export RESTIC_CACHE_DIR={BENCH}/restic-cache
        export BORG_REPO={_BORG} BORG_BASE_DIR={BENCH}/borg-home
        export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
        """
    return run("bash", "-o", "pipefail", "-c", environment + script)


def _read(name: str) -> str:
    return f"\\i '{ROOT}/bench/{name}.sql'"


def _size(path: Path) -> float:
    """The MB of all files in a directory."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def nights(portal: Portal, rounds: int) -> None:
    """A first backup and the nights after it, beside whole files, restic and borg."""
    for program in ("restic", "borg"):
        if not shutil.which(program):
            raise Missing("apt-get install restic borgbackup")
    site = Filled(portal)

    def first() -> float:
        anew(site.repository)
        return site.ours()

    def first_main() -> float:
        anew(site.repository)
        return site.ours("database")

    def checked() -> float:
        seconds, file = portal.dump_file()
        return seconds + run(f"{PG_BIN}/pg_restore", "-f", "/dev/null", file).seconds

    alone, checks, start = turns(rounds, first_main, checked, site.start)
    figure("first of main, pg_dump -Fc checked", alone - start, checks, 0.6)
    took, files, start = turns(rounds, first, site.files, site.start)
    figure("first backup, against whole files", took - start, files, 1.3)
    dumps = site.manifest()["databases"]
    stored = {part: about["dump"]["stored"] / 1e6 for part, about in dumps.items()}
    shell("restic init -q; borg init -e none")
    theirs = {"restic": [site.restic()], "borg": [site.borg()]}
    sizes = {"restic": [_size(_RESTIC)], "borg": [_size(_BORG)]}
    say(f"restic's first {theirs['restic'][0]:.1f} s, {sizes['restic'][0]:.0f} MB; "
        f"borg's {theirs['borg'][0]:.1f} s, {sizes['borg'][0]:.0f} MB; "
        f"ours {took - start:.1f} s, {sum(stored.values()):.0f} MB")  # fmt: skip
    uploads = run(*without_ckan(portal, "--only", "files")).seconds
    before = _size(site.repository)
    run(*without_ckan(portal, "--only", "files"))
    again = _size(site.repository) - before
    say(f"a backup of 2,000 uploads took {uploads:.1f} s")
    ours, whole, added = 0.0, 0.0, dict.fromkeys(stored, 0.0)
    for number in range(1, NIGHTS + 1):
        site.night(number)
        one, other, start = turns(1, site.ours, site.files, site.start)
        ours, whole = ours + one - start, whole + other
        for part, about in site.manifest()["databases"].items():
            new = about["dump"]["added"] / 1e6
            say(f"night {number}, {part}: {new:.2f} MB")
            added[part] += new / NIGHTS
        for name, work in (("restic", site.restic), ("borg", site.borg)):
            theirs[name].append(work())
            sizes[name].append(_size(BENCH / name))
    figure("nights after, against whole files", ours, whole, 1.1)
    for part, limit in (("datastore", 0.02), ("database", 0.03)):
        figure(f"a night adds: {part}", added[part], stored[part], limit, "MB")
    figure("it adds: the same uploads", again, 200, 0.001, "MB")
    total = sum(added.values())
    for name, limit in (("restic", 0.25), ("borg", 0.25)):
        new = (sizes[name][-1] - sizes[name][0]) / NIGHTS
        figure(f"bytes of a night, {name}", total, new, limit, "MB")
        # ours also counts the rows, and reads again what it wrote
        seconds = sum(theirs[name][1:]) / NIGHTS
        figure(f"seconds of it, {name}", ours / NIGHTS, seconds, None)
    _restores(site, rounds)
    for directory in (_RESTIC, _BORG, BENCH / "restic-cache", BENCH / "borg-home"):
        shutil.rmtree(directory)


def _restores(site: Filled, rounds: int) -> None:
    """A restore through the list, against one of a single file of the same bytes."""
    portal = site.portal
    taken = sorted(site.repository.glob("*Z"))[-1].name
    start = without_ckan(portal)
    start = start[: start.index("backup")]
    for part in site.databases:
        file = str(BENCH / f"{part}.dump.zst")
        dump = (*start, "dump", "-q", "--from", taken, "--only", part, "-")
        run("bash", "-o", "pipefail", "-c", '"$@" | zstd -q -f -o "$0"', file, *dump)

        def restored(of: str, file: str = "") -> float:
            done = child(portal, "restore", taken, file, of)
            drop(*done["replaced"])
            say(
                "phases: "
                + ", ".join(f"{n} {s:.1f}" for n, s in done["phases"].items())
            )
            return done["seconds"]

        ours, peer = turns(
            rounds, partial(restored, part), partial(restored, part, file)
        )
        Path(file).unlink()
        figure(f"restore of the {part}, one file", ours, peer, 1.1)


def prune(portal: Portal, rounds: int) -> None:
    """10,000 backups and a million objects, half of which nobody names any more."""
    backups, objects = (
        (10_000, 1_000_000) if portal.datasets == 20_000 else (1_000, 50_000)
    )
    say(f"making {backups} backups and {objects} objects")
    portal.back_up("--only", "database")
    child(portal, "crowd", str(backups), str(objects))
    small = child(portal, "sift", "100")
    repository = portal.storage / "dbmanage/backups"
    # what stock tools need to know the same
    script = f"""cd {repository}
        find objects -type f -printf '%f\\n' | LC_ALL=C sort > {BENCH}/there
        {{ cut -d' ' -f1,2 *Z/database.list | tr ' ' '\\n'
          stat -L -c '%i %n' *Z/files.jsonl.zst | sort -u -k1,1 | cut -d' ' -f2 |
            xargs -n1 zstd -dcq | grep -o '[0-9a-f]\\{{64\\}}"}}$' | cut -c-64
        }} | LC_ALL=C sort -u > {BENCH}/named
        LC_ALL=C comm -23 {BENCH}/there {BENCH}/named | wc -l"""
    done = child(portal, "sift", "0")
    said = shell(script)
    say(
        f"{done['count']} objects are named by nobody, by stock tools {said.out.strip()}"
    )
    figure(
        "prune, against find, sort and comm",
        done["seconds"],
        said.seconds,
        10,
        of=done["seconds"],
    )
    figure(
        "memory of it, against 100 backups", done["memory"], small["memory"], 1.1, "MB"
    )
    anew(repository)
