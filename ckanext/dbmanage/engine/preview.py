"""The preview of a restore: what it would lose, gain and change, by kind of object.

Reads an archive and compares it with the live database inside that database's own
session, in temporary tables that nobody else sees. Changes nothing; must not know CKAN:
the kinds of object are handed in.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import Site, archive, files, postgres
from .errors import ConnectionFailed
from .postgres import Connection, Database
from .repository import Repository
from .restore import Source


@dataclass(frozen=True)
class Kind:
    """A kind of object that the preview counts: rows of a table of `database`.

    `where` picks them, `id` tells them apart, `changed` tells a newer state of one.
    """

    name: str
    table: str
    where: str
    id: str = "id"
    changed: str = ""


def preview(
    site: Site, repository: Repository, source: Source, kinds: tuple[Kind, ...]
) -> list[dict[str, Any]]:
    """What a restore would lose, gain and change, a dictionary a kind of object.

    `{kind, now, then, lost, gained, changed}`, counts. Rows of the archive are put
    into temporary tables of the live database's session and compared there, so that
    memory stays flat. A missing or empty database counts as no rows.
    """
    found = []
    for part, path in source.archives.items():
        database = site.databases[part]
        try:
            connection = database.connect()
        except ConnectionFailed:
            if not database.is_missing():
                raise
            connection = None
        with repository.partial(f"preview{secrets.token_hex(4)}") as directory:
            unpacked = archive.unpack(path, directory, "", lambda *_: None)
            try:
                if part == "database":
                    tables = sorted({kind.table for kind in kinds})
                    found += _compare(
                        site, database, connection, unpacked, tables, kinds
                    )
                else:
                    found.append(_compare_tables(site, connection, unpacked))
            finally:
                if connection is not None:
                    connection.close()
    if source.uploads:
        among = files.folders(site.uploads, repository.path)
        found.append({"kind": "uploads"} | files.compare(among, source.uploads))
    return found


def _compare(
    site: Site,
    database: Database,
    connection: Connection | None,
    path: Path,
    tables: list[str],
    kinds: tuple[Kind, ...],
) -> list[dict[str, Any]]:
    if connection is None:  # somewhere to count in: temporary tables only
        connection = database.maintenance()
        connection.autocommit = False
    with connection.cursor() as cursor:
        archive.copy_tables(path, tables, site.pg_bin, cursor)
        rows = []
        for kind in kinds:
            sets = {"a": _objects(cursor, kind, "public")}
            sets["b"] = _objects(cursor, kind, "pg_temp")
            cursor.execute(_DIFFERENCE.format(**sets))
            names = ("now", "then", "lost", "gained", "changed")
            numbers = cursor.fetchone() or ()
            rows.append({"kind": kind.name} | dict(zip(names, numbers, strict=True)))
    connection.rollback()
    return rows


_DIFFERENCE = """
    WITH a AS ({a}), b AS ({b})
    SELECT count(a.id), count(b.id),
           count(*) FILTER (WHERE b.id IS NULL), count(*) FILTER (WHERE a.id IS NULL),
           count(*) FILTER (WHERE a.changed IS DISTINCT FROM b.changed
                            AND a.id IS NOT NULL AND b.id IS NOT NULL)
    FROM a FULL JOIN b ON a.id = b.id"""


def _objects(cursor: Any, kind: Kind, schema: str) -> str:
    """SQL for a kind's ids and times in a schema; no rows without a table."""
    cursor.execute("SELECT to_regclass(%s)", [f'{schema}."{kind.table}"'])
    # all of it constants of records.py, nothing that a user or an archive says
    columns = f"{kind.id}::text AS id, {kind.changed or 'NULL'}::text AS changed"
    if cursor.fetchone() == (None,):
        return "SELECT NULL::text AS id, NULL::text AS changed WHERE false"
    return f'SELECT {columns} FROM {schema}."{kind.table}" WHERE {kind.where}'  # noqa: S608


def _compare_tables(
    site: Site, connection: Connection | None, path: Path
) -> dict[str, Any]:
    def shown(names: Iterator[str]) -> set[str]:
        return {name for name in names if not name.startswith("_")}

    there = shown(iter(archive.contents_of(path).tables()))
    here: set[str] = set()
    if connection is not None:
        here = shown(
            name
            for schema, name, *_ in postgres.tables(connection)
            if schema == "public"
        )
    return {
        "kind": "DataStore tables",
        "now": len(here),
        "then": len(there),
        "lost": len(here - there),
        "gained": len(there - here),
        "changed": None,
    }
