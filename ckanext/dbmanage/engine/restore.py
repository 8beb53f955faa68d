"""Restore: scratch databases, checks, one switch, and what is left of the old ones.

The live databases are never the workbench: an archive goes into a scratch database
made for it, is checked there, and both parts are switched in by rename, in one
transaction where one server holds both. What is half-way stands in the repository's
journal, and `recover` finishes it or turns it back. Must not know CKAN: what has to be
done with its help is handed in as `prepare`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from zstandard import ZstdError

from . import Progress, Site, Warn, archive, backup, postgres, switch
from .errors import Damaged, Refused, ToolFailed, Untrusted
from .postgres import Connection, Database, closing, query
from .repository import UNSIGNED, Backup, Repository
from .switch import Scratch

#: given the scratch databases by part, makes of them what this site's CKAN needs
Prepare = Callable[[Mapping[str, Database]], None]


@dataclass(frozen=True)
class Source:
    """What is to be restored: an archive for each part, and what is known of them.

    `backup` is None for a bare archive. `signed`: a manifest of this site vouches for
    every byte; anything else is hostile until somebody says `--trust`.
    """

    name: str
    archives: Mapping[str, Path]
    signed: bool
    backup: Backup | None = None

    def rows(self, part: str) -> dict[str, int] | None:
        """The manifest's exact row counts, None when nobody counted."""
        return self.backup.manifest["databases"][part]["rows"] if self.backup else None

    def sha256(self, part: str) -> str:
        """The checksum of the part's file, empty when nobody noted one."""
        if self.backup is None:
            return ""
        return self.backup.manifest["contents"][self.archives[part].name]["sha256"]

    def migrations(self, part: str) -> dict[str, list[str]] | None:
        """The alembic revisions in the archive, None when nobody noted them."""
        if self.backup is None:
            return None
        return self.backup.manifest["databases"][part]["migrations"]


@dataclass(frozen=True)
class Restored:
    """What a restore did: `replaced` are the old databases by part."""

    operation: str
    parts: list[str]
    replaced: dict[str, Database]


def open_source(
    site: Site,
    repository: Repository,
    name: str,
    *,
    parts: tuple[str, ...] = (),
    trust: bool = False,
    progress: Progress = lambda *_: None,
) -> Source:
    """The backup of an id, a backup's directory, or a file of `pg_dump -Fc`; verified.

    Raises Refused, Untrusted, Damaged.
    """
    path = Path(name)
    if not name or ("/" not in name and not path.exists()):
        return _of_backup(site, repository.find(name), parts, trust, progress)
    if path.is_dir():
        if (path / "toc.dat").exists():
            raise Refused(
                f"{name} is an archive of pg_dump in directory format: make a single "
                "file with `pg_dump -Fc`"
            )
        found = Backup(path.resolve(), site.secrets)
        return _of_backup(site, found, parts, trust, progress)
    if not path.exists():
        raise Refused(f"there is neither a backup nor a file {name!r}")
    return _of_file(site, path, parts, trust, progress)


def _of_backup(
    site: Site, found: Backup, parts: tuple[str, ...], trust: bool, progress: Progress
) -> Source:
    if trust and not found.signed:
        problems = backup.problems_of(found, site, progress, foreign=True)
    else:
        # a signed checksum vouches for every byte; that it can be read shows when it
        # is read into the scratch database
        problems = backup.problems_of(found, site, progress, structure=False)
    if problems:
        if all(UNSIGNED in problem for problem in problems):
            raise Untrusted(f"{problems[0]}. {_TRUST}")
        raise Damaged(f"backup {found.id}", problems)
    chosen = [p for p in backup.PARTS if p in (parts or found.parts)]
    archives = {part: backup.content_file(found, part) for part in chosen}
    return Source(f"backup {found.id}", archives, found.signed, found)


_TRUST = (
    "To restore it all the same, say --trust: this runs the SQL in it as CKAN's "
    "database role"
)


def _of_file(
    site: Site, path: Path, parts: tuple[str, ...], trust: bool, progress: Progress
) -> Source:
    part = parts[0] if parts else "database"
    if len(parts) > 1:
        raise Refused("a file holds one database: give --only once")
    archive.refuse_other_formats(path)
    if not trust:
        raise Untrusted(f"{path.name} carries no signature of this site. {_TRUST}")
    try:
        with open(path, "rb") as file:
            archive.read_to_end(file, path.name, site.pg_bin)
    except (ToolFailed, ZstdError) as error:
        raise Damaged(path.name, [str(error)]) from error
    return Source(path.name, {part: path}, signed=False)


# ------------------------------------------------------------------- the preflight


def preflight(site: Site, source: Source) -> None:
    """Every check that can be made before anything is touched. Raises Refused."""
    for part in source.archives:
        if part not in site.databases:
            raise Refused(
                f"{source.name} holds the DataStore, this site has none: enable the "
                "plugin `datastore`, or restore the rest with `--only database`"
            )
        database = site.databases[part]
        with closing(database.maintenance()) as connection:
            _may_create(connection, database)
            switch.refuse_foreign_sessions(site, connection, database.name)
            archive.tools(source.archives[part], connection, site.pg_bin)
            if not source.signed:
                _refuse_superuser(connection, database.role, source.name)
        held = archive.contents_of(source.archives[part])
        archive.refuse_wrong_part(held, part, source.name)
        if not source.signed:
            archive.refuse_odd(held, source.name)
        _same_migrations(source.name, source.migrations(part), part, site)


def _refuse_superuser(connection: Connection, role: str, name: str) -> None:
    if query(
        connection, "SELECT 1 FROM pg_roles WHERE rolname = %s AND rolsuper", role
    ):
        raise Refused(
            f"{name} carries no signature of this site, and CKAN's role {role!r} is a "
            "superuser: the SQL in it could do anything to the server. Let CKAN "
            "connect as a plain role, as its manual says: "
            f"ALTER ROLE {postgres.quoted(role)} NOSUPERUSER CREATEDB;"
        )


def _may_create(connection: Connection, database: Database) -> None:
    role, may, superuser = query(
        connection,
        "SELECT rolname, rolcreatedb OR rolsuper, rolsuper FROM pg_roles"
        " WHERE rolname = current_user",
    )[0]
    if not may:
        raise Refused(
            f"the role {role!r} may not create databases, so nothing can be restored "
            "beside the live one. As PostgreSQL's superuser run once:\n"
            f"  ALTER ROLE {postgres.quoted(role)} CREATEDB;\n"
            "or set ckanext.dbmanage.admin_url to a connection of a role that may"
        )
    owner = query(
        connection,
        "SELECT pg_get_userbyid(datdba), pg_has_role(datdba, 'USAGE')"
        " FROM pg_database WHERE datname = %s",
        database.name,
    )
    if owner and not owner[0][1] and not superuser:
        name = postgres.quoted(database.name)
        raise Refused(
            f"the database {database.name!r} belongs to {owner[0][0]!r}, so {role!r} "
            "may not rename it. As PostgreSQL's superuser run once:\n"
            f"  ALTER DATABASE {name} OWNER TO {postgres.quoted(database.role)};"
        )


def _same_migrations(
    name: str, migrations: Mapping[str, list[str]] | None, part: str, site: Site
) -> None:
    if part != "database" or migrations is None or not site.heads:
        return
    for table in sorted(set(migrations) | set(site.heads)):
        there = set(migrations.get(table, ()))
        here = site.heads.get(table)
        owner = table.removesuffix("alembic_version").rstrip("_") or "CKAN"
        if here is None and there:
            raise Refused(
                f"{name} holds migrations of the plugin {owner!r}, which is not "
                "enabled here: enable it (and install it), then restore"
            )
        if here is not None and there != here:
            raise Refused(
                f"{name} was made with another version of {owner}'s schema "
                f"({', '.join(sorted(there)) or 'none'}) than the installed one "
                f"({', '.join(sorted(here)) or 'none'}): install the version of "
                f"{owner} that it was made with, restore, then upgrade"
            )


# --------------------------------------------------------------------- the restore


def restore(
    site: Site,
    repository: Repository,
    source: Source,
    *,
    prepare: Prepare = lambda _: None,
    progress: Progress = lambda *_: None,
    warn: Warn = lambda _: None,
) -> Restored:
    """Restores the source's parts and switches them in; the old databases stay.

    The caller holds the repository's lock and has made the `preflight`. Until the
    switch nothing of the live databases is touched; a failure drops the scratch ones.
    Raises Refused, ConnectionFailed, ToolFailed, Damaged.
    """
    operation = secrets.token_hex(4)
    with ExitStack() as stack:
        stack.enter_context(backup.live_lock(site))
        switch.recover(site, repository, warn)
        repository.record(operation, "begin", what="restore", source=source.name)
        try:
            scratches = {
                part: stack.enter_context(
                    switch.scratch(site, repository, operation, part, source.backup)
                )
                for part in source.archives
            }
            for scratch in scratches.values():
                _load(site, repository, source, scratch, progress, warn)
            copies = {part: scratch.database for part, scratch in scratches.items()}
            prepare(copies)
            for part, scratch in scratches.items():
                _check(site, source, part, scratch.database, progress)
                switch.copy_properties(scratch, warn)
            progress("switch", 0, 0)
            switch.switch(site, repository, operation, list(scratches.values()))
        except BaseException as error:
            with suppress(OSError):
                repository.record(operation, "failed", error=_told(error))
            if isinstance(error, (psycopg2.Error, OSError)):
                raise ToolFailed(
                    "the restore failed and the live databases are as they were: "
                    + _told(error)
                ) from error
            raise
        repository.record(operation, "done")
        switch.drop_older(site, repository, operation, warn)
    replaced = {
        part: site.databases[part].named(scratch.pair.undo)
        for part, scratch in scratches.items()
        if scratch.pair.live_oid
    }
    return Restored(operation, list(scratches), replaced)


def _told(error: BaseException) -> str:
    filename = getattr(error, "filename", None)
    where = f" ({filename})" if filename else ""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) + where


def _load(
    site: Site,
    repository: Repository,
    source: Source,
    scratch: Scratch,
    progress: Progress,
    warn: Warn,
) -> None:
    part = scratch.database.part
    with repository.partial(f"restore{scratch.pair.token[:8]}{part}") as directory:
        packed = source.archives[part]
        path = archive.unpack(packed, directory, source.sha256(part), progress)
        with closing(scratch.database.connect()) as connection:
            tools = archive.tools(path, connection, site.pg_bin)
            chosen = archive.choose(archive.contents_of(path), connection, warn)
            settings = _settings(connection)
        listed = directory / "list"
        listed.write_text("\n".join(chosen) + "\n", "utf-8")
        target, environment = scratch.database.program(settings)
        arguments = [tools.path("pg_restore"), "-O", "-e", "-L", str(listed)]
        # one transaction stops a smuggled DROP DATABASE, but excludes parallel loading
        arguments += ["-j", str(site.jobs)] if source.signed else ["-1"]
        progress("load", 0, 0)
        with postgres.running(
            [*arguments, "--no-password", *target, str(path)], environment, stdin=-3
        ) as process:
            postgres.finish(process, f"restoring {source.name} ({part}) into a copy")


def _settings(connection: Connection) -> str:
    """What makes a load faster, where the server knows it.

    Commits need not wait for the disk: the switch's own commit does, after them all.
    """
    found = query(
        connection,
        "SELECT 'lz4' = ANY(enumvals) FROM pg_settings"
        " WHERE name = 'default_toast_compression'",
    )
    lz4 = "-c default_toast_compression=lz4" if found == [(True,)] else ""
    return f"-c synchronous_commit=off {lz4}"


def _analyse(database: Database, jobs: int) -> None:
    """Collects the planner's statistics, tables side by side, the largest first."""
    with closing(database.connect()) as connection:
        tables = query(
            connection,
            "SELECT format('%I.%I', nspname, relname) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind IN ('r', 'm', 'p') AND nspname !~ '^pg_'"
            " AND nspname <> 'information_schema' ORDER BY pg_table_size(c.oid)",
        )

    def work() -> None:
        with closing(database.connect()) as connection:
            connection.autocommit = True
            query(connection, "SET synchronous_commit = off")
            while tables:
                with suppress(IndexError):
                    query(connection, f"ANALYZE {tables.pop()[0]}")

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(work) for _ in range(jobs)]:
            done.result()


def _check(
    site: Site, source: Source, part: str, copy: Database, progress: Progress
) -> None:
    progress("check", 0, 0)
    _analyse(copy, site.jobs)
    with closing(copy.connect()) as connection:
        connection.autocommit = True
        _same_migrations(source.name, postgres.migration_heads(connection), part, site)
        expected = source.rows(part)
        if expected is None:
            return
        names = [(schema, table) for schema, table, *_ in postgres.tables(connection)]
        counted = postgres.count_rows(connection, names)
    # what `prepare` adds, such as the DataStore's own tables, is no loss
    wrong = [
        f"table {table}: {counted.get(table, 'none')} rows, the manifest says {rows}"
        for table, rows in sorted(expected.items())
        if counted.get(table) != rows
    ]
    if wrong:
        raise Damaged(f"the copy restored from {source.name} ({part})", wrong)
