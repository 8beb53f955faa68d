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
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from . import Site, Warn, postgres
from .errors import ConnectionFailed, DbmanageError, Refused
from .postgres import Connection, Database, closing, execute, query
from .repository import Backup, Repository

_NAME = re.compile(r"dbm_[0-9a-f]{8}_(scratch|undo)")
_ATTEMPTS = 8
#: how long requests may hang on a rename that a foreign session holds up
_TIMEOUT = "1500ms"
#: what a rename says when somebody is still in a database
_IN_USE = (
    psycopg2.errors.ObjectInUse,
    psycopg2.errors.QueryCanceled,
    psycopg2.errors.LockNotAvailable,
)


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

    def comment(self, role: str) -> str:
        """The comment that makes the scratch or the undo database provably ours."""
        site = f"site {self.site!r}, token {self.token}"
        return f"ckanext-dbmanage {role} database of {site}"


@dataclass
class Scratch:
    """A scratch database in the making, and the connection that keeps its lock."""

    pair: Pair
    database: Database
    live: Database
    keeper: Connection


# --------------------------------------------------------------- scratch databases


@contextmanager
def scratch(
    site: Site,
    repository: Repository,
    operation: str,
    part: str,
    of: Backup | None,
) -> Iterator[Scratch]:
    """A new, empty database for a part, dropped at the end unless it was switched in.

    Has the live database's encoding, locale and owner; without a live database those
    of the signed backup `of`.
    """
    live = site.databases[part]
    prefix = f"dbm_{secrets.token_hex(4)}"
    names = f"{prefix}_scratch", f"{prefix}_undo"
    pair = Pair(part, live.name, *names, secrets.token_hex(16), site.id)
    with closing(live.maintenance()) as keeper:
        postgres.try_lock(keeper, "ours", pair.scratch)
        repository.record(operation, "create", pair=asdict(pair))
        try:
            pair = _create(site, keeper, pair, live, of)
            yield Scratch(pair, live.named(pair.scratch), live, keeper)
        finally:
            # after a switch there is no database of this name any more
            # (and when this fails, the next command does it)
            with suppress(psycopg2.Error, DbmanageError, OSError):
                keeper.close()
                with closing(live.maintenance()) as connection:
                    if _drop(site, connection, pair, "scratch"):
                        repository.record(operation, "drop", database=pair.scratch)


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
    template = site.scratch_template or "template0"
    options.append(sql.SQL("TEMPLATE {}").format(sql.Identifier(template)))
    if template == "template0":
        options += _locale(keeper, rows[0][1] if rows else _noted_locale(of, pair.part))
    if rows and rows[0][3]:
        options.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(rows[0][3])))
    # nobody can have put anything into it before it carries its comment
    options.append(sql.SQL("ALLOW_CONNECTIONS false"))
    statement = sql.SQL("CREATE DATABASE {} {}").format(
        sql.Identifier(pair.scratch), sql.SQL(" ").join(options)
    )
    query(keeper, statement)
    execute(keeper, "COMMENT ON DATABASE {} IS {comment}", pair.scratch,
            comment=pair.comment("scratch"))  # fmt: skip
    execute(keeper, "ALTER DATABASE {} ALLOW_CONNECTIONS true", pair.scratch)
    known = {field.name: getattr(pair, field.name) for field in fields(pair)}
    return Pair(
        **known
        | {
            "live_oid": rows[0][0] if rows else 0,
            "scratch_oid": _oid(keeper, pair.scratch),
        }
    )


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
    if not postgres.try_lock(connection, "ours", name):
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
            comment = pair.comment(role)
            execute(
                connection, "COMMENT ON DATABASE {} IS {comment}", name, comment=comment
            )
        if comment != pair.comment(role):
            return False
        # not WITH (FORCE): that fails on an autovacuum worker, which a plain DROP ends
        with _ending_sessions(site, [name]):
            execute(connection, "DROP DATABASE {}", name)
        return True
    finally:
        postgres.unlock(connection, "ours", name)


# ------------------------------------------------------------- foreign sessions


def refuse_foreign_sessions(site: Site, connection: Connection, name: str) -> None:
    """Refuses while a role that is not the site's has a session in the database.

    Nobody but a superuser could end it, and the switch would hang on it.
    """
    sessions = query(
        connection,
        "SELECT pid, usename, application_name FROM pg_stat_activity"
        " WHERE datname = %s AND usename IS NOT NULL AND usename <> ALL(%s)",
        name,
        sorted(_roles(site)),
    )
    if sessions:
        who = "; ".join(
            f"process {pid}, role {role!r}, application {application!r}"
            for pid, role, application in sessions
        )
        raise Refused(
            f"somebody else is connected to the database {name!r}: {who}. "
            "End these sessions, then try again"
        )


def _urls(site: Site) -> list[tuple[Database, Any]]:
    found = [(database, database.url) for database in site.databases.values()]
    found += [(d, d.read_url) for d in site.databases.values() if d.read_url]
    return found


def _roles(site: Site) -> set[str]:
    return {database.role_of(url) for database, url in _urls(site)}


# ---------------------------------------------------------------------- the switch


def copy_properties(scratch: Scratch, warn: Warn) -> None:
    """Gives the copy what belongs to a database and does not travel in its dump.

    Settings, rights, connection limit; the comment follows at the switch. What only a
    superuser may set is told, with the SQL.
    """
    for (statement,) in query(
        scratch.keeper,
        _PROPERTIES,
        {"live": scratch.live.name, "new": scratch.pair.scratch},
    ):
        try:
            query(scratch.keeper, statement)
        except psycopg2.errors.InsufficientPrivilege:
            mine = statement.replace(
                postgres.quoted(scratch.pair.scratch),
                postgres.quoted(scratch.live.name),
            )
            warn(f"only a superuser may run this again after the restore: {mine};")


# proven in PostgreSQL 14 to 18; list settings must not be quoted as one literal
_PROPERTIES = """
SELECT format('ALTER %%s SET %%I TO %%s',
    CASE WHEN setrole = 0 THEN format('DATABASE %%I', %(new)s::text)
         ELSE format('ROLE %%I IN DATABASE %%I', r.rolname, %(new)s::text) END,
    split_part(c, '=', 1),
    CASE WHEN split_part(c, '=', 1) IN ('search_path', 'temp_tablespaces',
             'local_preload_libraries', 'session_preload_libraries')
         THEN substr(c, strpos(c, '=') + 1)
         ELSE quote_literal(substr(c, strpos(c, '=') + 1)) END)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
     LEFT JOIN pg_roles r ON r.oid = setrole, unnest(setconfig) c
WHERE datname = %(live)s
UNION ALL
SELECT format('REVOKE ALL ON DATABASE %%I FROM PUBLIC', %(new)s::text)
FROM pg_database WHERE datname = %(live)s AND datacl IS NOT NULL
UNION ALL
SELECT format('GRANT %%s ON DATABASE %%I TO %%s%%s', a.privilege_type, %(new)s::text,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_database d, aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE datname = %(live)s
UNION ALL
SELECT format('ALTER DATABASE %%I CONNECTION LIMIT %%s', %(new)s::text, datconnlimit)
FROM pg_database WHERE datname = %(live)s"""


def switch(
    site: Site, repository: Repository, operation: str, scratches: list[Scratch]
) -> None:
    """Renames live to undo and scratch to live, all parts in one transaction.

    Where the parts are on different servers or of owners that no one role may rename,
    the DataStore goes first and the journal carries the rest: the next command
    completes it, and a failure here turns it back.
    """
    for scratch_ in scratches:
        refuse_foreign_sessions(site, scratch_.keeper, scratch_.pair.live)
    pairs = {s.pair.part: s.pair for s in scratches}
    repository.record(operation, "switch", pairs=[asdict(p) for p in pairs.values()])
    done: list[Pair] = []
    with _uninterrupted():
        try:
            for group in _groups(scratches):
                _rename(site, group[0].live, [s.pair for s in group])
                done += [s.pair for s in group]
        except BaseException:
            for pair in done:
                _rename(site, site.databases[pair.part], [pair], back=True)
            repository.record(operation, "switched", parts=[])
            raise
        repository.record(operation, "switched", parts=sorted(pairs))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C and the like wait: a switch takes a second, half of one is none."""
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    # threads that are started meanwhile inherit this
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _groups(scratches: list[Scratch]) -> list[list[Scratch]]:
    """What one transaction can rename together, the DataStore before the main one."""
    first, *others = scratches
    together = [
        other
        for other in others
        if postgres.server_identity(other.keeper)
        == postgres.server_identity(first.keeper)
        and _may_rename(first.keeper, other.pair)
    ]
    alone = [[other] for other in others if other not in together]
    return [*alone, [first, *together]]


def _may_rename(connection: Connection, pair: Pair) -> bool:
    rows = query(
        connection,
        "SELECT bool_and(pg_has_role(datdba, 'USAGE')) FROM pg_database"
        " WHERE datname = ANY(%s)",
        [pair.live, pair.scratch],
    )
    return bool(rows[0][0])


def _rename(
    site: Site, database: Database, pairs: list[Pair], back: bool = False
) -> None:
    names = [name for p in pairs for name in (p.live, p.scratch, p.undo)]
    with closing(database.maintenance()) as connection, _ending_sessions(site, names):
        query(connection, f"SET statement_timeout = '{_TIMEOUT}'")
        query(connection, "SET client_connection_check_interval = '500ms'")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _rename_once(connection, pairs, back)
                return
            except _IN_USE as error:
                query(connection, "ROLLBACK")
                if attempt == _ATTEMPTS:
                    for pair in pairs:
                        refuse_foreign_sessions(site, connection, pair.live)
                    raise Refused(
                        "the switch did not get the databases for itself: "
                        f"{' '.join(str(error).split())}; "
                        "the live ones are as they were"
                    ) from error
                time.sleep(0.1 * attempt)
            except psycopg2.OperationalError:
                # the connection broke, maybe after the server had committed
                with closing(database.maintenance()) as again:
                    if all(switched(again, pair) != back for pair in pairs):
                        return
                raise


def _rename_once(connection: Connection, pairs: list[Pair], back: bool) -> None:
    query(connection, "BEGIN")
    for pair in pairs:
        oids = (
            (pair.scratch_oid, pair.live_oid)
            if back
            else (pair.live_oid, pair.scratch_oid)
        )
        first, second = (pair.scratch, pair.undo) if back else (pair.undo, pair.scratch)
        found = (_oid(connection, pair.live), _oid(connection, second))
        if found != oids:
            query(connection, "ROLLBACK")
            raise Refused(
                f"the database {pair.live!r} or its copy was replaced by somebody else "
                "meanwhile; nothing was switched"
            )
        comment = None
        if oids[0]:
            ((comment,),) = query(
                connection, "SELECT shobj_description(%s::oid, 'pg_database')", oids[0]
            )
            execute(connection, "ALTER DATABASE {} RENAME TO {}", pair.live, first)
            role = "scratch" if back else "undo"
            execute(connection, "COMMENT ON DATABASE {} IS {comment}", first,
                    comment=pair.comment(role))  # fmt: skip
        if oids[1]:
            execute(connection, "ALTER DATABASE {} RENAME TO {}", second, pair.live)
            query(
                connection,
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(
                    sql.Identifier(pair.live), sql.Literal(comment)
                ),
            )
    query(connection, "COMMIT")


@contextmanager
def _ending_sessions(site: Site, names: list[str]) -> Iterator[None]:
    """Ends the sessions of the site's own roles in these databases, again and again.

    Each role ends its own: that needs no more right than to connect.
    """
    stop = threading.Event()
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = ANY(%s) AND usename = current_user"
        " AND pid <> pg_backend_pid()"
    )

    def work(connection: Connection) -> None:
        with suppress(psycopg2.Error):
            while not stop.wait(0.01):
                query(connection, statement, names)

    with ExitStack() as stack:
        threads = []
        for database, url in _urls(site):
            # a role that may not even connect here has no way to be in the way
            with suppress(ConnectionFailed):
                connection = stack.enter_context(closing(database.maintenance(url)))
                threads.append(threading.Thread(target=work, args=(connection,)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def switched(connection: Connection, pair: Pair) -> bool:
    """Whether the copy is the live database now."""
    return bool(pair.scratch_oid) and _oid(connection, pair.live) == pair.scratch_oid


# --------------------------------------------------------------- what was left over


def recover(site: Site, repository: Repository, warn: Warn) -> None:
    """Finishes or turns back what a killed command left half-way, and says so.

    The caller holds the repository's lock and the live database's.
    """
    operations = _operations(repository)
    for operation, facts in operations.items():
        if facts["switch"] and facts["switched"] is None:
            _settle(site, repository, operation, facts, warn)
        for pair in facts["created"]:
            if pair.scratch in facts["dropped"] or pair.part not in site.databases:
                continue
            with closing(site.databases[pair.part].maintenance()) as connection:
                if _drop(site, connection, pair, "scratch"):
                    repository.record(operation, "drop", database=pair.scratch)


def _settle(
    site: Site, repository: Repository, operation: str, facts: Any, warn: Warn
) -> None:
    new, old = [], []
    for pair in facts["switch"]:
        with closing(site.databases[pair.part].maintenance()) as connection:
            (new if switched(connection, pair) else old).append(pair)
    for pair in old if new else ():
        # half of a switch over two servers: both copies had passed their checks
        _rename(site, site.databases[pair.part], [pair])
        warn(f"the switch of {pair.live!r} that was half-way has been completed")
        new.append(pair)
    repository.record(operation, "switched", parts=sorted(pair.part for pair in new))


def drop_older(site: Site, repository: Repository, operation: str, warn: Warn) -> None:
    """Drops the old databases that earlier switches kept: one way back is kept."""
    operations = _operations(repository)
    parts = operations[operation]["switched"]
    for earlier, facts in operations.items():
        if earlier == operation:
            continue
        for pair in facts["switch"]:
            kept = pair.part in (facts["switched"] or ()) and pair.part in parts
            if not kept or pair.undo in facts["dropped"]:
                continue
            try:
                with closing(site.databases[pair.part].maintenance()) as connection:
                    if _drop(site, connection, pair, "undo"):
                        repository.record(earlier, "drop", database=pair.undo)
            except (psycopg2.Error, DbmanageError, KeyError) as error:
                warn(f"the old database {pair.undo!r} stays for now: {error}")


def _operations(repository: Repository) -> dict[str, dict[str, Any]]:
    """The journal by operation: databases created, dropped, to switch, switched."""
    found: dict[str, dict[str, Any]] = {}
    for line in repository.journal():
        facts = found.setdefault(
            str(line.get("operation")),
            {"created": [], "dropped": set(), "switch": [], "switched": None},
        )
        event = line.get("event")
        if event == "create":
            facts["created"] += _pairs([line["pair"]])
        elif event == "drop":
            facts["dropped"].add(line["database"])
        elif event == "switch":
            facts["switch"] = _pairs(line["pairs"])
        elif event == "switched":
            facts["switched"] = line["parts"]
    return found


def _pairs(lines: Iterable[dict[str, Any]]) -> list[Pair]:
    return [Pair(**line) for line in lines]
