"""One thing of a backup comes back, while the rest of the portal stays as it is.

And goes again: an undo is the same with what was there before.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.errors import DbmanageError, Refused
from ..engine.operation import Operation
from ..engine.postgres import beside
from ..engine.postgres.database import closing
from ..engine.postgres.locks import live_lock
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from ..engine.restore import exchange
from ..engine.restore.exchange import STORE
from ..engine.restore.history import UNDO, Exchange, last_switch, operations_of
from ..engine.site import Site
from ..engine.uploads import exchanged
from ..engine.uploads.folders import folder_of, folders_of
from ..engine.uploads.moves import Move
from ..engine.words import listed, size
from ..portal import signals
from .context import Portal, application
from .journal import reason
from .locked import locked
from .then import Then, open_then, then

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.bring import Bringing
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


@dataclass(frozen=True)
class Brought:
    """What was done with each thing: (kind, id, name, "created" | "changed" | "gone").

    `what` is "restore", or "undo" or "redo" of one.
    """

    operation: str
    source: str
    what: str
    things: list[tuple[str, str, str, str]]


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
    change = _Change(portal, op, things)
    with _journalled(op, "restore", found.source, things) as still_locked:
        with application(portal), change.writing() as writing:
            change.refuse(writing, id)
        plan = exchange.planned(op, [(e.kind, e.id, e.name) for e in things])
        tables = [name for each in things for name in each.tables]
        plan = change.with_places(plan)
        with exchange.staged(op, plan):
            if tables and found.store:
                beside.refuse_no_right(site.databases[STORE])
                op.progress("load datastore")
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
                going, paths = _going(things, before, found.uploads)
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
    change = _Change(portal, op, things)
    with _journalled(op, what, source, things) as still_locked:
        facts = [(each.kind, each.id, each.name) for each in things]
        plan = exchange.turned(op, operation, facts)
        with (
            exchange.staged(op, plan),
            application(portal),
            change.writing() as writing,
        ):
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
            facts = operations_of(op.site, op.repository).get(op.id) or {}
            done = bool(facts.get("exchanged"))
            why = {} if done else {"error": reason(error)}
            op.record("done" if done else "failed", what=what, **why)
            raise
        op.record("done", what=what)


def _going(
    things: Sequence[Thing],
    before: Sequence[Thing | None],
    held: Iterable[str],
) -> tuple[set[str], set[str]]:
    """Tables and uploads of now that go: those of before, but what is only lacking.

    What a thing had then, and the backup does not hold, stays as it is now.
    """
    tables, uploads = set[str](), set(held)
    for thing, was in zip(things, before, strict=True):
        tables |= {*thing.tables}
        resources = thing.record.get("resources", ())
        tables |= {e["id"] for e in resources if not e.get("datastore_active")}
        if was is not None:
            now = {each["id"] for each in was.record.get("resources", ())}
            tables |= now - {each["id"] for each in resources}
            uploads |= {*was.uploads} - {*thing.uploads}
    return tables, uploads


class _Change:
    """One change of things, and what is known of it."""

    def __init__(self, portal: Portal, op: Operation, things: list[Thing]) -> None:
        self._portal, self._op, self._things = portal, op, things
        self._among = folders_of(op.site.uploads, op.repository.path)
        self._told: list[str] = []
        self._datasets: list[str] = []
        self._owed = False

    def writing(self) -> AbstractContextManager[Bringing]:
        """A transaction of CKAN's session."""
        from ..records.bring import bringing

        return bringing(self._portal.options, self._tables_there)

    def _tables_there(self, names: Sequence[str]) -> list[str]:
        store = self._op.site.databases.get(STORE)
        if store is None:
            return []
        with closing(store.connect()) as connection:
            return beside.existing(connection, names)

    def refuse(self, writing: Bringing, id: str) -> None:
        """Refuses what others have now, and what lacks what it needs."""
        records = [each for each in self._things if each.record]
        if problems := writing.taken(records):
            raise Refused(f"nothing was changed: {'; '.join(problems)}")
        for thing, (kind, other, name) in writing.missing(records):
            what = f"the {thing.kind} {one_line(thing.name)!r}"
            option = f"`ckan db restore {id} --{kind} {shlex.quote(one_line(name))}`"
            if kind == "user":
                sentence = (
                    f"{what} has to do with the user {one_line(name)!r}, who is not "
                    f"there any more: {option} brings that one back"
                )
                if sentence not in self._told:
                    self._told.append(sentence)
                    self._op.warn(sentence)
            elif thing.record.get("state") != "deleted" and thing.kind != "user":
                raise Refused(
                    f"nothing was changed: {what} needs the {kind} "
                    f"{one_line(name)!r} (id {one_line(other)}), which is not there "
                    f"any more. First bring that back: {option}"
                )
        if gone := writing.without_resource(
            [each.id for each in self._things if not each.record and each.tables]
        ):
            raise Refused(
                f"nothing was changed: there is no resource {one_line(gone[0])!r} any "
                f"more. Its dataset brings it along: `ckan db restore {id} --dataset "
                "NAME`"
            )

    def with_places(self, plan: Exchange) -> Exchange:
        """The plan with the places in which things may be laid down."""
        moves = tuple(
            Move(str(f.path), f.prefix, f".{plan.scratch}", f".{plan.undo}", plan.token)
            for f in self._among
        )
        oid = exchange.store_oid(self._op) if STORE in self._op.site.databases else 0
        return replace(plan, moves=moves, store_oid=oid)

    def lay_down(self, plan: Exchange, found: Then) -> None:
        """Lays the uploads down beside the live ones. Raises Refused, Damaged."""
        expected = sum(facts["size"] for facts in found.uploads.values())
        done, room = 0, dict[int, int]()
        for name, facts in found.uploads.items():
            folder, _ = folder_of(name, self._among)
            device = folder.path.stat().st_dev
            room.setdefault(device, shutil.disk_usage(folder.path).free)
            room[device] -= facts["size"]
            if room[device] < 0:
                raise Refused(
                    f"the uploads need {size(expected)} beside the live ones in "
                    f"{folder.path}, and there is not so much room"
                )
        for name, facts in found.uploads.items():
            folder, rest = folder_of(name, self._among)
            move = next(m for m in plan.moves if m.path == str(folder.path))
            with found.open_upload(name) as content:
                exchanged.lay_down(move, rest, facts, content)
            done += facts["size"]
            self._op.progress("uploads", done, expected)

    def end(
        self,
        writing: Bringing,
        plan: Exchange,
        before: list[Thing | None],
        tables: set[str],
        paths: set[str],
        held: Iterable[str],
        locked: Callable[[], None],
    ) -> None:
        """Ends the change: what was laid down comes, what is there goes."""
        coming = {name for each in self._things for name in each.tables}
        had = self._tables_there(sorted(tables))
        if not (coming or had):
            plan, tables = replace(plan, store_oid=0), set()
        ids = {
            each["id"]
            for thing in self._things
            for each in thing.record.get("resources", ())
        }
        there = {*self._tables_there(sorted(ids - tables)), *coming}
        writing.flag_tables({id: id in there for id in ids | tables})
        moves, new = list[Move](), {*held}
        for move in plan.moves:
            rests = {path: self._rest(move, path) for path in sorted(paths)}
            own = {path: rest for path, rest in rests.items() if rest}
            old = [rest for rest in own.values() if exchanged.is_there(move, rest)]
            come = [rest for path, rest in own.items() if path in new]
            if old or come:
                moves.append(replace(move, old=old, new=come))
        plan = replace(plan, tables=tuple(sorted(tables)), moves=tuple(moves))
        self._finish(writing, plan, before, had, locked)

    def _rest(self, move: Move, path: str) -> str:
        folder, rest = folder_of(path, self._among)
        return rest if str(folder.path) == move.path else ""

    def end_undo(
        self,
        writing: Bringing,
        plan: Exchange,
        before: list[Thing | None],
        had: list[str],
        locked: Callable[[], None],
    ) -> None:
        """The same of an undo, whose tables and uploads stand where they went."""
        now = self._tables_there(plan.tables)
        writing.flag_tables({id: id in had for id in plan.tables})
        moves = []
        for move in plan.moves:
            old = {path for path in move.old if exchanged.is_there(move, path)}
            # whoever saved one since has put it in the way of one that comes back
            old |= {path for path in move.new if exchanged.is_there(move, path)}
            moves.append(replace(move, old=sorted(old)))
        self._finish(writing, replace(plan, moves=tuple(moves)), before, now, locked)

    def _finish(
        self,
        writing: Bringing,
        plan: Exchange,
        before: list[Thing | None],
        had: list[str],
        locked: Callable[[], None],
    ) -> None:
        repository, owed = self._op.repository, self._op.repository.marked("reindex")
        facts = {
            "things": [
                {"now": thing.as_json(), "was": was and was.as_json()}
                for thing, was in zip(self._things, before, strict=True)
            ],
            "had": had,
        }
        repository.memorize(exchange.kept(self._op.id), facts)
        if writing.datasets:
            repository.mark("reindex", True)
        try:
            exchange.exchange_all(self._op, plan, writing, locked)
        except BaseException:
            if not self._is_done():
                repository.mark("reindex", owed)
            raise
        self._datasets, self._owed = list(writing.datasets), owed

    def _is_done(self) -> bool:
        facts = operations_of(self._op.site, self._op.repository)[self._op.id]
        return facts["exchanged"] is not False

    def done(
        self,
        what: str,
        source: str,
        before: Sequence[Thing | None],
        gone: Iterable[str] = (),
    ) -> Brought:
        """Brings the index up to date, and says what was done."""
        self._index()
        fates = [
            "gone" if each.id in gone
            else "changed" if was is not None or not each.record else "created"
            for each, was in zip(self._things, before, strict=True)
        ]  # fmt: skip
        return Brought(
            self._op.id, source, what,
            [
                (each.kind, each.id, each.name, fate)
                for each, fate in zip(self._things, fates, strict=True)
            ],
        )  # fmt: skip

    def _index(self) -> None:
        if not self._datasets:
            return
        from ..records.reindex import reindex_these

        talk, repository = self._portal.talk, self._op.repository
        try:
            with application(self._portal):
                done = reindex_these(self._portal.options, self._datasets)
        except DbmanageError as error:
            talk.warn(
                f"{error}. It is done all the same; searches show the old state until "
                "the next `ckan db` command that changes something, or `ckan db "
                "reindex --changed`"
            )
            return
        for dataset, why in done.failed.items():
            talk.warn(f"not indexed: dataset {dataset}: {why}")
        repository.mark("reindex", self._owed)
