"""When the disk is full, by the last nights."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.operations.growth import DAY, FAR, FEW, STEADY, forecast
from ckanext.dbmanage.operations.nights import Night

MB = 10**6


def _nights(*free: int, every: float = 1) -> list[Night]:
    """Nights after which so much was free, the newest first."""
    last = now()
    begun = [last - timedelta(days=n * every) for n in range(len(free))]
    return [Night(at, at, free=f) for at, f in zip(begun, free, strict=True)]


def test_a_straight_line_ends_where_the_disk_is_full() -> None:
    found = forecast(_nights(*(100 * MB + n * MB for n in range(30))), 100 * MB)
    assert (found.known, found.bytes, found.nights) == (DAY, MB, 30)
    assert found.day and abs(found.day - now() - timedelta(days=100)) < timedelta(
        hours=1
    )


def test_one_night_in_which_much_was_freed_turns_no_line_around() -> None:
    free = [100 * MB + n * MB for n in range(30)]
    free[15] += 20 * MB
    found = forecast(_nights(*free), 100 * MB)
    assert found.known == DAY and 0.8 * MB < found.bytes < 1.2 * MB


@pytest.mark.parametrize("every", [1, 0.01])
def test_few_nights_say_nothing_nor_many_of_one_day(every: float) -> None:
    few = [100 * MB + n * MB for n in range(6)]
    assert forecast(_nights(*few), MB).known == FEW
    many = [*few, 200 * MB, 201 * MB]
    assert forecast(_nights(*many, every=every), MB).known == (
        DAY if every == 1 else FEW
    )


def test_a_disk_that_does_not_fill_has_no_day() -> None:
    assert forecast(_nights(*[MB] * 9), MB).known == STEADY
    emptied = [100 * MB - n * MB for n in range(9)]
    assert forecast(_nights(*emptied), MB).known == STEADY
    slowly = [100 * MB + n for n in range(9)]
    assert forecast(_nights(*slowly), 100 * MB).known == FAR


def test_nights_that_do_not_know_what_was_free_do_not_count() -> None:
    assert forecast(_nights(*[0] * 30), MB).nights == 0
    assert forecast(_nights(*[MB] * 30), None).known == FEW
