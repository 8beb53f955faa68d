"""The headline: each state, and which of two matters more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ckanext.dbmanage.engine.clock import now, stamp
from ckanext.dbmanage.operations.ages import Age
from ckanext.dbmanage.operations.safety import (
    AMBER,
    GREEN,
    RED,
    SENTENCES,
    Known,
    every,
    headline,
    needed,
)


def backup(state: str = "proven", days: float = 0.2, **facts: Any) -> dict[str, Any]:
    time = stamp(now() - timedelta(days=days))
    proved = {"proven": time}.get(state)
    known = {"state": state, "created": time, "proved": proved, "future": False}
    return known | {"bytes": 1100, "sizes": {"files": 100}} | facts


def known(*backups: dict[str, Any], lacking: Any = (), **facts: Any) -> Known:
    whole = [each for each in backups if each not in lacking]
    return Known(list(backups), whole, **({"workers": 1, "free": 1100} | facts))


def aged(days: float) -> Age:
    return Age(timedelta(days=1), stamp(now() - timedelta(days=days)))


GOOD, HURT = backup(), backup("damaged", 2)
THEIRS = backup("unreadable", 3)
#: the worst first: what each is made of, beside all that is worse
STATES = [
    ("away", RED, known(away=True)),
    ("failed", RED, known(GOOD, failed=True)),
    ("empty", RED, known()),
    ("lacking", RED, known(backup("unverified"))),
    ("damaged", RED, known(GOOD, HURT)),
    ("disproved", RED, known(backup("verified", proved=stamp()), backup(days=2))),
    ("overdue", RED, known(backup(days=8))),
    ("overdue", AMBER, known(backup(days=2))),
    ("full", AMBER, known(GOOD, free=1099)),
    ("push-failed", AMBER, known(GOOD, steps={"push": "no"}, copied=aged(2))),
    ("uncopied", AMBER, known(GOOD, copied=aged(2))),
    ("uncopied", RED, known(GOOD, copied=aged(9))),
    ("unended", AMBER, known(GOOD, unended=True)),
    ("unreadable", AMBER, known(GOOD, THEIRS)),
    ("unproven", AMBER, known(backup("verified"))),
    ("stale", AMBER, known(backup("verified"), backup(days=32))),
    ("proof-failed", AMBER, known(GOOD, steps={"prove": "no"})),
    ("publish-failed", AMBER, known(GOOD, steps={"publish": "no"}, published=aged(2))),
    ("unpublished", AMBER, known(GOOD, published=aged(9))),
    ("prune-failed", AMBER, known(GOOD, steps={"prune": "no"})),
    ("future", AMBER, known(GOOD, backup(days=-9, future=True))),
    ("offline", AMBER, known(GOOD, workers=0)),
    ("running", GREEN, known(GOOD, running=True)),
    ("ok", GREEN, known(GOOD)),
]


@pytest.mark.parametrize(("state", "colour", "site"), STATES)
def test_each_state_has_its_colour_and_its_sentence(
    state: str, colour: str, site: Known
) -> None:
    found = headline(site)
    assert (found.state, found.colour) == (state, colour)
    assert "{" not in found.text


def test_there_is_no_sentence_without_a_state() -> None:
    assert set(SENTENCES) == {state for state, *_ in STATES}


@pytest.mark.parametrize(
    ("worse", "site"),
    [
        ("failed", known(failed=True, workers=0)),
        ("empty", known(workers=0, free=0)),
        ("lacking", known(HURT, THEIRS, workers=0)),
        ("damaged", known(backup(days=9), HURT, HURT, THEIRS, free=0)),
        ("disproved", known(backup("verified", 9, proved=stamp()), free=0)),
        ("overdue", known(backup("verified", 2), THEIRS, workers=0, free=0)),
        ("full", known(backup("verified"), THEIRS, workers=0, free=0)),
        ("full", known(GOOD, unended=True, free=0)),
        ("unended", known(backup("verified"), THEIRS, unended=True, workers=0)),
        ("unreadable", known(backup("verified"), THEIRS, redis=True)),
        ("unproven", known(backup("verified"), redis=True, workers=None)),
        ("offline", known(GOOD, redis=True, workers=None, running=True)),
    ],
)
def test_the_worse_of_many_is_said(worse: str, site: Known) -> None:
    assert headline(site).state == worse


def test_the_numbers_are_of_what_is_counted() -> None:
    found = headline(known(GOOD, HURT, HURT, THEIRS))
    assert (found.n, found.text) == (2, "Damaged backups: 2 of 4.")


def test_half_a_backup_is_no_protection() -> None:
    half, old = backup(), backup(days=3)
    assert headline(known(half, lacking=[half])).state == "lacking"
    assert headline(known(half, old, lacking=[half])).state == "overdue"


def test_one_of_the_future_is_not_last_nights_nor_a_proof() -> None:
    ahead, old = backup(days=-9000, future=True), backup("verified", 3)
    assert headline(known(old, ahead)).state == "overdue"
    assert headline(known(ahead)).state == "lacking"
    # nor is a proof new for ever whose clock was wrong
    wrong = backup(proved=stamp(now() + timedelta(days=9000)))
    assert headline(known(wrong)).state == "stale"


def test_the_terminal_asks_for_no_worker() -> None:
    site = known(GOOD, workers=None, free=None)
    assert headline(site).state == "ok" and needed(GOOD) == 1100


def test_all_that_is_wrong_is_told_the_worst_first() -> None:
    site = known(
        backup("verified", 2), HURT, failed=True, copied=aged(9), free=0,
        steps={"push": "no", "prune": "no"},
    )  # fmt: skip
    # what is late because it failed is told as late only after a week
    assert [each.state for each in every(site)] == [
        "failed", "damaged", "full", "push-failed", "uncopied", "unproven",
        "prune-failed", "ok",
    ]  # fmt: skip
