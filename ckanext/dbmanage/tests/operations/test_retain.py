"""What may be deleted by hand is decided under the repository's lock."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.clock import now, stamp
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.logic.status import pruned
from ckanext.dbmanage.operations import retain
from ckanext.dbmanage.operations.context import Portal

from ..support.shelf import NOON, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "backups")


@pytest.fixture
def portal(shelf: Shelf) -> Portal:
    """A site of which a whole backup has a database and files; nobody answers."""
    return shelf.portal(**{"ckanext.dbmanage.parts": "database files"})


def test_the_newest_whole_backup_goes_only_when_its_id_is_said(
    shelf: Shelf, portal: Portal
) -> None:
    oldest, whole, partly = (
        shelf.add(NOON - timedelta(days=days), uploads=uploads)
        for days, uploads in ((2, [b"a"]), (1, [b"a"]), (0, None))
    )
    for name in (partly, whole):
        with pytest.raises(Refused, match="it is the newest verified one") as raised:
            retain.forget(portal, [oldest, name], newest=[oldest])
        assert f"`ckan db forget --newest {name}`" in str(raised.value)
    assert shelf.ids() == [partly, whole, oldest]  # all of them, or none
    assert retain.forget(portal, [oldest]).forgotten == (oldest,)
    assert shelf.ids() == [partly, whole]
    last = shelf.repository.journal()[-1]
    assert (last.text("what"), last.operation, last.actor.user) == (
        "delete", oldest, "user-1",
    )  # fmt: skip
    retain.forget(portal, [whole], newest=[whole])
    assert shelf.ids() == [partly] and shelf.stored() == set()


def test_a_held_backup_stays(shelf: Shelf, portal: Portal) -> None:
    name = shelf.daily(2)[1]
    retain.keep(portal, name, kept=True)
    with pytest.raises(Refused, match="it is held"):
        retain.forget(portal, [name], newest=[name])
    retain.keep(portal, name, kept=False)
    retain.forget(portal, [name])
    said = [line.text("what") for line in shelf.repository.journal()]
    assert [*filter(None, said)] == ["keep", "release", "delete"]


def test_a_backup_is_forgotten_by_its_id_and_by_nothing_else(
    shelf: Shelf, portal: Portal
) -> None:
    ids = shelf.daily(2)
    for name in ("latest", "oldest"):
        with pytest.raises(Refused, match="by its id"):
            retain.look_at_forget(portal, [name])
    with pytest.raises(Refused, match="no backup"):
        retain.forget(portal, [ids[1], "20200101T000000Z"])
    assert shelf.ids() == ids
    # twice the same is once
    assert retain.forget(portal, [ids[1], ids[1]]).forgotten == (ids[1],)


def test_a_prune_notes_whether_anybody_began_it(shelf: Shelf, portal: Portal) -> None:
    journal = shelf.repository.journal
    assert pruned(journal()) is None
    for moment, by_itself in ((-40, True), (-1, False), (9000, True)):
        line = {"time": stamp(now() + timedelta(days=moment)), "event": "done"}
        line |= {"operation": "prune", "what": "prune", "by_itself": by_itself}
        shelf.repository._journal.record(line)
        assert pruned(journal()) is None
    shelf.repository.record("prune", "done", what="prune", by_itself=True)
    assert pruned(journal()) == journal()[-1].moment
