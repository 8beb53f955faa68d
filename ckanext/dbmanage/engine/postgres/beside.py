"""Tables that stand beside those of a database: in schemas of our own.

A table that is to come is made in such a schema, and what it replaces goes to another:
names, indexes, sequences, rights and comments are as they are, and nobody who reads
`public` sees them. To change its schema is all that makes a table live. A schema is
ours when its comment says so; a dump leaves it out.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

import psycopg2.errors
from psycopg2 import sql

from ..errors import Refused, message_of
from ..printable import one_line
from .database import Connection, Database, closing, execute, no_limits, query
from .programs import dump_tools, finish, running

#: our schemas, in POSIX and in pg_dump's own patterns
OURS = "^dbm_[0-9a-f]{8}_(scratch|undo)$"
PATTERNS = ("dbm_????????_scratch", "dbm_????????_undo")

#: views that are made of one table alone, which the site knows as its other names
_OWN = """
SELECT c.relname::text, c.relkind::text FROM pg_class c
WHERE relnamespace = 'public'::regnamespace AND (
    relkind IN ('r', 'p') AND relname = ANY(%(tables)s)
    OR relkind = 'v' AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_depend d ON d.objid = r.oid
        JOIN pg_class t ON t.oid = d.refobjid
        WHERE r.ev_class = c.oid AND d.classid = 'pg_rewrite'::regclass
        AND d.refclassid = 'pg_class'::regclass AND t.oid <> c.oid
        GROUP BY r.ev_class HAVING bool_and(t.relname = ANY(%(tables)s)
            AND t.relnamespace = 'public'::regnamespace)))
ORDER BY relkind = 'v', relname"""
_OTHERS = """
SELECT DISTINCT c.relname::text, t.relname::text
FROM pg_rewrite r JOIN pg_depend d ON d.objid = r.oid
JOIN pg_class t ON t.oid = d.refobjid JOIN pg_class c ON c.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
AND t.oid <> c.oid AND t.relnamespace = 'public'::regnamespace
AND t.relname = ANY(%s) AND NOT c.relname = ANY(%s)"""
_IN = """
SELECT relname::text, relkind::text FROM pg_class
WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'v')
ORDER BY relkind = 'v', relname"""


class Relation(NamedTuple):
    """A table or a view of it."""

    name: str
    kind: str

    @property
    def what(self) -> str:
        return "VIEW" if self.kind == "v" else "TABLE"


def existing(connection: Connection, names: Collection[str]) -> list[str]:
    """Those of some names that are tables of the schema public."""
    rows = query(
        connection,
        "SELECT relname::text FROM pg_class WHERE relname = ANY(%s) AND relkind"
        " IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY 1",
        list(names),
    )
    return [name for (name,) in rows]


def belonging(connection: Connection, tables: Collection[str]) -> list[Relation]:
    """Tables of the schema public, those of them that are there, and their views."""
    rows = query(connection, _OWN, {"tables": list(tables)})
    return [Relation(*row) for row in rows]


def standing(connection: Connection, schema: str) -> list[Relation]:
    """The tables in a schema, and the views."""
    return [Relation(*row) for row in query(connection, _IN, schema)]


def is_ours(connection: Connection, schema: str, comment: str) -> bool:
    """Whether there is such a schema, with our comment."""
    rows = query(
        connection,
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace"
        " WHERE nspname = %s",
        schema,
    )
    return bool(re.fullmatch(OURS, schema)) and rows == [(comment,)]


def make(connection: Connection, schema: str, comment: str) -> None:
    """Makes a schema of ours, which nobody but its owner can look into."""
    execute(connection, "CREATE SCHEMA {}", schema)
    execute(connection, "COMMENT ON SCHEMA {} IS {comment}", schema, comment=comment)


def drop(connection: Connection, schema: str, comment: str) -> bool:
    """Drops a schema that is ours, with all in it; whether it is gone now."""
    if not query(connection, "SELECT to_regnamespace(%s)::oid", schema)[0][0]:
        return True
    if not is_ours(connection, schema, comment):
        return False
    execute(connection, "DROP SCHEMA {} CASCADE", schema)
    return True


def refuse_no_right(database: Database) -> None:
    """Refuses a role that may not make a schema. Raises Refused with the SQL."""
    with closing(database.connect()) as connection:
        may = "SELECT has_database_privilege(current_database(), 'CREATE')"
        if query(connection, may) == [(True,)]:
            return
        statement = sql.SQL("GRANT CREATE ON DATABASE {} TO {};").format(
            sql.Identifier(database.name), sql.Identifier(database.role)
        )
        shown = statement.as_string(connection)
    raise Refused(
        f"the role {database.role!r} may not make a schema in {database.name!r}, in "
        f"which a table is made before it is live. As its owner run once: {shown}"
    )


def lay_down(
    copy: Database, live: Database, tables: Collection[str], schema: str, pg_bin: str
) -> None:
    """Makes the tables of a copy, with their views, in a schema of the live database.

    The copy's own are in another schema afterwards; the live one is there, and empty.
    Raises ToolFailed, psycopg2.Error.
    """
    with closing(copy.connect()) as connection:
        with connection:
            execute(connection, "CREATE SCHEMA {}", schema)
            for each in belonging(connection, tables):
                _move(connection, each, "public", schema)
        tools = dump_tools(connection.server_version // 10000, pg_bin)
        source, ours = copy.program(no_limits(connection))
    with closing(live.connect()) as connection:
        target, theirs = live.program(
            f"{no_limits(connection)} -c synchronous_commit=off"
        )
    dump = [tools.path("pg_dump"), "-Fc", "-Z0", "--no-password", "-n", schema, *source]
    load = [tools.path("pg_restore"), "-O", "-e", "--single-transaction"]
    load += ["--no-password", "-n", schema, *target]
    with (
        running(dump, ours, stdin=-3, stdout=-1) as dumping,
        running(load, theirs, stdin=dumping.stdout) as loading,
    ):
        assert dumping.stdout is not None
        dumping.stdout.close()  # whose end is the other's alone
        dumping.stdout = None
        finish(loading, f"making the tables in {live.name!r}")
        finish(dumping, f"pg_dump of {copy.name!r}")


def exchange(
    connection: Connection,
    tables: Collection[str],
    scratch: str,
    undo: str,
    comment: str,
) -> None:
    """Puts what stands in one schema into public, what is there of it into another.

    In the open transaction, which the caller ends. The first schema is gone then, the
    other one there. Raises Refused, psycopg2.Error.
    """
    make(connection, undo, comment)
    going = belonging(connection, tables)
    named = [each.name for each in going]
    others = query(connection, _OTHERS, list(tables), named)
    if others:
        view, table = others[0]
        raise Refused(
            f"the view {one_line(view)!r} of the DataStore is made of the table "
            f"{one_line(table)!r} and others, and would show the old one: drop it "
            "first, and make it again afterwards"
        )
    coming = standing(connection, scratch)
    taken = query(
        connection,
        "SELECT relname::text FROM pg_class WHERE relname = ANY(%s)"
        " AND relnamespace = 'public'::regnamespace AND NOT relname = ANY(%s)",
        [each.name for each in coming], named,
    )  # fmt: skip
    if taken:
        raise Refused(
            f"the name {one_line(taken[0][0])!r} is taken by another table or alias of "
            "the DataStore: delete or rename that one first"
        )
    for each in going:
        _move(connection, each, "public", undo)
    for each in coming:
        _move(connection, each, scratch, "public")
    if is_ours(connection, scratch, comment):
        execute(connection, "DROP SCHEMA {} RESTRICT", scratch)


def _move(connection: Connection, each: Relation, start: str, end: str) -> None:
    try:
        statement = f"ALTER {each.what} {{}}.{{}} SET SCHEMA {{}}"
        execute(connection, statement, start, each.name, end)
    except psycopg2.errors.DuplicateTable as error:
        raise Refused(
            f"the DataStore table {one_line(each.name)!r} cannot take its place: "
            f"{message_of(error)}"
        ) from error
