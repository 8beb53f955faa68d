"""What is written is private whatever the umask, and whole or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from ckanext.dbmanage.engine import disk
from ckanext.dbmanage.engine.errors import DbmanageError, Refused

from ..support.portal import Portal


def _mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o7777)


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    disk.write_file(path, b"old")
    assert _mode(path) == "0o600"
    with pytest.raises(KeyboardInterrupt), disk.whole(path, 0o644) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="new"):  # noqa: SIM117 - it is the end that raises
        with disk.whole(path, 0o644, lambda file: int(file.read())) as file:
            file.write(b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.json"]
    link = tmp_path / "link"
    link.symlink_to("x.json")
    with disk.whole(link, 0o644) as file:
        file.write(b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    assert _mode(path) == "0o644" and len(os.listdir(tmp_path)) == 2


def test_where_nothing_can_be_written_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no directory .*/no"):  # noqa: SIM117
        with disk.whole(tmp_path / "no" / "x", 0o600):
            pass
    with pytest.raises(FileNotFoundError) as missing:
        disk.write_file(tmp_path / "no" / "x", b"")
    assert str(missing.value.filename) == str(tmp_path / "no")
    with pytest.raises(DbmanageError, match="it must be a directory of the repository"):
        disk.own_directory(Path("/dev/null"))


def test_what_is_lent_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with disk.lent(tmp_path, "load") as (path, file):
        file.write(b"rows")
        file.flush()
        assert path.read_bytes() == b"rows" and _mode(path) == "0o600"
        # it is in use: another one of this name leaves it alone
        with disk.lent(tmp_path, "load") as (other, _):
            assert other != path and path.exists()
    assert os.listdir(tmp_path) == []


def test_only_what_a_killed_command_left_is_swept_away(tmp_path: Path) -> None:
    left, used = ".x.0123abcd.partial", ".x.4567abcd.partial"
    others = [".x.0123abc.partial", ".xy.0123abcd.partial", ".x.0123ABCD.partial", "x"]
    for name in (left, used, *others):
        (tmp_path / name).write_text("")
    assert disk.is_partial(left, "x") and not any(
        disk.is_partial(name, "x") for name in others
    )
    with open(tmp_path / used) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        disk.write_file(tmp_path / "x", b"")
    assert set(os.listdir(tmp_path)) == {used, *others}
    long = "ä" * 120  # 240 bytes; with what a partial name adds it would be too long
    disk.write_file(tmp_path / long, b"")
    assert long in os.listdir(tmp_path)


def test_a_link_is_no_plain_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = disk.regular_files(tmp_path)
    plain = {name: disk.is_regular(entry) for name, entry in found.items()}
    assert plain == {"file": True, "link": False, "dir": False, "pipe": False}
    streams = {name: disk.is_stream(tmp_path / name) for name in ("file", "pipe", "no")}
    assert streams == {"file": False, "pipe": True, "no": False}


def test_directories_are_made_as_private_as_they_have_to_be(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        disk.make_directories(tmp_path / "a" / "b")
        own = disk.own_directory(tmp_path / "own")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "a") == _mode(tmp_path / "a" / "b") == "0o755"
    assert _mode(own) == "0o700" and disk.own_directory(own) == own
    with pytest.raises(FileExistsError):
        disk.create_directory(own)


def test_rights_whatever_the_umask(portal: Portal) -> None:
    for umask in (0o000, 0o777):
        done = portal.module("backup", umask=umask)
        path = portal.repository / done.stdout.strip()
        for entry in [path, *path.iterdir(), portal.repository, portal.repository / "state",
                      *(portal.repository / "state").iterdir()]:  # fmt: skip
            assert oct(entry.stat().st_mode & 0o777) == (
                "0o700" if entry.is_dir() else "0o600"
            )
        shutil.rmtree(path)
