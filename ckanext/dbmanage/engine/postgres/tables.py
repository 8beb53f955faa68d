"""Tables of a database: their names, exact counts, and the revisions of migrations."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg2.extensions
from psycopg2 import sql

from ..errors import Refused, ToolFailed, message_of
from .beside import OURS
from .database import Connection, query

_TABLES_A_QUERY = 100

_TABLES = """
    SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner), pg_table_size(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND n.nspname !~ %s
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
    ORDER BY 1, 2"""


def tables_of(connection: Connection) -> list[tuple[str, str, str, int]]:
    """Schema, name, owner and bytes of each table that a dump holds rows of.

    Not those of an extension, which a dump leaves to it, nor what stands beside.
    """
    found = query(connection, _TABLES, OURS)
    return [(schema, name, owner, size) for schema, name, owner, size in found]


_UNREADABLE = """
    SELECT DISTINCT format('GRANT %s %s TO %I;', what, name, current_user)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace, LATERAL (VALUES
        ('USAGE ON SCHEMA', quote_ident(nspname),
         has_schema_privilege(n.oid, 'USAGE')),
        (CASE relkind WHEN 'S' THEN 'SELECT ON SEQUENCE' ELSE 'SELECT ON TABLE' END,
         format('%I.%I', nspname, relname),
         CASE relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                      ELSE has_table_privilege(c.oid, 'SELECT') END)
        ) AS needed (what, name, has)
    WHERE NOT has AND relkind IN ('r', 'S') AND relpersistence <> 't'
      AND nspname !~ '^pg_' AND nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
    ORDER BY 1 DESC"""


def unreadable(connection: Connection) -> list[str]:
    """The SQL that lets the connection's role read all that a dump reads."""
    return [statement for (statement,) in query(connection, _UNREADABLE)]


def refuse_unreadable(connection: Connection, name: str) -> None:
    """Raises Refused, with the SQL, where a dump of this database would fail."""
    if statements := unreadable(connection):
        shown = "\n".join(f"  {statement}" for statement in statements)
        raise Refused(
            f"the role {connection.info.user!r} may not read all of the database "
            f"{name!r}, so it cannot be dumped whole. As the owner of the tables, or "
            f"as PostgreSQL's superuser, run in it once:\n{shown}"
        )


def drop_tables(connection: Connection, names: Iterable[tuple[str, str]]) -> None:
    """Drops tables with all that depends on them, in one transaction.

    Raises ToolFailed when somebody else holds one of them.
    """
    found = [sql.Identifier(*name) for name in names]
    if not found:
        return
    statement = sql.SQL("DROP TABLE {} CASCADE").format(sql.SQL(", ").join(found))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '10s'")
            cursor.execute(statement)
    except psycopg2.Error as error:
        raise ToolFailed(
            "the tables could not be dropped, all are as they were: "
            f"{message_of(error)}. Stop the site's processes, then try again"
        ) from error


def count_rows(
    connection: Connection, names: Iterable[tuple[str, str]], snapshot: str = ""
) -> dict[str, int]:
    """Exact row counts by `schema.table`, of an exported snapshot when one is named.

    Many tables a query and a transaction for each: thousands of tables cost neither
    thousands of round trips nor more locks than a server has by default.
    """
    names = list(names)
    counts: dict[str, int] = {}
    for start in range(0, len(names), _TABLES_A_QUERY):
        batch = names[start : start + _TABLES_A_QUERY]
        statement = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, count(*) FROM ONLY {}").format(
                sql.Literal(number), sql.Identifier(*name)
            )
            for number, name in enumerate(batch)
        )
        query(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if snapshot:
            query(connection, "SET TRANSACTION SNAPSHOT %s", snapshot)
        for number, rows in query(connection, statement):
            counts[".".join(batch[number])] = rows
        query(connection, "COMMIT")
    return counts


def texts(connection: Connection, statements: Mapping[str, str]) -> Iterator[str]:
    """The first column of statements by the table each needs; in flat memory.

    One whose table is not there gives nothing.
    """
    yield from (row[0] for row in rows_of(connection, statements))


def rows_of(
    connection: Connection, statements: Mapping[str, str]
) -> Iterator[tuple[Any, ...]]:
    """The rows of the same."""
    for table, statement in statements.items():
        name = f'public."{table}"'
        if query(connection, "SELECT to_regclass(%s)::text", name) == [(None,)]:
            continue
        with connection.cursor("dbmanage", withhold=connection.autocommit) as cursor:
            cursor.execute(statement)
            yield from cursor


def migration_heads(connection: Connection) -> dict[str, list[str]]:
    """Alembic revisions by version table: `alembic_version` and the plugins'."""
    names = query(
        connection,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND relname ~ '(^|_)alembic_version$' ORDER BY 1",
    )
    return {
        name: sorted(
            row[0]
            for row in query(
                connection,
                sql.SQL("SELECT version_num::text FROM public.{}").format(
                    sql.Identifier(name)
                ),
            )
        )
        for (name,) in names
    }
