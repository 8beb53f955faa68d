"""What is forgotten goes whole, and no upload goes that a backup needs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import DbmanageError
from ckanext.dbmanage.engine.layout import LIST
from ckanext.dbmanage.engine.repository import prune, retention
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.signature import dumped, sign

from ...support.shelf import NONE, NOON, SECRET, Shelf, dumped_line
from ...support.uploads import write_lines


@pytest.mark.smoke
def test_forgetting_takes_the_backup_and_what_was_known_of_it(shelf: Shelf) -> None:
    ids = shelf.daily(3)
    (shelf.path / "state" / f"{ids[1]}.html").write_text("a proof")
    (shelf.path / "state" / f"{ids[0]}.html").write_text("a proof")
    pruned = shelf.prune(last=1)
    assert pruned.forgotten == (ids[2], ids[1])
    assert pruned.bytes > 2 * len("dump")
    assert shelf.ids() == ids[:1]
    left = sorted(p.name for p in (shelf.path / "state").iterdir())
    assert left == [f"{ids[0]}.html", f"{ids[0]}.json"]
    assert not list(shelf.path.glob(".*.partial"))
    told = [line for line in shelf.repository.journal() if line.event == "forget"]
    assert [(t.text("backup"), t.text("reason")) for t in told] == [
        (ids[2], "no rule keeps it"),
        (ids[1], "no rule keeps it"),
    ]
    assert shelf.prune(last=1).forgotten == ()


def test_a_full_disk_is_made_free(small_disk: Callable[[str], Path]) -> None:
    """Neither the lock nor the list of all that is there needs room on it."""
    disk = small_disk("2m")
    shelf = Shelf(disk / "backups")
    for number in range(2):
        shelf.add(NOON - timedelta(days=number), uploads=[bytes([number]) * 300_000])
    for number in range(60):  # each in a directory of its own, whose list takes a page
        shelf.line(number, str(number).encode())
    with open(disk / "fill", "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(disk).free == 0
    assert shelf.prune(last=1).objects.count > 60
    assert shutil.disk_usage(disk).free > 300_000
    assert shelf.stored() == {bytes(300_000)}


_KILLED = """
import os, shutil, signal, sys
from ckanext.dbmanage.engine.repository import prune, retention
from ckanext.dbmanage.engine.repository.repository import Repository
def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
where = {"rename": (prune, "sync_directory"), "removal": (shutil, "rmtree")}
module, name = where[sys.argv[3]]
repository = Repository(sys.argv[1], (sys.argv[2],))
policy = {"last": 1, "days": 0, "weeks": 0, "months": 0, "min": 1}
with repository.lock("prune"):
    decided = retention.decide(repository.backups(), policy)
    setattr(module, name, end)
    prune.prune_backups(repository, decided)
"""


@pytest.mark.parametrize("where", ["rename", "removal"])
def test_a_kill_leaves_no_half_backup_and_the_next_lock_sweeps(
    shelf: Shelf, where: str
) -> None:
    ids = shelf.daily(3, uploads=[b"shared"])
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, shelf.path, SECRET, where],
        stderr=subprocess.PIPE,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert shelf.ids() == ids[:2]  # what was begun is not listed, the rest is whole
    left = shelf.path / f".{ids[2]}.partial"
    assert (left / "manifest.json").exists()
    with shelf.repository.lock("backups"):
        assert not left.exists()
    assert shelf.stored() == {b"shared"}
    assert shelf.prune(last=1).forgotten == (ids[1],)
    assert shelf.stored() == {b"shared"}


def test_a_removal_that_fails_is_said_and_lists_no_half(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = shelf.daily(2)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "database.list"))

    with monkeypatch.context() as patched, pytest.raises(DbmanageError) as raised:
        patched.setattr(prune.shutil, "rmtree", refuse)
        shelf.prune(last=1)
    assert f"backup {ids[1]} could not be removed" in str(raised.value)
    assert "database.list: Permission denied" in str(raised.value)
    assert shelf.ids() == ids[:1]


def test_objects_that_a_backup_names_survive_the_others_go(shelf: Shelf) -> None:
    old = NOON - timedelta(days=30)
    shelf.add(NOON, uploads=[b"shared", b"new"])
    shelf.add(old, uploads=[b"shared", b"old"])
    shelf.add(old - timedelta(days=1), "foreign", uploads=[b"theirs"])
    shelf.add(old - timedelta(days=2), "damaged", uploads=[b"hurt"], keep=True)
    shelf.add(old - timedelta(days=3), "unverified")  # holds no uploads
    shelf.line(0, b"of nobody")
    before = shelf.stored()
    with shelf.repository.lock("prune"):
        assert prune.unnamed_objects(
            shelf.repository, {f"{old:%Y%m%dT%H%M%SZ}"}
        ) == prune.Unnamed(2, len(b"old") + len(b"of nobody"))
    assert shelf.stored() == before  # it only asked
    assert shelf.prune(last=1).objects == prune.Unnamed(2, 12)
    assert shelf.stored() == {b"shared", b"new", b"theirs", b"hurt"}
    assert shelf.prune(last=1).objects == prune.Unnamed()
    assert not list(shelf.path.glob(".*.partial"))


def test_many_objects_of_the_same_beginning(shelf: Shelf) -> None:
    contents = [b"%d" % number for number in range(3000)]
    chance = random.Random(4711)
    lists = [chance.sample(contents, 1500) for _ in range(4)]
    for number, uploads in enumerate(lists):
        shelf.add(NOON - timedelta(days=number), uploads=uploads)
    assert shelf.prune(last=3).objects.count == len({*lists[3]} - {*sum(lists[:3], [])})
    assert shelf.stored() == {*sum(lists[:3], [])}


def test_memory_does_not_grow_with_the_lists(shelf: Shelf) -> None:
    def peak(lines: int) -> int:
        for number in range(2):
            name = shelf.add(
                NOON - timedelta(days=number), "unverified", uploads=[b"a"]
            )
            manifest = json.loads((shelf.path / name / "manifest.json").read_bytes())
            del manifest["contents"][LIST]  # its checksum is beside the point
            written = dumped(sign(manifest, SECRET, "manifest"))
            (shelf.path / name / "manifest.json").write_bytes(written)
            sums = (hashlib.sha256(b"%d" % line).hexdigest() for line in range(lines))
            lines_ = (dumped_line({"path": s, "sha256": s}) for s in sums)
            write_lines(shelf.path / name / LIST, lines_)
        tracemalloc.start()
        with shelf.repository.lock("prune"):
            assert not prune.unnamed_objects(shelf.repository, set()).problem
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        for name in shelf.ids():
            shutil.rmtree(shelf.path / name)
        return most

    for number in range(512):  # so that nearly each first two digits are there
        shelf.line(0, b"%d" % number)
    small = peak(2_000)
    large = peak(40_000)
    assert large < 1.2 * small


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not JSON\n", "files.jsonl.zst: line 1 is not a JSON object"),
        (b"[1]\n", "files.jsonl.zst: line 1 is not a JSON object"),
        (b'{"path": "a", "sha256": "../x"}\n', "files.jsonl.zst: line 1 has no sha256"),
        (
            b'{"path": "' + b"a" * 70_000 + b'"}',
            "files.jsonl.zst: line 1 is not a JSON object",
        ),
        (b'{"path": "a"}\n', "files.jsonl.zst: was changed (checksum)"),
        (b"", "files.jsonl.zst: was changed (checksum)"),
        ("missing", "files.jsonl.zst: is missing"),
        ("link", "files.jsonl.zst: is a link, not a plain file"),
        ("pipe", "files.jsonl.zst: is not a plain file"),
        ("directory", "files.jsonl.zst: is not a plain file"),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("state", ["verified", "foreign", "damaged"])
def test_a_list_that_cannot_be_read_stops_the_removal(
    shelf: Shelf, content: bytes | str, why: str, state: str
) -> None:
    shelf.add(NOON, uploads=[b"good"])
    bad = shelf.add(NOON + timedelta(days=1), state, uploads=[b"bad"])
    gone = shelf.add(NOON - timedelta(days=1), uploads=[b"old"])
    listed = shelf.path / bad / LIST
    whole = listed.read_bytes()
    listed.unlink()
    if isinstance(content, bytes):
        write_lines(listed, [content])
    elif content == "link":
        (shelf.path / "elsewhere").write_bytes(whole)
        listed.symlink_to(shelf.path / "elsewhere")
    elif content == "pipe":
        os.mkfifo(listed)
    elif content == "directory":
        listed.mkdir()
    pruned = shelf.prune(last=2 if state == "verified" else 1)
    assert pruned.forgotten == (gone,)
    problem = f"no object is removed while this is so: {bad}: {why}"
    assert pruned.objects == prune.Unnamed(problem=problem)
    assert shelf.stored() == {b"good", b"bad", b"old"}
    # when that backup is gone, so is the obstacle
    shutil.rmtree(shelf.path / bad)
    assert shelf.prune(last=1).objects.count == 2
    assert shelf.stored() == {b"good"}


def test_a_manifest_that_cannot_be_read_stops_it_too(
    shelf: Shelf,
) -> None:
    shelf.add(NOON, uploads=[b"good"])
    bad = shelf.add(NOON + timedelta(days=1), uploads=[b"bad"])
    (shelf.path / bad / "manifest.json").write_bytes(b"{}")
    write_lines(shelf.path / bad / LIST, [])  # nothing says that there were more
    assert f"{bad}: manifest.json: cannot be" in shelf.prune(last=1).objects.problem
    assert shelf.stored() == {b"good", b"bad"}


def test_links_and_what_was_put_there_by_hand_survive(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.add(NOON, uploads=[b"good"])
    shelf.line(0, b"of nobody")
    outside = tmp_path / "outside"
    outside.mkdir()
    hashes = [letter * 64 for letter in "abcdef0"]
    (outside / hashes[0]).write_text("linked to")
    (shelf.objects / "aa").symlink_to(outside)  # a directory that is a link
    by_hand = [
        outside / hashes[0],
        shelf.objects / hashes[1],  # not in a directory of its own beginning
        shelf.objects / "bb" / hashes[2],  # in that of another
        shelf.objects / "bb" / "notes.txt",
        shelf.objects / "bb" / hashes[1][:-1],
        shelf.objects / "bb" / hashes[1].upper(),
        shelf.objects / "BB" / hashes[1],
        shelf.objects / "bbbb" / hashes[1],
        shelf.objects / "dd" / hashes[3] / "inside",
        shelf.path / "ee" / hashes[4],
        shelf.path / "README",
    ]
    for path in by_hand[1:]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("by hand")
    link = shelf.objects / "bb" / hashes[1]
    link.symlink_to(outside / hashes[0])
    assert shelf.prune(last=1).objects == prune.Unnamed(1, len(b"of nobody"))
    assert all(path.is_file() for path in by_hand)
    assert link.is_symlink()
    assert shelf.stored() >= {b"good", b"linked to"}


def test_objects_behind_a_link_are_left_alone_and_that_is_said(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.add(NOON, uploads=[b"good"])
    shelf.line(0, b"of nobody")
    shelf.objects.rename(tmp_path / "elsewhere")
    shelf.objects.symlink_to(tmp_path / "elsewhere")
    assert "objects is a link" in shelf.prune(last=1).objects.problem
    assert shelf.stored() == {b"good", b"of nobody"}


def test_progress_is_told_in_bytes(shelf: Shelf) -> None:
    shelf.daily(3, uploads=[b"a", b"b"])
    told: list[tuple[str, int, int]] = []
    with shelf.repository.lock("prune"):
        found = retention.decide(shelf.repository.backups(), NONE | {"last": 2})
        prune.prune_backups(shelf.repository, found, lambda *each: told.append(each))
    assert [phase for phase, *_ in told] == ["forget", "objects", "objects", "remove"]
    (before, whole), (half, still) = (each[1:] for each in told[1:3])
    assert (before, half) == (0, whole / 2)  # two lists of the same size
    assert whole == still


def test_a_backup_may_not_be_at_another_place(shelf: Shelf, tmp_path: Path) -> None:
    """The id, and nothing else of a decision, says what is removed."""
    name = shelf.add(NOON)
    other = Shelf(tmp_path / "other")
    other.add(NOON - timedelta(days=1))
    stranger = Backup(other.path / other.ids()[0], (SECRET,))
    decision = retention.Decision(stranger, True, "no rule keeps it")
    with shelf.repository.lock("prune"), pytest.raises(DbmanageError):
        prune.prune_backups(shelf.repository, [decision])
    assert shelf.ids() == [name]
    assert len(other.ids()) == 1
