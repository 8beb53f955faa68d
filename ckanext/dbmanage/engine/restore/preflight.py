"""Restore: scratch databases, checks, one switch, and what is left of the old ones.

The live databases are never the workbench: an archive goes into a scratch database
made for it, is checked there, and both parts are switched in by rename, in one
transaction where one server holds both. What is half-way stands in the repository's
journal, and `recover` finishes it or turns it back. Must not know CKAN: what has to be
done with its help is handed in as `prepare`.
"""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg2
from zstandard import ZstdError

from .. import layout, signature
from ..archive import contents, extensions, feeding, lint
from ..archive.contents import (
    choose,
    contents_of,
    refuse_other_formats,
    refuse_wrong_part,
    tools,
)
from ..archive.unpack import limit, read_to_end, unpack
from ..backup.manifest import content_file, fingerprint
from ..backup.take import Replaced
from ..backup.verify import problems_of
from ..disk import make_directories
from ..errors import ConnectionFailed, Damaged, Refused, ToolFailed, Untrusted, Written
from ..layout import UNSIGNED
from ..opened import open_plain
from ..postgres import sessions, writes
from ..postgres.database import Connection, Database, closing, query, quoted, unlimited
from ..postgres.locks import live_lock
from ..postgres.programs import finish, running
from ..postgres.tables import count_rows, migration_heads, tables_of
from ..report import Progress, Warn
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..site import Site
from ..uploads.folders import folders_of, links_replaced
from ..uploads.listing import Listing, of
from ..uploads.moves import Move
from ..uploads.staging import room, stage
from . import faithful, switch
from .switch import Pair, Scratch

#: given the scratch databases by part and the version tables that are older than the
#: installed code, makes of them what this site's CKAN needs
Prepare = Callable[[Mapping[str, Database], list[str]], None]

#: of what pg_restore says though it succeeds
_WORDS = 2000
#: links that are told by name
_SHOWN = 10

#: rows ever written, by part and table
Counters = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Since:
    """What the live databases were like, by part, and the moment of looking.

    `touched` are tables with a column that reading itself writes, and `contents`
    checksums of them without it: such a write is not counted.
    """

    counters: Counters
    shapes: Mapping[str, Mapping[str, str]]
    touched: Mapping[str, str]
    contents: Mapping[str, str]
    moment: float = field(default_factory=time.monotonic)


def since(site: Site, touched: Mapping[str, str]) -> Since:
    """Looks at the live databases; `touched` are columns by `schema.table` of CKAN's.

    Raises ConnectionFailed.
    """
    contents = writes.contents(site.databases["database"], touched)
    shapes = {part: writes.shapes(d) for part, d in site.databases.items()}
    return Since(counters(site, site.databases), shapes, touched, contents)


@dataclass(frozen=True)
class Source:
    """What is to be restored: an archive for each database, and what is known of them.

    `backup` is None for a bare archive, then `sum` is its checksum; `uploads` the list
    of its uploads when they are to be restored. `signed`: a manifest of this site
    vouches for every byte; anything else is hostile until somebody says `--trust`.
    """

    name: str
    archives: Mapping[str, Path]
    signed: bool
    backup: Backup | None = None
    uploads: Listing | None = None
    sum: str = ""

    @property
    def parts(self) -> list[str]:
        """The parts that it brings."""
        return [*self.archives, *(["files"] if self.uploads else [])]

    def rows(self, part: str) -> dict[str, int] | None:
        """The manifest's exact row counts, None when nobody counted."""
        return self.backup.manifest["databases"][part]["rows"] if self.backup else None

    def sha256(self, part: str) -> str:
        """The checksum of the part's file as it was verified."""
        if self.backup is None:
            return self.sum
        return self.backup.manifest["contents"][self.archives[part].name]["sha256"]

    def migrations(self, part: str) -> dict[str, list[str]] | None:
        """The alembic revisions in the archive, None when nobody noted them."""
        if self.backup is None:
            return None
        return self.backup.manifest["databases"][part]["migrations"]


@dataclass(frozen=True)
class Restored:
    """What a restore of `source` or an undo did.

    `written` counts the rows by `part: table` that were written to the live databases
    after the copy was begun: they are in the replaced ones.
    """

    operation: str
    parts: list[str]
    replaced: Replaced
    written: Mapping[str, int]
    source: str = ""


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

    An id is looked up in the repository alone; what has a slash is a path, so that
    nothing in the working directory is taken for a backup. Raises Refused, Untrusted,
    Damaged.
    """
    if "/" not in name:
        try:
            found = repository.find(name)
        except Refused as error:
            if not os.path.lexists(name):
                raise
            raise Refused(
                f"{error}. The {name} in this directory is meant by ./{name}"
            ) from error
        return _of_backup(site, found, parts, trust, progress)
    path = Path(os.path.realpath(name))
    if path.is_dir():
        if (path / "toc.dat").exists():
            raise Refused(
                f"{name} is an archive of pg_dump in directory format: make a single "
                "file with `pg_dump -Fc`"
            )
        found = Backup(path, site.secrets)
        if not found.objects.is_dir():  # it alone was copied
            found.objects = repository.path / layout.OBJECTS
        return _of_backup(site, found, parts, trust, progress)
    if not path.exists():
        raise Refused(f"there is neither a backup nor a file {name!r}")
    return _of_file(site, path, parts, trust, progress)


def _of_backup(
    site: Site, found: Backup, parts: tuple[str, ...], trust: bool, progress: Progress
) -> Source:
    if trust and not found.signed:
        problems = problems_of(found, site, progress, foreign=True)
    else:
        # a signed checksum vouches for every byte; that it can be read shows when it
        # is read into the scratch database, and an upload's when it is copied
        problems = problems_of(found, site, progress, structure=False, uploads=False)
    if problems:
        if all(UNSIGNED in problem for problem in problems):
            raise Untrusted(f"{problems[0]}. {_TRUST}")
        raise Damaged(f"backup {found.id}", problems)
    chosen = [p for p in layout.PARTS if p in (parts or found.parts)]
    archives = {p: content_file(found, p) for p in chosen if p != "files"}
    uploads = of(found) if "files" in chosen else None
    return Source(f"backup {found.id}", archives, found.signed, found, uploads)


_TRUST = (
    "To restore it all the same, say --trust: this runs the SQL in it as CKAN's "
    "database role"
)


def _of_file(
    site: Site, path: Path, parts: tuple[str, ...], trust: bool, progress: Progress
) -> Source:
    part = parts[0] if parts else "database"
    if len(parts) > 1 or part == "files":
        raise Refused("a file holds one database: give --only database or datastore")
    refuse_other_formats(path)
    if not trust:
        raise Untrusted(f"{path.name} carries no signature of this site. {_TRUST}")
    try:
        with open_plain(path) as file:
            tally = signature.Tally(file, lambda _: None)
            most = limit(os.fstat(file.fileno()).st_size)
            read_to_end(tally, path.name, site.pg_bin, most)
            while tally.read(1 << 18):
                pass
    except (ToolFailed, ZstdError) as error:
        raise Damaged(path.name, [str(error)]) from error
    sum = tally.digest.hexdigest()
    return Source(path.name, {part: path}, signed=False, sum=sum)


# ------------------------------------------------------------------- the preflight


def preflight(site: Site, repository: Repository, source: Source) -> None:
    """Every check that can be made before anything is touched. Raises Refused."""
    if source.uploads:
        if not site.uploads:
            raise Refused(
                f"{source.name} holds uploads, this site has no ckan.storage_path: set "
                "it, or restore the rest with `--only database --only datastore`"
            )
        for directory in site.uploads.values():
            make_directories(Path(directory))
        assert source.backup is not None
        among = folders_of(site.uploads, repository.path)
        room(source.uploads, source.backup.objects, among)
    refuse_strange_part(site, source)
    for part in source.archives:
        database = site.databases[part]
        with closing(database.maintenance()) as connection:
            may_create(connection, database)
            sessions.refuse_foreign(site, connection, database.name)
            tools(source.archives[part], connection, site.pg_bin)
            if not source.signed:
                _refuse_mighty(connection, database.role, source.name)
            held = contents_of(source.archives[part])
            refuse_wrong_part(held, part, source.name)
            if not source.signed:
                lint.refuse_odd(held, source.name)
            plan = faithful.plan(held, connection, database.role)
            faithful.refuse_lost_rows(plan, source.name)
            faithful.refuse_open_public(site, part, plan, held, connection)
        extensions.refuse_lacking(site, part, held, source.name)
    migrations = source.migrations("database") if "database" in source.archives else {}
    if migrations is not None and "database" in source.archives:
        outdated(source.name, migrations, site)


def refuse_strange_part(site: Site, source: Source) -> None:
    """Refuses a DataStore where the site has none."""
    if any(part not in site.databases for part in source.archives):
        raise Refused(
            f"{source.name} holds the DataStore, this site has none: enable the "
            "plugin `datastore`, or restore the rest with `--only database`"
        )


def changed_owners(site: Site, source: Source) -> Iterator[str]:
    """What would come back as CKAN's role's and was another's, a sentence for each."""
    for part, path in source.archives.items():
        database = site.databases[part]
        with closing(database.maintenance()) as connection:
            held = contents_of(path)
            plan = faithful.plan(held, connection, database.role)
        yield from faithful.changed_owners(plan, source.signed)


def differences(site: Site, source: Source) -> Iterator[str]:
    """What will be another than now besides the data, a sentence for each."""
    for part, path in source.archives.items():
        role = site.databases[part].role if part in site.databases else ""
        if role and (said := faithful.renamed(contents_of(path), role)):
            yield said
    if source.backup is None:
        return
    manifest = source.backup.manifest
    known = manifest.get("secrets")
    print_ = known.get("api_tokens") if isinstance(known, dict) else None
    if "database" in source.archives and print_ != fingerprint(site.token_secret):
        yield (
            "API tokens in it were made with another secret than this site has and "
            "will not work: set the SECRET_KEY (or api_token.jwt.* options) that it "
            "was made with, or have its users make new tokens"
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
    there = source.backup.files.get("included") and source.uploads
    if there:
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
            yield (
                f"the link {path!r} to {target!r} is in no backup and goes with what "
                f"is replaced; `ckan db undo` brings it back, or make it again: {again}"
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


def _refuse_mighty(connection: Connection, role: str, name: str) -> None:
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
            f"{why}: the SQL in it could do anything to the server. Let CKAN connect "
            f"as a plain role, as its manual says: {remedy}"
        )


def may_create(connection: Connection, database: Database) -> None:
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
            f"  ALTER ROLE {quoted(role)} CREATEDB;\n"
            "or set ckanext.dbmanage.admin_url to a connection of a role that may"
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


def outdated(name: str, migrations: Mapping[str, list[str]], site: Site) -> list[str]:
    """The version tables whose migrations the installed code has yet to run.

    Raises Refused for a schema that the installed code does not know.
    """
    older = []
    for table in sorted(set(migrations) | set(site.heads)) if site.heads else ():
        there = set(migrations.get(table, ()))
        here = site.heads.get(table)
        owner = table.removesuffix("alembic_version").rstrip("_") or "CKAN"
        if here is None:
            if there:
                raise Refused(
                    f"{name} holds migrations of the plugin {owner!r}, which is not "
                    "enabled here: enable it (and install it), then restore"
                )
        elif owner == "CKAN" and not there:
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


# --------------------------------------------------------------------- the restore


def restore(
    site: Site,
    repository: Repository,
    source: Source,
    *,
    prepare: Prepare = lambda *_: None,
    progress: Progress = lambda *_: None,
    warn: Warn = lambda _: None,
    what: str = "restore",
    since: Since | None = None,
) -> Restored:
    """Restores the source's parts and switches them in; the old ones stay for `undo`.

    The caller holds the repository's lock and has made the `preflight`. Until the
    switch nothing that is live is touched; a failure drops what was made beside it.
    `what` is it that visitors and the journal are told of. With `since`, of
    before the source was made, nothing is switched when the live databases were
    written to after it. Raises Refused, ConnectionFailed, ToolFailed, Damaged, Written.
    """
    with _journalled(site, repository, what, source.name, warn) as (operation, held):
        before = counters(site, source.archives)
        with (
            copies(
                site, repository, source, operation, prepare, progress, warn
            ) as scratches,
            ExitStack() as stack,
        ):
            among = folders_of(site.uploads, repository.path)
            laid: list[Move] = []
            if source.uploads and source.backup:
                laid = stack.enter_context(
                    switch.staged(site, repository, operation, among)
                )
                objects, size = source.backup.objects, source.backup.files["bytes"]
                stage(source.uploads, objects, among, laid, progress, size)
            for scratch in scratches.values():
                switch.copy_properties(scratch, warn)
                for sentence in faithful.stays_behind(scratch.live):
                    warn(sentence)
            pairs = [scratch.pair for scratch in scratches.values()]
            with _away(site, what, operation, progress, warn):
                written = _refuse_written(site, since, pairs) if since else {}
                planned = switch.planned(site, repository, laid)
                held()
                switch.switch(site, repository, operation, pairs, planned, written)
        done = _done(site, repository, operation, pairs, laid, before, warn)
    # with `since` nothing was, but for what reading itself writes
    return replace(done, source=source.name, written={} if since else done.written)


def undo(
    site: Site,
    repository: Repository,
    *,
    progress: Progress = lambda *_: None,
    warn: Warn = lambda _: None,
) -> Restored:
    """Switches back what the last restore or undo replaced; can itself be undone.

    The caller holds the repository's lock. Raises Refused, ConnectionFailed,
    ToolFailed.
    """
    source = "the last switch"
    with _journalled(site, repository, "undo", source, warn) as (operation, held):
        pairs, moves = switch.undoable(site, repository)
        before = counters(site, [pair.part for pair in pairs])
        with _away(site, "restore", operation, progress, warn):
            planned = switch.planned(site, repository, moves)
            held()
            switch.switch(site, repository, operation, pairs, planned)
        return _done(site, repository, operation, pairs, moves, before, warn)


@contextmanager
def _journalled(
    site: Site, repository: Repository, what: str, source: str, warn: Warn
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The live database's lock, and the journal's lines for an operation.

    Hands out its name, and what raises ToolFailed when the lock was lost.
    """
    operation = secrets.token_hex(4)
    with live_lock(site) as held:
        switch.recover(site, repository, warn)
        repository.record(operation, "begin", what=what, source=source)
        try:
            yield operation, held
        except BaseException as error:
            with suppress(OSError):
                repository.record(operation, "failed", what=what, error=_told(error))
            if isinstance(error, (psycopg2.Error, OSError)):
                raise ToolFailed(
                    f"the {what} failed and all that is live is as it was: "
                    + _told(error)
                ) from error
            raise
        repository.record(operation, "done", what=what)
        switch.drop_older(site, repository, operation, warn)


@contextmanager
def _away(
    site: Site, what: str, operation: str, progress: Progress, warn: Warn
) -> Iterator[None]:
    progress("switch", 0, 0)
    with sessions.away(site, what, f"{what}-{operation}", warn):
        yield


def counters(site: Site, parts: Iterable[str]) -> Counters:
    """How many rows were ever written to the live databases, by part and table."""
    return {part: writes.written(site.databases[part]) for part in parts}


def _refuse_written(site: Site, since: Since, pairs: list[Pair]) -> dict[int, int]:
    """Ends all sessions, and refuses when there was a write since.

    Returns what is known of the live databases now, for the switch to compare:
    `sessions.tuples` by OID.
    """
    writers = sessions.ended(site, time.monotonic() - since.moment)
    known = {}
    for pair in pairs:
        with closing(site.databases[pair.part].maintenance()) as connection:
            known[pair.live_oid] = writes.tuples(connection, pair.live_oid)
    changed = [
        sentence for part in since.counters for sentence in _new(site, since, part)
    ]
    if changed:
        who = "; ".join(writers) or "a session that is gone"
        raise Written(
            f"{', '.join(changed)} since the copy was made, perhaps by: {who}. Stop "
            "CKAN's workers, harvesters and cron jobs, then try again"
        )
    return known


def _new(site: Site, since: Since, part: str) -> Iterator[str]:
    """What was written to a live database since, by table."""
    database, before = site.databases[part], since.counters[part]
    after = writes.written(database)
    rows = {n: after.get(n, 0) - before.get(n, 0) for n in before.keys() | after.keys()}
    shapes = writes.shapes(database)
    for name in sorted(rows.keys() | shapes.keys() | since.shapes[part].keys()):
        if shapes.get(name) != since.shapes[part].get(name):
            yield f"{part}: {name} was made, altered or emptied"
        elif rows.get(name):  # fewer: the counters were reset, nobody knows
            if part == "database" and name in since.touched:
                column = {name: since.touched[name]}
                now = writes.contents(database, column).get(name)
                if now == since.contents.get(name):
                    continue
            yield f"{abs(rows[name])} rows of {part}: {name} were written"


def _more(before: Counters, after: Counters) -> dict[str, int]:
    return {
        f"{part}: {table}": rows - before[part].get(table, 0)
        for part, tables in after.items()
        for table, rows in tables.items()
        if rows > before[part].get(table, 0)
    }


def _done(
    site: Site,
    repository: Repository,
    operation: str,
    pairs: list[Pair],
    moves: list[Move],
    before: Counters,
    warn: Warn,
) -> Restored:
    databases = {
        pair.part: site.databases[pair.part].named(pair.undo)
        for pair in pairs
        if pair.live_oid
    }
    after: dict[str, Mapping[str, int]] = {}
    for part, database in databases.items():
        # every session of before has ended, and so has told all it wrote
        with suppress(psycopg2.Error, ConnectionFailed):  # the switch is done
            after[part] = writes.written(database)
    written = _more(before, after)
    inside = {move.prefix: move.undo for move in moves}
    parts = [*(pair.part for pair in pairs), *(["files"] if moves else [])]
    return Restored(operation, parts, Replaced(databases, inside), written)


@contextmanager
def copies(
    site: Site,
    repository: Repository,
    source: Source,
    operation: str,
    prepare: Prepare,
    progress: Progress,
    warn: Warn,
) -> Iterator[dict[str, Scratch]]:
    """Scratch databases with the source's data, migrated and checked.

    They are gone at the end unless they were switched in. Raises Damaged, Refused.
    """
    with ExitStack() as stack:
        scratches = {
            part: stack.enter_context(
                switch.scratch(site, repository, operation, part, source.backup, warn)
            )
            for part in source.archives
        }
        for part, scratch in scratches.items():
            _load(site, repository, source, scratch, progress, warn)
            progress("check", 0, 0)
            _compare_rows(source, part, scratch.database)
        older = _outdated(site, source, scratches)
        if older:
            progress("migrate", 0, 0)
        prepare({part: scratch.database for part, scratch in scratches.items()}, older)
        # a migration's exit code alone says little
        if older and (wrong := _outdated(site, source, scratches)):
            raise ToolFailed(
                f"the copy of {source.name} was migrated, but {', '.join(wrong)} is "
                "still not what the installed code expects; nothing was switched"
            )
        for scratch in scratches.values():
            _analyse(scratch.database, site.jobs)
        yield scratches


def _outdated(
    site: Site, source: Source, scratches: Mapping[str, Scratch]
) -> list[str]:
    if "database" not in scratches:
        return []
    with closing(scratches["database"].database.connect()) as connection:
        return outdated(source.name, migration_heads(connection), site)


def _told(error: BaseException) -> str:
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return "it was told to end"
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
        most = 0 if source.signed else limit(packed.stat().st_size)
        path = unpack(packed, directory, source.sha256(part), progress, most)
        with closing(scratch.database.connect()) as connection:
            tools = contents.tools(path, connection, site.pg_bin)
            found = contents_of(path)
            if not source.signed:  # once more: this is what is loaded
                lint.refuse_odd(found, source.name)
            plan = faithful.plan(found, connection, scratch.database.role)
            faithful.refuse_lost_rows(plan, source.name)
            left = faithful.left_out(plan, found, connection)
            left |= extensions.left_out(part, found, connection, warn)
            chosen = choose(found, connection, left)
            settings = f"{_settings(connection)} {unlimited(connection)}"
        listed = directory / "list"
        listed.write_text("\n".join(chosen) + "\n", "utf-8")
        # owners follow: one that cannot be given to its owner must not end it all
        arguments = [tools.path("pg_restore"), "-O", "-e", "-L", str(listed)]
        arguments += ["--no-tablespaces"] if plan.tablespaces else []
        name = f"{source.name} ({part})"
        doing = f"restoring {name} into a copy"
        progress("load", 0, 0)
        if source.signed:
            target, environment = scratch.database.program(settings)
            arguments += ["-j", str(site.jobs), "--no-password", *target, str(path)]
            with running(arguments, environment, stdin=-3) as process:
                words = finish(process, doing)
        else:
            with closing(scratch.database.connect()) as connection:
                query(connection, "SET synchronous_commit = off")
                words = feeding.load(connection, [*arguments, "-f-", str(path)], name)
        if words:
            warn(f"{doing}, pg_restore says: {words[:_WORDS]}")
        progress("check", 0, 0)
        faithful.complete(
            scratch.database, found, plan, warn,
            left=left, live=scratch.live.name, pg_bin=site.pg_bin, signed=source.signed,
        )  # fmt: skip


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


def _compare_rows(source: Source, part: str, copy: Database) -> None:
    expected = source.rows(part)
    if expected is None:
        return
    with closing(copy.connect()) as connection:
        connection.autocommit = True
        names = [(schema, table) for schema, table, *_ in tables_of(connection)]
        counted = count_rows(connection, names)
    wrong = [
        f"table {table}: {counted.get(table, 'none')} rows, the manifest says {rows}"
        for table, rows in sorted(expected.items())
        if counted.get(table) != rows
    ]
    if wrong:
        raise Damaged(f"the copy restored from {source.name} ({part})", wrong)
