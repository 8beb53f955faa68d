"""Extensions that only a superuser makes: what a copy cannot have, and who needs it.

A copy has what its template brings, and what the site's role may make. Of the rest
nothing is loaded: what nothing else needs is left out, anything else is refused
beforehand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import psycopg2

from ..errors import ConnectionFailed, Refused
from ..postgres.database import Connection, Database, closing, query, quoted
from ..report import Warn, name_of
from ..site import Site

if TYPE_CHECKING:
    from .contents import Contents, Entry

#: what may be left out with an extension: it holds no data
_ALONG = ("COMMENT", "ACL", "FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING")
_SHOWN = 3

_PRESENT = "SELECT extname FROM pg_extension"
_MAKEABLE = """SELECT name FROM pg_available_extension_versions v
    JOIN pg_available_extensions e USING (name) WHERE v.version = e.default_version
    AND (NOT v.superuser OR v.trusted
         OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))"""
_MEMBERS = """SELECT nspname::text, name::text FROM
    (SELECT c.oid, 'pg_class'::regclass AS class, relnamespace AS schema,
            relname AS name FROM pg_class c
     UNION ALL SELECT p.oid, 'pg_proc'::regclass, pronamespace, proname FROM pg_proc p)
    o JOIN pg_namespace n ON n.oid = schema
    JOIN pg_depend d ON d.classid = class AND d.objid = o.oid AND d.deptype = 'e'"""
#: what is not of an extension and needs what is
_NEEDED = """WITH member AS (
        SELECT refobjid AS ext, classid, objid FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e')
    SELECT extname::text, array_remove(array_agg(DISTINCT coalesce(
        o.relname, i.relname, p.proname)::text), NULL)
    FROM pg_extension e
    LEFT JOIN (member m JOIN pg_depend d
               ON d.refclassid = m.classid AND d.refobjid = m.objid
               AND d.deptype IN ('n', 'a')) ON m.ext = e.oid
    LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    LEFT JOIN pg_class o ON o.oid = w.ev_class AND NOT EXISTS (
        SELECT FROM member x WHERE x.objid = o.oid AND x.classid = 'pg_class'::regclass)
    LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
        AND i.relkind IN ('r', 'p', 'i', 'I', 'm', 'f') AND NOT EXISTS (
        SELECT FROM member x WHERE x.classid = 'pg_class'::regclass AND x.objid IN (
            SELECT i.oid UNION SELECT indrelid FROM pg_index WHERE indexrelid = i.oid))
    LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
        AND NOT EXISTS (SELECT FROM member x
                        WHERE x.objid = p.oid AND x.classid = 'pg_proc'::regclass)
    GROUP BY 1 ORDER BY 1"""


def present(connection: Connection) -> set[str]:
    """The extensions of a database."""
    return {name for (name,) in query(connection, _PRESENT)}


def makeable(connection: Connection) -> set[str]:
    """The extensions that the connection's role may make."""
    return {name for (name,) in query(connection, _MAKEABLE)}


def members(connection: Connection) -> set[tuple[str, str]]:
    """Schema and name of the tables and functions that are an extension's."""
    return {(schema, name) for schema, name in query(connection, _MEMBERS)}


def possible(site: Site, part: str) -> set[str] | None:
    """The extensions that a part's copy can have; None when nobody can know."""
    database, template = site.databases[part], site.scratch_templates.get(part, "")
    brought = {"plpgsql"}
    if template not in ("", "template0"):
        try:
            with closing(database.named(template).connect()) as connection:
                brought = present(connection)
        except ConnectionFailed:  # it may be closed to all but CREATE DATABASE
            return None
    with closing(database.maintenance(database.url)) as connection:
        return brought | makeable(connection)


def lacking(
    found: Contents, able: Collection[str]
) -> Iterator[tuple[str, set[int], list[Entry]]]:
    """The extensions of an archive that its copy cannot have.

    Name, the ids of it and of all that needs it, and those of them that cannot be left
    out.
    """
    tables = {(e.schema, e.name) for e in found.entries if e.kind == "TABLE"}
    for extension in found.entries:
        if extension.kind != "EXTENSION" or extension.name in able:
            continue
        ids, needed, servers = {extension.id}, [], set[str]()
        for entry in found.entries:  # the archive has what is needed first
            # a user mapping does not say what it needs
            mapped = entry.kind == "USER MAPPING" and (
                entry.name.rpartition(" SERVER ")[2] in servers
            )
            if not mapped and ids.isdisjoint(entry.needs):
                continue
            ids.add(entry.id)
            if entry.kind == "SERVER":
                servers.add(entry.name)
            own = entry.kind == "TABLE DATA" and (
                (entry.schema, entry.name) not in tables
            )
            if not own and not entry.kind.startswith(_ALONG):
                needed.append(entry)
        yield extension.name, ids, needed


def left_out(
    part: str, found: Contents, connection: Connection, warn: Warn
) -> set[int]:
    """The ids of what this scratch database cannot have, or has from its template.

    Raises Refused when something needs an extension that it cannot have.
    """
    brought = members(connection)
    left: set[int] = set()
    for name, ids, needed in lacking(found, present(connection) | makeable(connection)):
        refuse_needed(name, [str(entry) for entry in needed], "the archive", part)
        warn(f"left out, only a superuser can make it and nothing needs it: {name}")
        left |= ids
    for entry in found.entries:
        if entry.kind == "TABLE DATA" and (entry.schema, entry.name) in brought:
            warn(f"left out, the template of the copy brings its own: {entry}")
            left.add(entry.id)
    return left


def refuse_lacking(site: Site, part: str, found: Contents, name: str) -> None:
    """Refuses an archive whose copy could not have what it needs. Raises Refused."""
    able = possible(site, part)
    if able is None:
        return
    for extension, _, needed in lacking(found, able):
        refuse_needed(extension, [str(entry) for entry in needed], name, part)


def refuse_needed(extension: str, needed: list[str], name: str, part: str) -> None:
    """Raises Refused, with the way out, when something needs the extension."""
    if needed:
        raise Refused(
            f"{name} needs the extension {extension!r} ({_some(needed)}), and the "
            f"site's role may not make it. {recipe(extension, part)}"
        )


def option(part: str) -> str:
    """The setting that names the template of a part's copies."""
    main = part == "database"
    return name_of("scratch_template" if main else "datastore_scratch_template")


def recipe(extension: str, part: str) -> str:
    """What gives copies an extension that only a superuser makes."""
    template = name_of(f"{part}_template")
    return (
        "Once, as PostgreSQL's superuser, make a template that has it:\n"
        f"  createdb -T template0 {template}\n"
        f"  psql -d {template} -c 'CREATE EXTENSION {quoted(extension)}'"
        f" -c 'ALTER DATABASE {template} IS_TEMPLATE true'\n"
        f"and set {option(part)} = {template}"
    )


def missing_in_copies(site: Site, database: Database) -> Iterator[tuple[str, bool]]:
    """What a copy of a database will lack, a sentence each, and whether it hinders.

    Raises ConnectionFailed, psycopg2.Error.
    """
    with closing(database.connect()) as connection:
        there = query(connection, _NEEDED)
    able = possible(site, database.part)
    for extension, needed in there:
        if able is None or extension in able:
            continue
        what = f"the extension {extension!r} of the {database.part}"
        if needed:
            yield (
                f"{what} is needed ({_some(needed)}), and the site's role may not make "
                "it in a copy: a restore is refused. "
                + recipe(extension, database.part),
                True,
            )
        else:
            yield (
                f"{what} is in no copy, for only a superuser makes it, and nothing "
                "needs it: a restore leaves it out",
                False,
            )


def warnings(site: Site, database: Database) -> list[str]:
    """The sentences of `missing_in_copies`, none when nobody can be asked."""
    try:
        return [sentence for sentence, _ in missing_in_copies(site, database)]
    except (ConnectionFailed, psycopg2.Error):
        return []


def _some(names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
