"""One thing of a backup comes back, while the rest of the portal stays as it is.

And goes again: an undo is the same with what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.errors import DbmanageError, Refused, ToolFailed
from ..engine.operation import Operation
from ..engine.postgres import beside
from ..engine.postgres.locks import live_lock
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from ..engine.restore import exchange
from ..engine.restore.exchange import STORE
from ..engine.restore.history import UNDO, is_half_way, last_switch, operations_of
from ..engine.site import Site
from ..engine.words import listed
from ..portal import signals
from .change import Brought, Change, going_of
from .context import Portal, application
from .journal import TOLD, reason
from .locked import locked
from .then import Then, open_then, then

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.thing import Thing


@dataclass(frozen=True)
class Selection:
    """What is to come back: things of one kind, by their names or ids.

    `kind` is dataset, organization, group, user, table (names are ids of resources) or
    upload (names are paths, as in a backup's list). `as_name` is another name for it.
    """

    kind: str
    names: tuple[str, ...]
    with_datasets: bool = False
    as_name: str = ""


@signals.failures("restore")
def bring_back(
    portal: Portal, id: str, selection: Selection, *, trust: bool = False
) -> Brought:
    """Brings things of a backup back, all or nothing; `undo` takes that back.

    Raises Refused, Busy, Untrusted, Damaged, ConnectionFailed, ToolFailed.
    """
    kind, names = selection.kind, selection.names
    with locked(portal, "restore", heads=True) as (site, repository):
        source = open_then(site, repository, id, kind, trust, portal.talk)
        op = Operation(site, repository, portal.talk)
        with then(portal, op, source, kind, names, selection.with_datasets) as found:
            for sentence in found.lacking:
                portal.talk.warn(sentence)
            return put_back(portal, site, repository, found, id, selection.as_name)


def put_back(
    portal: Portal,
    site: Site,
    repository: Repository,
    found: Then,
    id: str,
    as_name: str = "",
) -> Brought:
    """Puts things of a backup, whose id is for messages, back: all or nothing.

    The caller holds the repository's lock. Raises Refused, Busy, Damaged, ToolFailed.
    """
    things = list(found.things)
    if as_name:
        if sum(each.kind == things[0].kind for each in things) > 1:
            raise Refused("--as gives one thing another name, and these are several")
        things[0] = replace(things[0], name=as_name)
    op = Operation(site, repository, portal.talk).anew()
    change = Change(portal, op, things)
    with _journalled(op, "restore", found.source, things) as still_locked:
        with application(portal), change.writing() as writing:
            change.refuse(writing, id)
        plan = exchange.planned(op, [(e.kind, e.id, e.name) for e in things])
        tables = [name for each in things for name in each.tables]
        plan = change.with_places(plan)
        with exchange.staged(op, plan):
            if tables and found.store:
                beside.refuse_no_right(site.databases[STORE])
                exchange.make_schema(op, plan)
                beside.lay_down(
                    found.store, site.databases[STORE], tables, plan.scratch,
                    site.pg_bin,
                )  # fmt: skip
            change.lay_down(plan, found)
            with application(portal), change.writing() as writing:
                change.refuse(writing, id)
                before = writing.before([(each.kind, each.id) for each in things])
                if as_name and before[0] and before[0].record["state"] == "active":
                    raise Refused(
                        f"the {things[0].kind} is there, as "
                        f"{one_line(before[0].name)!r}: without --as it is put back to "
                        "what it was"
                    )
                going, paths = going_of(things, before, found.uploads)
                op.progress("write")
                for thing in things:
                    if thing.record:
                        writing.put(thing)
                change.end(
                    writing, plan, before, going, paths, found.uploads, still_locked
                )
    return change.done("restore", found.source, before)


def undo_thing(
    portal: Portal, site: Site, repository: Repository, operation: str
) -> Brought:
    """Takes back what `operation` did, the last of all; that can be undone again.

    The caller holds the repository's lock. Raises as `put_back`.
    """
    from ..records.thing import Thing

    last = last_switch(site, repository) or {}
    what, source = last.get("way") or UNDO, last.get("source") or "a backup"
    memory = repository.recall(exchange.kept(operation))
    if not memory:
        raise Refused(
            "what was there before is not known any more: its file in "
            f"{repository.path} is gone, or not signed with this site's secret"
        )
    entries = [
        (Thing.from_json(each["now"]), each["was"] and Thing.from_json(each["was"]))
        for each in reversed(memory["things"])
    ]
    op = Operation(site, repository, portal.talk).anew()
    things = [was or now for now, was in entries]
    change = Change(portal, op, things)
    with _journalled(op, what, source, things) as still_locked:
        facts = [(each.kind, each.id, each.name) for each in things]
        plan = exchange.turned(op, operation, facts)
        with (
            exchange.staged(op, plan),
            application(portal),
            change.writing() as writing,
        ):
            change.refuse_taken(writing, [was for _, was in entries if was])
            before = writing.before([(each.kind, each.id) for each in things])
            op.progress("write")
            for now, was in entries:
                if was is not None and was.record:
                    writing.put(was)
                elif was is None and now.record:
                    writing.remove(now)
            change.end_undo(writing, plan, before, memory["had"], still_locked)
    gone = {now.id for now, was in entries if was is None and now.record}
    return change.done(what, source, before, gone)


@contextmanager
def _journalled(
    op: Operation, what: str, source: str, things: Sequence[Thing]
) -> Iterator[Callable[[], None]]:
    """The live database's lock, and the journal's lines."""
    names = listed([f"{each.kind} {one_line(each.name)}" for each in things[:5]])
    if len(things) > 5:
        names = f"{things[0].kind} {one_line(things[0].name)}, {len(things)} in all"
    with live_lock(op.site.main) as still_locked:
        op.record("begin", what=what, source=source, things=names)
        try:
            yield still_locked
        except BaseException as error:
            fate, half = "failed, and nothing of it is there", False
            with suppress(OSError):
                facts = operations_of(op.site, op.repository)[op.id]
                if half := is_half_way(facts):
                    fate = "is half-way; the next command finishes it or turns it back"
                done = bool(facts["exchanged"])
                if done:
                    fate = "is done, but what comes after it was not"
                why = {} if done else {"error": reason(error)}
                if not half:
                    op.record("done" if done else "failed", what=what, **why)
            told = isinstance(error, TOLD)
            if told and (half or not isinstance(error, DbmanageError)):
                raise ToolFailed(f"the {what} {fate}: {reason(error)}") from error
            raise
        op.record("done", what=what)
