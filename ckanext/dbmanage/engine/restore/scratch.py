"""Scratch databases: made, and dropped only when they are provably ours."""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2.errors
from psycopg2 import sql

from ..errors import DbmanageError
from ..operation import Operation
from ..postgres import sessions
from ..postgres.database import Connection, Database, closing, execute, query
from ..postgres.locks import lock_holders, try_lock, unlock
from ..repository.backup import Backup
from ..site import Site
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
def scratch_database(
    op: Operation, part: str, of: Backup | None = None
) -> Iterator[Scratch]:
    """A new, empty database for a part, dropped at the end unless it was switched in.

    Has the live database's encoding, locale and owner; without a live database those
    of the signed backup `of`. One that cannot be dropped is told of, and left to the
    next command.
    """
    site = op.site
    live = site.databases[part]
    prefix = f"dbm_{secrets.token_hex(4)}"
    names = f"{prefix}_scratch", f"{prefix}_undo"
    pair = Pair(part, live.name, *names, secrets.token_hex(16), site.id)
    with closing(live.maintenance()) as keeper:
        try_lock(keeper, "ours", pair.scratch)
        op.record("create", pair=asdict(pair))
        try:
            pair = _create(site, keeper, pair, of)
            roles = frozenset(sessions.roles(site.databases))
            yield Scratch(pair, live.named(pair.scratch), live, keeper, roles)
        finally:
            # after a switch there is no database of this name any more
            with suppress(psycopg2.Error):
                # the lock of a closed connection is free a moment later only
                unlock(keeper, "ours", pair.scratch)
            keeper.close()
            try:
                needed = op.id in half_way(site, op.repository)
                if not needed and not drop_ours(op, pair, pair.scratch):
                    _tell_it_stays(op, pair, "somebody else has its lock")
            except (psycopg2.Error, DbmanageError, OSError) as error:
                _tell_it_stays(op, pair, error)


def _tell_it_stays(op: Operation, pair: Pair, why: object) -> None:
    op.warn(
        f"the copy {pair.scratch!r} stays until the next command: "
        f"{' '.join(str(why).split())}"
    )


def _create(site: Site, keeper: Connection, pair: Pair, of: Backup | None) -> Pair:
    """Makes the scratch database; the pair with the OIDs."""
    live = site.databases[pair.part]
    rows = query(
        keeper,
        "SELECT d.oid::bigint, to_jsonb(d), pg_get_userbyid(datdba), spcname"
        " FROM pg_database d LEFT JOIN pg_tablespace t ON t.oid = dattablespace"
        " AND has_tablespace_privilege(t.oid, 'CREATE') WHERE datname = %s",
        live.name,
    )
    oid, like, owner, tablespace = (
        rows[0] if rows else (0, _noted_locale(of, pair.part), live.role, None)
    )
    template = site.scratch_templates.get(pair.part, "template0")
    options: list[sql.Composable] = [
        sql.SQL("OWNER {}").format(sql.Identifier(owner)),
        sql.SQL("TEMPLATE {}").format(sql.Identifier(template)),
        # the server refuses a template of another locale
        *_locale(keeper, like),
    ]
    if tablespace:
        options.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(tablespace)))
    if like.get("datistemplate"):
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
    return replace(pair, live_oid=oid, scratch_oid=oid_of(keeper, pair.scratch))


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


def drop_ours(op: Operation, pair: Pair, name: str) -> bool:
    """Drops a pair's scratch or undo database, and notes it; whether it is gone now.

    That it cannot be noted is told: it is gone. Raises ConnectionFailed,
    psycopg2.Error.
    """
    with closing(op.site.databases[pair.part].maintenance()) as connection:
        gone = _drop_ours(op.site, connection, pair, name)
    if gone:
        _note_drop(op, database=name)
    return gone


def _note_drop(op: Operation, **what: str) -> None:
    try:
        op.record("drop", **what)
    except OSError as error:
        (name,) = what.values()
        op.warn(
            f"{name!r} is dropped, which could not be noted in the journal: "
            f"{error.strerror or error}"
        )


def _drop_ours(site: Site, connection: Connection, pair: Pair, name: str) -> bool:
    """Drops a database that is provably ours.

    Ours is what the journal names (`pair`), whose comment carries the token, whose
    lock is free, and which is not a live database. A database that was created a
    moment before the process died has no comment yet, but nobody could ever connect
    to it, so that it is empty.
    """
    live = {database.name for database in site.databases.values()}
    if not OUR_NAME.fullmatch(name) or name in live:
        return False
    if not try_lock(connection, "ours", name):
        holders = lock_holders(connection, site.databases[pair.part], "ours", name)
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
        if comment is None and not connectable and name == pair.scratch:
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
def staged(op: Operation, among: list[Folder]) -> Iterator[list[Move]]:
    """Where uploads may be laid down; gone at the end what was not switched in."""
    moves = moves_of(among, secrets.token_hex(4), secrets.token_hex(16))
    op.record("stage", moves=[asdict(move) for move in moves])
    try:
        yield moves
    finally:
        with suppress(OSError):
            if op.id not in half_way(op.site, op.repository):  # else they are needed
                discard_moves(op, moves)


def discard_moves(op: Operation, moves: list[Move]) -> None:
    """Removes what was laid down for them, where it is ours, and notes it."""
    for move in moves:
        _discard(op, move, move.scratch)


def _discard(op: Operation, move: Move, name: str) -> bool:
    place = Path(move.path) / name
    gone = discard(place, move.token)
    if gone:
        _note_drop(op, folder=str(place))
    return gone


def drop_older(op: Operation) -> None:
    """Drops what earlier switches put aside of the same parts: one way back is kept."""
    operations = operations_of(op.site, op.repository)
    parts = operations[op.id]["switched"] or ()
    drop_replaced(op, {name: parts for name in operations if name != op.id})


def drop_replaced(op: Operation, parts: Mapping[str, Iterable[str]]) -> list[str]:
    """Drops the old databases and uploads of switches; their names.

    `parts` by operation say which. What is not provably ours stays.
    """
    gone = []
    for of, kept in _kept(op, parts):
        with _telling_what_stays(op, kept):
            there = _is_there(op.site, kept)
            if _drop_kept(of, kept) and there:
                gone.append(_name(kept))
    return gone


def replaced(op: Operation, parts: Mapping[str, Iterable[str]]) -> list[str]:
    """The names of what `drop_replaced` would drop."""
    found = []
    for _, kept in _kept(op, parts):
        with _telling_what_stays(op, kept):
            if _is_there(op.site, kept):
                found.append(_name(kept))
    return found


def _kept(
    op: Operation, parts: Mapping[str, Iterable[str]]
) -> Iterator[tuple[Operation, Pair | Move]]:
    """What these operations replaced and nobody dropped yet."""
    operations = operations_of(op.site, op.repository)
    for name, wanted in parts.items():
        facts = operations[name]
        switched = set(wanted) & set(facts["switched"] or ())
        kept = [pair for pair in facts["switch"] if pair.part in switched]
        kept += facts["moves"] if "files" in switched else []
        yield from (
            (op.called(name), each)
            for each in kept
            if _name(each) not in facts["dropped"]
        )


def _name(kept: Pair | Move) -> str:
    if isinstance(kept, Pair):
        return kept.undo
    return str(Path(kept.path) / kept.undo)


def _is_there(site: Site, kept: Pair | Move) -> bool:
    if isinstance(kept, Move):
        return Path(_name(kept)).exists()
    with closing(site.databases[kept.part].maintenance()) as connection:
        return bool(oid_of(connection, kept.undo))


def _drop_kept(op: Operation, kept: Pair | Move) -> bool:
    if isinstance(kept, Pair):
        return drop_ours(op, kept, kept.undo)
    return _discard(op, kept, kept.undo)


@contextmanager
def _telling_what_stays(op: Operation, kept: Pair | Move) -> Iterator[None]:
    try:
        yield
    except (psycopg2.Error, DbmanageError, KeyError, OSError) as error:
        what = "database" if isinstance(kept, Pair) else "directory of uploads"
        op.warn(f"the old {what} {_name(kept)!r} stays for now: {error}")
