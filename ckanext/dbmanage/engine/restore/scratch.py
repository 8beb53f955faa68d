"""Scratch databases: made, and dropped only when they are provably ours."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import psycopg2.errors
from psycopg2 import sql

from ..errors import DbmanageError
from ..postgres import sessions
from ..postgres.database import Connection, Database, closing, execute, query
from ..postgres.locks import lock_holders, try_lock, unlock
from ..report import Warn
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..site import Site
from ..uploads import moves
from ..uploads.folders import Folder
from ..uploads.moves import Move, discard, moves_of
from .history import Pair, half_way, oid_of, operations_of

OUR_NAME = re.compile(r"dbm_[0-9a-f]{8}_(scratch|undo)")


@dataclass
class Scratch:
    """A scratch database in the making, and the connection that keeps its lock.

    `roles` are all that the site connects as.
    """

    pair: Pair
    database: Database
    live: Database
    keeper: Connection
    roles: frozenset[str]


@contextmanager
def scratch_databases(
    site: Site,
    repository: Repository,
    operation: str,
    part: str,
    of: Backup | None,
    warn: Warn,
) -> Iterator[Scratch]:
    """A new, empty database for a part, dropped at the end unless it was switched in.

    Has the live database's encoding, locale and owner; without a live database those
    of the signed backup `of`. One that cannot be dropped is told of, and left to the
    next command.
    """
    live = site.databases[part]
    prefix = f"dbm_{secrets.token_hex(4)}"
    names = f"{prefix}_scratch", f"{prefix}_undo"
    pair = Pair(part, live.name, *names, secrets.token_hex(16), site.id)
    with closing(live.maintenance()) as keeper:
        try_lock(keeper, "ours", pair.scratch)
        repository.record(operation, "create", pair=asdict(pair))
        try:
            pair = _create(site, keeper, pair, live, of)
            roles = frozenset(sessions.roles(site.databases))
            yield Scratch(pair, live.named(pair.scratch), live, keeper, roles)
        finally:
            # after a switch there is no database of this name any more
            with suppress(psycopg2.Error):
                # the lock of a closed connection is free a moment later only
                unlock(keeper, "ours", pair.scratch)
            keeper.close()
            try:
                if operation not in half_way(site, repository):  # else it is needed
                    with closing(live.maintenance()) as connection:
                        if drop_ours(site, connection, pair, "scratch"):
                            repository.record(operation, "drop", database=pair.scratch)
                        else:
                            warn(_stays(pair, "somebody else has its lock"))
            except (psycopg2.Error, DbmanageError, OSError) as error:
                warn(_stays(pair, error))


def _stays(pair: Pair, why: object) -> str:
    return (
        f"the copy {pair.scratch!r} stays until the next command: "
        f"{' '.join(str(why).split())}"
    )


def _create(
    site: Site, keeper: Connection, pair: Pair, live: Database, of: Backup | None
) -> Pair:
    rows = query(
        keeper,
        "SELECT d.oid::bigint, to_jsonb(d), pg_get_userbyid(datdba), spcname"
        " FROM pg_database d LEFT JOIN pg_tablespace t ON t.oid = dattablespace"
        " AND has_tablespace_privilege(t.oid, 'CREATE') WHERE datname = %s",
        live.name,
    )
    owner = rows[0][2] if rows else live.role
    options: list[sql.Composable] = [sql.SQL("OWNER {}").format(sql.Identifier(owner))]
    template = site.scratch_templates.get(pair.part, "template0")
    options.append(sql.SQL("TEMPLATE {}").format(sql.Identifier(template)))
    # the server refuses a template of another locale
    options += _locale(keeper, rows[0][1] if rows else _noted_locale(of, pair.part))
    if rows and rows[0][3]:
        options.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(rows[0][3])))
    if rows and rows[0][1].get("datistemplate"):
        options.append(sql.SQL("IS_TEMPLATE true"))
    # nobody can have put anything into it before it carries its comment
    options.append(sql.SQL("ALLOW_CONNECTIONS false"))
    statement = sql.SQL("CREATE DATABASE {} {}").format(
        sql.Identifier(pair.scratch), sql.SQL(" ").join(options)
    )
    query(keeper, statement)
    execute(keeper, "COMMENT ON DATABASE {} IS {comment}", pair.scratch,
            comment=pair.comment)  # fmt: skip
    execute(keeper, "ALTER DATABASE {} ALLOW_CONNECTIONS true", pair.scratch)
    _own_public(keeper, live.named(pair.scratch))
    known = {field.name: getattr(pair, field.name) for field in fields(pair)}
    return Pair(
        **known
        | {
            "live_oid": rows[0][0] if rows else 0,
            "scratch_oid": oid_of(keeper, pair.scratch),
        }
    )


def _own_public(keeper: Connection, copy: Database) -> None:
    """Gives a new copy's schema public to CKAN's role, where it takes a superuser.

    Until PostgreSQL 14 it belongs to the superuser and is open to everybody, and only
    its owner can close it. Nothing of an archive is in the copy yet.
    """
    if copy.admin_url is None or keeper.server_version >= 150000:
        return
    if query(keeper, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [
        (True,)
    ]:
        url = copy.admin_url.set(database=copy.name)
        with closing(replace(copy, url=url, admin_url=None).connect()) as connection:
            connection.autocommit = True
            execute(connection, "ALTER SCHEMA public OWNER TO {}", copy.role)


def _noted_locale(of: Backup | None, part: str) -> dict[str, Any]:
    if of is None or not of.signed:
        return {}
    noted = of.manifest["databases"].get(part, {}).get("locale")
    return noted if isinstance(noted, dict) else {}


def _locale(keeper: Connection, like: dict[str, Any]) -> Iterator[sql.Composable]:
    """The options of CREATE DATABASE that give it another database's locale."""
    (encoding,) = query(
        keeper, "SELECT pg_encoding_to_char(%s)", like.get("encoding", 6)
    )
    yield sql.SQL("ENCODING {}").format(sql.Literal(encoding[0]))
    options = {"LC_COLLATE": like.get("datcollate"), "LC_CTYPE": like.get("datctype")}
    provider = {"i": "icu", "b": "builtin", "c": "libc"}.get(
        like.get("datlocprovider", "")
    )
    if provider and keeper.server_version >= 150000:
        yield sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(provider))
        own = like.get("daticulocale") or like.get("datlocale")
        key = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(provider)
        if key:
            options[key] = own
        if provider == "icu" and keeper.server_version >= 160000:
            options["ICU_RULES"] = like.get("daticurules")
    for option, value in options.items():
        if value:
            yield sql.SQL(f"{option} {{}}").format(sql.Literal(value))


def drop_ours(site: Site, connection: Connection, pair: Pair, role: str) -> bool:
    """Drops a database that is provably ours; says whether it is gone.

    Ours is what the journal names (`pair`), whose comment carries the token, whose
    lock is free, and which is not a live database. A database that was created a
    moment before the process died has no comment yet, but nobody could ever connect
    to it, so that it is empty.
    """
    name = pair.scratch if role == "scratch" else pair.undo
    if not OUR_NAME.fullmatch(name) or name in {
        d.name for d in site.databases.values()
    }:
        return False
    if not try_lock(connection, "ours", name):
        live = site.databases[pair.part]
        holders = lock_holders(connection, live, "ours", name)
        if not holders or any(holder.is_ours for holder in holders):
            return False
    try:
        rows = query(
            connection,
            "SELECT shobj_description(oid, 'pg_database'), datallowconn"
            " FROM pg_database WHERE datname = %s",
            name,
        )
        if not rows:
            return True
        comment, connectable = rows[0]
        if comment is None and not connectable and role == "scratch":
            comment = pair.comment
            execute(
                connection, "COMMENT ON DATABASE {} IS {comment}", name, comment=comment
            )
        if comment != pair.comment:
            return False
        # not WITH (FORCE): that fails on an autovacuum worker, which a plain DROP ends
        with sessions.ending(site.databases, [name]):
            # as a template it cannot be dropped
            execute(connection, "ALTER DATABASE {} IS_TEMPLATE false", name)
            execute(connection, "DROP DATABASE {}", name)
        return True
    finally:
        unlock(connection, "ours", name)


@contextmanager
def staged(
    site: Site, repository: Repository, operation: str, among: list[Folder]
) -> Iterator[list[Move]]:
    """Where uploads may be laid down; gone at the end what was not switched in."""
    moves = moves_of(among, secrets.token_hex(4), secrets.token_hex(16))
    repository.record(operation, "stage", moves=[asdict(move) for move in moves])
    try:
        yield moves
    finally:
        with suppress(OSError):
            if operation not in half_way(site, repository):  # else recover needs them
                discard_moves(repository, operation, moves)


def discard_moves(repository: Repository, operation: str, moves: list[Move]) -> None:
    for move in moves:
        scratch = Path(move.path) / move.scratch
        if discard(scratch, move.token):
            repository.record(operation, "drop", folder=str(scratch))


def drop_older(site: Site, repository: Repository, operation: str, warn: Warn) -> None:
    """Drops what earlier switches put aside of the same parts: one way back is kept."""
    operations = operations_of(site, repository)
    parts = operations[operation]["switched"] or ()
    others = {name: parts for name in operations if name != operation}
    drop_replaced(site, repository, others, warn)


def drop_replaced(
    site: Site,
    repository: Repository,
    parts: Mapping[str, Iterable[str]],
    warn: Warn,
    dry_run: bool = False,
) -> list[str]:
    """Drops the old databases and uploads of switches; their names.

    `parts` by operation say which. What is not provably ours stays.
    """
    gone = []
    operations = operations_of(site, repository)
    for operation, wanted in parts.items():
        facts = operations[operation]
        kept = set(wanted) & set(facts["switched"] or ())
        for pair in facts["switch"]:
            if pair.part not in kept or pair.undo in facts["dropped"]:
                continue
            try:
                with closing(site.databases[pair.part].maintenance()) as connection:
                    there = bool(oid_of(connection, pair.undo))
                    if dry_run:
                        gone += [pair.undo] if there else []
                    elif drop_ours(site, connection, pair, "undo"):
                        repository.record(operation, "drop", database=pair.undo)
                        gone += [pair.undo] if there else []
            except (psycopg2.Error, DbmanageError, KeyError) as error:
                warn(f"the old database {pair.undo!r} stays for now: {error}")
        for move in facts["moves"] if "files" in kept else ():
            undo = Path(move.path) / move.undo
            there = undo.exists()
            if str(undo) in facts["dropped"]:
                continue
            try:
                if dry_run or moves.discard(undo, move.token):
                    gone += [str(undo)] if there else []
                    if not dry_run:
                        repository.record(operation, "drop", folder=str(undo))
            except OSError as error:
                warn(f"the old uploads {undo} stay for now: {error.strerror}")
    return gone
