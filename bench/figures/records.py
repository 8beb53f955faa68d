"""Figures of export and of the search index, against ckanapi and core's rebuild."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
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
    core_rebuild,
    drop,
    figure,
    inside,
    psql,
    run,
    sampled,
    say,
    scaled,
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
    which: Sequence[str] = ("--all",),
) -> float:
    """Seconds of `ckanapi dump` by two processes."""
    command = (str(S / "venv/bin/ckanapi"), "dump", kind, *which, "-q", "-p", "2")
    return run(*command, "-c", portal.ini, *user, "-O", str(PEER)).seconds


def dumped_or_scaled(portal: Portal) -> float:
    """Seconds of a dump of the public datasets; of a sample of many, scaled up."""
    if not sampled(portal.datasets):
        return dumped(portal)
    public = [f"dataset-{n}" for n in range(1, portal.datasets + 1) if n % 20]
    some = public[: sampled(portal.datasets)]
    start = dumped(portal, which=public[:1])
    return scaled(dumped(portal, which=some), len(public), len(some), start)


def same(number: int, sort: bool = False) -> None:
    """Stops when the two files differ; of many things, when the sample is not in ours."""
    ours, peer = (file.read_bytes().splitlines() for file in (OURS, PEER))
    if sample := sampled(number):
        good = len(set(peer) & set(ours)) == sample
    else:
        good = sorted(ours) == sorted(peer) if sort else ours == peer
    if not good:
        sys.exit("bench: the export is not what ckanapi dumps")
    say(f"{len(peer)} lines, equal")


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
    """Seconds in which two processes make core's documents by core's own functions.

    Of many datasets it is a sample, scaled up.
    """
    say("making the search index by core's functions, some minutes")
    sample = sampled(portal.datasets)
    number = str(sample or portal.datasets)
    start = ckan(portal, "db", "version") if sample else 0
    begun = time.monotonic()
    with ExitStack() as stack:
        both = [
            stack.enter_context(started(*inside("index", portal, part, "2", number)))
            for part in ("0", "1")
        ]
        if any(process.wait() for process in both):
            sys.exit("bench: the search index could not be made")
    return scaled(time.monotonic() - begun, portal.datasets, sample, start)


def export(portal: Portal, rounds: int) -> None:
    """End to end, CKAN's start included, first without and then with a search index.

    The floor is COPY of the rows that the lines are made of.
    """
    sample = sampled(portal.datasets)
    ckan(portal, "search-index", "clear")
    ours, theirs, floor = turns(
        rounds,
        lambda: exported(portal, "--fresh").seconds,
        lambda: dumped_or_scaled(portal),
        lambda: rows_as_they_are(portal),
    )
    same(portal.datasets)
    name = "export --fresh, ckanapi without index"
    figure(name, ours, theirs, 1 / 15, floor=floor, sample=sample)
    # the documents are core's: the figure `reindex` compares them
    ckan(portal, "db", "reindex", "-q", "--jobs", "2")

    def warm() -> float:
        done = exported(portal)
        indexed, read = from_index(done)
        # the few whose time is in whole milliseconds core itself reads from the database
        if indexed < 0.99 * (indexed + read):
            sys.exit(f"bench: {read} of the lines came from the database")
        return done.seconds

    ours, theirs = turns(rounds, warm, lambda: dumped_or_scaled(portal))
    same(portal.datasets)
    name = "export, ckanapi with a warm index"
    figure(name, ours, theirs, 1 / 20, floor=floor, sample=sample)
    ckan(portal, "search-index", "clear")


def reindex(portal: Portal, rounds: int) -> None:
    """The whole index, beside core's rebuild; the floor: Solr takes ready documents."""
    say("core's rebuild, some minutes")
    sample = sampled(portal.datasets)
    ckan(portal, "search-index", "clear")
    core = core_rebuild(portal)
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
    if not sample:
        if child(portal, "documents")["documents"] != documents:
            sys.exit("bench: the documents are not core's")
        say("the documents are core's, all of them")
    name = "reindex, core's rebuild"
    figure(name, whole, core, 1 / 8, floor=solr, sample=sample)
    figure(f"{name} by two", whole, peer, 1, floor=solr, sample=sample)
    figure("reindex, Solr takes ready documents", whole, solr, 1 / 0.6)
    deep = min(ckan(portal, "db", "reindex", "--deep", "-q") for _ in range(rounds))
    figure("reindex --deep, core's rebuild", deep, core, 1 / 20, sample=sample)

    def changed() -> float:
        psql(
            portal.main,
            """UPDATE package SET metadata_modified = now(), notes = notes || '.'
               WHERE id IN (SELECT id FROM package ORDER BY md5(id || random()::text)
                            LIMIT (SELECT count(*) / 100 FROM package))""",
        )
        return ckan(portal, "db", "reindex", "--changed", "-q")

    best = min(changed() for _ in range(rounds))
    name = "reindex --changed, 1 %, core's"
    figure(name, best, core, 5, of=best, sample=sample)
    ckan(portal, "search-index", "clear")


def hooks(portal: Portal, rounds: int) -> None:
    """With hooks and with ckanext-scheming: time a dataset, against the action."""
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
    """As many users as datasets, less the start of each program; the floor is COPY."""
    number = portal.datasets
    sample = sampled(number)
    some = [f"more-{n}" for n in range(1, sample + 1)] or ["--all"]
    psql(portal.main, f"""INSERT INTO "user" (id, name, fullname, email, created, state, sysadmin)
      SELECT 'more-' || i, 'more-' || i, 'User', i || '@example.com', now(), 'active', false
      FROM generate_series(1, {number}) i""")  # fmt: skip

    def copied() -> float:
        begun = time.monotonic()
        psql(portal.main, 'COPY "user" TO STDOUT')
        return time.monotonic() - begun

    whole, start, begun, theirs, floor = turns(
        rounds,
        lambda: exported(portal, "--secrets", kind="users").seconds,
        lambda: ckan(portal, "db", "version"),
        lambda: dumped(portal, "users", (), ["user-1"]),
        lambda: dumped(portal, "users", (), some),
        copied,
    )
    same(number, sort=True)
    psql(portal.main, "DELETE FROM \"user\" WHERE id LIKE 'more-%'")
    ours = whole - start
    peer = scaled(theirs, OURS.read_bytes().count(b"\n"), sample, begun) - begun
    name = "users less start, ckanapi"
    figure(name, ours, peer, 1 / 20, floor=floor, sample=sample)


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
