"""A clock that was wrong once does not poison what follows."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ckanext.dbmanage.engine.clock import SKEW, id_stamp, now, stamp
from ckanext.dbmanage.engine.repository.journal import Entry
from ckanext.dbmanage.engine.restore import history

from ...support.shelf import NOON, Shelf

AHEAD = datetime(2099, 12, 31, 23, 59, 59)


def test_one_of_the_future_is_the_newest_of_nothing(shelf: Shelf) -> None:
    future, older = shelf.add(AHEAD), shelf.add(AHEAD - timedelta(days=1))
    ids = shelf.daily(3)
    repository = shelf.repository
    assert repository.names() == [*ids, future, older]
    assert repository.find("latest").id == ids[0]
    assert repository.find("oldest").id == ids[2]
    assert [each.describe()["future"] for each in repository.backups()] == [
        False, False, False, True, True,
    ]  # fmt: skip


def test_with_a_clock_that_is_behind_now_there_is_a_latest_one_all_the_same(
    shelf: Shelf,
) -> None:
    future, older = shelf.add(AHEAD), shelf.add(AHEAD - timedelta(days=1))
    assert shelf.repository.find("latest").id == future
    assert shelf.repository.find("oldest").id == older


def test_the_next_backup_has_an_id_of_now_and_of_its_own(shelf: Shelf) -> None:
    warned: list[str] = []
    future = shelf.add(AHEAD)
    before = id_stamp()
    assert before <= shelf.repository.new_id(warned.append) <= id_stamp()
    assert future in warned[0] and "date in the future" in warned[0]
    # another host's clock is a little ahead: ids go up
    soon = now() + SKEW / 2
    newest = shelf.add(soon)
    following = shelf.repository.new_id()
    assert newest < following == id_stamp(soon + timedelta(seconds=1))
    # what is taken already is not taken again
    for second in range(3):
        shelf.add(soon + timedelta(seconds=second + 1))
    assert shelf.repository.new_id() not in shelf.ids()


def test_it_pushes_no_other_out_and_nothing_takes_it(shelf: Shelf) -> None:
    future = [shelf.add(AHEAD - timedelta(days=days)) for days in range(3)]
    ids = shelf.daily(3)
    decided = shelf.decide(last=2)
    for name in future:
        assert decided[name] == "its date is in the future: never touched"
    assert shelf.kept(last=2) == [*ids[:2], *future]
    assert shelf.prune(last=2).forgotten == (ids[2],)


def test_a_proof_of_the_future_is_as_old_as_its_backup(shelf: Shelf) -> None:
    found = shelf.repository.find(shelf.add(NOON))
    found.manifest["created"] = stamp(NOON)
    ahead = {"time": stamp(AHEAD), "problems": []}
    found.remember(proved=ahead, verified=ahead)
    about = found.describe()
    assert about["state"] == "proven"
    assert about["proved"] == about["verified"] == stamp(NOON)


def entry(operation: str, event: str, time: datetime, **fields: Any) -> Entry:
    return Entry(operation, event, stamp(time), fields=fields)


@pytest.mark.parametrize("ahead", [AHEAD, None])
def test_a_switch_of_the_future_can_be_too_old_to_undo(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, ahead: datetime | None
) -> None:
    old = now() - timedelta(days=20)
    switched = entry("a", "switched", ahead or old, parts=["files"])
    later = entry("b", "begin", old + timedelta(days=1))
    site: Any = SimpleNamespace(uploads={})

    def outlived(*entries: Entry) -> dict[str, list[str]]:
        monkeypatch.setattr(type(shelf.repository), "deeds", lambda _: entries)
        return history.outlived(site, shelf.repository, 7)

    # nobody knows how old it is, so it stays; what came after tells
    assert outlived(switched) == ({} if ahead else {"a": ["files"]})
    assert outlived(switched, later) == {"a": ["files"]}
    assert outlived(switched, entry("b", "begin", now())) == (
        {} if ahead else {"a": ["files"]}
    )
