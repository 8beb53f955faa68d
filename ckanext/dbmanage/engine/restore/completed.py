"""What pg_restore leaves out is made, or told with its SQL."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace

import psycopg2.errors

from ..archive import rights
from ..archive.contents import Contents, Entry, read_contents
from ..archive.rights import role_sql
from ..errors import ConnectionFailed
from ..postgres.database import (
    Connection,
    Database,
    closing,
    no_limits,
    query,
    server_major,
)
from ..postgres.programs import dump_tools, finish, running
from ..report import Warn
from .faithful import ABOUT, Plan, by_superuser, shown_sql, some
from .rights import tell_owners, tell_rights, wanted_owners, wanted_rights

#: what the server says of a thing that is not there
_UNDEFINED = (
    psycopg2.errors.InvalidSchemaName,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.UndefinedTable,
)


def complete(
    copy: Database,
    found: Contents,
    plan: Plan,
    warn: Warn,
    *,
    left: Container[int],
    live: str,
    pg_bin: str,
    signed: bool,
) -> None:
    """Makes a loaded copy what the archive says, and tells what stays another.

    `left` are the ids that pg_restore was not to make (`left_out`); `live` is the name
    of the database that it becomes, for the SQL that is told. Of an unsigned archive no
    SQL is run here but GRANT and REVOKE made of their parts, and none is told. Raises
    Refused when somebody may do in the copy what the archive does not say.
    """
    with closing(copy.connect()) as connection:
        connection.autocommit = True
        later = [e for e in found.entries if e.id in left and e.statement]
        # rights are compared, a schema is there; an extension that is told already is
        # told with its SQL where that of others needs it
        needed = frozenset[int]().union(*(e.needs for e in plan.left.values()))
        later = [
            e
            for e in later
            if e.id in plan.left
            or (e.kind == "COMMENT" and not e.name.startswith("EXTENSION "))
            or (e.kind == "EXTENSION" and e.id in needed)
        ]
        _make_left(connection, later, warn, live, signed)
        for entry in found.entries if signed else ():
            # the owner's word of it; one that a template brings keeps its own
            if entry.kind == "COMMENT" and entry.name.startswith("EXTENSION "):
                _try(connection, [entry.statement])
        found = _without_absent(found, connection)
        there = _contents_of(copy, connection, pg_bin)
        for wanted in (wanted_owners, wanted_rights):
            work = wanted(found, there, plan)
            for statements in work:
                _try(connection, statements)
            if work:
                there = _contents_of(copy, connection, pg_bin)
    if plan.tablespaces:
        warn(
            f"the tablespaces {', '.join(plan.tablespaces)} are not there or not "
            f"CKAN's to use: what was in them is in the database's own"
        )
    tell_owners(found, there, plan, warn, live, signed)
    tell_rights(copy.part, found, there, plan, warn, live, signed)


def _make_left(
    connection: Connection,
    entries: list[Entry],
    warn: Warn,
    live: str,
    signed: bool,
) -> None:
    """Makes what can be made after all of the entries that were left out."""
    left = []
    for entry in entries:
        usual = (
            entry.kind == "COMMENT" and "'standard public schema'" in entry.statement
        )
        tried = signed and entry.kind != "SUBSCRIPTION"
        if not (tried and _try(connection, [entry.statement])) and not usual:
            left.append(entry)
    if left:
        named = ", ".join(str(entry) for entry in left if entry.kind not in ABOUT)
        warn(
            f"left out, for only a superuser can make it: {named or some(left)}. "
            + by_superuser(map(shown_sql, left), live, signed)
        )


def _try(connection: Connection, statements: Iterable[str]) -> bool:
    """Runs statements in one transaction, all or none; whether it could be done."""
    try:
        query(connection, "BEGIN")
        query(connection, "SET LOCAL search_path = pg_catalog")
        # as pg_restore does: a function may name what is not there any more
        query(connection, "SET LOCAL check_function_bodies = off")
        for statement in statements:
            query(connection, statement)
        query(connection, "COMMIT")
        return True
    except psycopg2.Error:
        query(connection, "ROLLBACK")
        return False


def _contents_of(copy: Database, connection: Connection, pg_bin: str) -> Contents:
    """What pg_dump says of the copy."""
    tools = dump_tools(server_major(connection), pg_bin)
    target, environment = copy.program(no_limits(connection))
    arguments = [tools.path("pg_dump"), "-Fc", "-s", "-Z0", "--no-password", *target]
    with running(arguments, environment, stdin=-3, stdout=-1) as process:
        assert process.stdout is not None
        try:
            return read_contents(process.stdout, "the copy")
        finally:
            while process.stdout.read(1 << 18):
                pass
            # where too little came, what it said is the reason
            finish(process, "comparing the copy with the archive")


def _without_absent(found: Contents, connection: Connection) -> Contents:
    """The archive without the rights on what an extension brought that is not here."""
    ids = {entry.id for entry in found.entries}
    absent = {
        entry.id
        for entry in found.entries
        if entry.kind == "ACL"
        and ids.isdisjoint(entry.needs)
        and _is_absent(entry, connection)
    }
    kept = [entry for entry in found.entries if entry.id not in absent]
    return replace(found, entries=kept)


def _is_absent(entry: Entry, connection: Connection) -> bool:
    """Whether there is nothing of the name that rights are about; changes nothing."""
    for right in rights.read(entry)[:1]:
        # everybody is there: what is not found is the thing
        asked = replace(right, role="PUBLIC", suffix="", by="").sql()
        query(connection, "BEGIN")
        try:
            query(connection, "SET LOCAL search_path = pg_catalog")
            query(connection, asked)
        except _UNDEFINED:
            return True
        except psycopg2.Error:
            return False
        finally:
            query(connection, "ROLLBACK")
    return False


def stays_behind(database: Database) -> Iterator[str]:
    """What belongs to the live database, is in no dump of CKAN's role, and will not
    be the restored one's: subscriptions and replication slots, a sentence for each."""
    try:
        connection = database.connect()
    except ConnectionFailed:
        return
    with closing(connection):
        subscriptions = query(
            connection,
            "SELECT subname, subpublications, subslotname FROM pg_subscription"
            " WHERE subdbid = (SELECT oid FROM pg_database"
            " WHERE datname = current_database()) ORDER BY 1",
        )
        slots = query(
            connection,
            "SELECT slot_name, plugin FROM pg_replication_slots"
            " WHERE database = current_database() ORDER BY 1",
        )
    for name, publications, slot in subscriptions:
        listed = ", ".join(map(role_sql, publications))
        yield (
            f"the subscription {name!r} stays with the old database, which cannot be "
            "dropped as long as it has one. A superuser runs there and, with its "
            "connection string out of pg_subscription, in the restored one:\n"
            f"ALTER SUBSCRIPTION {role_sql(name)} DISABLE;\n"
            f"ALTER SUBSCRIPTION {role_sql(name)} SET (slot_name = NONE);\n"
            f"DROP SUBSCRIPTION {role_sql(name)};\n"
            f"CREATE SUBSCRIPTION {role_sql(name)} CONNECTION '***' "
            f"PUBLICATION {listed} WITH (create_slot = false, copy_data = false"
            f"{f', slot_name = {role_sql(slot)}' if slot else ''});"
        )
    for name, plugin in slots:
        yield (
            f"the replication slot {name!r} stays with the old database, which cannot "
            "be dropped as long as it has one. A superuser runs, there and in the "
            f"restored one:\nSELECT pg_drop_replication_slot({rights.literal(name)});\n"
            "SELECT pg_create_logical_replication_slot("
            f"{rights.literal(name)}, {rights.literal(plugin)});"
        )
