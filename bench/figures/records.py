"""Figures of export and of the search index, against ckanapi and core's rebuild."""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from portals import Portal
from tools import (
    BENCH,
    CKAN,
    ENV,
    Done,
    S,
    child,
    ckan,
    drop,
    figure,
    inside,
    psql,
    run,
    say,
    started,
    turns,
)

# what three plugins with a hook each add to every dataset
HOOKS = """
import ckan.plugins as p
class Hooks(p.SingletonPlugin):
    p.implements(p.IPackageController, inherit=True)
    p.implements(p.IResourceController, inherit=True)
    def read(self, entity): self.seen = entity.name
    def before_resource_show(self, resource): resource["shown"] = True; return resource
    def after_dataset_show(self, context, dataset): dataset["seen"] = self.seen
"""
OURS, PEER = BENCH / "ours.jsonl", BENCH / "peer.jsonl"


def exported(portal: Portal, *options: str, kind: str = "datasets") -> Done:
    """An export by two processes, CKAN's start included."""
    command = (CKAN, "-c", portal.ini, "db", "export", kind, "--jobs", "2")
    return run(*command, "-O", str(OURS), *options)


def dumped(
    portal: Portal,
    kind: str = "datasets",
    user: tuple[str, ...] = ("-u", ""),
    which: str = "--all",
) -> float:
    """Seconds of `ckanapi dump` by two processes."""
    command = (str(S / "venv/bin/ckanapi"), "dump", kind, which, "-q", "-p", "2")
    return run(*command, "-c", portal.ini, *user, "-O", str(PEER)).seconds


def same(sort: bool = False) -> None:
    """Stops when the two files differ."""
    ours, peer = (file.read_bytes().splitlines() for file in (OURS, PEER))
    if (sorted(ours) != sorted(peer)) if sort else (ours != peer):
        sys.exit("bench: the export is not what ckanapi dumps")
    say(f"{len(ours)} lines, equal")


def rows_as_they_are(portal: Portal) -> float:
    """Seconds of COPY of the same rows: no exporter can be faster."""
    public = "SELECT id FROM package WHERE state = 'active' AND NOT private"
    begun = time.monotonic()
    for table, key in (
        ("package", "id"),
        ("resource", "package_id"),
        ("package_tag", "package_id"),
    ):
        rows = f"SELECT * FROM {table} WHERE {key} IN ({public})"
        psql(portal.main, f"COPY ({rows}) TO STDOUT")
    return time.monotonic() - begun


def from_index(done: Done) -> tuple[int, int]:
    """Lines of an export from the search index, and from the database, as it said."""
    words = r"(\d+) from the search index, (\d+) from the database"
    found = re.search(words, done.err)
    if found is None:
        sys.exit(f"bench: the export does not say where its lines are from: {done.err}")
    return int(found[1]), int(found[2])


def index_by_two(portal: Portal) -> float:
    """Seconds in which two processes make core's documents by core's own functions."""
    say("making the search index by core's functions, some minutes")
    begun = time.monotonic()
    with ExitStack() as stack:
        both = [
            stack.enter_context(started(*inside("index", portal, part)))
            for part in ("0", "1")
        ]
        if any(process.wait() for process in both):
            sys.exit("bench: the search index could not be made")
    return time.monotonic() - begun


def export(portal: Portal, rounds: int) -> None:
    """End to end, CKAN's start included, first without and then with a search index."""
    ckan(portal, "search-index", "clear")
    ours, theirs, floor = turns(
        rounds,
        lambda: exported(portal, "--fresh").seconds,
        lambda: dumped(portal),
        lambda: rows_as_they_are(portal),
    )
    same()
    figure("export --fresh, ckanapi without index", ours, theirs, 1 / 15)
    # nothing to be met: it says how far the lines are from the rows they are made of
    figure("export --fresh, COPY of its rows", ours, floor, float("inf"))
    index_by_two(portal)

    def warm() -> float:
        done = exported(portal)
        indexed, read = from_index(done)
        # the few whose time is in whole milliseconds core itself reads from the database
        if indexed < 0.99 * (indexed + read):
            sys.exit(f"bench: {read} of the lines came from the database")
        return done.seconds

    ours, theirs = turns(rounds, warm, lambda: dumped(portal))
    same()
    figure("export, ckanapi with a warm index", ours, theirs, 1 / 20)
    ckan(portal, "search-index", "clear")


def reindex(portal: Portal, rounds: int) -> None:
    """The whole index, beside core's rebuild and Solr taking ready documents."""
    say("core's rebuild, some minutes")
    ckan(portal, "search-index", "clear")
    core = ckan(portal, "search-index", "rebuild")
    documents = child(portal, "documents")["documents"]
    ckan(portal, "search-index", "clear")
    # core's own rebuild-fast is no peer: its processes share one connection to the
    # database, so that it fails, indexes nothing, or waits for ever
    peer = index_by_two(portal)

    def ours() -> float:
        ckan(portal, "search-index", "clear")
        return ckan(portal, "db", "reindex", "-q", "--jobs", "2")

    def replayed() -> float:
        ckan(portal, "search-index", "clear")
        return child(portal, "replay")["seconds"]

    whole, solr = turns(rounds, ours, replayed)
    ckan(portal, "db", "reindex", "-q", "--jobs", "2")
    if child(portal, "documents")["documents"] != documents:
        sys.exit("bench: the documents are not core's")
    say("the documents are core's, all of them")
    figure("reindex, core's rebuild", whole, core, 1 / 8)
    figure("reindex, core's rebuild by two", whole, peer, 1)
    figure("reindex, Solr takes ready documents", whole, solr, 1 / 0.6)
    deep = min(ckan(portal, "db", "reindex", "--deep", "-q") for _ in range(rounds))
    figure("reindex --deep, core's rebuild", deep, core, 1 / 20)

    def changed() -> float:
        psql(
            portal.main,
            """UPDATE package SET metadata_modified = now(), notes = notes || '.'
               WHERE id IN (SELECT id FROM package ORDER BY md5(id || random()::text)
                            LIMIT (SELECT count(*) / 100 FROM package))""",
        )
        return ckan(portal, "db", "reindex", "--changed", "-q")

    best = min(changed() for _ in range(rounds))
    figure("reindex --changed, 1 %, core's", best, core, 5, of=best)
    ckan(portal, "search-index", "clear")


def hooks(portal: Portal, rounds: int) -> None:
    """With hooks and with ckanext-scheming: seconds a dataset, against the action."""
    path = BENCH / "plugins"
    about = path / "hooks-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (path / "hooks.py").write_text(HOOKS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hooks\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ckan.plugins]\nhooks = hooks:Hooks\n")
    before = Path(portal.ini).read_text()
    ENV["PYTHONPATH"] = str(path)
    try:
        for name in ("hooks", "scheming_datasets"):
            Path(portal.ini).write_text(
                before.replace(
                    "ckan.plugins = dbmanage datastore activity",
                    "scheming.dataset_schemas = ckanext.scheming:ckan_dataset.yaml\n"
                    f"ckan.plugins = dbmanage {name}",
                )
            )
            whole, start, action = turns(
                rounds,
                lambda: exported(portal, "--fresh").seconds,
                lambda: ckan(portal, "db", "version"),
                lambda: child(portal, "action")["seconds"],
            )
            steady = (whole - start) / OURS.read_bytes().count(b"\n") * 1e3
            what = f"export with {name}, the action"
            figure(what, steady, action * 1e3, 1 / 15, "ms")
    finally:
        Path(portal.ini).write_text(before)
        del ENV["PYTHONPATH"]


def users(portal: Portal, rounds: int) -> None:
    number = portal.datasets
    psql(portal.main, f"""INSERT INTO "user" (id, name, fullname, email, created, state, sysadmin)
      SELECT 'more-' || i, 'more-' || i, 'User', i || '@example.com', now(), 'active', false
      FROM generate_series(1, {number}) i""")  # fmt: skip
    whole, start, begun, theirs = turns(
        rounds,
        lambda: exported(portal, "--secrets", kind="users").seconds,
        lambda: ckan(portal, "db", "version"),
        lambda: dumped(portal, "users", (), "user-1"),
        lambda: dumped(portal, "users", ()),
    )
    same(sort=True)
    psql(portal.main, "DELETE FROM \"user\" WHERE id LIKE 'more-%'")
    ours, peer = whole - start, theirs - begun
    figure(f"{number} users less start, ckanapi", ours, peer, 1 / 20)


def export_memory(portal: Portal, rounds: int) -> None:
    """The largest of an export's processes, over a CKAN that does nothing."""
    bare = run(CKAN, "-c", portal.ini, "db", "version").memory
    big = Portal("bench_big", 5 * portal.datasets).make()

    def measure(site: Portal, name: str, *options: str) -> Done:
        command = (CKAN, "-c", site.ini, "db", "export", "datasets", *options)
        done = run(*command, "-O", str(BENCH / name))
        what = f"memory of {name}, {site.datasets}, bare"
        figure(what, done.memory, bare, 64, "MB", of=done.memory - bare)
        return done

    for site in (portal, big):
        measure(site, "ours.jsonl", "--fresh")
        # the ids of the two are the same
        ckan(site, "search-index", "clear")
        ckan(site, "db", "reindex", "-q", "--jobs", "2")
        indexed, _ = from_index(measure(site, "ours.jsonl.gz"))
        if not indexed:
            sys.exit("bench: no line came from the search index")
    ckan(portal, "search-index", "clear")
    drop(big.main, big.datastore)
