"""Folders that a link leads to: left out loudly, and never taken away untold."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from ckanext.dbmanage.engine import report
from ckanext.dbmanage.engine.repository import backup, retention
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore import proof
from ckanext.dbmanage.engine.restore.preflight import links_lost
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.engine.uploads import capture
from ckanext.dbmanage.engine.uploads.folders import folders_of
from ckanext.dbmanage.logic.status import read_status
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.operations.context import open_site
from ckanext.dbmanage.portal.site import build_site

from ...support.portal import UPLOADS, Portal


@pytest.fixture
def linked(portal: Portal) -> Portal:
    """`resources` moved to a disk of somebody else, a link in its place."""
    other = portal.directory / "other"
    (portal.storage / "resources").rename(other)
    os.chown(other, 1234, 1234)
    (portal.storage / "resources").symlink_to(other)
    return portal


def test_a_folder_that_is_left_out_ends_with_an_error(linked: Portal) -> None:
    done = linked.module("backup", code=1)
    name = done.stdout.strip()
    said = done.stderr.strip().splitlines()[-1]
    assert f"backup {name} was taken, but is not complete: 1 folders" in said
    assert f"the {UPLOADS} files behind it are not included" in said
    assert "mount --bind" in said
    site, repository = open_site(context.Portal(linked.settings, report.Silent()))
    taken = repository.find(name)
    about = taken.files
    assert (about["folders"], about["behind"], about["missing"]) == (1, UPLOADS, 0)
    # no rule of retention takes it for one that could replace a complete one
    policy = {"last": 1, "days": 0, "weeks": 0, "months": 0, "min": 1}
    (decision,) = retention.decide([taken], policy)
    assert not decision.forget and "left out: counts for no rule" in decision.reason
    # nor is it proven
    record = {"problems": []}
    with closing(site.databases["database"].connect()) as connection:
        proof._uploads(site, taken, connection, record, lambda _: None)
        connection.rollback()
    assert len(record["problems"]) == UPLOADS
    assert "left out" in linked.module("backups", name).stdout
    # and the page does not call the portal protected by it
    status = read_status(site, repository, linked.settings)
    assert status["count"] == 1 and status["newest"] is None
    assert status["state"] == "lacking"


def test_a_restore_tells_of_the_links_it_takes_away(portal: Portal) -> None:
    portal.backup()
    other = portal.directory / "other"
    inner = portal.storage / "resources" / "upl"
    inner.rename(other)
    inner.symlink_to(other)
    site = build_site(portal.settings)
    repository = Repository(site.repository, site.secrets)
    source = open_source(site, repository, "latest", parts=("files",))
    (said,) = links_lost(site, repository, source)
    assert "'resources/upl'" in said and f"ln -s {other} {inner}" in said
    # and one in the place of a whole folder
    moved = portal.directory / "moved"
    (portal.storage / "resources").rename(moved)
    os.chown(moved, 1234, 1234)
    (portal.storage / "resources").symlink_to(moved)
    (said,) = links_lost(site, repository, source)
    assert "'resources'" in said and f"ln -s {moved}" in said
    done = portal.db("restore", "latest", "--only", "files", "--yes", "--no-backup")
    assert said in " ".join(done.stderr.split())
    assert not (portal.storage / "resources").is_symlink()
    assert not list(portal.storage.glob("*.aside*"))
    portal.module("undo", "--yes")
    assert (portal.storage / "resources").readlink() == moved


def test_what_is_beside_the_repository_is_told_too(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    repository = storage / "resources" / "backups"
    (repository / "objects").mkdir(parents=True)
    (repository / "objects" / "own").write_text("")
    among = folders_of({"": str(storage)}, repository)
    staged = tmp_path / "staged"
    staged.mkdir()

    def take(name: str) -> capture.Taken:
        return capture.take(among, repository / "objects", tmp_path / name, staged)[0]

    assert not backup.why_partial(vars(take("a")))
    (storage / "resources" / "upload").write_text("x")
    taken = take("b")
    assert (taken.folders, taken.behind) == (1, 1)
    assert "holds the repository of backups" in backup.why_partial(vars(taken))


def test_an_upload_that_is_a_link_is_left_out_and_not_missing(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    (tmp_path / "content").write_text("x")
    (storage / "a").symlink_to(tmp_path / "content")
    (storage / "b").symlink_to(tmp_path / "nothing")
    staged = tmp_path / "staged"
    staged.mkdir()
    among = folders_of({"": str(storage)}, tmp_path / "repository")
    taken, listed = capture.take(
        among, tmp_path / "objects", tmp_path / "list", staged, named=["a", "b"]
    )
    assert (taken.linked, taken.refused, taken.missing) == (1, 2, 1)
    assert backup.why_partial(vars(taken))
    assert [line["path"] for line in listed.lines() if "missing" in line] == ["b"]
