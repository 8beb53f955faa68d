"""What is kept is what the rules say."""

from __future__ import annotations

import random
import shutil
from datetime import datetime, timedelta
from typing import Any

import pytest

from ckanext.dbmanage.engine.repository import prune, retention

from ...support.shelf import NONE, NOON, Shelf


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
    assert shelf.decide(days=3)[wanted[2]] == "day 2020-11-21"


def test_weeks_are_those_of_iso_over_the_turn_of_the_year(shelf: Shelf) -> None:
    thursday = shelf.add(datetime(2020, 12, 31))
    sunday = shelf.add(datetime(2021, 1, 3))
    monday = shelf.add(datetime(2021, 1, 4))
    assert shelf.decide(weeks=2) == {
        monday: "week 2021-W01",
        sunday: "week 2020-W53",
        thursday: "-no rule keeps it",
    }


def test_a_month_ends_at_midnight_in_utc(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    first = shelf.add(datetime(2020, 12, 1, 0, 0, 0))
    last = shelf.add(datetime(2020, 11, 30, 23, 59, 59))
    other = shelf.add(datetime(2020, 11, 1))
    assert shelf.decide(months=6) == {
        first: "month 2020-12",
        last: "month 2020-11",
        other: "-no rule keeps it",
    }


def test_each_rule_that_keeps_a_backup_is_named(shelf: Shelf) -> None:
    ids = shelf.daily(2)
    decided = shelf.decide(last=1, days=2, weeks=1, months=1)
    # a Monday, and the Sunday before it in the same month
    assert decided == {
        ids[0]: "the last 1, day 2020-11-30, week 2020-W49, month 2020-11",
        ids[1]: "day 2020-11-29",
    }


def test_any_calendar_against_the_rules_said_another_way(shelf: Shelf) -> None:
    chance = random.Random(4711)
    for _ in range(120):
        shelf.add(datetime(2020, 1, 1) + timedelta(minutes=chance.randrange(500_000)))
    ids = shelf.ids()
    times = [datetime.strptime(i, "%Y%m%dT%H%M%SZ") for i in ids]
    for _ in range(40):
        policy = {rule: chance.randrange(6) for rule in NONE} | {"min": 1}
        wanted = {*ids[: policy["last"]], ids[0]}
        for rule, key in {
            "hours": lambda t: (t.date(), t.hour),
            "years": lambda t: t.year,
            "days": lambda t: t.date(),
            "weeks": lambda t: t.isocalendar()[:2],
            "months": lambda t: (t.year, t.month),
        }.items():
            newest: dict[Any, str] = {}
            for name, time in zip(ids, times, strict=True):
                newest.setdefault(key(time), name)
            wanted |= {newest[k] for k in sorted(newest, reverse=True)[: policy[rule]]}
        assert set(shelf.kept(**policy)) == wanted, policy


def test_within_keeps_all_of_a_time_up_to_the_newest(shelf: Shelf) -> None:
    ids = [shelf.add(NOON - timedelta(hours=6 * n)) for n in range(9)]
    decided = shelf.decide(within=86400)
    assert [i for i in ids if decided[i] == "within 1 day"] == ids[:5]
    assert [i for i in ids if decided[i].startswith("-")] == ids[5:]


def test_a_night_with_a_clock_a_year_ahead_makes_no_other_old(shelf: Shelf) -> None:
    """While it is ahead, that backup is of no future."""
    ids = shelf.daily(9)
    ahead = shelf.add(NOON + timedelta(days=366))
    assert shelf.kept(within=10 * 86400) == [ahead, *ids[:4]]
    assert set(shelf.kept(within=30 * 86400)) == {ahead, *ids}


def test_hours_and_years_keep_the_newest_of_each(shelf: Shelf) -> None:
    evening = shelf.add(datetime(2020, 12, 31, 20, 59))
    again = shelf.add(datetime(2020, 12, 31, 20, 10))
    before = shelf.add(datetime(2019, 6, 1))
    assert shelf.decide(hours=2, years=1) == {
        evening: "hour 2020-12-31 20, year 2020",
        again: "-no rule keeps it",
        before: "hour 2019-06-01 00",
    }


def test_without_a_rule_the_least_number_stays(shelf: Shelf) -> None:
    ids = shelf.daily(4)
    assert shelf.decide(min=2) == {
        ids[0]: "at least 2 verified",
        ids[1]: "at least 2 verified",
        ids[2]: "-no rule keeps it",
        ids[3]: "-no rule keeps it",
    }
    assert shelf.kept(last=1, min=3) == ids[:3]


def test_none_that_is_verified_goes_while_they_are_spared(shelf: Shelf) -> None:
    good = shelf.daily(3)
    damaged = shelf.add(NOON - timedelta(days=9), "damaged")
    policy = NONE | {"last": 1}
    decided = retention.decide(shelf.repository.backups(), policy)
    spared = retention.spared(decided, "the disk is away")
    assert [(each.backup.id, each.forget, each.reason) for each in spared[:3]] == [
        (good[0], False, "the last 1"),
        (good[1], False, "the disk is away"),
        (good[2], False, "the disk is away"),
    ]
    assert spared[3].backup.id == damaged and spared[3] == decided[3]
    assert spared[3].forget


def test_no_backups_no_decisions(shelf: Shelf) -> None:
    assert shelf.decide(last=3) == {}
    assert shelf.prune(last=3) == prune.Pruned((), 0, prune.Unnamed())


def test_a_held_backup_stays_and_uses_up_no_rule(shelf: Shelf) -> None:
    ids = shelf.daily(6)
    for name in (ids[0], ids[5]):
        shelf.repository.find(name).remember(keep=True)
    decided = shelf.decide(last=2)
    assert decided[ids[0]] == decided[ids[5]] == "held"
    assert shelf.kept(last=2) == [ids[0], ids[1], ids[2], ids[5]]
    # but it is there: no other has to stay only to make up the least number
    assert shelf.kept(min=2) == [ids[0], ids[5]]


def test_the_newest_verified_stays_though_an_older_one_is_held(shelf: Shelf) -> None:
    """Else a hold of years ago would satisfy `min`, and the backup of today go."""
    ids = shelf.daily(4)
    shelf.repository.find(ids[3]).remember(keep=True)
    assert shelf.decide(min=1) == {
        ids[0]: "the newest verified",
        ids[1]: "-no rule keeps it",
        ids[2]: "-no rule keeps it",
        ids[3]: "held",
    }


def test_a_held_damaged_backup_stays(shelf: Shelf) -> None:
    shelf.daily(3)
    old = shelf.add(NOON - timedelta(days=9), "damaged", keep=True)
    assert shelf.decide(last=1)[old] == "held"


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
        "-damaged: database.list: was changed (checksum); "
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
    assert decided[held] == "held"
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
    (shelf.path / newer_format / "manifest.json").write_text('{"format": 3}')
    nonsense = "19990231T000000Z"
    shutil.copytree(shelf.path / shelf.ids()[0], shelf.path / nonsense)
    unreadable = shelf.add(NOON - timedelta(days=11))
    (shelf.path / unreadable / "manifest.json").unlink()
    (shelf.path / unreadable / "manifest.json").mkdir()
    empty = shelf.path / f"{NOON - timedelta(days=12):%Y%m%dT%H%M%SZ}"
    empty.mkdir()
    decided = shelf.decide(last=1)
    assert decided[newer_format] == "of another version's format: never touched"
    assert decided[nonsense] == "its name is not a time: never touched"
    assert decided[unreadable] == "cannot be read (is not a plain file): never touched"
    assert decided[empty.name].startswith("-damaged: manifest.json cannot be read; ")
