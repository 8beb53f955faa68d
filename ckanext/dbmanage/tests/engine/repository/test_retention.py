"""What is kept is what the rules say, and no upload goes that a backup still needs."""

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
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import DbmanageError
from ckanext.dbmanage.engine.repository import prune, retention
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.signature import dumped, sign

from ...support.shelf import NONE, NOON, SECRET, Shelf, dumped_line


def test_the_last_ones_stay(shelf: Shelf) -> None:
    ids = shelf.daily(5)
    decided = shelf.decide(last=3)
    assert [decided[i] for i in ids] == [
        "the last 3", "the last 3", "the last 3",
        "-no rule keeps it", "-no rule keeps it",
    ]  # fmt: skip


def test_the_newest_of_a_day_stays_and_empty_days_do_not_count(shelf: Shelf) -> None:
    wanted = []
    for days in (0, 1, 9):
        for hours in (0, 5, 11):
            name = shelf.add(NOON - timedelta(days=days, hours=hours))
            wanted += [name] if not hours else []
    shelf.add(NOON - timedelta(days=10))
    assert shelf.kept(days=3) == wanted
    assert shelf.decide(days=3)[wanted[2]] == "day 2026-11-21"


def test_weeks_are_those_of_iso_over_the_turn_of_the_year(shelf: Shelf) -> None:
    thursday = shelf.add(datetime(2026, 12, 31))
    sunday = shelf.add(datetime(2027, 1, 3))
    monday = shelf.add(datetime(2027, 1, 4))
    assert shelf.decide(weeks=2) == {
        monday: "week 2027-W01",
        sunday: "week 2026-W53",
        thursday: "-no rule keeps it",
    }


def test_a_month_ends_at_midnight_in_utc(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    first = shelf.add(datetime(2026, 12, 1, 0, 0, 0))
    last = shelf.add(datetime(2026, 11, 30, 23, 59, 59))
    other = shelf.add(datetime(2026, 11, 1))
    assert shelf.decide(months=6) == {
        first: "month 2026-12",
        last: "month 2026-11",
        other: "-no rule keeps it",
    }


def test_each_rule_that_keeps_a_backup_is_named(shelf: Shelf) -> None:
    ids = shelf.daily(2)
    decided = shelf.decide(last=1, days=2, weeks=1, months=1)
    # a Monday, and the Sunday before it in the same month
    assert decided == {
        ids[0]: "the last 1, day 2026-11-30, week 2026-W49, month 2026-11",
        ids[1]: "day 2026-11-29",
    }


def test_any_calendar_against_the_rules_said_another_way(shelf: Shelf) -> None:
    chance = random.Random(4711)
    for _ in range(120):
        shelf.add(datetime(2026, 1, 1) + timedelta(minutes=chance.randrange(500_000)))
    ids = shelf.ids()
    times = [datetime.strptime(i, "%Y%m%dT%H%M%SZ") for i in ids]
    for _ in range(40):
        policy = {rule: chance.randrange(6) for rule in NONE} | {"min": 1}
        wanted = {*ids[: policy["last"]], ids[0]}
        for rule, key in {
            "days": lambda t: t.date(),
            "weeks": lambda t: t.isocalendar()[:2],
            "months": lambda t: (t.year, t.month),
        }.items():
            newest: dict[Any, str] = {}
            for name, time in zip(ids, times, strict=True):
                newest.setdefault(key(time), name)
            wanted |= {newest[k] for k in sorted(newest, reverse=True)[: policy[rule]]}
        assert set(shelf.kept(**policy)) == wanted, policy


def test_without_a_rule_the_least_number_stays(shelf: Shelf) -> None:
    ids = shelf.daily(4)
    assert shelf.decide(min=2) == {
        ids[0]: "at least 2 verified",
        ids[1]: "at least 2 verified",
        ids[2]: "-no rule keeps it",
        ids[3]: "-no rule keeps it",
    }
    assert shelf.kept(last=1, min=3) == ids[:3]


def test_no_backups_no_decisions(shelf: Shelf) -> None:
    assert shelf.decide(last=3) == {}
    assert shelf.prune(last=3) == prune.Pruned((), 0, prune.Unnamed())


def test_a_held_backup_stays_and_uses_up_no_rule(shelf: Shelf) -> None:
    ids = shelf.daily(6)
    for name in (ids[0], ids[5]):
        shelf.repository.find(name).remember(keep=True)
    decided = shelf.decide(last=2)
    assert decided[ids[0]] == decided[ids[5]] == "held by keep"
    assert shelf.kept(last=2) == [ids[0], ids[1], ids[2], ids[5]]
    # but it is there: no other has to stay only to make up the least number
    assert shelf.kept(min=2) == [ids[0], ids[5]]


def test_a_held_damaged_backup_stays(shelf: Shelf) -> None:
    shelf.daily(3)
    old = shelf.add(NOON - timedelta(days=9), "damaged", keep=True)
    assert shelf.decide(last=1)[old] == "held by keep"


@pytest.mark.parametrize("state", ["damaged", "unverified"])
def test_what_is_not_good_does_not_push_out_what_is(shelf: Shelf, state: str) -> None:
    bad = [shelf.add(NOON + timedelta(days=n), state) for n in range(1, 5)]
    good = shelf.daily(4)
    decided = shelf.decide(last=3, days=1, min=1)
    assert [i for i in good if not decided[i].startswith("-")] == good[:3]
    # and it stays itself, for nothing newer is better
    for name in bad:
        assert decided[name].endswith("; stays until 3 newer verified ones are there")


def test_what_is_not_good_goes_when_enough_newer_ones_are_kept(shelf: Shelf) -> None:
    unverified = shelf.add(NOON - timedelta(days=20), "unverified")
    damaged = shelf.add(NOON - timedelta(days=21), "damaged")
    good = shelf.daily(2)
    wait = "stays until 3 newer verified ones are there"
    assert shelf.decide(last=3)[unverified] == (
        f"not verified: counts for no rule; {wait}"
    )
    # one between the two: it is newer than the damaged one only
    shelf.add(NOON - timedelta(days=20, hours=1))
    decided = shelf.decide(last=3)
    assert not decided[unverified].startswith("-")
    assert decided[damaged] == (
        "-damaged: database.dump: was changed (checksum); "
        "3 newer verified ones are there"
    )
    # what is there today but is to be forgotten does not count
    assert shelf.decide(last=2)[unverified].startswith("-not verified: ")
    shelf.repository.find(good[0]).remember(verified=None)
    assert not shelf.decide()[good[0]].startswith("-")
    assert shelf.decide()[unverified] == (
        "-not verified: counts for no rule; 1 newer verified one is there"
    )


def test_those_to_be_forgotten_are_not_newer_ones_that_are_there(shelf: Shelf) -> None:
    held = shelf.add(NOON, keep=True)
    between = shelf.add(NOON - timedelta(days=1))
    bad = shelf.add(NOON - timedelta(days=2), "damaged")
    decided = shelf.decide(last=0, min=1)
    assert decided[held] == "held by keep"
    assert decided[between].startswith("-")
    assert decided[bad].endswith("; 1 newer verified one is there")
    # nor are those that stay for another reason than that they are good
    shelf.add(NOON + timedelta(days=1), "foreign")
    shelf.add(NOON + timedelta(days=2), "damaged", keep=True)
    assert shelf.decide(last=2)[bad].endswith("; 2 newer verified ones are there")
    assert not shelf.decide(last=3)[bad].startswith("-")


def test_the_last_good_one_stays_below_a_heap_of_bad_ones(shelf: Shelf) -> None:
    good = shelf.add(NOON - timedelta(days=400))
    shelf.daily(3, state="damaged")
    assert shelf.decide()[good] == "at least 1 verified"
    assert shelf.prune().forgotten == ()


def test_another_sites_backup_is_never_touched(shelf: Shelf) -> None:
    foreign = [shelf.add(NOON - timedelta(days=n, hours=1), "foreign") for n in (0, 50)]
    shelf.repository.find(foreign[1]).remember(
        verified={"time": "now", "problems": ["manifest.json: is not signed", "x: bad"]}
    )
    shelf.daily(3)
    decided = shelf.decide(last=1)
    assert decided[foreign[0]] == "another site's: never touched"
    assert decided[foreign[1]] == "damaged and not signed by us: never touched"
    assert len(shelf.prune(last=1).forgotten) == 2
    assert set(foreign) < set(shelf.ids())


def test_what_cannot_be_judged_is_never_touched(shelf: Shelf) -> None:
    shelf.daily(3)
    newer_format = shelf.add(NOON - timedelta(days=10))
    (shelf.path / newer_format / "manifest.json").write_text('{"format": 2}')
    nonsense = "19990231T000000Z"
    shutil.copytree(shelf.path / shelf.ids()[0], shelf.path / nonsense)
    unreadable = shelf.add(NOON - timedelta(days=11))
    (shelf.path / unreadable / "manifest.json").unlink()
    (shelf.path / unreadable / "manifest.json").mkdir()
    empty = shelf.path / f"{NOON - timedelta(days=12):%Y%m%dT%H%M%SZ}"
    empty.mkdir()
    decided = shelf.decide(last=1)
    assert decided[newer_format] == "of another version's format: never touched"
    assert decided[nonsense] == "its name is no time: never touched"
    assert decided[unreadable] == "cannot be read (is not a plain file): never touched"
    assert decided[empty.name].startswith("-damaged: manifest.json cannot be read; ")


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
    told = [line for line in shelf.repository.journal() if line["event"] == "forget"]
    assert [(t["backup"], t["reason"]) for t in told] == [
        (ids[2], "no rule keeps it"),
        (ids[1], "no rule keeps it"),
    ]
    assert shelf.prune(last=1).forgotten == ()


_KILLED = """
import os, shutil, signal, sys
from ckanext.dbmanage.engine import retention
from ckanext.dbmanage.engine.repository import Repository
def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
where = {"rename": (retention, "sync_directory"), "removal": (shutil, "rmtree")}
module, name = where[sys.argv[3]]
repository = Repository(sys.argv[1], (sys.argv[2],))
policy = {"last": 1, "days": 0, "weeks": 0, "months": 0, "min": 1}
with repository.lock("prune"):
    decided = retention.decide(repository.backups(), policy)
    setattr(module, name, end)
    retention.prune(repository, decided)
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
        raise PermissionError(13, "Permission denied", str(path / "database.dump"))

    with monkeypatch.context() as patched, pytest.raises(DbmanageError) as raised:
        patched.setattr(retention.shutil, "rmtree", refuse)
        shelf.prune(last=1)
    assert f"backup {ids[1]} could not be removed" in str(raised.value)
    assert "database.dump: Permission denied" in str(raised.value)
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


def test_memory_does_not_grow_with_the_lists(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peak(lines: int) -> int:
        for number in range(2):
            name = shelf.add(
                NOON - timedelta(days=number), "unverified", uploads=[b"a"]
            )
            manifest = json.loads((shelf.path / name / "manifest.json").read_bytes())
            del manifest["contents"]["files.jsonl"]  # its checksum is beside the point
            written = dumped(sign(manifest, SECRET, "manifest"))
            (shelf.path / name / "manifest.json").write_bytes(written)
            with open(shelf.path / name / "files.jsonl", "ab") as file:
                for line in range(lines):
                    digest = hashlib.sha256(b"%d" % line).hexdigest()
                    file.write(dumped_line({"path": f"{line}", "sha256": digest}))
        found = shelf.repository.backups()  # whose manifests take memory of their own
        monkeypatch.setattr(Repository, "backups", lambda _: found)
        tracemalloc.start()
        with shelf.repository.lock("prune"):
            assert not prune.unnamed_objects(shelf.repository, set()).problem
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        monkeypatch.undo()
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
        (b"not JSON\n", "files.jsonl: line 1 is not a JSON object"),
        (b"[1]\n", "files.jsonl: line 1 is not a JSON object"),
        (b'{"path": "a", "sha256": "../x"}\n', "files.jsonl: line 1 has no sha256"),
        (
            b'{"path": "' + b"a" * 70_000 + b'"}',
            "files.jsonl: line 1 is not a JSON object",
        ),
        (b'{"path": "a"}\n', "files.jsonl: was changed (checksum)"),
        (b"", "files.jsonl: was changed (checksum)"),
        ("missing", "files.jsonl: is missing"),
        ("link", "files.jsonl: is a link, not a plain file"),
        ("pipe", "files.jsonl: is not a plain file"),
        ("directory", "files.jsonl: is not a plain file"),
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
    listed = shelf.path / bad / "files.jsonl"
    whole = listed.read_bytes()
    listed.unlink()
    if isinstance(content, bytes):
        listed.write_bytes(content)
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


def test_no_list_beside_a_manifest_that_cannot_be_read_stops_it_too(
    shelf: Shelf,
) -> None:
    shelf.add(NOON, uploads=[b"good"])
    bad = shelf.add(NOON + timedelta(days=1), uploads=[b"bad"])
    (shelf.path / bad / "manifest.json").write_bytes(b"{}")
    (shelf.path / bad / "files.jsonl").unlink()
    assert f"{bad}: files.jsonl: is missing" in shelf.prune(last=1).objects.problem
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
    assert [phase for phase, *_ in told] == ["forget", "objects", "objects"]
    (before, whole), (half, still) = (each[1:] for each in told[1:])
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
