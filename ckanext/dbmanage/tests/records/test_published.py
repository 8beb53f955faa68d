"""A public set on the disk: whole, whatever happens."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import Busy
from ckanext.dbmanage.records import published

from ..support.published import GZ, Client, fabricate, is_whole


def publishing(directory: Path, number: int) -> int:
    """Publishes in a process of its own; its number."""
    child = os.fork()
    if child == 0:
        fabricate(directory, str(number))
        os._exit(0)
    return child


def test_killed_at_any_moment_a_whole_set_stays(tmp_path: Path) -> None:
    took = []
    for number in range(3):
        begun = time.monotonic()
        os.waitpid(publishing(tmp_path, number), 0)
        took.append(time.monotonic() - begun)
    killed = half = 0
    for number in range(3, 63):
        child = publishing(tmp_path, number)
        time.sleep(random.random() * min(took))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        half += (tmp_path / ".next").exists()
        found = is_whole(tmp_path)
        assert found is not None
        client = Client(tmp_path)
        texts = set()
        for name in published.NAMES:
            status, _, body = client.ask(f"/dump/{name}")
            assert status == 200
            texts.add(body.split()[1])
        assert len(texts) == 1, "files of two sets"
    assert killed > 10 and half > 3
    fabricate(tmp_path, "end")
    assert published.foreign(tmp_path) == [] and not (tmp_path / ".next").exists()
    subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True
    )


def test_two_at_once(tmp_path: Path) -> None:
    with published.writing(tmp_path), pytest.raises(Busy), published.writing(tmp_path):
        pass


def test_what_cannot_be_opened_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process out of file handles answers 503, and throws away no committed file."""
    fabricate(tmp_path, "old")
    before = (tmp_path / "index.json").read_bytes()
    opening, moving = os.open, Path.replace

    def out_of_handles(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(published.NAMES):
            raise OSError(errno.EMFILE, "Too many open files")
        return opening(path, *arguments, **options)

    def listed_only(self: Path, target: Path) -> Path:
        moved = moving(self, target)
        if target.name == "index.json":  # committed, nothing moved up yet
            monkeypatch.setattr(os, "open", out_of_handles)
        return moved

    monkeypatch.setattr(Path, "replace", listed_only)
    with pytest.raises(OSError, match="Too many open files"):
        fabricate(tmp_path, "new")
    assert (tmp_path / "index.json").read_bytes() != before
    status, headers, _ = Client(tmp_path).ask(f"/dump/{GZ}")
    assert (status, headers["Retry-After"]) == (503, "5")
    monkeypatch.undo()
    assert b"new" in Client(tmp_path).ask(f"/dump/{GZ}")[2]
    assert is_whole(tmp_path) is not None
    fabricate(tmp_path, "newer")
    assert published.foreign(tmp_path) == []


def test_what_nobody_may_open_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as what root has put there under one of the names."""
    fabricate(tmp_path, "old")
    opening, number = os.open, (tmp_path / GZ).stat().st_ino

    def not_allowed(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path) == tmp_path / GZ and os.stat(path).st_ino == number:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opening(path, *arguments, **options)

    monkeypatch.setattr(os, "open", not_allowed)
    assert Client(tmp_path).ask(f"/dump/{GZ}")[0] == 503
    fabricate(tmp_path, "old")
    assert b"old" in Client(tmp_path).ask(f"/dump/{GZ}")[2]
    assert is_whole(tmp_path) is not None and published.foreign(tmp_path) == []
