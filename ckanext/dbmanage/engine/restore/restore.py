"""Restore and undo: the order of their steps."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import psycopg2

from ..backup.take import Replaced
from ..errors import ConnectionFailed, ToolFailed
from ..postgres import writes
from ..postgres.locks import live_lock
from ..postgres.sessions import DRAIN, PATIENCE, other_connections, own_backends, wait
from ..redis.maintenance import AWAY, READ_ONLY, Maintenance
from ..report import Progress, Warn
from ..repository.repository import Repository
from ..site import Site
from ..uploads.folders import folders_of
from ..uploads.moves import Move
from ..uploads.staging import stage
from . import switch
from .completed import stays_behind
from .copies import Prepare, loaded_copies, told_outdated
from .history import Pair, planned_moves, undoable
from .properties import copy_properties
from .recover import recover
from .scratch import drop_older, staged
from .source import Source
from .written import Counters, Since, counters, more_rows, refuse_written

#: a request that was let in before the key was set may not have begun its transaction
_CALM = 5


@contextmanager
def away(site: Site, reason: str, reference: str, warn: Warn) -> Iterator[None]:
    """The site read-only, then away, and nobody at work in its databases.

    Reading goes on while long transactions come to their end; visitors wait only for
    the requests that are under way then. What does not end in time is named: workers
    and commands do not look at the maintenance key.
    """
    mine = own_backends(site.databases)
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    with ExitStack() as stack:
        connections = other_connections(site.databases, stack)
        to = stack.enter_context(keeper.held(reason, reference, warn))
        to(READ_ONLY)
        wait(connections, mine, "xact_start < now() - interval '1 s'", 1, PATIENCE)
        to(AWAY)
        for who in wait(connections, mine, "state <> 'idle'", _CALM, DRAIN):
            warn(f"still at work in the live databases, and ended: {who}")
        yield


#: links that are told by name
_SHOWN = 10


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


def restore_backup(
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
            loaded_copies(
                site, repository, source, operation, prepare, progress, warn
            ) as scratches,
            ExitStack() as stack,
        ):
            among = folders_of(site.uploads, repository.path)
            laid: list[Move] = []
            if source.uploads and source.backup:
                laid = stack.enter_context(staged(site, repository, operation, among))
                objects, size = source.backup.objects, source.backup.files["bytes"]
                stage(source.uploads, objects, among, laid, progress, size)
            for scratch in scratches.values():
                copy_properties(scratch, warn)
                for sentence in stays_behind(scratch.live):
                    warn(sentence)
            pairs = [scratch.pair for scratch in scratches.values()]
            with _away(site, what, operation, progress, warn):
                written = refuse_written(site, since, pairs) if since else {}
                planned = planned_moves(site, repository, laid)
                held()
                switch.switch(site, repository, operation, pairs, planned, written)
        done = _done(site, repository, operation, pairs, laid, before, warn)
    # with `since` nothing was, but for what reading itself writes
    return replace(done, source=source.name, written={} if since else done.written)


def undo_switch(
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
        pairs, moves = undoable(site, repository)
        before = counters(site, [pair.part for pair in pairs])
        with _away(site, "restore", operation, progress, warn):
            planned = planned_moves(site, repository, moves)
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
    with live_lock(site.main) as held:
        recover(site, repository, warn)
        repository.record(operation, "begin", what=what, source=source)
        try:
            yield operation, held
        except BaseException as error:
            with suppress(OSError):
                repository.record(
                    operation, "failed", what=what, error=told_outdated(error)
                )
            if isinstance(error, (psycopg2.Error, OSError)):
                raise ToolFailed(
                    f"the {what} failed and all that is live is as it was: "
                    + told_outdated(error)
                ) from error
            raise
        repository.record(operation, "done", what=what)
        drop_older(site, repository, operation, warn)


@contextmanager
def _away(
    site: Site, what: str, operation: str, progress: Progress, warn: Warn
) -> Iterator[None]:
    progress("switch", 0, 0)
    with away(site, what, f"{what}-{operation}", warn):
        yield


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
    written = more_rows(before, after)
    inside = {move.prefix: move.undo for move in moves}
    parts = [*(pair.part for pair in pairs), *(["files"] if moves else [])]
    return Restored(operation, parts, Replaced(databases, inside), written)
