"""The preview of a restore: what it would lose, gain and change, by kind and by name.

Reads the index of a backup's records, or an archive where there is none, and compares
it with the live database inside that database's own session, in temporary tables that
nobody else sees. Changes nothing; must not know CKAN: the kinds of object are handed
in.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2 import sql

from ..archive import lint, statements
from ..archive.contents import Archive, Bounded, Entry, contents_of, limit
from ..archive.unpack import restoring
from ..errors import ConnectionFailed, Damaged, ToolFailed
from ..postgres.database import Connection, Database, query
from ..postgres.programs import finish, reading_tools
from ..postgres.tables import tables_of
from ..report import name_of
from ..repository.repository import Repository
from ..site import Site
from ..uploads.folders import folders_of
from ..uploads.listing import compare
from . import by_index
from .feed import copy_rows
from .source import Source

#: of one row; a row of CKAN's own tables is never so long
_LINE = 256 << 20
#: letters of a name or a title; a row of an archive may have any number
_TOLD = 200


@dataclass(frozen=True)
class Kind:
    """A kind of object that the preview counts: rows of a table of `database`.

    `where` picks them, `id` tells them apart, `changed` tells a newer state of one.
    Those with a `label` are told by it and by their `title`; `people` is SQL, by the
    table it needs, that tells who changed the live object `a` (of the copy: `b`) last.
    `indexed` picks the same objects by the columns of an index's lines.
    """

    name: str
    table: str
    where: str
    indexed: str
    id: str = "id"
    changed: str = ""
    label: str = ""
    title: str = ""
    people: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """What it needs of the table, perhaps words more."""
        texts = (self.where, self.id, self.changed, self.label, self.title)
        return set(re.findall(r"\w+", " ".join(texts)))


#: told of one object: `{kind, change, id, name, title, by}`; `change` is `lost`,
#: `changed` or `gained`
Told = Callable[[dict[str, Any]], None]


def preview(
    site: Site,
    repository: Repository,
    source: Source,
    kinds: tuple[Kind, ...],
    told: Told | None = None,
) -> list[dict[str, Any]]:
    """What a restore would lose, gain and change, a dictionary a kind of object.

    `{kind, now, then, lost, gained, changed}`, counts; `told` is told each object that
    has a name, those of a kind one after the other. The backup's side is put into
    temporary tables of the live database's session and compared there, so that memory
    stays flat. A missing or empty database counts as no rows.
    """
    found = []
    for part, archive in source.archives.items():
        database = site.databases[part]
        try:
            connection = database.connect()
        except ConnectionFailed:
            if not database.is_missing():
                raise
            connection = None
        most = 0 if source.signed else limit(archive.size)
        try:
            if part == "database":
                found += _compare(site, source, database, connection, kinds, most, told)
            else:
                found.append(_compare_tables(connection, archive))
        finally:
            if connection is not None:
                connection.close()
    if source.uploads:
        among = folders_of(site.uploads, repository.path)
        found.append({"kind": "uploads"} | compare(among, source.uploads))
    return found


def _compare(
    site: Site,
    source: Source,
    database: Database,
    connection: Connection | None,
    kinds: tuple[Kind, ...],
    most: int,
    told: Told | None,
) -> list[dict[str, Any]]:
    if connection is None:  # somewhere to count in: temporary tables only
        connection = database.maintenance()
        connection.autocommit = False
    with connection.cursor() as cursor:
        index = by_index.usable(site, source)
        among = site.indexed.get("database", ())
        if index and by_index.side_by_side(connection, cursor, index, among):
            objects = _indexed
        else:
            archive = source.archives["database"]
            _copy(archive, kinds, site.pg_bin, cursor, most)
            objects = functools.partial(_objects, cursor)
        rows = []
        for kind in kinds:
            sets = {"a": objects(kind, True), "b": objects(kind, False)}
            cursor.execute(_DIFFERENCE.format(**sets))
            names = ("now", "then", "lost", "gained", "changed")
            numbers = cursor.fetchone() or ()
            rows.append({"kind": kind.name} | dict(zip(names, numbers, strict=True)))
            if told and kind.label:
                _tell(connection, kind, sets, told)
    connection.rollback()
    return rows


_DIFFERENCE = """
    WITH a AS ({a}), b AS ({b})
    SELECT count(a.id), count(b.id),
           count(*) FILTER (WHERE b.id IS NULL), count(*) FILTER (WHERE a.id IS NULL),
           count(*) FILTER (WHERE a.changed IS DISTINCT FROM b.changed
                            AND a.id IS NOT NULL AND b.id IS NOT NULL)
    FROM a FULL JOIN b ON a.id = b.id"""


_NAMES = """
    WITH a AS ({a}), b AS ({b})
    SELECT CASE WHEN b.id IS NULL THEN 'lost' WHEN a.id IS NULL THEN 'gained'
                ELSE 'changed' END,
           left(coalesce(a.id, b.id), {letters}), coalesce(a.name, b.name),
           coalesce(a.title, b.title), coalesce({people}, NULL)
    FROM a FULL JOIN b ON a.id = b.id
    WHERE a.id IS NULL OR b.id IS NULL OR a.changed IS DISTINCT FROM b.changed
    ORDER BY a.id IS NULL, b.id IS NOT NULL, 3, 2"""


def _tell(
    connection: Connection, kind: Kind, sets: Mapping[str, str], told: Told
) -> None:
    """Tells of each object by name, in flat memory."""
    there = "SELECT to_regclass(%s) IS NOT NULL"
    people = [
        f"CASE WHEN a.id IS NOT NULL THEN ({statement}) END"
        for table, statement in kind.people.items()
        if query(connection, there, f'public."{table}"') == [(True,)]
    ]
    words = {"people": ", ".join(people) or "NULL::text", "letters": str(_TOLD)}
    with connection.cursor("dbmanage") as cursor:
        cursor.execute(_NAMES.format(**sets, **words))
        for row in cursor:
            names = ("change", "id", "name", "title", "by")
            told({"kind": kind.name} | dict(zip(names, row, strict=True)))


def _indexed(kind: Kind, live: bool) -> str:
    """SQL for a kind's ids, states and names, of what stands side by side."""
    table = by_index.NOW if live else by_index.THEN
    return (
        "SELECT id, concat_ws(' ', modified, hash) AS changed, name, title"  # noqa: S608
        f" FROM pg_temp.{table} WHERE {kind.indexed}"
    )


def _objects(cursor: Any, kind: Kind, live: bool) -> str:
    """The same of the live tables or the archive's; no rows without a table."""
    schema = "public" if live else "pg_temp"
    cursor.execute("SELECT to_regclass(%s)", [f'{schema}."{kind.table}"'])
    there = cursor.fetchone() != (None,)
    # all of it is handed in by our own code, nothing that a user or an archive says
    columns = {"id": kind.id, "changed": kind.changed}
    for name, column in (("name", kind.label), ("title", kind.title)):
        columns[name] = column and f"left({column}, {_TOLD})"
    selected = ", ".join(
        f"({(there and column) or 'NULL'})::text AS {name}"
        for name, column in columns.items()
    )
    rows = (
        f'FROM {schema}."{kind.table}" WHERE {kind.where}' if there else "WHERE false"
    )
    return f"SELECT {selected} {rows}"


def _copy(
    archive: Archive, kinds: tuple[Kind, ...], pg_bin: str, cursor: Any, most: int
) -> None:
    """Copies what the kinds ask for into temporary tables of text columns.

    In one reading of the archive, as it is packed; `most` bytes at most come out of it
    when that is not zero. Only columns that a kind names are kept.
    """
    asked: dict[str, set[str]] = {}
    for kind in kinds:
        asked[kind.table] = asked.get(kind.table, set()) | kind.columns
    found = contents_of(archive)
    with archive.open(most) as stream:
        chosen = {
            entry.name: entry
            for entry in found.entries
            if entry.kind == "TABLE DATA"
            and entry.schema == "public"
            and entry.name in asked
        }
        if not chosen:
            return
        tools = reading_tools(found.version, pg_bin)
        # the list through a pipe, which holds it all: nothing to name, to clean up
        listed, out = os.pipe()
        os.write(out, "".join(f"{e.id};\n" for e in chosen.values()).encode())
        os.close(out)
        arguments = ["-a", "-f-", f"-L/dev/fd/{listed}"]
        options = {"stdout": -1, "pass_fds": [listed]}
        try:
            with restoring(stream, tools, arguments, **options) as process:
                script = process.stdout
                if most:  # what pg_restore itself unpacks counts too
                    script = Bounded(script, archive.name, most)
                for entry in chosen.values():
                    rows = _Rows(script, entry, asked[entry.name], archive.name)
                    _copy_table(cursor, rows, found.encoding)
                while script.readline(_LINE):
                    pass
                finish(process, f"reading {archive.name}")
        finally:
            os.close(listed)


def _copy_table(cursor: Any, rows: _Rows, encoding: str) -> None:
    fields = [sql.SQL("{} text").format(sql.Identifier(c)) for c in rows.columns]
    named = (sql.Identifier(rows.table), sql.SQL(", ").join(fields))
    cursor.execute(sql.SQL("CREATE TEMPORARY TABLE {} ({})").format(*named))
    table = sql.Identifier("pg_temp", rows.table)
    copy = sql.SQL("COPY {} FROM STDIN (ENCODING {})")
    try:
        copy_rows(cursor, copy.format(table, sql.Literal(encoding)), rows.each())
    except psycopg2.Error as error:
        why = f"reading table {rows.table!r} failed: {str(error).strip()}"
        raise ToolFailed(why) from None
    cursor.execute(sql.SQL("ANALYZE {}").format(table))


class _Rows:
    """The rows of the next COPY in pg_restore's output. Raises Damaged.

    Of each row the columns that are asked for.
    """

    def __init__(self, script: Any, entry: Entry, asked: set[str], name: str) -> None:
        self.table, self._script, self._name = entry.name, script, name
        if not lint.COPY.fullmatch(entry.copy):  # nobody may have looked at it yet
            raise self._damaged("has more than a COPY")
        columns = statements.columns(entry.copy)
        self._count = len(columns)
        self._kept = [n for n, column in enumerate(columns) if column in asked]
        self.columns = [columns[n] for n in self._kept]
        while not (line := script.readline(_LINE)).startswith(b"COPY "):
            if not line:
                raise self._damaged("holds no rows")

    def each(self) -> Iterator[bytes]:
        """The rows, until the COPY ends."""
        while (line := self._script.readline(_LINE)) not in (b"\\.\n", b""):
            fields = line[:-1].split(b"\t")
            if len(fields) != self._count or not line.endswith(b"\n"):
                raise self._damaged("has a row that is not of its columns")
            yield b"\t".join([fields[n] for n in self._kept]) + b"\n"

    def _damaged(self, what: str) -> Damaged:
        return Damaged(self._name, [f"its table {self.table!r} {what}"])


def _compare_tables(connection: Connection | None, archive: Archive) -> dict[str, Any]:
    rows = tables_of(connection) if connection is not None else ()
    here = {name for schema, name, *_ in rows if schema == "public"}
    here, there = (
        {name for name in names if not name.startswith("_")}
        for names in (here, contents_of(archive).tables())
    )
    return {
        "kind": f"{name_of('datastore')} tables",
        "now": len(here),
        "then": len(there),
        "lost": len(here - there),
        "gained": len(there - here),
        "changed": None,
    }
