"""Who is connected to the live databases: wait for them, name them, end them.

Each of the site's roles looks after its own sessions: that needs no more right than to
connect. Must not know archives or uploads.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg2

from ..errors import ConnectionFailed, Refused
from .database import Connection, Database, closing, literal, query, quoted

#: seconds that reading goes on while long transactions come to their end
PATIENCE = 10.0
#: seconds that visitors wait for requests that are still at work
DRAIN = 5.0
_PAUSE = 0.05

#: the databases of a site by their part
Databases = Mapping[str, Database]

#: sessions of the site's roles that this connection's own role may look at, and end;
#: `usename` is who logged in, whatever role the session took on since
_OWN = """FROM pg_stat_activity WHERE datname = ANY(%(names)s)
    AND usename = ANY(%(roles)s) AND pid <> pg_backend_pid()
    AND (usename = session_user OR pg_has_role(usesysid, 'USAGE')"""

_SEEN = f"{_OWN})"

_ENDED = (
    f"{_OWN} OR pg_has_role('pg_signal_backend', 'USAGE')"  # noqa: S608
    " AND NOT (SELECT rolsuper FROM pg_roles r WHERE r.oid = usesysid))"
)


def refuse_foreign(databases: Databases, connection: Connection, name: str) -> None:
    """Refuses while somebody is in the database whom the site's roles cannot end.

    The switch would hang on it.
    """
    if who := in_the_way(databases, connection, name):
        raise Refused(
            f"the database {name!r} is in use, so that it cannot be switched: "
            f"{'; '.join(who)}. End this, then try again"
        )


def in_the_way(databases: Databases, connection: Connection, name: str) -> list[str]:
    """What would hold up a switch of the database, a sentence for each.

    Sessions that no role of the site may end, and prepared transactions.
    """
    there = "SELECT pid, usename, application_name FROM pg_stat_activity WHERE {} = %s"
    sessions = query(connection, there.format("datname"), name)
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        mine = {"names": [name], "roles": sorted(roles(databases))}
        ours = {
            pid
            for each in other_connections(databases, stack, reasons)
            for (pid,) in query(each, f"SELECT pid {_ENDED}", mine)
        }
    found, own = [], databases["database"].role
    for pid, role, application in sessions:
        # a worker of the server's own has no role; one that ended meanwhile is gone
        if role and pid not in ours and query(connection, there.format("pid"), pid):
            found.append(
                f"process {pid}, role {role!r}, application {application!r}"
                + (
                    f" ({_fenced(role, own)}: {reasons[role]})"
                    if role in reasons
                    else ""
                )
            )
    prepared = query(
        connection,
        "SELECT gid, owner, prepared FROM pg_prepared_xacts WHERE database = %s",
        name,
    )
    return found + [
        f"the prepared transaction {gid!r} of the role {owner!r}, since {since:%F %T}, "
        "which its owner ends in this database by COMMIT PREPARED or ROLLBACK PREPARED "
        + literal(gid)
        for gid, owner, since in prepared
    ]


def _fenced(role: str, own: str) -> str:
    """How a role that cannot look after its own sessions is helped."""
    return (
        "one of the site's, but nobody may end it: let pg_hba.conf let this role into "
        "the database 'postgres', or have a superuser run GRANT "
        f"{quoted(role)} TO {quoted(own)};"
    )


def roles(databases: Databases) -> set[str]:
    """The roles that the site connects as."""
    return {database.role_of(url) for database, url in _urls(databases)}


def _urls(databases: Databases) -> list[tuple[Database, Any]]:
    found = [(database, database.url) for database in databases.values()]
    found += [(d, d.read_url) for d in databases.values() if d.read_url]
    return found


def other_connections(
    databases: Databases, stack: ExitStack, reasons: dict[str, str] | None = None
) -> list[Connection]:
    """A connection of each role, as itself; why there is none goes to `reasons`."""
    found = []
    admins = [(d, d.admin_url) for d in databases.values() if d.admin_url]
    for database, url in [*_urls(databases), *admins]:
        # a role that may not connect here has no way to end sessions of its own
        try:
            connection = stack.enter_context(closing(database.maintenance(url)))
        except ConnectionFailed as error:
            (reasons if reasons is not None else {})[database.role_of(url)] = str(error)
            continue
        # some log in and take on the owner's role by a setting
        query(connection, "SET SESSION ROLE NONE")
        found.append(connection)
    return found


@contextmanager
def ending(databases: Databases, names: list[str]) -> Iterator[None]:
    """Ends the sessions of the site's own roles in these databases, again and again."""
    stop = threading.Event()
    statement = f"SELECT pg_terminate_backend(pid) {_ENDED}"
    mine = {"names": names, "roles": sorted(roles(databases))}

    def work(connection: Connection) -> None:
        with suppress(psycopg2.Error):
            while not stop.wait(0.01):
                query(connection, statement, mine)

    with ExitStack() as stack:
        threads = [
            threading.Thread(target=work, args=(connection,))
            for connection in other_connections(databases, stack)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def settle(databases: Databases) -> None:
    """Waits for long transactions, and has idle sessions tell what they wrote.

    PostgreSQL counts a session's writes some seconds later, or when it ends; an idle
    one waits in a pool, which looks whether it lives before it is used again.
    """
    mine = own_backends(databases)
    with ExitStack() as stack:
        connections = other_connections(databases, stack)
        wait(connections, mine, "xact_start < now() - interval '1 s'", 1, PATIENCE)
        idle = f"SELECT pid, pg_terminate_backend(pid) {_SEEN} AND state = 'idle'"
        gone = [pid for c in connections for pid, _ in query(c, idle, mine)]
        # who is listed may not have told yet
        wait(connections, mine | {"gone": gone}, "pid = ANY(%(gone)s)", 1, PATIENCE)


def ended(databases: Databases, seconds: float) -> list[str]:
    """Ends the sessions of the site's own roles, for only then all they wrote is told.

    Returns those that may have written in the last seconds: they are in a transaction
    that did, or their last word was COMMIT, where a reader's is ROLLBACK.
    """
    mine = own_backends(databases)
    with ExitStack() as stack:
        connections = other_connections(databases, stack)
        writing = (
            f"{_LISTED} AND (backend_xid IS NOT NULL OR query ILIKE 'COMMIT%%'"
            " AND state_change > now() - %(seconds)s * interval '1 s')"
        )
        since = mine | {"seconds": seconds}
        found = [row for c in connections for row in query(c, writing, since)]
        with ending(databases, mine["names"]):
            end = time.monotonic() + DRAIN
            while any(query(c, _LISTED, mine) for c in connections):
                if time.monotonic() > end:
                    break
                time.sleep(_PAUSE)
    return sorted({_described(*row) for row in found})


_LISTED = f"SELECT pid, usename, application_name, client_addr::text {_SEEN}"


def own_backends(databases: Databases) -> dict[str, Any]:
    """The values of `_OWN` for the site's own databases."""
    names = [database.name for database in databases.values()]
    return {"names": names, "roles": sorted(roles(databases))}


def _described(pid: int, role: str, application: str, address: str | None) -> str:
    return (
        f"process {pid}, role {role!r}, application {application!r}, "
        f"from {address or 'a local socket'}"
    )


def wait(
    connections: list[Connection],
    mine: dict[str, Any],
    what: str,
    calm: int,
    limit: float,
) -> list[str]:
    """Waits until nobody was there `calm` times in a row; who is there in the end."""
    statement = f"{_LISTED} AND {what}"
    end, quiet = time.monotonic() + limit, 0
    while True:
        there = [row for c in connections for row in query(c, statement, mine)]
        quiet = 0 if there else quiet + 1
        if quiet >= calm or time.monotonic() > end:
            return sorted({_described(*row) for row in there})
        time.sleep(_PAUSE)
