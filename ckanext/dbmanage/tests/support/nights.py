"""A year of nights that were never done."""

from __future__ import annotations

from datetime import datetime, timedelta

from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.operations.nights import STEPS, Night, Step, remember


def night(begun: datetime, results: str = "dndds", free: int = 0) -> Night:
    """A night whose steps came to these results, by their first letters."""
    words = {"d": "done", "f": "failed", "s": "skipped", "n": "nothing"}
    said = {"f": "it did not work", "n": "no other place is set"}
    steps = tuple(
        Step(name, words[letter], 61.5, said.get(letter, ""), "20261123T045500Z")
        for name, letter in zip(STEPS, results, strict=True)
    )
    end = begun + timedelta(minutes=5)
    return Night(begun, end, steps, begun - timedelta(days=1), free)


def _results(number: int) -> str:
    if number == 0:
        return "dnnfd"
    return "fsddd" if number % 50 == 3 else "ddndd" if number % 7 == 6 else "dnndd"


def year(repository: Repository, days: int = 365) -> list[Night]:
    """Nights to an hour ago: proven each seventh, one in fifty failed, some are missing.

    Of the last one a step failed. The disk fills by a MB a night.
    """
    first = now().replace(microsecond=0) - timedelta(hours=1)
    made = [
        night(
            first - timedelta(days=number),
            _results(number),
            10**9 + number * 10**6,
        )
        for number in range(days)
        if number % 90 not in (80, 81)
    ]
    repository.make()
    remember(repository, made[0], made[1:])
    return made
