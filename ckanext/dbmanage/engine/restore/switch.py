"""The switch: copies become the live databases, by renames in one transaction."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict

import psycopg2.errors
from psycopg2 import sql

from ..errors import Refused, Written, message_of
from ..operation import Operation
from ..postgres import sessions, writes
from ..postgres.again import again
from ..postgres.database import (
    Connection,
    closing,
    execute,
    query,
    server_identity,
)
from ..report import Warn
from ..signals import uninterrupted
from ..site import Site
from ..uploads.moves import Move, back, forward
from .history import Foreign, Pair, oid_of, parts_of
from .scratch import OUR_NAME

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


def switch(
    op: Operation,
    pairs: list[Pair],
    moves: list[Move],
    written: Mapping[int, int] | None = None,
    locked: Callable[[], None] | None = None,
) -> None:
    """Renames live to undo and scratch to live: all databases at once, and uploads.

    `written` are `writes.tuples` by OID of live databases; where one is another when
    nobody can connect any more, nothing is switched (Written). `locked` raises where
    the lock of the live database was lost.

    The uploads' folders are renamed right before the databases' commit, which decides:
    a failure before it turns them back, and so does the next command when this one is
    killed. Where the databases are on different servers or of owners that no one role
    may rename, the DataStore goes first and the journal carries the rest.
    """
    site = op.site
    groups = _groups(site, pairs)
    facts = {"pairs": [asdict(p) for p in pairs], "moves": [asdict(m) for m in moves]}
    op.record("switch", **facts)
    with uninterrupted():
        try:
            for group in groups[:-1]:
                rename(site, group, (), written, locked, op.warn)
            if not groups:
                _forward(moves)
            for group in groups[-1:]:
                rename(site, group, moves, written, locked, op.warn)
        except BaseException:
            # what the servers say counts, not what was heard of it; when they cannot
            # be asked nothing is turned back, and the next command settles it
            new = again(
                "asking the server",
                lambda: [pair for pair in pairs if is_switched(site, pair)],
                op.warn,
            )
            if not new or len(new) < len(pairs):
                for pair in new:
                    rename(site, [pair.turned()])
                for move in moves:
                    back(move)
                op.record("switched", parts=[])
                raise
            _forward(moves)
        with suppress(OSError):  # then the next command finds that it is done
            op.record("switched", parts=parts_of(pairs, moves))


def is_switched(site: Site, pair: Pair) -> bool:
    """Whether the copy is the live database now."""
    with closing(site.databases[pair.part].maintenance()) as connection:
        return bool(pair.scratch_oid) and _has_its_name(connection, pair)


def _has_its_name(connection: Connection, pair: Pair) -> bool:
    return oid_of(connection, pair.live) == pair.scratch_oid


def _forward(moves: Iterable[Move]) -> None:
    for move in moves:
        forward(move)


def _groups(site: Site, pairs: list[Pair]) -> list[list[Pair]]:
    """What one transaction can rename together, the DataStore before the main one."""
    if not pairs:
        return []
    with ExitStack() as stack:
        servers = {}
        for pair in pairs:
            connection = site.databases[pair.part].maintenance()
            servers[pair.part] = stack.enter_context(closing(connection))
            sessions.refuse_foreign(site.databases, connection, pair.live)
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


def rename(
    site: Site,
    pairs: list[Pair],
    moves: Iterable[Move] = (),
    written: Mapping[int, int] | None = None,
    locked: Callable[[], None] | None = None,
    warn: Warn = lambda _: None,
) -> None:
    """Renames databases of one server in one transaction, and uploads before its end.

    Where its connection breaks, or it meets a deadlock, the server is asked whether it
    was done; if not, it is done again, as long as `locked` raises nothing: without it
    never. Raises Refused, Foreign and Written; then nothing was renamed.
    """
    for pair in pairs:
        _refuse_names(site, pair)

    def still_locked() -> bool:
        # who lost one connection may have lost the lock with the other
        return locked is not None and not locked()

    def attempt() -> None:
        try:
            _rename(site, pairs, moves, written or {})
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            # the connection broke, maybe after the server had committed
            if not again("asking the server", done, warn):
                raise

    def done() -> bool:
        with closing(site.databases[pairs[0].part].maintenance()) as connection:
            return all(_has_its_name(connection, pair) for pair in pairs)

    again("the switch", attempt, warn, may=still_locked)


def _rename(
    site: Site, pairs: list[Pair], moves: Iterable[Move], written: Mapping[int, int]
) -> None:
    database = site.databases[pairs[0].part]
    names = [name for p in pairs for name in (p.live, p.scratch, p.undo)]
    with (
        closing(database.maintenance()) as connection,
        sessions.ending(site.databases, names),
    ):
        query(connection, "SET client_connection_check_interval = '500ms'")
        for attempt in range(1, _ATTEMPTS + 1):
            limit = _TIMEOUT if attempt < _ATTEMPTS else _LAST_TIMEOUT
            query(connection, f"SET statement_timeout = '{limit}'")
            try:
                query(connection, "BEGIN")
                for pair in pairs:
                    _rename_pair(site, connection, pair, written)
                # nobody can connect meanwhile
                _forward(moves)
                query(connection, "COMMIT")
                return
            except _IN_USE as error:
                query(connection, "ROLLBACK")
                if attempt == _ATTEMPTS:
                    raise Refused(_held_up(site, connection, names, error)) from error
                time.sleep(0.1 * attempt)


def _held_up(
    site: Site, connection: Connection, names: list[str], error: psycopg2.Error
) -> str:
    """What to tell of a rename that others held up: the server's reason, and theirs."""
    who = [s for n in names for s in sessions.in_the_way(site.databases, connection, n)]
    return (
        "the switch did not get the databases for itself, the live ones are as they "
        f"were: {message_of(error)}"
        + (f". In the way: {'; '.join(who)}" if who else "")
    )


def _rename_pair(
    site: Site, connection: Connection, pair: Pair, written: Mapping[int, int]
) -> None:
    found = (oid_of(connection, pair.live), oid_of(connection, pair.scratch))
    ours = not pair.scratch_oid or _comment(connection, pair.scratch) == pair.comment
    if found != (pair.live_oid, pair.scratch_oid) or not ours:
        query(connection, "ROLLBACK")
        raise Foreign(
            f"the database {pair.live!r} or its copy {pair.scratch!r} was replaced by "
            "somebody else meanwhile; nothing was switched"
        )
    if pair.live_oid:
        execute(connection, "ALTER DATABASE {} RENAME TO {}", pair.live, pair.undo)
        now = writes.tuples(connection, pair.live_oid)
        if written.get(pair.live_oid, now) != now:
            query(connection, "ROLLBACK")
            raise Written(
                f"the database {pair.live!r} was written to at the last moment, by "
                f"a worker or a command{site.advise('writers', '. ')}"
            )
    if pair.scratch_oid:
        execute(connection, "ALTER DATABASE {} RENAME TO {}", pair.scratch, pair.live)
        _move_comment(connection, pair.live_oid, pair.live)
    if pair.live_oid:
        execute(connection, "COMMENT ON DATABASE {} IS {comment}", pair.undo,
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
        or not (OUR_NAME.fullmatch(pair.scratch) and OUR_NAME.fullmatch(pair.undo))
        or len({pair.scratch, pair.undo} - set(live.values())) < 2
    ):
        raise Foreign(
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
