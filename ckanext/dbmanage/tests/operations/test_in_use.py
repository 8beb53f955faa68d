"""A repository that was in use and is empty now, as where its disk is not mounted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.redis.client import connect, key_of
from ckanext.dbmanage.operations.context import find_site
from ckanext.dbmanage.operations.in_use import remember, why_empty
from ckanext.dbmanage.operations.notify import troubles
from ckanext.dbmanage.operations.watched import look

from ..support.offsite import set_remote
from ..support.portal import Portal, refused
from ..support.watched import WatchedSite


@pytest.fixture
def watched(tmp_path: Path) -> WatchedSite:
    return WatchedSite(tmp_path)


class Known:
    """What is remembered of a site, and what becomes of its repository."""

    def __init__(self, watched: WatchedSite) -> None:
        self.options, self.path = watched.portal.options, watched.shelf.path
        self.repository = watched.shelf.repository
        self.site = find_site(watched.portal)[0]
        self.file = self.path.parent / "dbmanage/in-use.json"
        self.key = key_of(self.site.main.url, "in-use")

    def forget_in_redis(self) -> None:
        connect(self.site.redis_url).delete(self.key)

    def empty(self) -> None:
        shutil.rmtree(self.path)
        self.path.mkdir()

    def why(self) -> str:
        return why_empty(self.options, self.site, self.repository)


@pytest.fixture
def known(watched: WatchedSite) -> Known:
    watched.add(1)
    made = Known(watched)
    remember(made.options, made.site, made.repository)
    return made


def test_nothing_is_written_where_a_disk_is_away(
    portal: Portal, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    portal.repository = disk / "backups"
    portal.write(**{"ckanext.dbmanage.repository": str(portal.repository)})
    set_remote(portal, str(tmp_path / "there"))
    portal.backup()
    away = disk.rename(tmp_path / "away")
    disk.mkdir()
    said = refused(portal, "backup")
    assert f"the repository {portal.repository} was in use until" in said
    assert "mount its disk" in said
    night = portal.module("nightly", "--json", code=1)
    assert "was in use until" in night.stderr and not night.stdout
    assert "was in use until" in portal.db("backups").stderr
    doctor = json.loads(portal.module("doctor", "--json", code=1).stdout)
    (found,) = [e for e in doctor if "was in use until" in e["text"]]
    assert found["name"] == "repository" and found["state"] == "problem"
    assert not any("no verified backup" in each["text"] for each in doctor)
    portal.db("publish", "-q")  # needs no repository, and notes nothing there
    assert list(disk.iterdir()) == []
    disk.rmdir()
    away.rename(disk)
    assert len(portal.backups()) == 1
    portal.module("nightly", "-q")
    assert len(portal.backups()) == 2


def test_it_begins_anew_where_somebody_has_said_so(portal: Portal) -> None:
    portal.backup()
    shutil.rmtree(portal.repository)
    said = refused(portal, "backup")
    command = said.partition("run `")[2].partition("`")[0]
    assert command.endswith("/.anew")
    subprocess.run(["sh", "-c", command], check=True)
    portal.backup()
    assert len(portal.backups()) == 1 and not (portal.repository / ".anew").exists()
    shutil.rmtree(portal.repository)
    refused(portal, "backup")


def test_it_is_remembered_in_two_places(known: Known) -> None:
    known.forget_in_redis()
    known.empty()
    assert "is empty now" in known.why()
    remember(known.options, known.site, known.repository)
    known.file.unlink()
    assert "is empty now" in known.why()
    known.forget_in_redis()
    assert known.why() == ""


def test_another_place_and_deleted_backups_need_no_word(known: Known) -> None:
    shutil.rmtree(known.repository.path / known.repository.names()[0])
    (known.path / "objects").mkdir()
    assert known.why() == ""  # all were deleted, one by one
    known.empty()
    assert known.why()
    moved = known.path.rename(known.path.with_name("moved"))
    known.repository.path = moved
    assert known.why() == ""


def test_what_others_have_noted_is_not_believed(known: Known) -> None:
    known.empty()
    known.forget_in_redis()
    known.file.write_bytes(known.file.read_bytes().replace(b"20", b"19", 1))
    assert known.why() == ""
    known.file.unlink()
    known.file.symlink_to("/dev/zero")
    assert known.why() == ""


def test_people_are_told_that_the_backups_cannot_be_read(
    watched: WatchedSite, known: Known
) -> None:
    known.empty()
    seen = look(known.options, known.site, known.repository)
    (told,) = troubles(seen)
    assert told.state == "away" and "is empty now" in told.why
