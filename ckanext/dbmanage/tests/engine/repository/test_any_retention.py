"""What holds for any rules of retention, and any backups."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckanext.dbmanage.engine.clock import id_stamp
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.repository.retention import decide
from ckanext.dbmanage.engine.repository.rules import RULES, ruled

from ...support.shelf import NOON, Shelf

_TIMES = st.integers(0, 3 * 366 * 86400).map(
    lambda seconds: datetime(2019, 1, 1) + timedelta(seconds=seconds)
)
#: many of one day too, else each rule would keep all
_NAMES = st.lists(
    _TIMES | st.integers(0, 3 * 86400).map(lambda s: NOON - timedelta(seconds=s)),
    max_size=25, unique=True,
).map(lambda times: [id_stamp(time) for time in sorted(times, reverse=True)])  # fmt: skip
_RULES = ("last", *RULES, "within")
#: few rules, or none: where many hold, each keeps what another loses
_POLICY = (
    st.dictionaries(st.sampled_from(_RULES), st.integers(1, 5), max_size=3)
    .map(lambda counts: dict.fromkeys(_RULES, 0) | counts)
    .map(lambda policy: policy | {"within": policy["within"] * 20_000})
)
_KEYS: dict[str, Any] = {
    "hours": lambda t: (t.date(), t.hour),
    "days": lambda t: t.date(),
    "weeks": lambda t: t.isocalendar()[:2],
    "months": lambda t: (t.year, t.month),
    "years": lambda t: t.year,
}


def kept(names: list[str], policy: dict[str, int]) -> set[str]:
    return {name for name, _ in ruled(names, policy)}


@given(_NAMES, _POLICY)
def test_the_rules_keep_what_they_say(names: list[str], policy: dict[str, int]) -> None:
    """Said another way: periods from the newest on, ages step by step."""
    times = {name: datetime.strptime(name, "%Y%m%dT%H%M%SZ") for name in names}
    wanted = set(names[: policy["last"]])
    for rule, key in _KEYS.items():
        periods = sorted({key(time) for time in times.values()}, reverse=True)
        for period in periods[: policy[rule]]:
            wanted.add(max(n for n, time in times.items() if key(time) == period))
    for number, name in enumerate(names if policy["within"] else []):
        newer = [times[each] for each in names[: number + 1]]
        steps = [
            (a - b).total_seconds() for a, b in zip(newer, newer[1:], strict=False)
        ]
        if sum(min(step, 7 * 86400) for step in steps) <= policy["within"]:
            wanted.add(name)
    assert kept(names, policy) == wanted


@given(_NAMES, _POLICY, st.sampled_from(_RULES), st.integers(1, 3))
def test_who_keeps_more_loses_nothing(
    names: list[str], policy: dict[str, int], rule: str, more: int
) -> None:
    assert kept(names, policy) <= kept(names, policy | {rule: policy[rule] + more})


# ------------------------------------------------------------------- of real backups


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> list[Backup]:
    """Of all states, from a minute to two years apart."""
    shelf, chance = Shelf(tmp_path_factory.mktemp("any") / "backups"), random.Random(3)
    time = NOON
    for state in ("verified", "damaged", "unverified", "foreign") * 11:
        time -= timedelta(seconds=chance.choice((1, 60, 3000, 80_000, 900_000)))
        state = chance.choice(("verified", "verified", state))
        name = shelf.add(time, state, keep=chance.random() < 0.25)
        if state == "verified" and chance.random() < 0.15:
            shelf.repository.find(name).remember(proved={"time": "now", "problems": []})
    return shelf.repository.backups()


@given(st.data(), _POLICY, st.integers(1, 4))
def test_no_backup_is_lost_that_somebody_needs(
    backups: list[Backup], data: st.DataObject, policy: dict[str, int], least: int
) -> None:
    policy |= {"min": least}
    some = data.draw(st.lists(st.sampled_from(backups), unique_by=lambda b: b.id))
    decisions = decide(some, policy)
    # whatever the order in which they come
    assert decide(data.draw(st.permutations(some)), policy) == decisions
    assert {each.backup.id for each in decisions} == {each.id for each in some}
    state = {each.id: each.describe() for each in some}
    stays = {each.backup.id for each in decisions if not each.forget}
    good = [i for i in sorted(state, reverse=True)
            if state[i]["state"] in ("verified", "proven")]  # fmt: skip
    proven = [name for name in good if state[name]["state"] == "proven"]
    assert {*good[:1], *proven[:1]} <= stays
    assert {
        n for n, d in state.items() if d["keep"] or d["state"] == "foreign"
    } <= stays
    assert len(stays.intersection(good)) >= min(least, len(good))
    # who prunes again forgets no more
    left = [each for each in some if each.id in stays]
    assert not any(each.forget for each in decide(left, policy))
    # what is not good goes only where better ones stay that are newer
    for name in state.keys() - stays - {*good}:
        newer = [n for n in stays.intersection(good) if n > name]
        assert len(newer) >= max(1, policy["last"])
