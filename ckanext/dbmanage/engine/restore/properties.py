"""What a live database has beside its contents, and what of it a copy can have.

Settings, rights and a comment; subscriptions and replication slots.
"""

import re
from collections.abc import Iterable, Iterator

import psycopg2.errors
from psycopg2 import sql

from ..archive.rights import literal, role_sql
from ..errors import ConnectionFailed
from ..postgres.database import Database, closing, query
from ..report import Warn
from .scratch import Scratch


def copy_properties(scratch: Scratch, warn: Warn) -> None:
    """Gives the copy what belongs to a database and does not travel in its dump.

    Settings, rights, connection limit; the comment follows at the switch. What only a
    superuser may set is told, with the SQL. Settings of a role that neither owns the
    database nor is the site's are told without: whoever may log in writes such settings
    for itself, and nobody else is to run them.
    """
    keeper, live, copy = scratch.keeper, scratch.live.name, scratch.pair.scratch
    settings = query(keeper, _SETTINGS, live)
    own = [s for s in settings if s[0] is None or s[1] or s[0] in scratch.roles]
    rights = query(keeper, _RIGHTS, live)
    ours, theirs = (list(_properties(name, own, rights)) for name in (copy, live))
    for statement, mine in zip(ours, theirs, strict=True):
        try:
            query(keeper, statement)
        except psycopg2.errors.InsufficientPrivilege:
            warn(
                "only a superuser may run this again after the restore: "
                f"{mine.as_string(keeper)};"
            )
    for role in sorted({s[0] for s in settings if s not in own}):
        names = ", ".join(repr(s[2]) for s in settings if s[0] == role)
        warn(
            f"settings of the role {role!r} in the database {live!r} are left out, for "
            f"it is none of the site's ({names}): who needs them sets them again"
        )


_SETTINGS = """
SELECT rolname, coalesce(setrole = datdba, false), split_part(c, '=', 1),
       substr(c, strpos(c, '=') + 1)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
     LEFT JOIN pg_roles r ON r.oid = setrole, unnest(setconfig) c
WHERE datname = %s AND (setrole = 0 OR rolname IS NOT NULL)"""

_RIGHTS = """
SELECT datconnlimit, datacl IS NOT NULL, a.privilege_type, a.grantee = 0, rolname,
       a.is_grantable
FROM pg_database d LEFT JOIN aclexplode(d.datacl) a ON true
     LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE datname = %s"""

#: settings that are a list of names, as pg_dump knows them; the others are one literal
_LISTS = {
    "local_preload_libraries", "search_path", "session_preload_libraries",
    "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories",
}  # fmt: skip

_ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s,"][^\s,]*))\s*(?:,|$)')


def _properties(
    database: str, settings: Iterable[tuple], rights: Iterable[tuple]
) -> Iterator[sql.Composed]:
    """The statements that give a database these settings and rights.

    All of it was written by others: a word of theirs is an identifier or a literal.
    """
    name = sql.Identifier(database)
    for role, _, setting, value in settings:
        values = _elements(value) if setting in _LISTS else [value]
        who = sql.SQL("DATABASE {}").format(name)
        if role is not None:
            who = sql.SQL("ROLE {} IN {}").format(sql.Identifier(role), who)
        yield sql.SQL("ALTER {} SET {} TO {}").format(
            who, sql.Identifier(setting), sql.SQL(", ").join(map(sql.Literal, values))
        )
    for number, (limit, changed, right, public, role, grantable) in enumerate(rights):
        if not number:
            yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(
                name, sql.Literal(limit)
            )
            if changed:
                yield sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name)
        if right in ("CREATE", "TEMPORARY", "CONNECT") and (public or role):
            yield sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
                sql.SQL(right),
                name,
                sql.SQL("PUBLIC") if public else sql.Identifier(role),
                sql.SQL(" WITH GRANT OPTION" if grantable else ""),
            )


def _elements(value: str) -> list[str]:
    """The names in a setting that is a list, as PostgreSQL's SplitGUCList reads them.

    Of one that it would not read: the whole as one name, which is there in no database.
    """
    found, position = [], 0
    while position < len(value):
        element = _ELEMENT.match(value, position)
        if element is None:
            return [value]
        quoted, plain = element.groups()
        found.append(plain if quoted is None else quoted.replace('""', '"'))
        position = element.end()
    return found or [""]


def stays_behind(database: Database) -> Iterator[str]:
    """The subscriptions and replication slots of a live database, a sentence for each.

    No dump of CKAN's role holds them, and the restored database will not have them.
    """
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
            f"restored one:\nSELECT pg_drop_replication_slot({literal(name)});\n"
            "SELECT pg_create_logical_replication_slot("
            f"{literal(name)}, {literal(plugin)});"
        )
