"""How old things are, and when they are late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ckanext.dbmanage.engine.clock import now, stamp
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.offsite.look import Seen
from ckanext.dbmanage.operations.ages import FRESH, FUTURE, LATE, NEVER, Age, of_copy
from ckanext.dbmanage.portal.config import PREFIX, Options

DAY = timedelta(days=1)


def ago(days: float) -> str:
    return stamp(now() - timedelta(days=days))


@pytest.mark.parametrize(
    ("age", "state", "overdue", "stale"),
    [
        (Age(DAY, ago(0.9)), FRESH, False, False),
        (Age(DAY, ago(1.1)), LATE, True, False),
        (Age(DAY, ago(7.1)), LATE, True, True),
        (Age(10 * DAY, ago(9)), FRESH, False, False),
        (Age(10 * DAY, ago(11)), LATE, True, True),
        (Age(0 * DAY, ago(999)), FRESH, False, False),
        # nobody knows its age: it is not new for ever
        (Age(DAY, ago(-365)), FUTURE, True, True),
        (Age(DAY, None), NEVER, False, False),
        # there could be one only since then
        (Age(DAY, None, ago(0.5)), NEVER, False, False),
        (Age(DAY, None, ago(1.5)), NEVER, True, False),
        (Age(DAY, None, ago(8)), NEVER, True, True),
    ],
)
def test_an_age_is_late_by_its_limit(
    age: Age, state: str, overdue: bool, stale: bool
) -> None:
    assert (age.state, age.overdue, age.stale) == (state, overdue, stale)


@pytest.mark.parametrize("value", ["-1", "1e3", "1.5", "many", "9" * 6, "9" * 5000])
@pytest.mark.parametrize("option", ["watch.proof_days", "undo_days", "keep_daily"])
def test_a_number_with_which_nobody_can_count_is_refused(
    option: str, value: str
) -> None:
    """A date a million days away is none: it ended pages, mails and metrics."""
    options = Options({PREFIX + option: value})
    with pytest.raises(
        Refused, match=f"{option} is '.*', not a number from 0 to 99999"
    ):
        _ = options.limits, options.undo_days, options.retention


def test_with_the_largest_number_all_can_be_counted() -> None:
    days = Options({PREFIX + "watch.proof_days": "99999"}).limits["proof"]
    assert now() - days < now() and Age(days, ago(1)).due


def test_the_age_of_the_copy_elsewhere_is_that_of_the_newest_there() -> None:
    options = Options({"ckanext.dbmanage.remote.repository": "/elsewhere"})
    names = dict.fromkeys(("20200101T000000Z", "20210101T000000Z"), "a")
    found = of_copy(options, Seen(whole=names), None)
    assert found and found.time == "2021-01-01T00:00:00Z" and found.stale
    # one of the future is the newest of nothing
    ahead = f"{now() + 9 * DAY:%Y%m%dT%H%M%SZ}"
    found = of_copy(options, Seen(whole=names | {ahead: "b"}), None)
    assert found and found.time == "2021-01-01T00:00:00Z"
    found = of_copy(options, Seen(whole={ahead: "b"}), None)
    assert found and found.state == FUTURE
    assert of_copy(Options({}), Seen(whole=names), None) is None
