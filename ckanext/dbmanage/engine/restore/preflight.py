"""What a restore refuses before it touches anything."""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..archive import extensions, lint
from ..archive.contents import contents_of, refuse_wrong_part, tools
from ..backup.manifest import fingerprint
from ..disk import make_directories
from ..errors import Refused
from ..postgres import sessions
from ..postgres.database import Connection, Database, closing, query, quoted
from ..report import name_of
from ..repository.repository import Repository
from ..site import Site
from ..uploads.folders import folders_of
from ..uploads.staging import links_replaced, room
from . import faithful, schema_public
from .source import Source

#: links that are told by name
_SHOWN = 10


def preflight(site: Site, repository: Repository, source: Source) -> None:
    """Every check that can be made before anything is touched. Raises Refused."""
    if source.uploads and source.backup:
        if not site.uploads:
            raise Refused(
                f"{source.name} holds uploads, and this site has no place for them"
                + site.advise("uploads not wanted")
            )
        for directory in site.uploads.values():
            make_directories(Path(directory))
        among = folders_of(site.uploads, repository.path)
        room(source.uploads, source.backup.objects, among)
    refuse_strange_part(site, source)
    for part in source.archives:
        _refuse_archive(site, part, source)
    if "database" in source.archives:
        migrations = source.migrations("database")
        if migrations is not None:
            outdated(source.name, migrations, site)


def _refuse_archive(site: Site, part: str, source: Source) -> None:
    """Refuses an archive that this server and CKAN's role could not restore."""
    database, archive = site.databases[part], source.archives[part]
    with closing(database.maintenance()) as connection:
        may_create(site, connection, database)
        sessions.refuse_foreign(site.databases, connection, database.name)
        tools(archive, connection, site.pg_bin)
        if not source.signed:
            refuse_mighty(site, connection, database.role, source.name)
        held = contents_of(archive)
        refuse_wrong_part(held, part, source.name, site)
        if not source.signed:
            lint.refuse_odd(held, source.name)
        plan = faithful.plan(held, connection, database.role)
        faithful.refuse_lost_rows(plan, source.name)
        schema_public.refuse_open(site, part, plan, held, connection)
    extensions.refuse_lacking(site, part, held, source.name)


def refuse_strange_part(site: Site, source: Source) -> None:
    """Refuses a DataStore where the site has none."""
    if any(part not in site.databases for part in source.archives):
        raise Refused(
            f"{source.name} holds the {name_of('datastore')}, this site has none"
            + site.advise("datastore not wanted")
        )


def changed_owners(site: Site, source: Source) -> Iterator[str]:
    """What would come back as CKAN's role's and was another's, a sentence for each."""
    for part, archive in source.archives.items():
        database = site.databases[part]
        with closing(database.maintenance()) as connection:
            held = contents_of(archive)
            plan = faithful.plan(held, connection, database.role)
        yield from faithful.changed_owners(plan, source.signed)


def differences(site: Site, source: Source) -> Iterator[str]:
    """What will be another than now besides the data, a sentence for each."""
    for part, archive in source.archives.items():
        role = site.databases[part].role if part in site.databases else ""
        if role and (sentence := faithful.other_role(contents_of(archive), role)):
            yield sentence
    if source.backup is None:
        return
    manifest = source.backup.manifest
    known = manifest.get("secrets")
    made_with = known.get("api_tokens") if isinstance(known, dict) else None
    if "database" in source.archives and made_with != fingerprint(site.token_secret):
        yield (
            "API tokens in it were made with another secret than this site has and "
            f"will not work{site.advise('other token secret')}"
        )
    other = manifest.get("site")
    if source.signed or not isinstance(other, dict):
        return
    for what, there, here in (
        ("site id", other.get("id"), site.id),
        ("site URL", other.get("url"), site.url),
    ):
        if there != here:
            yield (
                f"it is of another site: {what} {there!r}, here {here!r}; addresses in "
                "its data stay as they are"
            )
    if source.backup.files.get("included") and source.uploads:
        yield f"its uploads will be put into {', '.join(site.uploads.values())}"


def links_lost(site: Site, repository: Repository, source: Source) -> Iterator[str]:
    """The links among the live uploads that will go, a sentence for each of a few."""
    if not source.uploads:
        return
    among = folders_of(site.uploads, repository.path)
    lost = 0
    for path, place in links_replaced(source.uploads, among):
        lost += 1
        if lost <= _SHOWN:
            target = os.readlink(place)
            again = f"ln -s {shlex.quote(target)} {shlex.quote(str(place))}"
            undo = site.advise("undo", "; ")
            yield (
                f"the link {path!r} to {target!r} is in no backup and goes with what "
                f"is replaced{undo}{', or' if undo else ';'} make it again: {again}"
            )
    if lost > _SHOWN:
        yield f"and {lost - _SHOWN} links more will go with what is replaced"


#: what a role can hand to the SQL that runs as it, beyond its own databases
_MIGHTY = """
    SELECT CASE WHEN r.rolsuper THEN 'a superuser'
                WHEN r.rolname LIKE 'pg\\_%%' THEN 'made for the server''s own files'
                ELSE 'allowed to make and alter roles' END,
           r.rolname
    FROM pg_catalog.pg_roles r
    WHERE (r.rolsuper OR r.rolcreaterole OR r.rolname IN ('pg_execute_server_program',
              'pg_read_server_files', 'pg_write_server_files'))
      AND (r.rolname = %(role)s
           OR pg_catalog.pg_has_role(%(role)s::name, r.oid, 'MEMBER'))
    ORDER BY r.rolname <> %(role)s, NOT r.rolsuper, r.rolname LIMIT 1"""


def refuse_mighty(site: Site, connection: Connection, role: str, name: str) -> None:
    """Refuses to run foreign SQL as a superuser, or as who can become one."""
    for what, held in query(connection, _MIGHTY, {"role": role}):
        if held != role:
            why = f"is a member of the role {held!r}, which is {what}"
            remedy = f"REVOKE {quoted(held)} FROM {quoted(role)};"
        else:
            why = f"is {what}"
            options = "NOSUPERUSER NOCREATEROLE CREATEDB"
            remedy = f"ALTER ROLE {quoted(role)} {options};"
        raise Refused(
            f"{name} carries no signature of this site, and CKAN's role {role!r} "
            f"{why}: the SQL in it could do anything to the server"
            f"{site.advise('plain role', '. ')}: {remedy}"
        )


def may_create(site: Site, connection: Connection, database: Database) -> None:
    """Refuses where no copy could be made beside the live database and switched."""
    role, may, superuser = query(
        connection,
        "SELECT rolname, rolcreatedb OR rolsuper, rolsuper FROM pg_roles"
        " WHERE rolname = current_user",
    )[0]
    if not may:
        raise Refused(
            f"the role {role!r} may not create databases, so nothing can be restored "
            "beside the live one. As PostgreSQL's superuser run once:\n"
            f"  ALTER ROLE {quoted(role)} CREATEDB;{site.advise('admin', chr(10))}"
        )
    owner = query(
        connection,
        "SELECT pg_get_userbyid(datdba), pg_has_role(datdba, 'USAGE')"
        " FROM pg_database WHERE datname = %s",
        database.name,
    )
    if owner and not owner[0][1] and not superuser:
        name = quoted(database.name)
        raise Refused(
            f"the database {database.name!r} belongs to {owner[0][0]!r}, so {role!r} "
            "may not rename it. As PostgreSQL's superuser run once:\n"
            f"  ALTER DATABASE {name} OWNER TO {quoted(database.role)};"
        )


def may_switch(site: Site, parts: Iterable[str]) -> None:
    """The same for the databases of some parts. Raises Refused, ConnectionFailed."""
    for part in parts:
        database = site.databases[part]
        with closing(database.maintenance()) as connection:
            may_create(site, connection, database)


def outdated(name: str, migrations: Mapping[str, list[str]], site: Site) -> list[str]:
    """The version tables whose migrations the installed code has yet to run.

    `migrations` are revisions by version table, `name` is what holds them. Raises
    Refused for a schema that the installed code does not know.
    """
    older = []
    for table in sorted(set(migrations) | set(site.heads)) if site.heads else ():
        there = set(migrations.get(table, ()))
        here = site.heads.get(table)
        plugin = table.removesuffix("alembic_version").rstrip("_")
        owner = plugin or "CKAN"
        if here is None:
            if there:
                raise Refused(
                    f"{name} holds migrations of the plugin {owner!r}, which is not "
                    "enabled here: enable it (and install it), then restore"
                )
        elif not plugin and not there:
            raise Refused(f"{name} holds no tables of CKAN that this version knows of")
        elif not there <= site.revisions[table]:
            raise Refused(
                f"{name} was made with a newer version of {owner}'s schema "
                f"({', '.join(sorted(there - site.revisions[table]))}) than the "
                f"installed one ({', '.join(sorted(here))}): install the version of "
                f"{owner} that it was made with, then restore"
            )
        elif there != here:
            older.append(table)
    return older
