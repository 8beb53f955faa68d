"""Single things come and go, with a transaction of the main database that decides.

Their rows there are written by whoever asks. What is beside them, tables of the
DataStore and uploads, stands ready in places of its own before that transaction ends,
and takes its own place with it. Killed at any moment, the next command asks the server
whether the transaction was committed, and finishes or turns back.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import psycopg2.errors

from ..clock import now, stamp
from ..errors import (
    Busy,
    DbmanageError,
    Refused,
    message_of,
)
from ..operation import Operation
from ..postgres import beside
from ..postgres.again import again
from ..postgres.database import closing, query
from ..report import name_of
from ..signals import uninterrupted
from ..uploads import exchanged, moves
from .history import Exchange, Foreign, operations_of

STORE = "datastore"
_ATTEMPTS, _TIMEOUT = 6, "1500ms"
#: seconds that a transaction may need to come to its end after its client has gone
_PATIENCE = 60
_OID = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
_HELD_UP = (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected)


class Transaction(Protocol):
    """The main database's transaction, with all written that is to be."""

    def xid(self) -> str:
        """Its number there."""
        ...

    def commit(self) -> None:
        """Ends it well."""
        ...

    def rollback(self) -> None:
        """Ends it with nothing done."""
        ...


def kept(id: str) -> str:
    """The name under which the repository remembers what an operation replaced."""
    return f"thing-{id}"


def planned(op: Operation, things: Iterable[tuple[str, str, str]]) -> Exchange:
    """A new exchange, of which nothing is there yet."""
    name = secrets.token_hex(4)
    with closing(op.site.main.connect()) as connection:
        live = query(connection, _OID)[0][0]
    return Exchange(
        op.site.id, secrets.token_hex(16), f"dbm_{name}_scratch", f"dbm_{name}_undo",
        live, things=tuple(things),
    )  # fmt: skip


def turned(op: Operation, of: str, things: Iterable[tuple[str, str, str]]) -> Exchange:
    """The exchange that takes back what operation `of` did. Raises Refused."""
    last: Exchange | None = operations_of(op.site, op.repository)[of]["exchange"]
    assert last is not None
    new = planned(op, things)
    if last.store_oid and last.store_oid != store_oid(op):
        raise Refused(
            f"the {name_of(STORE)} was replaced since, so that this cannot be undone "
            "alone; a backup of before holds the same"
        )
    if last.store_oid:
        with closing(op.site.databases[STORE].connect()) as connection:
            if not beside.is_ours(connection, last.undo, last.comment):
                raise Refused(
                    f"the schema {last.undo!r} of the {name_of(STORE)}, with the "
                    "tables of before, is gone: somebody has dropped it"
                )
    for move in last.moves:
        if not moves.is_ours(Path(move.path) / move.undo, move.token):
            raise Refused(
                f"the uploads of before are gone from {move.path}/{move.undo}"
            )
    back = tuple(
        replace(
            move, scratch=move.undo, undo=f".{new.undo}", old=move.new, new=move.old
        )
        for move in last.moves
    )
    return replace(
        new, token=last.token, scratch=last.undo, tables=last.tables, moves=back,
        store_oid=last.store_oid, of=of,
    )  # fmt: skip


def _record(op: Operation, plan: Exchange) -> None:
    op.record("exchange", exchange=asdict(plan))


def store_oid(op: Operation) -> int:
    """The OID of the DataStore's database."""
    with closing(op.site.databases[STORE].connect()) as connection:
        return query(connection, _OID)[0][0]


@contextmanager
def staged(op: Operation, exchange: Exchange) -> Iterator[None]:
    """What is laid down for an exchange; gone at the end unless it was done."""
    _record(op, exchange)
    try:
        yield
    except BaseException:
        with suppress(OSError, psycopg2.Error, DbmanageError):
            facts = operations_of(op.site, op.repository)[op.id]
            if facts["exchanged"] is None and not facts["exchange"].xid:
                op.record("exchanged", done=False)
                _discard(op, facts["exchange"])
        raise


def make_schema(op: Operation, exchange: Exchange) -> None:
    """Makes the schema for tables that come."""
    with closing(op.site.databases[STORE].connect()) as connection, connection:
        beside.make(connection, exchange.scratch, exchange.comment)


def exchange_all(
    op: Operation,
    plan: Exchange,
    transaction: Transaction,
    locked: Callable[[], None],
) -> None:
    """Lets come what was laid down, and ends the transaction, which decides.

    Raises what ended it; then all is as before, unless it says otherwise.
    """
    plan = replace(plan, xid=transaction.xid())
    with uninterrupted():
        _record(op, plan)
        try:
            with _tables_ready(op, plan) as commit_tables:
                locked()
                for move in plan.moves:
                    exchanged.forward(move)
                transaction.commit()
                op.standing.done = f"It is done{op.site.advise('back', '; ')}"
                commit_tables()
        except BaseException as error:
            with suppress(Exception):
                transaction.rollback()
            # what the server says counts, not what was heard of it
            done = again("asking the server", lambda: _fate(op, plan), op.warn)
            if not done:
                _turn_back(op, plan)
                op.record("exchanged", done=False)
                _discard(op, plan)
                raise
            again("finishing it", lambda: _finish(op, plan), op.warn)
            if not isinstance(error, Exception):
                op.record("exchanged", done=True)
                raise
        with suppress(OSError):  # then the next command finds that it is done
            op.record("exchanged", done=True)


@contextmanager
def _tables_ready(op: Operation, plan: Exchange) -> Iterator[Callable[[], None]]:
    """The DataStore's tables in their new places, for all but others to see.

    Hands out what lets others see it. Raises Refused where others are in the way.
    """
    if not plan.store_oid:
        yield lambda: None
        return
    with closing(op.site.databases[STORE].connect()) as connection:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                query(connection, f"SET LOCAL lock_timeout = '{_TIMEOUT}'")
                beside.exchange(
                    connection, plan.tables, plan.scratch, plan.undo, plan.comment
                )
                break
            except _HELD_UP as error:
                connection.rollback()
                if attempt == _ATTEMPTS:
                    raise Refused(
                        "a table is in use, so it cannot be replaced, and all is as it "
                        f"was: {message_of(error)}. Try again when "
                        "the query or the upload that holds it has ended"
                    ) from error
                time.sleep(0.1 * attempt)
        yield connection.commit


def settle(op: Operation, plan: Exchange) -> None:
    """Finishes or turns back an exchange that was left half-way, and says which.

    Raises Foreign, Busy.
    """
    names = ", ".join(f"{kind} {name!r}" for kind, _, name in plan.things)
    done = bool(plan.xid) and _fate(op, plan)
    if done:
        _finish(op, plan)
        op.warn(f"the return of {names} that was half-way has been completed")
    else:
        _turn_back(op, plan)
        if plan.xid:
            op.warn(
                f"{names}: as before the return that was stopped, which has been "
                "turned back"
            )
    op.record("exchanged", done=done)
    if not done:
        _discard(op, plan)


def _fate(op: Operation, plan: Exchange) -> bool:
    """Whether the transaction was committed, as the server knows it."""
    end = time.monotonic() + _PATIENCE
    with closing(op.site.main.connect()) as connection:
        connection.autocommit = True
        if query(connection, _OID) != [(plan.live_oid,)]:
            raise Foreign(
                f"the database {op.site.main.name!r} is another than it was when "
                f"{', '.join(name for *_, name in plan.things)} was to come back"
            )
        while True:
            try:
                status = query(connection, "SELECT pg_xact_status(%s::xid8)", plan.xid)
            except psycopg2.DataError as error:
                raise Foreign(f"{message_of(error)}: it is another server") from error
            if status == [("in progress",)] and time.monotonic() < end:
                time.sleep(0.1)
                continue
            if status == [("in progress",)]:
                raise Busy(
                    f"transaction {plan.xid} of a command that is gone has not ended "
                    f"in the database {op.site.main.name!r}; wait for its end"
                )
            if status == [(None,)]:
                raise Foreign(f"nobody knows the fate of transaction {plan.xid}")
            return status == [("committed",)]


def _finish(op: Operation, plan: Exchange) -> None:
    """What follows the transaction, as far as it is not done."""
    if plan.store_oid:
        store = op.site.databases[STORE]
        with closing(store.connect()) as connection:
            there = beside.is_ours(connection, plan.undo, plan.comment)
        if not there:
            with _tables_ready(op, plan) as commit:
                commit()
    for move in plan.moves:
        exchanged.forward(move)


def _turn_back(op: Operation, plan: Exchange) -> None:
    # of the tables nothing was committed
    for move in plan.moves:
        exchanged.back(move)


def _discard(op: Operation, plan: Exchange) -> None:
    """Removes what was laid down for an exchange that was not done."""
    (op.repository.path / f".{kept(op.id)}.json").unlink(missing_ok=True)
    if plan.of:  # it is another's undo
        return
    _drop(op, plan, plan.scratch)


def _drop(op: Operation, plan: Exchange, name: str) -> bool:
    """Drops a schema and the folders of this name, where they are ours; notes it."""
    gone = True
    if plan.store_oid and STORE in op.site.databases:
        with closing(op.site.databases[STORE].connect()) as connection:
            if query(connection, _OID) != [(plan.store_oid,)]:
                gone = False  # it is in a database that a restore has put aside
            else:
                with connection:
                    gone = beside.drop(connection, name, plan.comment)
    for move in plan.moves:
        gone = moves.discard(Path(move.path) / f".{name}", move.token) and gone
    if gone:
        with suppress(OSError):
            op.record("drop", exchange=name)
    return gone


def drop_kept(op: Operation, days: int, dry: bool = False) -> list[str]:
    """Drops what exchanges replaced, `days` ago or more; the names of the things.

    With `dry` they are only named.
    """
    from datetime import timedelta

    limit, gone = stamp(now() - timedelta(days=days)), []
    for id, facts in operations_of(op.site, op.repository).items():
        plan: Exchange | None = facts["exchange"]
        if plan is None or not facts["exchanged"] or facts["time"] > limit:
            continue
        if plan.undo in facts["dropped"]:
            continue
        names = ", ".join(f"{kind} {name}" for kind, _, name in plan.things)
        try:
            if not dry:
                path = op.repository.path / f".{kept(id)}.json"
                path.unlink(missing_ok=True)
                if not _drop(op.called(id), plan, plan.undo):
                    continue
        except (psycopg2.Error, DbmanageError, OSError) as error:
            op.warn(f"what was before of {names} stays for now: {error}")
            continue
        gone.append(names)
    return gone
