"""Uploads come back with the databases."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.maintenance import Maintenance
from ckanext.dbmanage.engine.restore.history import half_way

from ...support.cluster import wait_for_the_last_statement
from ...support.portal import Portal, refused
from ...support.uploads import LAST, listed
from ...support.waiting import end_group, wait_until


@pytest.mark.smoke
def test_uploads_come_back_with_the_databases(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    mode = (portal.storage / "resources").stat().st_mode
    portal.damage()
    damaged = portal.state()
    done = portal.module("restore", "latest", "--yes")
    assert portal.state() == before
    assert (portal.storage / "resources").stat().st_mode == mode
    # what was replaced is in the backup that the restore took
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.state() == damaged
    assert "restored database, DataStore and uploads" in done.stdout


def test_uploads_alone(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    oids = portal.oids()
    portal.damage()
    portal.module("restore", "latest", "--only", "files", "--yes")
    assert portal.uploads() == before["uploads"]
    assert portal.oids() == oids
    assert portal.state() != before
    taken = portal.backups()[0]
    assert taken["parts"] == ["files"]
    portal.module("undo", "--yes")
    assert portal.uploads() != before["uploads"]


def test_times_survive(portal: Portal) -> None:
    upload = portal.storage / LAST
    os.utime(upload, (1_600_000_000, 1_600_000_000.5))
    portal.backup()
    upload.unlink()
    portal.module("restore", "latest", "--only", "files", "--yes", "--no-backup")
    assert upload.stat().st_mtime == 1_600_000_000.5


def test_a_mount_and_a_link_stay_where_they_are(portal: Portal, small_disk) -> None:
    """`resources` on a disk of its own, `storage` a link to yet another."""
    disk, other = small_disk("20M"), small_disk("20M")
    before = portal.uploads()
    for name, place in (("resources", disk), ("storage", other)):
        shutil.copytree(portal.storage / name, place / name)
        shutil.rmtree(portal.storage / name)
    (portal.storage / "resources").mkdir()
    subprocess.run(
        ["mount", "--bind", disk / "resources", portal.storage / "resources"],
        check=True,
    )
    (portal.storage / "storage").symlink_to(other / "storage")

    def uploads() -> dict[str, str]:
        return {
            str(Path(top, name).relative_to(portal.storage)): hashlib.sha256(
                Path(top, name).read_bytes()
            ).hexdigest()
            for top, _, names in os.walk(portal.storage, followlinks=True)
            for name in names
            if "dbmanage" not in top and ".dbm" not in top
        }

    try:
        assert uploads() == before
        portal.backup()
        (portal.storage / LAST).write_bytes(b"damaged")
        shutil.rmtree(other / "storage" / "uploads")
        portal.module("restore", "latest", "--no-backup", "--yes")
        assert uploads() == before
        portal.module("undo", "--yes")
        assert uploads() != before
        portal.module("undo", "--yes")
        assert uploads() == before
        assert os.path.ismount(portal.storage / "resources")
        assert (portal.storage / "storage").is_symlink()
    finally:
        subprocess.run(["umount", portal.storage / "resources"], check=True)


def test_a_link_to_what_is_another_s_is_not_followed(portal: Portal) -> None:
    """CKAN's user must not be able to make root rename what is not CKAN's."""
    other = portal.directory / "other"
    other.mkdir()
    (other / "secret").write_text("secret")
    os.chown(other, 1234, 1234)
    (portal.storage / "link").symlink_to(other)
    done = portal.module("backup", code=1)
    assert "'link' is a link: not included" in done.stderr
    portal.module("restore", "latest", "--only", "files", "--yes", "--no-backup")
    assert sorted(other.iterdir()) == [other / "secret"]
    assert (portal.storage / "resources").stat().st_uid == 0
    assert (portal.storage / "link").is_symlink()


@pytest.mark.smoke
def test_a_changed_content_is_found_before_anything_is_touched(portal: Portal) -> None:
    path = portal.backup()
    (line,) = [line for line in listed(path) if line["path"] == LAST]
    content = portal.repository / "objects" / line["sha256"][:2] / line["sha256"]
    content.chmod(0o600)
    whole = content.read_bytes()
    content.write_bytes(whole[:-1] + b"X")
    done = portal.module("verify", "latest", code=1)
    assert LAST in done.stdout and "was changed" in done.stdout
    assert LAST in refused(portal, "latest")
    content.unlink()
    assert LAST in portal.module("verify", "latest", code=1).stdout
    content.symlink_to("/etc/passwd")
    assert "not a plain file" in portal.module("verify", "latest", code=1).stdout
    assert LAST in refused(portal, "latest")
    assert not list(portal.storage.glob(".dbm_*"))


def test_no_room_is_said_before_anything_is_touched(portal: Portal, small_disk) -> None:
    (portal.storage / "resources" / "big").write_bytes(os.urandom(3_000_000))
    portal.backup()
    disk = small_disk("1M")
    portal.write(
        **{
            "ckanext.dbmanage.repository": str(portal.repository),
            "ckan.storage_path": str(disk),
        }
    )
    done = portal.module("restore", "latest", "--yes", code=1)
    assert "are free: make room" in done.stderr
    assert not list(disk.iterdir())


@pytest.mark.parametrize("sign", ["switch", "undo directory"])
def test_killed_between_flag_and_flag_off(portal: Portal, sign: str) -> None:
    """Databases, uploads and flag agree afterwards, or the next command sees to it."""
    before = portal.state()
    portal.backup()
    portal.damage()
    damaged = portal.state()
    keeper = Maintenance(
        portal.options["ckan.redis.url"], make_url(portal.options["sqlalchemy.url"])
    )
    # read-only, draining, away, the renames, the commit, flag off: and the moment
    # that the first folder moves, to within a thousandth of a second
    moments = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
    if sign != "switch":
        moments = (0.0, 0.0, 0.001, 0.002, 0.004, 0.008)
    undo: set[Path] = set()
    for moment in moments:
        process = portal.start("restore", "latest", "--yes", "--no-backup")
        assert process.stderr is not None
        if sign == "switch":
            for said in process.stderr:
                if said.startswith("switch"):
                    break
        else:
            while process.poll() is None and not (
                set(portal.storage.glob(".dbm_*_undo")) - undo
            ):
                time.sleep(0.0002)  # a look takes as long
        time.sleep(moment)
        end_group(process)
        wait_for_the_last_statement()
        done = portal.module("prune")  # any command that looks after what was left
        assert portal.state() in (before, damaged), done.stderr
        assert half_way(*portal.engine()) == []
        if portal.state() == before:
            portal.module("undo", "--yes")
        assert portal.state() == damaged
        undo = set(portal.storage.glob(".dbm_*_undo"))
    assert "no restore is half-way" in portal.module("doctor", code=None).stdout
    wait_until(lambda: keeper.status() is None)
