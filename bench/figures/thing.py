"""Figures of one dataset that is brought back out of a large backup."""

from __future__ import annotations

import shutil
from itertools import count

from portals import Portal
from tools import BENCH, PG_BIN, ckan, create, drop, figure, psql, quiet, run, turns
from visitors import Visitors

from .segments import Filled

#: the dataset, which visitors do not read
NAME = "dataset-77"


def thing(portal: Portal, rounds: int) -> None:
    """One dataset with a table of 5 MB, less CKAN's start; what visitors see then.

    By hand it is the whole main database into a new one, and `pg_restore -t` of the
    table: then somebody still has to write down what was there.
    """
    Filled(portal)
    table = psql(
        portal.datastore,
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^.{36}$'"
        " AND relnamespace = 'public'::regnamespace"
        " ORDER BY abs(pg_relation_size(oid) - 5e6) LIMIT 1",
    )
    owner = f"package_id = (SELECT id FROM package WHERE name = '{NAME}')"
    psql(
        portal.main,
        f"UPDATE resource SET id = '{table}', extras = '{{\"datastore_active\": true}}'"
        f" WHERE id = (SELECT min(id) FROM resource WHERE {owner})",
    )
    id, number = portal.back_up(), count()
    files = {
        name: str(BENCH / f"{name}.dump") for name in (portal.main, portal.datastore)
    }
    for name, file in files.items():
        run(f"{PG_BIN}/pg_dump", "-Fc", "-Z0", "-f", file, "-d", name)

    def ours() -> float:
        psql(
            portal.main,
            f"UPDATE package SET title = 'No {next(number)}' WHERE name = '{NAME}'",
        )
        psql(portal.datastore, f'DROP TABLE IF EXISTS "{table}" CASCADE')
        return ckan(portal, "db", "restore", id, "--dataset", NAME, "--yes", "--quiet")

    def by_hand() -> float:
        create("bench_scratch")
        restore = (f"{PG_BIN}/pg_restore", "--no-owner", "--no-acl", "-d")
        first = (*restore, "bench_scratch", files[portal.main])
        second = (*restore, "bench_scratch", "-t", table, files[portal.datastore])
        seconds = run(*first, ok=(0, 1)).seconds + run(*second, ok=(0, 1)).seconds
        drop("bench_scratch")
        return seconds

    whole, start, peer = turns(
        rounds, ours, lambda: ckan(portal, "db", "version"), by_hand
    )
    seconds = whole - start
    figure("one dataset back, by hand", seconds, peer, 6, of=seconds)
    before, meanwhile = [], []
    for _ in range(rounds):
        quiet()
        with Visitors(portal) as visitors:
            visitors.wait_for(120)
            before.append(visitors.median("/api/3/action/package_show"))
            visitors.answers.clear()
            ours()
            meanwhile.append(visitors.median("/api/3/action/package_show"))
    then, alone = min(meanwhile) * 1e3, min(before) * 1e3
    figure("a visitor's answer then, and alone", then, alone, 1.1, "ms")
    shutil.rmtree(portal.storage / "dbmanage")
