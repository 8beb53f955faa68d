"""A restore is undone, and so is the undo."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.engine.restore.history import (
    REDO,
    UNDO,
    Pair,
    half_way,
    last_switch,
)
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.operations.restore import last_to_undo

from ...support.cluster import query
from ...support.portal import Portal, as_role


@pytest.mark.smoke
def test_a_restore_is_undone_and_the_undo_too(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    portal.damage()
    damaged = portal.state()
    assert "nothing to undo" in portal.module("undo", "--yes", code=1).stderr
    portal.module("restore", "latest", "--yes", "--no-backup")
    site, repository = portal.engine()
    back = "redone: database, DataStore and uploads come from backup"
    for wanted, way, said in (
        (
            damaged,
            UNDO,
            "undone: database, DataStore and uploads are what they were before",
        ),
        (before, REDO, back),
        (damaged, UNDO, "undone: database"),
    ):
        last = last_switch(site, repository)
        assert last and (last["way"], last["of"]) == (way, "restore")
        assert last["source"].startswith("backup 2")
        done = portal.module("undo", "--yes")
        assert portal.state() == wanted
        assert said in done.stdout
        noted = [e.text("what") for e in repository.journal() if e.event == "done"]
        assert noted[-1] == way
    # one generation, however often
    ours = portal.copies()
    assert len(ours) == 2 and all(name.endswith("_undo") for name in ours)
    assert len(list(portal.storage.glob(".dbm_*"))) == 1
    assert "--yes" in portal.module("undo", code=2).stderr


def test_an_undo_without_the_right_says_what_a_restore_says(
    portal: Portal, role: Callable[..., str]
) -> None:
    plain = role("dbm_plain", "CREATEDB IN ROLE ckan_default")
    as_role(portal, plain)
    portal.backup("--only", "database")
    portal.module("restore", "latest", "--yes", "--no-backup")
    query(f"ALTER ROLE {plain} NOCREATEDB")
    live = portal.oids()
    done = portal.module("undo", "--yes", code=1)
    assert f"ALTER ROLE {plain} CREATEDB;" in done.stderr
    assert "admin_url" in done.stderr and portal.oids() == live
    # before it asks, and before it is armed
    page = context.Portal(portal.settings, Silent())
    with pytest.raises(Refused, match=f"ALTER ROLE {plain} CREATEDB;"):
        last_to_undo(page)
    done = portal.module("arm", "undo", code=1)
    assert f"ALTER ROLE {plain} CREATEDB;" in done.stderr
    query(f"ALTER ROLE {plain} CREATEDB")
    portal.module("undo", "--yes")


def test_what_undo_would_need_is_gone(portal: Portal) -> None:
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    portal.write(**{"ckanext.dbmanage.undo_days": "0"})
    time.sleep(1.1)
    done = portal.module("prune", "--dry-run")
    assert "would be dropped: too old to undo" in done.stdout
    assert len(list(portal.storage.glob(".dbm_*_undo"))) == 1
    portal.module("prune")
    assert not list(portal.storage.glob(".dbm_*"))
    assert not portal.copies()
    done = portal.module("undo", "--yes", code=1)
    assert "is gone: it was dropped" in done.stderr and "Traceback" not in done.stderr


def test_directories_that_look_like_ours_survive(portal: Portal) -> None:
    portal.backup()
    for name in (".dbm_00000000_undo", ".dbm_11111111_scratch"):
        (portal.storage / name).mkdir()
        (portal.storage / name / "theirs").write_text("theirs")
    _, repository = portal.engine()
    move = {"path": str(portal.storage), "prefix": "", "token": "t", "old": [], "new": [],
            "scratch": ".dbm_11111111_scratch", "undo": ".dbm_00000000_undo"}  # fmt: skip
    old = {"parts": ["files"], "time": "2001-01-01T00:00:00Z"}
    repository.record("odd", "stage", moves=[move])
    repository.record("odd", "switch", pairs=[], moves=[move])
    repository.record("odd", "switched", **old)
    repository.record("odd", "switched")
    repository.record("odd", "create", pair={"part": "database"})
    portal.module("restore", "latest", "--yes", "--no-backup")
    portal.module("prune")
    for name in (".dbm_00000000_undo", ".dbm_11111111_scratch"):
        assert (portal.storage / name / "theirs").read_text() == "theirs"


def test_an_undo_asks_when_it_is_known_what_is_the_last(portal: Portal) -> None:
    site, repository = portal.engine()
    page = context.Portal(portal.settings, Silent())
    name = portal.names["database"]
    pair = Pair(
        "database", name, "dbm_00000000_scratch", "dbm_00000000_undo", "0" * 32,
        site.id, portal.oids()[0], 1,
    )  # fmt: skip
    repository.record("ended", "switch", pairs=[asdict(pair)], moves=[])
    assert half_way(site, repository) == ["ended"]
    with pytest.raises(Refused, match="nothing to undo"):
        last_to_undo(page)
    assert half_way(site, repository) == []
