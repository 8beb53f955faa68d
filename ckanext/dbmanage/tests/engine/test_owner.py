"""Root writes nowhere that another user could lead it away from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckanext.dbmanage.engine import owner
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.jobs.worker import _run_once
from ckanext.dbmanage.operations.context import Portal as Opened
from ckanext.dbmanage.operations.context import open_site, refuse_root
from ckanext.dbmanage.operations.index import open_to_change
from ckanext.dbmanage.portal.site import build_site

from ..support.portal import Portal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="is about root")


def test_root_is_told_the_line_and_nothing_is_written(portal: Portal) -> None:
    os.chown(portal.storage, 1234, 1234)
    before = sorted(portal.directory.rglob("*"))
    done = portal.module("backup", "--note", "it's mine", code=1)
    assert f"{portal.storage} belongs to the user '#1234'" in done.stderr
    line = done.stderr.strip().splitlines()[-1].strip()
    assert line.startswith("sudo -u '#1234' ") and f"-c {portal.ini}" in line
    assert "-m ckanext.dbmanage" in line and "--note 'it'\"'\"'s mine'" in line
    assert sorted(portal.directory.rglob("*")) == before
    # what only reads goes on
    portal.module("backups")
    portal.module("maintenance", "status")


@pytest.mark.parametrize("place", ["storage", "repository", "above"])
def test_every_directory_on_the_way_is_looked_at(portal: Portal, place: str) -> None:
    portal.write(**{"ckanext.dbmanage.repository": str(portal.directory / "a" / "b")})
    (portal.directory / "a" / "b").mkdir(parents=True)
    asked = Opened(portal.settings, Silent())
    open_site(asked)
    chosen = {
        "storage": portal.storage,
        "repository": portal.directory / "a" / "b",
        "above": portal.directory / "a",
    }[place]
    os.chown(chosen, 33, 33)
    with pytest.raises(Refused, match="sudo -u www-data "):
        open_to_change(asked)
    open_site(asked)


def test_the_public_dumps_count_too(portal: Portal) -> None:
    public = portal.directory / "public"
    public.mkdir()
    os.chown(public, 33, 33)
    portal.write(**{"ckanext.dbmanage.public_dir": str(public)})
    with pytest.raises(Refused, match="www-data"):
        refuse_root(build_site(portal.settings, stored=False))


def test_what_is_not_there_yet_is_root_s(tmp_path: Path) -> None:
    assert owner.foreign([tmp_path / "a" / "b"]) is None
    os.chown(tmp_path, 1234, 1234)
    assert owner.foreign([tmp_path / "a" / "b"]) == (tmp_path, "'#1234'")


def test_a_worker_of_root_s_leaves_no_mark_of_a_job(portal: Portal) -> None:
    portal.repository.mkdir(parents=True)
    os.chown(portal.storage, 1234, 1234)
    job = {"id": "20261101T030000Z-0a1b2c3d", "until": "2036-01-01T00:00:00Z"}
    with pytest.raises(Refused, match="sudo -u '#1234' "):
        _run_once(build_site(portal.settings), job)
    assert not list(portal.repository.iterdir())
