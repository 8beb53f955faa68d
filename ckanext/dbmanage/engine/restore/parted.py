"""Some of a dump is loaded into a copy: its schema, the rows of single tables.

In one transaction of this process's own: pg_restore would read all of the dump. Foreign
keys are made without looking at the rows, for what they name may be left out.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import psycopg2
from psycopg2.extensions import encodings

from ..archive import extensions, feeding, lint
from ..archive.contents import (
    Contents,
    Entry,
    limit,
    read_contents,
    refuse_wrong_part,
)
from ..archive.rows import Rows
from ..archive.segments import Segments
from ..errors import Damaged, Refused, ToolFailed, message_of
from ..operation import Operation
from ..postgres import sessions
from ..postgres.database import Connection, Database, closing, query
from ..site import Site
from . import faithful
from .feed import copy_rows
from .preflight import may_create, refuse_mighty
from .source import Source

#: what says nothing of tables, or is not for a copy that lasts a moment
_NOT_HERE = (
    "BLOB", "BLOBS", "BLOB COMMENTS", "BLOB METADATA", "DATABASE", "DEFAULT ACL",
    "DATABASE PROPERTIES", "EVENT TRIGGER", "MATERIALIZED VIEW DATA", "PUBLICATION",
    "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SECURITY LABEL",
    "STATISTICS DATA", "SUBSCRIPTION", "SUBSCRIPTION TABLE", "TABLE DATA",
)  # fmt: skip
#: what has things of its own that belong to the table too
_WITH_OWN = ("SEQUENCE", "VIEW", "MATERIALIZED VIEW")

#: rows to be loaded, by table; None for all of them
Data = Mapping[str, Callable[[], Iterator[bytes]] | None]


@dataclass(frozen=True)
class Part:
    """The dump of one part of a source, to be read in parts."""

    site: Site
    source: Source
    part: str

    @cached_property
    def dump(self) -> Segments:
        """Its segments. Raises Refused for a file, which is read as a whole only."""
        found = self.source.archives[self.part]
        if not isinstance(found, Segments):
            raise Refused(
                f"{self.source.name} is one file: a single thing is brought back out "
                "of a backup alone"
            )
        return found

    @cached_property
    def found(self) -> Contents:
        """Its table of contents. Raises Damaged, Refused for what is odd."""
        most = 0 if self.source.signed else limit(self.dump.size)
        with self.dump.open(most) as stream:
            found = read_contents(stream, self.dump.name)
        refuse_wrong_part(found, self.part, self.source.name, self.site)
        if not self.source.signed:
            lint.refuse_odd(found, self.source.name)
        return found

    @cached_property
    def rows(self) -> Rows:
        """The rows of its tables."""
        return Rows(self.dump, self.found)


def refuse_copy(op: Operation, part: Part) -> None:
    """Refuses a copy that this role could not make, or must not. Raises Refused."""
    site, name = op.site, part.source.name
    database = site.databases[part.part]
    with closing(database.maintenance()) as connection:
        may_create(site, connection, database)
        sessions.refuse_foreign(site.databases, connection, database.name)
        if not part.source.signed:
            refuse_mighty(site, connection, database.role, name)
    extensions.refuse_lacking(site, part.part, part.found, name)


def load(
    op: Operation, part: Part, copy: Database, data: Data, all: bool
) -> dict[str, int]:
    """Loads these rows, and the schema of `all` or of their tables alone.

    All or nothing. Returns how many rows each table has. Raises Damaged, Refused,
    ToolFailed.
    """
    found = part.found
    with closing(copy.connect()) as connection:
        plan = faithful.plan(found, connection, copy.role)
        left = faithful.left_out(plan, found, connection)
        left |= extensions.left_out(part.part, found, connection, op.warn)
        there = extensions.present(connection)
        chosen = set(_ids(found) if all else entries_of(found, data))
        connection.rollback()
        connection.set_client_encoding(found.encoding)
        loader, counted = _Loader(connection, part, data), dict[str, int]()
        with connection:
            query(connection, "SET LOCAL synchronous_commit = off")
            query(connection, "SET LOCAL check_function_bodies = off")
            for entry in found.entries:
                if f"{entry.schema}.{entry.name}" in data and (
                    entry.kind == "TABLE DATA"
                ):
                    counted[f"{entry.schema}.{entry.name}"] = loader.copy(entry)
                elif entry.id in chosen - left and _wanted(entry, there):
                    loader.make(entry)
    return counted


def _ids(found: Contents) -> Iterator[int]:
    return (entry.id for entry in found.entries)


def _wanted(entry: Entry, there: Collection[str]) -> bool:
    if entry.kind == "EXTENSION":
        return entry.name not in there
    about = entry.name.startswith(("DATABASE ", "EXTENSION "))
    return entry.kind not in _NOT_HERE and not (entry.kind == "COMMENT" and about)


def entries_of(found: Contents, tables: Collection[str]) -> set[int]:
    """The ids of tables, of all that is theirs, and of what these need.

    Theirs are indexes, triggers, comments, rights, sequences and views.
    """
    needs = {entry.id: entry.needs for entry in found.entries}
    own = {
        entry.id
        for entry in found.entries
        if entry.kind == "TABLE" and f"{entry.schema}.{entry.name}" in tables
    }
    chosen, before = set(own), -1
    settings = ("ENCODING", "STDSTRINGS", "SEARCHPATH")
    chosen |= {entry.id for entry in found.entries if entry.kind in settings}
    while len(chosen) != before:
        before = len(chosen)
        for entry in found.entries:
            theirs = entry.kind not in ("TABLE", "FK CONSTRAINT", *_NOT_HERE)
            if entry.id in chosen or (theirs and not own.isdisjoint(entry.needs)):
                chosen |= {entry.id, *(needs.keys() & entry.needs)}
                if entry.kind in _WITH_OWN:
                    own.add(entry.id)
    return chosen


@dataclass(frozen=True)
class _Loader:
    """Makes one entry after the other in a transaction."""

    connection: Connection
    part: Part
    data: Data

    @cached_property
    def _codec(self) -> str:
        encoding = self.part.found.encoding
        return "utf-8" if encoding == "SQL_ASCII" else encodings.get(encoding, "utf-8")

    def make(self, entry: Entry) -> None:
        """Makes what an entry's statement makes."""
        text = entry.statement
        if entry.kind == "FK CONSTRAINT":
            text = text.rstrip().removesuffix(";") + " NOT VALID;\n"
        if not text.strip():
            return
        raw = text.encode(self._codec, "surrogateescape")
        try:
            if self.part.source.signed:
                with self.connection.cursor() as cursor:
                    cursor.execute(raw)
            else:  # a byte a letter, as the feeding of a whole archive has it
                name = self.part.source.name
                feeding.run(self.connection, raw.decode("latin-1"), name)
        except psycopg2.Error as error:
            raise self._failed(entry, error) from error

    def copy(self, entry: Entry) -> int:
        """Loads the rows of a table: all, or those that were chosen; how many."""
        name = f"{entry.schema}.{entry.name}"
        chosen = self.data[name]
        rows = chosen() if chosen else self.part.rows.blocks(name)
        statement = entry.copy.encode(self._codec, "surrogateescape")
        with self.connection.cursor() as cursor:
            try:
                copy_rows(cursor, statement, filter(None, rows))
            except psycopg2.Error as error:
                raise self._failed(entry, error) from error
            counted = cursor.rowcount
        noted = (self.part.source.rows(self.part.part) or {}).get(name)
        if chosen is None and noted not in (None, counted):
            what = f"table {name}: {counted} rows, the manifest says {noted}"
            raise Damaged(f"{self.part.source.name} ({self.part.part})", [what])
        return counted

    def _failed(self, entry: Entry, error: psycopg2.Error) -> ToolFailed:
        return ToolFailed(
            f"{entry} of {self.part.source.name} could not be made in a copy: "
            f"{message_of(error)}; all that is live is as it was"
        )
