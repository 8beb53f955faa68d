"""Databases into a backup: one snapshot, dumped, packed and counted."""

import functools
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..archive.contents import CHUNK
from ..disk import create_file
from ..errors import ConnectionFailed, Damaged
from ..layout import RECORDS, SEGMENTS
from ..postgres.database import Connection, Database, closing, query, server_major
from ..postgres.programs import dump_tools, finish
from ..postgres.tables import count_rows, migration_heads, refuse_unreadable, tables_of
from ..report import Progress, Warn
from ..signature import Hashed
from ..site import Site
from ..words import listed
from . import records
from .dump import dumping, refuse_unrestorable
from .indexing import index
from .segmented import Segmented
from .together import Together


@dataclass
class Source:
    """One database while it is dumped: the transaction that holds its snapshot open."""

    database: Database
    connection: Connection
    snapshot: str
    taken: float
    oid: int
    tables: list[tuple[str, str, str, int]]

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.tables)


@contextmanager
def snapshot(site: Site, database: Database) -> Iterator[Source]:
    """Holds a snapshot of the database that other connections can see by its name.

    Raises Refused for a database that cannot be dumped whole or restored.
    """
    with closing(database.connect()) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        ((name,),) = query(connection, "SELECT pg_export_snapshot()")
        taken, oid = time.monotonic(), own_oid(connection)
        tables = tables_of(connection)
        refuse_unrestorable(site, database, tables)
        refuse_unreadable(connection, database.name)
        yield Source(database, connection, name, taken, oid, tables)


def own_oid(connection: Connection) -> int:
    """The OID of the database that the connection is to."""
    statement = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
    return query(connection, statement)[0][0]


def dump_all(
    site: Site,
    sources: dict[str, Source],
    partial: Path,
    segmented: Mapping[str, Segmented],
    progress: Progress,
    warn: Warn = lambda _: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the manifest says of the databases, by part, and of their lists, by name.

    The lists are written into the directory `partial`, side by side with counting, and
    so is the index of records.
    """
    work = Together("dump", sum(s.bytes for s in sources.values()), progress)
    tasks: dict[str, Callable[[], Any]] = {}
    for part, source in sources.items():
        path, into = partial / SEGMENTS[part], segmented[part]
        tasks[part] = functools.partial(_dump, site, source, path, into, work.count)
        tasks[f"rows of {part}"] = functools.partial(_count, source)
    with _indexed(site, sources, partial, warn) as indexing:
        done = work.run(tasks | indexing.tasks)
        indexing.finish({part: done[part][2] for part in sources})
    described = {p: done[p][0] | {"rows": done[f"rows of {p}"]} for p in sources}
    contents = {SEGMENTS[part]: done[part][1] for part in sources}
    return described, contents | indexing.contents


@contextmanager
def _indexed(
    site: Site, sources: dict[str, Source], partial: Path, warn: Warn
) -> Iterator["_Indexing"]:
    """The index of records in the making; none where nobody says what goes into it."""
    if not any(site.indexed.get(part) for part in sources):
        yield _Indexing(site, {}, None, warn)
        return
    with create_file(partial / RECORDS) as file:
        yield _Indexing(site, sources, file, warn)
        file.flush()
        os.fsync(file.fileno())


class _Indexing:
    """Writes the index: records while the databases are dumped, tables after that."""

    def __init__(
        self, site: Site, sources: dict[str, Source], file: Any, warn: Warn
    ) -> None:
        self._site, self._sources, self._warn = site, sources, warn
        self._writer = records.Writer(file)
        self.contents: dict[str, Any] = {}
        self.tasks = {"records": self._records} if sources else {}

    def _records(self) -> None:
        self._add(False, {})

    def finish(self, hashes: dict[str, dict[str, str]]) -> None:
        """Writes what needs the hashes of the tables' rows, by part, and the end."""
        if self._sources:
            self._add(True, hashes)
            self.contents = {RECORDS: self._writer.finish()}

    def _add(self, rows: bool, hashes: dict[str, dict[str, str]]) -> None:
        for part, source in self._sources.items():
            kinds = [e for e in self._site.indexed.get(part, ()) if e.rows == rows]
            if not kinds:
                continue
            try:
                connection = source.database.connect()
            except ConnectionFailed as error:  # which costs no backup
                named = listed([f"any {each.kind}" for each in kinds])
                self._warn(f"the index of records has no line of {named}: {error}")
                continue
            with closing(connection):
                connection.autocommit = True
                own = hashes.get(part, {})
                index(connection, source.snapshot, kinds, self._writer, own, self._warn)


def _count(source: Source) -> dict[str, int]:
    with closing(source.database.connect()) as connection:
        connection.autocommit = True
        names = [(schema, table) for schema, table, *_ in source.tables]
        return count_rows(connection, names, source.snapshot)


def _dump(
    site: Site,
    source: Source,
    path: Path,
    into: Segmented,
    wrote: Callable[[int], None],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What the manifest says of the dump, and of its list; hashes of tables' rows.

    The hash of a table's rows is that of the sums of their segments, a line each.
    """
    database, connection = source.database, source.connection
    # packed here and not by pg_dump: what stands in the backup before is not packed
    options = ("-Z0", f"--snapshot={source.snapshot}")
    with (
        create_file(path) as file,
        dumping(database, site.pg_bin, *options) as process,
    ):
        listed, hashes = Hashed(file), defaultdict[str, Any](hashlib.sha256)
        try:
            for line in into.lines(process.stdout, wrote):
                listed.write(line.format())
                hashes[line.table].update(f"{line.sha256}\n".encode())
        except Damaged:  # cut off, it may be: then pg_dump's own end says why
            while process.stdout.read(CHUNK):
                pass
            finish(process, f"pg_dump of {database.name!r}")
            raise
        finish(process, f"pg_dump of {database.name!r}")
        file.flush()
        os.fsync(file.fileno())
    ((settings,),) = query(
        connection,
        "SELECT to_jsonb(d) FROM pg_database d WHERE datname = current_database()",
    )
    described = {
        "name": database.name,
        "server_version": connection.server_version,
        "pg_dump": dump_tools(server_major(connection), site.pg_bin).major,
        "bytes": source.bytes,
        "dump": {"bytes": into.bytes, "stored": into.stored, "added": into.added},
        "locale": {k: v for k, v in settings.items() if k in _LOCALE_COLUMNS},
        "migrations": migration_heads(connection),
    }
    tables = {
        name.removeprefix(_PUBLIC): found.hexdigest()
        for name, found in hashes.items()
        if name.startswith(_PUBLIC)
    }
    return described, {"bytes": listed.bytes, "sha256": listed.sha256}, tables


_PUBLIC = "public."


_LOCALE_COLUMNS = {
    "encoding", "datcollate", "datctype", "datlocprovider", "daticulocale",
    "datlocale", "daticurules",
}  # fmt: skip
