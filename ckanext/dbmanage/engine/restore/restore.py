"""Restore and undo: the order of their steps."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import psycopg2

from ..backup.take import Replaced
from ..errors import ConnectionFailed, ToolFailed
from ..operation import Operation
from ..postgres import writes
from ..postgres.again import passes
from ..postgres.locks import live_lock
from ..postgres.sessions import DRAIN, PATIENCE, other_connections, own_backends, wait
from ..redis.maintenance import AWAY, READ_ONLY, Maintenance
from ..signals import uninterrupted
from ..uploads.folders import folders_of
from ..uploads.moves import Move
from ..uploads.staging import stage
from . import switch
from .copies import Prepare, loaded_copies
from .history import (
    UNDO,
    Pair,
    is_half_way,
    last_switch,
    operations_of,
    planned_moves,
    undoable,
)
from .preflight import may_switch
from .properties import copy_properties, stays_behind
from .recover import recover
from .scratch import drop_older, staged
from .source import Source
from .written import Counters, Since, counters, refuse_written, rows_written

#: a request that was let in before the key was set may not have begun its transaction
_CALM = 5


@dataclass(frozen=True)
class Restored:
    """What a restore of `source`, or an undo or a redo of one, did.

    `written` counts the rows by `part: table` that were written to the live databases
    after the copy was begun: they are in the replaced ones. Visitors were kept from
    saving for `read_only` seconds, then from the site for `away` seconds.
    """

    operation: str
    parts: list[str]
    replaced: Replaced
    written: Mapping[str, int]
    source: str = ""
    what: str = ""
    read_only: float = 0.0
    away: float = 0.0


@dataclass
class _Waited:
    """How long visitors waited, in seconds."""

    read_only: float = 0.0
    away: float = 0.0


def restore_backup(
    op: Operation,
    source: Source,
    prepare: Prepare = lambda *_: None,
    *,
    what: str = "restore",
    since: Since | None = None,
) -> Restored:
    """Restores the source's parts and switches them in; the old ones stay for `undo`.

    The caller has made the `preflight`. Until the switch nothing that is live is
    touched; a failure drops what was made beside it. Visitors and the journal are told
    `what` is done. With `since`, of before the source was made, nothing is switched
    when the live databases were written to after it. Raises Refused, ConnectionFailed,
    ToolFailed, Damaged, Written.
    """
    site, repository = op.site, op.repository
    with _journalled(op, what, source.name) as (op, still_locked):
        before = counters(site, source.archives)
        with (
            loaded_copies(op, source, prepare, still_locked) as scratches,
            _laid_down(op, source) as laid,
        ):
            for scratch in scratches.values():
                copy_properties(scratch, op.warn)
                for sentence in stays_behind(scratch.live):
                    op.warn(sentence)
            pairs = [scratch.pair for scratch in scratches.values()]
            with _away(op, what) as waited:
                written = refuse_written(site, since, pairs) if since else {}
                planned = planned_moves(site, repository, laid)
                still_locked()
                _switch(op, what, pairs, planned, written, still_locked)
        done = _restored(op, pairs, laid, before, waited)
    # with `since` nothing was, but for what reading itself writes
    return replace(
        done, source=source.name, what=what, written={} if since else done.written
    )


@contextmanager
def _laid_down(op: Operation, source: Source) -> Iterator[list[Move]]:
    """The source's uploads in folders beside the live ones; none when it has none."""
    if not source.uploads or not source.backup:
        yield []
        return
    among = folders_of(op.site.uploads, op.repository.path)
    with staged(op, among) as laid:
        objects, size = source.backup.objects, source.backup.files["bytes"]
        stage(source.uploads, objects, among, laid, op.progress, size)
        yield laid


def undo_switch(op: Operation) -> Restored:
    """Switches back what the last restore or undo replaced; can itself be undone.

    After an undo it is a redo. Raises Refused, ConnectionFailed, ToolFailed.
    """
    site, repository = op.site, op.repository
    last = last_switch(site, repository) or {}
    what, source = last.get("way") or UNDO, last.get("source") or "the last switch"
    with _journalled(op, what, source) as (op, still_locked):
        pairs, moves = undoable(site, repository)
        may_switch(site, [pair.part for pair in pairs])
        before = counters(site, [pair.part for pair in pairs])
        with _away(op, "restore") as waited:
            planned = planned_moves(site, repository, moves)
            still_locked()
            _switch(op, what, pairs, planned, {}, still_locked)
        done = _restored(op, pairs, moves, before, waited)
    return replace(done, source=source, what=what)


def _switch(
    op: Operation,
    what: str,
    pairs: list[Pair],
    moves: list[Move],
    written: Mapping[int, int],
    locked: Callable[[], None],
) -> None:
    """The switch; whoever ends the operation is told on which side of it they are."""
    with uninterrupted():
        switch.switch(op, pairs, moves, written, locked)
        op.standing.done = f"The {what} is done{op.site.advise('back', '; ')}"


@contextmanager
def _journalled(
    op: Operation, what: str, source: str
) -> Iterator[tuple[Operation, Callable[[], None]]]:
    """The live database's lock, and the journal's lines under a name of their own.

    Hands out the operation, and what raises ToolFailed when the lock was lost.
    """
    op = op.anew()
    with live_lock(op.site.main) as still_locked:
        recover(op)
        op.record("begin", what=what, source=source)
        try:
            yield op, still_locked
        except BaseException as error:
            facts: dict[str, Any] = {}
            with suppress(OSError):
                facts = operations_of(op.site, op.repository).get(op.id) or {}
                done = bool(facts.get("switched"))
                why = {} if done else {"error": _reason(error)}
                op.record("done" if done else "failed", what=what, **why)
            if isinstance(error, psycopg2.Error | OSError) or passes(error):
                fate = _fate(op, facts)
                raise ToolFailed(f"the {what} {fate}: {_reason(error)}") from error
            raise
        op.record("done", what=what)
        drop_older(op)


def _fate(op: Operation, facts: dict[str, Any]) -> str:
    """What became of an operation that an error ended, as the journal has it."""
    if facts.get("switched"):
        back = op.site.advise("back", ", and ")
        return f"is done{back}, but what comes after it was not"
    if not facts or not is_half_way(facts):
        return "failed, and the live site is untouched"
    return (
        "failed, and not even the server could say whether the live site was switched; "
        "the next command finishes that or turns it back"
    )


def _reason(error: BaseException) -> str:
    """What ended a restore, on one line."""
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return "it was stopped, by Ctrl-C or by a signal"
    filename = getattr(error, "filename", None)
    where = f" ({filename})" if filename else ""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) + where


@contextmanager
def _away(op: Operation, what: str) -> Iterator[_Waited]:
    """The site read-only, then away, and nobody at work in its databases.

    Reading goes on while long transactions come to their end; visitors wait only for
    the requests that are under way then. What does not end in time is named: workers
    and commands do not look at the maintenance key.
    """
    op.progress("switch")
    site, waited = op.site, _Waited()
    mine = own_backends(site.databases)
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    with ExitStack() as stack:
        connections = other_connections(site.databases, stack)
        to = stack.enter_context(keeper.held(what, f"{what}-{op.id}", op.warn))
        begun = time.monotonic()
        to(READ_ONLY)
        wait(connections, mine, "xact_start < now() - interval '1 s'", 1, PATIENCE)
        gone = time.monotonic()
        waited.read_only = gone - begun
        to(AWAY)
        for who in wait(connections, mine, "state <> 'idle'", _CALM, DRAIN):
            op.warn(f"still at work in the live databases, and ended: {who}")
        try:
            yield waited
        finally:
            waited.away = time.monotonic() - gone


def _restored(
    op: Operation,
    pairs: list[Pair],
    moves: list[Move],
    before: Counters,
    waited: _Waited,
) -> Restored:
    """What was done, and what was written to the databases that are replaced now."""
    databases = {
        pair.part: op.site.databases[pair.part].named(pair.undo)
        for pair in pairs
        if pair.live_oid
    }
    after: dict[str, Mapping[str, int]] = {}
    for part, database in databases.items():
        # every session of before has ended, and so has told all it wrote
        with suppress(psycopg2.Error, ConnectionFailed):  # the switch is done
            after[part] = writes.written(database)
    inside = {move.prefix: move.undo for move in moves}
    parts = [*(pair.part for pair in pairs), *(["files"] if moves else [])]
    replaced = Replaced(databases, inside)
    return Restored(
        op.id, parts, replaced, rows_written(before, after), **asdict(waited)
    )
