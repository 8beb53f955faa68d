"""A push counts when what stands there is what the manifest names."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import Damaged, Refused, ToolFailed
from ckanext.dbmanage.engine.offsite import restic as tool
from ckanext.dbmanage.engine.offsite.restic import NoRepository, Restic

from ...support.offsite import Network, restic, served, snapshots
from ...support.waiting import wait_until
from .conftest import Copied


def test_one_backup_is_one_snapshot(pushed: Copied) -> None:
    last, first = pushed.repository.names()
    found = {each["tags"][1]: each for each in snapshots(pushed.address)}
    assert list(found) == [first, last]
    assert found[last]["tags"] == ["dbmanage", last]
    assert found[last]["hostname"] == pushed.site.id
    moment = f"{last[:4]}-{last[4:6]}-{last[6:8]}T{last[9:11]}:{last[11:13]}"
    assert found[last]["time"].startswith(moment)
    assert found[last]["parent"] == found[first]["id"]
    names = restic(pushed.address, "ls", "latest").splitlines()[1:]
    roots = {name.split("/")[1] for name in names}
    assert roots == {last, "objects", "state"}


def test_a_push_of_what_is_there_reads_nothing(pushed: Copied) -> None:
    # as `cp -a` and a power cut leave it: other inodes, other ctimes
    for path in list((pushed.path / "objects").rglob("*")):
        if path.is_file():
            content, about = path.read_bytes(), path.stat()
            path.unlink()
            path.write_bytes(content)
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    heard: list[Mapping[str, Any]] = []
    run = Restic.run

    def hear(self: Restic, *arguments: str, **options: Any) -> Any:
        found = run(self, *arguments, **options)
        heard.extend(m for m in found if m.get("message_type") == "summary")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Restic, "run", hear)
        pushed.push()
    # its state and its own files may be new, the contents are not
    assert heard[0]["files_unmodified"] >= len(list(pushed.path.rglob("objects/*/*")))
    assert heard[0]["data_added"] < 20_000


def test_the_file_along_is_gone_afterwards(copied: Copied) -> None:
    with copied.repository.sending("push"):
        (copied.path / "site").mkdir()
        (copied.path / "site" / "ckan.ini").write_text("SECRET_KEY = x")
    assert not (copied.path / "site").exists()
    # of one that was killed the next one takes it away
    (copied.path / "site").mkdir()
    with copied.repository.sending("push"):
        assert not (copied.path / "site").exists()


def _vanish(copied: Copied) -> None:
    path = copied.needed()[-1]
    path.rename(copied.directory / path.name)


def _shorten(copied: Copied) -> None:
    path = copied.needed()[-1]
    path.write_bytes(path.read_bytes()[:-1])


def _stray(copied: Copied) -> None:
    (copied.path / "objects" / "notes.txt").write_text("mine")


def _link(copied: Copied) -> None:
    (copied.path / "objects" / "ab").symlink_to("/etc")


@pytest.mark.parametrize("damage", [_vanish, _shorten, _stray, _link])
def test_what_is_not_whole_there_does_not_count(
    copied: Copied, damage: Callable[[Copied], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What vanishes meanwhile, newer versions of restic leave out in silence."""
    run = Restic.run

    def meanwhile(self: Restic, *arguments: str, **options: Any) -> Any:
        if arguments[0] == "backup":
            damage(copied)
        return run(self, *arguments, **options)

    monkeypatch.setattr(Restic, "run", meanwhile)
    with pytest.raises((Damaged, ToolFailed), match="objects/"):
        copied.push()
    assert not snapshots(copied.address)


def test_what_is_damaged_here_is_not_copied(copied: Copied) -> None:
    _vanish(copied)
    with pytest.raises(Damaged, match="No such file"):
        copied.push()
    assert not snapshots(copied.address)


def test_what_is_not_signed_is_not_copied(copied: Copied) -> None:
    path = copied.path / copied.repository.names()[0] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hmac": "0" * 64}))
    with pytest.raises(Refused, match="not signed"):
        copied.push()


def test_two_pushes_at_once(copied: Copied) -> None:
    with copied.repository.sending("push"):
        with pytest.raises(Refused, match="in use: push, process"):
            copied.push()
        # a backup may be taken meanwhile
        with copied.repository.lock("backup"):
            pass


# -- places that are not as they should be


def test_a_wrong_password(pushed: Copied) -> None:
    place = pushed.place
    Path(place.password_file).write_text("another one")
    with pushed.reached(place) as at, pytest.raises(Refused) as told:
        at.opened()
    assert f"{place.password_file} holds another one" in str(told.value)


def test_no_repository(copied: Copied, each_restic: str) -> None:
    copied.address += "/elsewhere"
    with copied.reached() as at, pytest.raises(NoRepository, match="there is no rep"):
        at.opened()


@pytest.mark.parametrize("fate", ["hang", "500", "closed"])
def test_a_place_that_does_not_answer(
    pushed: Copied, fate: str, each_restic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool.ANSWER <= 25
    monkeypatch.setattr(tool, "ANSWER", 2)
    with served(pushed.directory) as address:
        network = Network(address)
        pushed.address = network.address.replace("/portal", "/there")
        if fate == "closed":
            network.close()
        network.fate = lambda line: fate if "config" in line else "ok"
        begun = time.monotonic()
        with pushed.reached() as at, pytest.raises(ToolFailed) as told:
            at.opened()
        assert time.monotonic() - begun < 100  # restic itself tries for many minutes
        network.close()
    if fate == "hang":
        assert f"Is {pushed.address} to be reached from this machine?" in str(
            told.value
        )
    assert "goroutine" not in str(told.value) and "\n" not in str(told.value)


def test_a_place_that_stops_in_the_middle(
    copied: Copied, each_restic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(copied.directory) as address:
        network = Network(address)
        network.fate = lambda line: (
            "hang" if line.startswith("POST /there/data") else "ok"
        )
        good, copied.address = (
            copied.address,
            network.address.replace("/portal", "/there"),
        )
        with (
            monkeypatch.context() as hasty,
            pytest.raises(ToolFailed, match="got nowhere for 3 seconds"),
        ):
            hasty.setattr(tool, "SILENCE", 3)
            hasty.setattr(tool, "END", 2)
            copied.push()
        network.close()
        copied.address = good
        assert not snapshots(good)
        copied.push()


def test_a_full_place(copied: Copied, small_disk: Callable[[str], Path]) -> None:
    copied.address = str(small_disk("3m") / "there")
    copied.init()
    content = os.urandom(4 << 20)
    name = "ab" + "0" * 62
    (copied.path / "objects" / "ab").mkdir(exist_ok=True)
    (copied.path / "objects" / "ab" / name).write_bytes(content)
    with pytest.raises(ToolFailed, match="no space left"):
        copied.push()
    assert not snapshots(copied.address)


def test_a_read_only_place(pushed: Copied, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("20m")
    subprocess.run(["cp", "-a", pushed.address, disk / "there"], check=True)
    pushed.address = str(disk / "there")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(ToolFailed, match="read-only file system"):
        pushed.push()
    pushed.lose()
    assert pushed.pull().signed


def test_a_lock_of_a_host_that_died(pushed: Copied) -> None:
    """The process of another host nobody can ask whether it lives."""
    name = snapshots(pushed.address)[0]["id"]
    _die_holding_a_lock(pushed, "--uts", "hostname elsewhere; ")
    with pushed.reached() as at, pytest.raises(Refused) as told:
        at.run("forget", name)
    assert "on elsewhere" in str(told.value)
    command = str(told.value).partition("`")[2].rstrip("`")
    assert "unlock --remove-all" in command
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    with pushed.reached() as at:
        at.run("forget", name)
    assert len(snapshots(pushed.address)) == 1


def test_a_lock_of_a_process_that_died_here(pushed: Copied) -> None:
    _die_holding_a_lock(pushed, "--ipc", "")
    with pushed.reached() as at:
        at.run("forget", snapshots(pushed.address)[0]["id"])
    assert len(snapshots(pushed.address)) == 1


def _die_holding_a_lock(pushed: Copied, namespace: str, before: str) -> None:
    """restic is killed while it reads; its lock stays."""
    pipe = pushed.directory / "pipe"
    os.mkfifo(pipe)
    script = f"{before}echo $$; exec restic -r {pushed.address} backup --stdin <{pipe}"
    process = subprocess.Popen(
        ["unshare", namespace, "sh", "-c", script], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RESTIC_PASSWORD_FILE": pushed.place.password_file},
    )  # fmt: skip
    locks = Path(pushed.address) / "locks"

    def locked() -> bool:
        """Not by a file that has its name only when it is whole."""
        return any(len(path.name) == 64 for path in locks.iterdir())

    with process, open(pipe, "wb"):
        wait_until(locked)
        process.kill()
        process.wait()
    assert locked()
