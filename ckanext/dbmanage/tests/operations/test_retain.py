"""What may be deleted by hand is decided under the repository's lock."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations import retain
from ckanext.dbmanage.operations.context import Portal
from ckanext.dbmanage.portal.config import Options

from ..support.shelf import NOON, SECRET, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "backups")


@pytest.fixture
def portal(shelf: Shelf, tmp_path: Path) -> Portal:
    """A site of which a whole backup has a database and files; nobody answers."""
    settings = {
        "SECRET_KEY": SECRET, "ckan.storage_path": str(tmp_path),
        "sqlalchemy.url": f"postgresql://a@127.0.0.1:9/{secrets.token_hex(4)}",
        "ckanext.dbmanage.repository": str(shelf.path),
        "ckanext.dbmanage.parts": "database files",
    }  # fmt: skip
    return Portal(Options(settings), Silent(), actor={"user": "user-1"})


def test_the_newest_whole_backup_stays(shelf: Shelf, portal: Portal) -> None:
    oldest, whole, partly = (
        shelf.add(NOON - timedelta(days=days), uploads=uploads)
        for days, uploads in ((2, [b"a"]), (1, [b"a"]), (0, None))
    )
    for name in (partly, whole):
        with pytest.raises(Refused, match="it is the newest verified one"):
            retain.delete(portal, name)
    assert retain.delete(portal, oldest).id == oldest
    assert shelf.ids() == [partly, whole]
    last = shelf.repository.journal()[-1]
    assert (last.text("what"), last.operation, last.actor.user) == (
        "delete", oldest, "user-1",
    )  # fmt: skip


def test_a_held_backup_stays(shelf: Shelf, portal: Portal) -> None:
    name = shelf.daily(2)[1]
    retain.keep(portal, name, kept=True)
    with pytest.raises(Refused, match="it is held"):
        retain.delete(portal, name)
    retain.keep(portal, name, kept=False)
    retain.delete(portal, name)
    said = [line.text("what") for line in shelf.repository.journal()]
    assert [*filter(None, said)] == ["keep", "release", "delete"]
