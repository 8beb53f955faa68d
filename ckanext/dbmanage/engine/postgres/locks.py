"""Advisory locks: who may change a live database, over all hosts and repositories."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg2

from ..errors import Busy, ToolFailed, message_of
from .database import Connection, Database, query


@contextmanager
def live_lock(
    database: Database, wait: float = 0, foreign: bool = False
) -> Iterator[Callable[[], None]]:
    """The right to switch the live database or to finish a backup of it.

    Over all hosts and repositories; it ends with a connection. What is handed out
    raises ToolFailed when that has ended before its time. Waits up to `wait` seconds;
    with `foreign` not for roles that could not switch the database: anybody who may
    connect beside it can take the lock. Raises Busy: who holds it.
    """
    words = ("live", database.name)
    connection = database.maintenance()

    def still_held() -> None:
        try:
            query(connection, "SELECT")
        except psycopg2.Error as error:
            raise ToolFailed(
                f"the lock of the database {database.name!r} was lost, and somebody "
                f"else may be at work in it. The server says: {message_of(error)}"
            ) from error

    try:
        end = time.monotonic() + wait
        while not try_lock(connection, *words):
            holders = lock_holders(connection, database, *words)
            others = bool(holders) and not any(h.is_ours for h in holders)
            if others and foreign:
                break
            if time.monotonic() >= end:
                who = "; ".join(map(str, holders)) or "somebody who has just ended"
                end_it = "wait for its end"
                if others:
                    end_it = (
                        "but that role could not even switch it. Have a superuser end "
                        f"its session: SELECT pg_terminate_backend({holders[0].pid});"
                    )
                raise Busy(
                    f"the database {database.name!r} is being worked on by {who}; "
                    + end_it
                )
            time.sleep(0.2)
        yield still_held
    finally:
        connection.close()


def lock_key(*words: str) -> int:
    """A 64-bit key for an advisory lock out of words."""
    digest = hashlib.sha256("\0".join(("dbmanage", *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def try_lock(connection: Connection, *words: str) -> bool:
    """Takes the session's advisory lock, or says that somebody holds it."""
    return query(connection, "SELECT pg_try_advisory_lock(%s)", lock_key(*words))[0][0]


def unlock(connection: Connection, *words: str) -> None:
    """Gives an advisory lock back."""
    query(connection, "SELECT pg_advisory_unlock(%s)", lock_key(*words))


@dataclass(frozen=True)
class Holder:
    """Who holds an advisory lock: anybody may who can connect to where it is taken.

    `since` is None where this role may not see it, and `address` too, which is also
    None for a local socket. `is_ours`: it is of the site's role, or could switch the
    live database.
    """

    pid: int
    role: str
    address: str | None
    since: datetime | None
    is_ours: bool

    def __str__(self) -> str:
        about = f"the server's process {self.pid}, role {self.role!r}"
        if self.since is None:
            return f"{about}, whose address and time this role may not see"
        address = self.address or "a local socket"
        return f"{about}, from {address}, since {self.since:%F %T}"


def lock_holders(connection: Connection, live: Database, *words: str) -> list[Holder]:
    """Who holds an advisory lock that has to do with this live database."""
    rows = query(
        connection,
        "SELECT a.pid, a.usename::text, a.client_addr::text, a.backend_start,"
        " coalesce(a.usename = %s OR pg_has_role(usesysid, datdba, 'MEMBER'), true)"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " LEFT JOIN pg_database d ON d.datname = %s"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        live.role, live.name, lock_key(*words),
    )  # fmt: skip
    return [Holder(*row) for row in rows]
