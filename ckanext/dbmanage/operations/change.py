"""One change of single things: what comes, what goes, and what is remembered of it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.errors import DbmanageError, Refused
from ..engine.operation import Operation
from ..engine.postgres import beside
from ..engine.postgres.database import closing
from ..engine.printable import one_line
from ..engine.restore import exchange
from ..engine.restore.exchange import STORE
from ..engine.restore.history import Exchange, operations_of
from ..engine.uploads import exchanged
from ..engine.uploads.folders import folder_of, folders_of
from ..engine.uploads.moves import Move
from ..engine.words import size
from .context import Portal, application
from .then import Then

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.bring import Bringing
    from ..records.thing import Thing


@dataclass(frozen=True)
class Brought:
    """What was done with each thing: (kind, id, name, "created" | "changed" | "gone").

    `what` is "restore", or "undo" or "redo" of one.
    """

    operation: str
    source: str
    what: str
    things: list[tuple[str, str, str, str]]


def going_of(
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


class Change:
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

    def refuse_taken(self, writing: Bringing, things: Iterable[Thing]) -> list[Thing]:
        """Refuses what others have now; those of the things that are records."""
        records = [each for each in things if each.record]
        if problems := writing.taken(records):
            raise Refused(f"nothing was changed: {'; '.join(problems)}")
        return records

    def refuse(self, writing: Bringing, id: str) -> None:
        """Refuses what others have now, and what lacks what it needs."""
        records = self.refuse_taken(writing, self._things)
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
            self._op.progress("switch")  # from here on a job is not cancelled
            exchange.exchange_all(self._op, plan, writing, locked)
        except BaseException:
            if not self._is_done():
                repository.mark("reindex", owed)
            raise
        self._datasets, self._owed = list(writing.datasets), owed
        for sentence in writing.warnings:
            self._op.warn(sentence)

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
