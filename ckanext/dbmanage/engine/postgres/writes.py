"""What a migration does to a copy: tables locked, rewritten, gone, and rows lost.

Looks on while somebody else migrates; must not know CKAN or alembic.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg2
from psycopg2 import sql

from ..errors import ConnectionFailed
from .database import Connection, Database, closing, query
from .tables import count_rows, tables_of

#: what nobody could read for a shorter time no visitor has noticed
_PAUSE = 0.01


@dataclass
class Changes:
    """What was seen: names of tables, `dropped` and `fewer` with their rows.

    `locked` are those that nobody could read for a hundredth of a second or longer,
    `fewer` the rows before and after of tables that lost some.
    """

    locked: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    fewer: dict[str, tuple[int, int]] = field(default_factory=dict)


@contextmanager
def watched(copy: Database) -> Iterator[Changes]:
    """Hands out what a migration of this copy changes, filled at the block's end.

    Raises ConnectionFailed.
    """
    changes, locked, stop = Changes(), set(), threading.Event()
    with closing(copy.connect()) as connection:
        before, rows = _files(connection), _rows(connection)
        with closing(copy.connect()) as second:
            thread = threading.Thread(target=_look, args=(second, stop, locked))
            thread.start()
            try:
                yield changes
            finally:
                stop.set()
                thread.join()
        after, left = _files(connection), _rows(connection)
    changes.locked = sorted(before[oid][0] for oid in locked & set(before))
    changes.rewritten = sorted(
        name
        for oid, (name, file) in after.items()
        if oid in before and before[oid][1] != file
    )
    changes.dropped = {
        before[oid][0]: rows.get(before[oid][0], 0) for oid in set(before) - set(after)
    }
    changes.fewer = {
        name: (count, left[name])
        for name, count in rows.items()
        if left.get(name, count) < count
    }


def _files(connection: Connection) -> dict[int, tuple[str, int]]:
    """Name and file of each table by OID; one that is rewritten has a new file."""
    with connection:
        found = query(
            connection,
            "SELECT c.oid, nspname || '.' || relname, relfilenode FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r'"
            " AND nspname !~ '^pg_' AND nspname <> 'information_schema'",
        )
    return {oid: (name, file) for oid, name, file in found}


def _rows(connection: Connection) -> Mapping[str, int]:
    with connection:
        names = [(schema, name) for schema, name, *_ in tables_of(connection)]
    connection.autocommit = True
    try:
        return count_rows(connection, names)
    finally:
        connection.autocommit = False


def _look(connection: Connection, stop: threading.Event, locked: set[int]) -> None:
    connection.autocommit = True
    with suppress(psycopg2.Error):  # the copy may be dropped under us
        while not stop.wait(_PAUSE):
            found = query(
                connection,
                "SELECT DISTINCT relation FROM pg_locks WHERE locktype = 'relation'"
                " AND mode = 'AccessExclusiveLock' AND granted AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            locked.update(oid for (oid,) in found)


def written(database: Database) -> dict[str, int]:
    """How many rows were ever inserted, changed and deleted, by `schema.table`.

    Empty when there is no such database.
    """
    try:
        connection = database.connect()
    except ConnectionFailed:
        return {}
    with closing(connection):
        return dict(
            query(
                connection,
                "SELECT schemaname || '.' || relname, n_tup_ins + n_tup_upd + n_tup_del"
                " FROM pg_stat_user_tables WHERE schemaname !~ '^pg_'",
            )
        )


def shapes(database: Database) -> dict[str, str]:
    """What changes with each table's and view's definition and file, by name.

    TRUNCATE and DROP leave no rows to be counted; VACUUM and ANALYZE do not show.
    """
    with closing(database.connect()) as connection:
        return dict(
            query(
                connection,
                "SELECT nspname || '.' || relname, concat_ws('/', c.oid, relfilenode,"
                " c.xmin) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE relkind IN ('r', 'p', 'v', 'm') AND nspname !~ '^pg_'"
                " AND nspname <> 'information_schema'",
            )
        )


def contents(database: Database, without: Mapping[str, str]) -> dict[str, str]:
    """A checksum of the rows of these tables, each without one column; if they exist.

    `without` has the columns by `schema.table`.
    """
    found = {}
    with closing(database.connect()) as connection:
        for name, column in without.items():
            if query(connection, "SELECT to_regclass(%s)::text", name) == [(None,)]:
                continue
            statement = sql.SQL(
                "SELECT count(*) || '/' || coalesce(sum(('x' || substr(md5((to_jsonb(t)"
                " - {}::text)::text), 1, 15))::bit(60)::bigint), 0) FROM {} t"
            ).format(sql.Literal(column), sql.Identifier(*name.split(".")))
            ((found[name],),) = query(connection, statement)
    return found


def tuples(connection: Connection, oid: int) -> int:
    """How many rows were ever written to a database, catalogues too; 0 without one.

    Needs no connection to it; from PostgreSQL 15 on exact once its sessions ended.
    """
    rows = query(
        connection,
        "SELECT tup_inserted + tup_updated + tup_deleted FROM pg_stat_database"
        " WHERE datid = %s",
        oid,
    )
    return rows[0][0] if rows else 0
