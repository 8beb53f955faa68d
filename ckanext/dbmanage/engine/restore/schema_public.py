"""The schema public of a copy, which must not be more open than it was.

Until PostgreSQL 14 everybody may make something in a new database's schema public, and
it belongs to the superuser, who alone can close it. In an archive it may be closed.
"""

import re
from collections.abc import Iterable

from ..archive import extensions, rights
from ..archive.contents import Contents
from ..archive.rights import Right, role_sql
from ..errors import Refused
from ..postgres.database import Connection, Database, closing, query, server_major
from ..site import Site
from .faithful import PUBLIC_RIGHTS, Plan, key_of

_OPEN_UNTIL = 14


def refuse_open(
    site: Site, part: str, plan: Plan, found: Contents, connection: Connection
) -> None:
    """Refuses where it would be open to everybody in the copy, and was not.

    Raises Refused, with what the superuser runs once.
    """
    given = [
        right
        for entry in found.entries
        if key_of(entry) == PUBLIC_RIGHTS
        for right in rights.read(entry)
    ]
    if rights.CREATE not in rights_of(given, found, plan) and not _can_be_closed(
        site, part, connection, plan.role
    ):
        raise Refused(why_open(site, part, plan.role))


def open_in_a_copy(site: Site, database: Database) -> str:
    """Why a copy of a live database would be refused for it, empty when it is not."""
    part, role = database.part, database.role
    with closing(database.maintenance()) as connection:
        if _can_be_closed(site, part, connection, role):
            return ""
    with closing(database.connect()) as connection:
        is_open = query(
            connection, "SELECT has_schema_privilege('public', 'public', 'CREATE')"
        )
    return "" if is_open == [(True,)] else why_open(site, part, role)


def _can_be_closed(site: Site, part: str, connection: Connection, role: str) -> bool:
    return (
        server_major(connection) > _OPEN_UNTIL
        or site.scratch_templates.get(part, "template0") != "template0"
        or _is_superuser(connection, role)
        or _is_superuser(connection)
    )


def _is_superuser(connection: Connection, role: str | None = None) -> bool:
    return query(
        connection,
        "SELECT rolsuper FROM pg_roles WHERE rolname = coalesce(%s, current_user)",
        role,
    ) == [(True,)]


def why_open(site: Site, part: str, role: str) -> str:
    """What is wrong, and what the superuser runs once."""
    return (
        "in a new database of PostgreSQL 14 everybody may make objects in the schema "
        "public, which only a superuser can change; in the archive it is closed. As "
        "PostgreSQL's superuser make once, with psql, a template that is CKAN's:\n"
        f"  CREATE DATABASE ckan_scratch OWNER {role_sql(role)} ENCODING 'UTF8' "
        "TEMPLATE template0;\n"
        "  \\connect ckan_scratch\n"
        f"  ALTER SCHEMA public OWNER TO {role_sql(role)};\n"
        f"and set {extensions.option(part)} = ckan_scratch"
        f"{site.advise('superuser', '; ')}"
    )


def rights_of(given: Iterable[Right], of: Contents, plan: Plan) -> list[Right]:
    """Its rights as what they come to, but for those of whom it belongs to."""
    owners = {plan.role, plan.own, "postgres", "pg_database_owner", *plan.superusers}
    return rights.in_schema_public(given, is_open(of), owners)


def is_open(of: Contents) -> bool:
    """Whether pg_dump took for granted that it is open."""
    major = re.match(r"\d+", of.program)
    return int(major[0] if major else 0) <= _OPEN_UNTIL


def server_opens(of: Contents) -> bool:
    """Whether the server opens it in every new database."""
    return int(of.server.split(".")[0]) <= _OPEN_UNTIL
