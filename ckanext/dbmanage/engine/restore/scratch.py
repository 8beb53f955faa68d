"""Scratch databases and the switch: how a copy becomes the live database.

A scratch database is ours alone if the journal names it and its comment carries the
journal's random token; only then is it ever dropped. The switch renames under lock
first: the rename waits while two other connections end the sessions of CKAN's roles,
so that no session can slip in between (measured the fastest and safest of four ways).
Must not know archives or CKAN.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2.errors
from psycopg2 import sql

from ..clock import now
from ..errors import DbmanageError, Refused, Written
from ..postgres import sessions, writes
from ..postgres.database import (
    Connection,
    Database,
    closing,
    execute,
    query,
    server_identity,
)
from ..postgres.locks import lock_holders, try_lock, unlock
from ..report import Warn
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..signals import uninterrupted
from ..site import Site
from ..uploads import moves
from ..uploads.folders import Folder, folders_of
from ..uploads.moves import (
    Move,
    back,
    discard,
    forward,
    is_ours,
    moves_of,
    planned_move,
    sound,
)

_NAME = re.compile(r"dbm_[0-9a-f]{8}_(scratch|undo)")


_ATTEMPTS = 6


#: how long requests may hang on a rename that a foreign session holds up; the last time
#: long enough for the server, which waits 5 s, to say itself who does
_TIMEOUT, _LAST_TIMEOUT = "1500ms", "8s"


#: what a rename says when somebody is still in a database
_IN_USE = (
    psycopg2.errors.ObjectInUse,
    psycopg2.errors.QueryCanceled,
    psycopg2.errors.LockNotAvailable,
)


class _Foreign(Refused):
    """A database to be renamed is not the one that was noted, or not ours."""


@dataclass(frozen=True)
class Pair:
    """One part's three names: the live database, the copy, what the old one becomes.

    `live_oid` is 0 when there is no live database. `site` and `token` are what the
    comment of a database of ours carries.
    """

    part: str
    live: str
    scratch: str
    undo: str
    token: str
    site: str
    live_oid: int = 0
    scratch_oid: int = 0

    @property
    def comment(self) -> str:
        """The comment that makes the scratch or the undo database provably ours."""
        return f"ckanext-dbmanage, site {self.site!r}, token {self.token}"


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
def scratch(
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
            roles = frozenset(sessions.roles(site))
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
                        if _drop(site, connection, pair, "scratch"):
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
            "scratch_oid": _oid(keeper, pair.scratch),
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


def _oid(connection: Connection, name: str) -> int:
    rows = query(
        connection, "SELECT oid::bigint FROM pg_database WHERE datname = %s", name
    )
    return rows[0][0] if rows else 0


def _drop(site: Site, connection: Connection, pair: Pair, role: str) -> bool:
    """Drops a database that is provably ours; says whether it is gone.

    Ours is what the journal names (`pair`), whose comment carries the token, whose
    lock is free, and which is not a live database. A database that was created a
    moment before the process died has no comment yet, but nobody could ever connect
    to it, so that it is empty.
    """
    name = pair.scratch if role == "scratch" else pair.undo
    if not _NAME.fullmatch(name) or name in {d.name for d in site.databases.values()}:
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
        with sessions.ending(site, [name]):
            # as a template it cannot be dropped
            execute(connection, "ALTER DATABASE {} IS_TEMPLATE false", name)
            execute(connection, "DROP DATABASE {}", name)
        return True
    finally:
        unlock(connection, "ours", name)


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


def switch(
    site: Site,
    repository: Repository,
    operation: str,
    pairs: list[Pair],
    moves: list[Move],
    written: Mapping[int, int] | None = None,
) -> None:
    """Renames live to undo and scratch to live: all databases at once, and uploads.

    `written` are `sessions.tuples` by OID of live databases; where one is another when
    nobody can connect any more, nothing is switched (Written).

    The uploads' folders are renamed right before the databases' commit, which decides:
    a failure before it turns them back, and so does the next command when this one is
    killed. Where the databases are on different servers or of owners that no one role
    may rename, the DataStore goes first and the journal carries the rest.
    """
    groups = _groups(site, pairs)
    facts = {"pairs": [asdict(p) for p in pairs], "moves": [asdict(m) for m in moves]}
    repository.record(operation, "switch", **facts)
    with uninterrupted():
        try:
            for group in groups[:-1]:
                _rename(site, site.databases[group[0].part], group, written=written)
            if not groups:
                _forward(moves)
            for group in groups[-1:]:
                database = site.databases[group[0].part]
                _rename(site, database, group, moves=moves, written=written)
        except BaseException:
            # what the servers say counts, not what was heard of it; when they cannot
            # be asked nothing is turned back, and the next command settles it
            new = [pair for pair in pairs if _is_switched(site, pair)]
            if not new or len(new) < len(pairs):
                for pair in new:
                    _rename(site, site.databases[pair.part], [pair], back=True)
                for move in moves:
                    back(move)
                repository.record(operation, "switched", parts=[])
                raise
            _forward(moves)
        with suppress(OSError):  # then the next command finds that it is done
            repository.record(operation, "switched", parts=_parts(pairs, moves))


def _is_switched(site: Site, pair: Pair) -> bool:
    with closing(site.databases[pair.part].maintenance()) as connection:
        return switched(connection, pair)


def _forward(moves: Iterable[Move]) -> None:
    for move in moves:
        forward(move)


def _parts(pairs: list[Pair], moves: list[Move]) -> list[str]:
    return sorted({*(pair.part for pair in pairs), *(["files"] if moves else [])})


def _groups(site: Site, pairs: list[Pair]) -> list[list[Pair]]:
    """What one transaction can rename together, the DataStore before the main one."""
    if not pairs:
        return []
    with ExitStack() as stack:
        servers = {}
        for pair in pairs:
            connection = site.databases[pair.part].maintenance()
            servers[pair.part] = stack.enter_context(closing(connection))
            sessions.refuse_foreign(site, connection, pair.live)
        first, *others = pairs
        own = servers[first.part]
        identity = server_identity(own)
        together = [
            other
            for other in others
            if server_identity(servers[other.part]) == identity
            and _may_rename(own, other)
        ]
    return [*([other] for other in others if other not in together), [first, *together]]


def _may_rename(connection: Connection, pair: Pair) -> bool:
    rows = query(
        connection,
        "SELECT bool_and(pg_has_role(datdba, 'USAGE')) FROM pg_database"
        " WHERE datname = ANY(%s)",
        [pair.live, pair.scratch],
    )
    return bool(rows[0][0])


def _rename(
    site: Site,
    database: Database,
    pairs: list[Pair],
    back: bool = False,
    moves: Iterable[Move] = (),
    written: Mapping[int, int] | None = None,
) -> None:
    for pair in pairs:
        _refuse_names(site, pair)
    names = [name for p in pairs for name in (p.live, p.scratch, p.undo)]
    with closing(database.maintenance()) as connection, sessions.ending(site, names):
        query(connection, "SET client_connection_check_interval = '500ms'")
        for attempt in range(1, _ATTEMPTS + 1):
            limit = _TIMEOUT if attempt < _ATTEMPTS else _LAST_TIMEOUT
            query(connection, f"SET statement_timeout = '{limit}'")
            try:
                _rename_once(connection, pairs, back, written or {})
                # nobody can connect meanwhile
                _forward(moves)
                query(connection, "COMMIT")
                return
            except _IN_USE as error:
                query(connection, "ROLLBACK")
                if attempt == _ATTEMPTS:
                    raise Refused(_held_up(site, connection, names, error)) from error
                time.sleep(0.1 * attempt)
            except psycopg2.OperationalError:
                # the connection broke, maybe after the server had committed
                with closing(database.maintenance()) as again:
                    if all(switched(again, pair) != back for pair in pairs):
                        return
                raise


def _held_up(
    site: Site, connection: Connection, names: list[str], error: psycopg2.Error
) -> str:
    """What to tell of a rename that others held up: the server's reason, and theirs."""
    who = [s for n in names for s in sessions.in_the_way(site, connection, n)]
    return (
        "the switch did not get the databases for itself, the live ones are as they "
        f"were: {' '.join(str(error).split())}"
        + (f". In the way: {'; '.join(who)}" if who else "")
    )


def _rename_once(
    connection: Connection, pairs: list[Pair], back: bool, written: Mapping[int, int]
) -> None:
    query(connection, "BEGIN")
    for pair in pairs:
        oids = (
            (pair.scratch_oid, pair.live_oid)
            if back
            else (pair.live_oid, pair.scratch_oid)
        )
        first, second = (pair.scratch, pair.undo) if back else (pair.undo, pair.scratch)
        found = (_oid(connection, pair.live), _oid(connection, second))
        ours = not oids[1] or _comment(connection, second) == pair.comment
        if found != oids or not ours:
            query(connection, "ROLLBACK")
            raise _Foreign(
                f"the database {pair.live!r} or its copy {second!r} was replaced by "
                "somebody else meanwhile; nothing was switched"
            )
        if oids[0]:
            execute(connection, "ALTER DATABASE {} RENAME TO {}", pair.live, first)
            now = writes.tuples(connection, oids[0])
            if written.get(oids[0], now) != now:
                query(connection, "ROLLBACK")
                raise Written(
                    f"the database {pair.live!r} was written to at the last moment, by "
                    "a worker or a command. Stop CKAN's workers, harvesters and cron "
                    "jobs, then try again"
                )
        if oids[1]:
            execute(connection, "ALTER DATABASE {} RENAME TO {}", second, pair.live)
            _move_comment(connection, oids[0], pair.live)
        if oids[0]:
            execute(connection, "COMMENT ON DATABASE {} IS {comment}", first,
                    comment=pair.comment)  # fmt: skip


def _move_comment(connection: Connection, oid: int, to: str) -> None:
    """Gives a database the comment of another one; none when there is no other.

    On the server: it is in the encoding of whoever wrote it, and text nowhere else.
    """
    execute(connection, "COMMENT ON DATABASE {} IS NULL", to)
    start = f"COMMENT ON DATABASE {sql.Identifier(to).as_string(connection)} IS "
    block = sql.SQL(
        "DECLARE said text := shobj_description({}, 'pg_database'); BEGIN"
        " IF said IS NOT NULL THEN EXECUTE {} || quote_literal(said); END IF; END"
    ).format(sql.Literal(oid), sql.Literal(start))
    query(connection, sql.SQL("DO {}").format(sql.Literal(block.as_string(connection))))


def _refuse_names(site: Site, pair: Pair) -> None:
    """Refuses a switch of other databases than a live one and two of our names."""
    live = {part: database.name for part, database in site.databases.items()}
    if (
        live.get(pair.part) != pair.live
        or pair.site != site.id
        or not (_NAME.fullmatch(pair.scratch) and _NAME.fullmatch(pair.undo))
        or len({pair.scratch, pair.undo} - set(live.values())) < 2
    ):
        raise _Foreign(
            f"a switch of {pair.live!r}, {pair.scratch!r} and {pair.undo!r} is none of "
            "this site's: nothing was renamed"
        )


def _comment(connection: Connection, name: str) -> str | None:
    rows = query(
        connection,
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
        " WHERE datname = %s",
        name,
    )
    return rows[0][0] if rows else None


def switched(connection: Connection, pair: Pair) -> bool:
    """Whether the copy is the live database now."""
    return bool(pair.scratch_oid) and _oid(connection, pair.live) == pair.scratch_oid


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
                _discard(repository, operation, moves)


def _discard(repository: Repository, operation: str, moves: list[Move]) -> None:
    for move in moves:
        scratch = Path(move.path) / move.scratch
        if discard(scratch, move.token):
            repository.record(operation, "drop", folder=str(scratch))


def undoable(site: Site, repository: Repository) -> tuple[list[Pair], list[Move]]:
    """What takes the last switch back: databases, uploads. Raises Refused."""
    _, last = _last(site, repository)
    if last is None:
        raise Refused(
            f"there is nothing to undo: the journal in {repository.path} knows of no "
            "restore"
        )
    if last["foreign"]:
        raise Refused(
            "the last restore switched databases or folders that are not this site's "
            "any more: it cannot be undone as a whole; the backup that it took "
            "afterwards holds what it replaced"
        )
    pairs = []
    for pair in last["switch"]:
        if pair.part not in last["switched"]:
            continue
        if pair.part not in site.databases or not pair.live_oid:
            raise Refused(f"there was no {pair.part} before the last restore")
        with closing(site.databases[pair.part].maintenance()) as connection:
            found = query(
                connection,
                "SELECT oid::bigint, shobj_description(oid, 'pg_database')"
                " FROM pg_database WHERE datname = %s",
                pair.undo,
            )
        if found != [(pair.live_oid, pair.comment)]:
            raise Refused(
                f"the database {pair.undo!r} with the state before is not there any "
                "more: it was dropped, or renamed by hand; the backup that the restore "
                "took afterwards holds the same"
            )
        pairs.append(
            replace(
                pair,
                scratch=pair.undo,
                undo=f"dbm_{secrets.token_hex(4)}_undo",
                live_oid=pair.scratch_oid,
                scratch_oid=pair.live_oid,
            )
        )
    name = secrets.token_hex(4)
    moves = []
    for move in last["moves"] if "files" in last["switched"] else ():
        if not is_ours(Path(move.path) / move.undo, move.token):
            raise Refused(
                f"the uploads before the last restore are not in {move.path}/"
                f"{move.undo} any more; the backup that it took afterwards holds them"
            )
        moves.append(replace(move, scratch=move.undo, undo=f".dbm_{name}_undo"))
    return pairs, moves


def planned(site: Site, repository: Repository, moves: list[Move]) -> list[Move]:
    """The moves with the names that are there now."""
    folders = {str(f.path): f for f in folders_of(site.uploads, repository.path)}
    return [planned_move(move, folders[move.path]) for move in moves]


def recover(site: Site, repository: Repository, warn: Warn) -> None:
    """Finishes or turns back what a killed command left half-way, and says so.

    The caller holds the repository's lock and the live database's.
    """
    _tell_of_others(site, repository, warn)
    for operation, facts in _operations(site, repository).items():
        if _is_half_way(facts):
            try:
                _settle(site, repository, operation, facts, warn)
            except _Foreign as error:
                warn(f"the switch of operation {operation} stays half-way: {error}")
                continue
        for pair in facts["created"]:
            if pair.scratch in facts["dropped"] or pair.part not in site.databases:
                continue
            with closing(site.databases[pair.part].maintenance()) as connection:
                if _drop(site, connection, pair, "scratch"):
                    repository.record(operation, "drop", database=pair.scratch)
        for move in facts["staged"]:
            if str(Path(move.path) / move.scratch) not in facts["dropped"]:
                _discard(repository, operation, [move])


def _settle(
    site: Site, repository: Repository, operation: str, facts: Any, warn: Warn
) -> None:
    new, old = [], []
    for pair in facts["switch"]:
        with closing(site.databases[pair.part].maintenance()) as connection:
            (new if switched(connection, pair) else old).append(pair)
    # uploads alone: they had passed their checks; else the databases decide
    alone = not facts["switch"] and any(map(moves.began, facts["moves"]))
    on = bool(new) or alone
    # half of a switch over two servers: both copies had passed their checks
    for pair in old if on else ():
        _rename(site, site.databases[pair.part], [pair])
    for move in facts["moves"]:
        if on:
            moves.forward(move)
        elif moves.began(move):
            moves.back(move)
            warn(f"the uploads in {move.path} are as before the restore that was ended")
    if on and (old or facts["moves"]):
        what = [repr(pair.live) for pair in old] + [m.path for m in facts["moves"]]
        warn(f"the switch of {', '.join(what)} that was half-way has been completed")
        new += old
    parts = _parts(new, facts["moves"]) if on else []
    repository.record(operation, "switched", parts=parts)


def _tell_of_others(site: Site, repository: Repository, warn: Warn) -> None:
    """Tells of what would be finished or dropped if its lines were believed."""
    others = repository.others_deeds()
    left = []
    for operation, facts in _folded(site, repository, [e for _, e in others]).items():
        made = {pair.scratch for pair in facts["created"]}
        made |= {str(Path(move.path) / move.scratch) for move in facts["staged"]}
        if facts["switched"]:
            made = {pair.undo for pair in facts["switch"]}
            made |= {str(Path(move.path) / move.undo) for move in facts["moves"]}
        if _is_half_way(facts) or made - facts["dropped"]:
            left += [n for n, line in others if line.get("operation") == operation][:1]
    if left:
        warn(
            f"{repository.path / 'journal.jsonl'} tells of {len(left)} operations that "
            "are not signed with this site's secret, and nothing of them is believed "
            f"or touched (the last begins in line {left[-1]}): forged, or moved from "
            "another place, or SECRET_KEY was changed (then add the old one to "
            "SECRET_KEY_FALLBACKS). Remove the lines if they are none of yours"
        )


def drop_older(site: Site, repository: Repository, operation: str, warn: Warn) -> None:
    """Drops what earlier switches put aside of the same parts: one way back is kept."""
    operations = _operations(site, repository)
    parts = operations[operation]["switched"] or ()
    others = {name: parts for name in operations if name != operation}
    drop_replaced(site, repository, others, warn)


def outlived(site: Site, repository: Repository, days: int) -> dict[str, list[str]]:
    """The parts by operation whose way back is older than `days`."""
    limit = f"{now() - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    return {
        name: facts["switched"]
        for name, facts in _operations(site, repository).items()
        if facts["switched"] and facts["time"] < limit
    }


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
    operations = _operations(site, repository)
    for operation, wanted in parts.items():
        facts = operations[operation]
        kept = set(wanted) & set(facts["switched"] or ())
        for pair in facts["switch"]:
            if pair.part not in kept or pair.undo in facts["dropped"]:
                continue
            try:
                with closing(site.databases[pair.part].maintenance()) as connection:
                    there = bool(_oid(connection, pair.undo))
                    if dry_run:
                        gone += [pair.undo] if there else []
                    elif _drop(site, connection, pair, "undo"):
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


def half_way(site: Site, repository: Repository) -> list[str]:
    """The operations whose switch was begun and neither finished nor turned back."""
    return [
        name
        for name, facts in _operations(site, repository).items()
        if _is_half_way(facts)
    ]


def _is_half_way(facts: dict[str, Any]) -> bool:
    return bool(facts["switch"] or facts["moves"]) and facts["switched"] is None


def switches(site: Site, repository: Repository) -> list[str]:
    """The operations whose switch was made."""
    return [k for k, v in _operations(site, repository).items() if v["switched"]]


def last_switch(site: Site, repository: Repository) -> dict[str, str] | None:
    """The switch that `undo` takes back: `{operation, what, source, user, time}`.

    None when there is none, or when what it replaced was dropped.
    """
    name, facts = _last(site, repository)
    if facts is None:
        return None
    undo = {*(pair.undo for pair in facts["switch"])}
    undo |= {str(Path(move.path) / move.undo) for move in facts["moves"]}
    if facts["dropped"] & undo:
        return None
    begun = facts["begun"]
    return {
        "operation": name,
        "what": str(begun.get("what", "restore")),
        "source": str(begun.get("source", "")),
        "user": str(begun.get("user") or begun.get("by", "")),
        "time": str(facts["time"]),
    }


def _last(site: Site, repository: Repository) -> tuple[str, dict[str, Any] | None]:
    done = [
        (name, facts)
        for name, facts in _operations(site, repository).items()
        if facts["switched"] and (facts["switch"] or facts["moves"])
    ]
    return done[-1] if done else ("", None)


def _operations(site: Site, repository: Repository) -> dict[str, dict[str, Any]]:
    """The journal by operation; only lines that this site has signed are believed."""
    return _folded(site, repository, repository.deeds())


def _folded(
    site: Site, repository: Repository, lines: Iterable[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Lines by operation: begun, created, staged, dropped, to switch, switched.

    Only of this site's own databases and folders: a repository may be shared, or a
    copy of another's. `foreign` says that something was left out.
    """
    among = {str(f.path): f for f in folders_of(site.uploads, repository.path)}
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        event = line.get("event")
        name = line.get("operation")
        if not isinstance(name, str):
            continue
        facts = found.setdefault(
            name,
            {"created": [], "staged": [], "dropped": set(), "switched": None}
            | {"foreign": False, "begun": {}}
            | {"switch": [], "moves": [], "time": ""},
        )
        # a line that is none of ours, or of another version
        with suppress(KeyError, TypeError):
            if event == "begin":
                facts["begun"] = line
            elif event == "create":
                facts["created"] += _own(site, _pairs([line["pair"]]))
            elif event == "stage":
                staged = [Move(**move) for move in line["moves"]]
                facts["staged"] = [m for m in staged if sound(m, among)]
            elif event == "drop":
                facts["dropped"].add(line.get("database") or line.get("folder"))
            elif event == "switch":
                pairs = _pairs(line["pairs"])
                moves = [Move(**move) for move in line.get("moves", ())]
                facts["switch"] = _own(site, pairs)
                facts["moves"] = [m for m in moves if sound(m, among)]
                left = len(facts["switch"]) + len(facts["moves"])
                facts["foreign"] = left < len(pairs) + len(moves)
            else:
                facts["switched"], facts["time"] = line["parts"], line.get("time", "")
    return found


def _pairs(lines: Iterable[dict[str, Any]]) -> list[Pair]:
    pairs = [Pair(**line) for line in lines]
    for pair in pairs:
        names = (pair.part, pair.live, pair.scratch, pair.undo, pair.token, pair.site)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(pair.part)
    return pairs


def _own(site: Site, pairs: list[Pair]) -> list[Pair]:
    """The pairs that are of this site's databases."""
    names = {part: database.name for part, database in site.databases.items()}
    return [p for p in pairs if p.site == site.id and names.get(p.part) == p.live]
