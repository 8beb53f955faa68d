"""Any course of a repository: what its backups name is there, what none names goes."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from ckanext.dbmanage.engine.layout import LIST
from ckanext.dbmanage.engine.objects import add_objects, is_sound, stage_bytes
from ckanext.dbmanage.engine.repository import prune
from ckanext.dbmanage.engine.repository.retention import Decision

from ...support.anything import scratch
from ...support.shelf import NOON, Shelf
from ...support.uploads import listed

#: few contents: many backups name the same
_UPLOADS = st.lists(st.sampled_from([b"", b"a", b"bb", b"ccc"]), max_size=3)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Course(RuleBasedStateMachine):
    """A repository, and what must be in it: the uploads of each backup by its id."""

    backups = Bundle("backups")

    def __init__(self) -> None:
        super().__init__()
        self.directory = scratch()
        self.shelf = Shelf(Path(self.directory.name) / "backups")
        self.shelf.objects.mkdir()
        self.held: dict[str, list[bytes]] = {}
        self.broken = set[str]()
        self.made = 0

    def teardown(self) -> None:
        self.directory.cleanup()

    # -- what happens

    @rule(
        target=backups,
        uploads=_UPLOADS,
        state=st.sampled_from(["verified", "unverified"]),
    )
    def back_up(self, uploads: list[bytes], state: str) -> str:
        self.made += 1
        time = NOON + timedelta(hours=self.made)
        name = self.shelf.add(time, state, uploads=uploads)
        self.held[name] = uploads
        return name

    @rule(content=st.binary(max_size=4))
    def be_killed_before_the_backup_has_its_name(self, content: bytes) -> None:
        """Objects are moved first: some of them belong to nobody then."""
        with self.shelf.repository.partial("killed") as staged:
            stage_bytes(staged, _digest(content), content)
            stage_bytes(staged, _digest(content), content)
            add_objects(staged, self.shelf.objects)
        (self.shelf.path / ".20200101T000000Z.partial").mkdir(exist_ok=True)

    @rule(name=backups, keep=st.booleans())
    def hold(self, name: str, keep: bool) -> None:
        if name in self.held:
            self.shelf.repository.find(name).remember(keep=keep)

    @rule(name=backups)
    def be_killed_while_one_is_forgotten(self, name: str) -> None:
        """It is renamed, and then its state and its files go."""
        if self.held.pop(name, None) is not None:
            self.broken.discard(name)
            partial = self.shelf.path / f".{name}.partial"
            (self.shelf.path / name).rename(partial)

    @rule(name=consumes(backups))
    def forget(self, name: str) -> None:
        if name not in self.held:
            return
        del self.held[name]
        self.broken.discard(name)
        found = self.shelf.repository.find(name)
        with self.shelf.repository.lock("prune"):
            pruned = prune.prune_backups(
                self.shelf.repository, [Decision(found, True, "asked for")]
            )
        assert pruned.forgotten == (name,)
        self._pruned(pruned.objects.problem)

    @rule(last=st.integers(0, 3), least=st.integers(1, 3))
    def prune(self, last: int, least: int) -> None:
        with self.shelf.repository.lock("dry"):
            goes = {n for n, why in self.shelf.decide(last=last, min=least).items()
                    if why.startswith("-")}  # fmt: skip
            unnamed = prune.unnamed_objects(self.shelf.repository, goes)
        pruned = self.shelf.prune(last=last, min=least)
        assert {*pruned.forgotten} == goes and pruned.objects == unnamed
        for name in goes:
            del self.held[name]
            self.broken.discard(name)
        self._pruned(pruned.objects.problem)

    @rule(name=backups, how=st.sampled_from(["gone", "cut", "manifest"]))
    def lose_a_list(self, name: str, how: str) -> None:
        """What it names nobody knows then: no object may go."""
        if name not in self.held or name in self.broken:
            return
        self.broken.add(name)
        path = self.shelf.path / name / ("manifest.json" if how == "manifest" else LIST)
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-9])

    def _pruned(self, problem: str) -> None:
        stored = {path.name for path in self.shelf.objects.rglob("?" * 64)}
        named = {_digest(each) for held in self.held.values() for each in held}
        assert bool(problem) == bool(self.broken)
        assert named == stored or (self.broken and named <= stored)
        assert not list(self.shelf.path.glob(".*.partial"))

    # -- what always holds

    @invariant()
    def each_backup_has_what_it_names(self) -> None:
        assert {*self.shelf.ids()} == self.held.keys()
        for name, uploads in self.held.items():
            assert all(is_sound(self.shelf.objects, _digest(each)) for each in uploads)
            if name not in self.broken:
                lines = [
                    each for each in listed(self.shelf.path / name) if "sha256" in each
                ]
                assert [each["sha256"] for each in lines] == [*map(_digest, uploads)]
                assert json.dumps(self.shelf.repository.find(name).describe())


TestAnyCourse = Course.TestCase
TestAnyCourse.settings = settings(
    stateful_step_count=20, max_examples=settings().max_examples // 2
)
