"""Nights: what each did, remembered for a year, and read again.

The journal has a line of each for people, but grows by each job and is begun anew when
it is large. So the last nights stand, signed, in a file of their own: a page reads that
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ..engine.clock import is_future, parse_stamp, stamp
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from .safety import FRESH

#: the steps of a night, in their order
STEPS = ("backup", "prove", "push", "prune", "publish")
#: what became of a step: `SKIPPED` lacks what it needs, `NOTHING` was not due, or not
#: set
DONE, FAILED, SKIPPED, NOTHING = "done", "failed", "skipped", "nothing"
RESULTS = (DONE, FAILED, SKIPPED, NOTHING)

_FILE = "nights"
#: nights that are remembered, a year and a month; of so many what each step said too
_MOST, _WHOLE = 400, 30
_LONGEST = 400  # letters of what a step says


@dataclass(frozen=True)
class Step:
    """A step of a night: `name` is of `STEPS`, `result` of `RESULTS`.

    `backup` is the id of the backup that it made or looked at, or empty.
    """

    name: str
    result: str
    seconds: float = 0.0
    message: str = ""
    backup: str = ""


@dataclass(frozen=True)
class Night:
    """A night: when it `begun`, in UTC, and when it `ended`, None while it has not.

    `before` is when the night before it began, None when nobody knows; `free` are the
    bytes on the disk of the backups at its end, 0 when nobody knows.
    """

    begun: datetime
    ended: datetime | None = None
    steps: tuple[Step, ...] = ()
    before: datetime | None = None
    free: int = 0

    @property
    def failed(self) -> tuple[Step, ...]:
        """The steps that failed."""
        return tuple(each for each in self.steps if each.result == FAILED)

    @property
    def well(self) -> bool:
        """Whether it came to its end, and nothing failed."""
        return self.ended is not None and not self.failed

    @property
    def seconds(self) -> float:
        """How long it took, 0 while it has not ended."""
        took = self.ended - self.begun if self.ended else timedelta()
        return max(took.total_seconds(), 0.0)  # a clock may have been set back

    @property
    def backup(self) -> str:
        """The id of the backup that it took, or empty."""
        found = (s.backup for s in self.steps if s.name == "backup" and s.backup)
        return next(found, "")

    @property
    def missed(self) -> int:
        """How many nights before this one are missing."""
        gap = self.begun - self.before if self.before else timedelta()
        return max(round(gap / timedelta(days=1)) - 1, 0)

    @property
    def late(self) -> bool:
        """Whether it makes up for one that did not begin in its time."""
        return self.before is not None and self.begun - self.before > FRESH

    def step(self, name: str) -> Step | None:
        """The step of a name, None where the night did not come to it."""
        return next((each for each in self.steps if each.name == name), None)


def nights(repository: Repository) -> tuple[Night, ...]:
    """The nights of about a year, the newest first. It raises nothing.

    One that was killed has not `ended`, as one that is at work has not: `at_work`
    tells which. Those that a clock of the future began are left out.
    """
    listed = repository.recall(_FILE).get("nights")
    found = map(_understood, listed if isinstance(listed, list) else ())
    return tuple(each for each in found if each and not is_future(each.begun))


def killed(repository: Repository, known: Sequence[Night]) -> Night | None:
    """The newest of the nights but the one that is at work, where it has not ended.

    So a night that was killed is that until one after it has come to its end.
    """
    last = next(iter(known), None)
    if last and not last.ended and at_work(repository):
        last = next(iter(known[1:]), None)
    # it may have ended since `known` was read
    if last and not last.ended and last in nights(repository):
        return last
    return None


def at_work(repository: Repository) -> str:
    """Who does a night now, and since when; empty when nobody does."""
    return repository.holder(".nightly")


def remember(repository: Repository, night: Night, known: Sequence[Night]) -> None:
    """Notes a night, in place of an older note of it. Raises OSError."""
    every = [night, *(each for each in known if each.begun != night.begun)][:_MOST]
    short = [
        replace(each, steps=tuple(replace(s, message="") for s in each.steps))
        for each in every[_WHOLE:]
    ]
    facts = [_noted(each) for each in [*every[:_WHOLE], *short]]
    repository.memorize(_FILE, {"nights": facts})


def told(night: Night) -> dict[str, Any]:
    """A night as `nightly --json`, the journal and the API tell of it."""
    return {
        "begun": stamp(night.begun),
        "ended": night.ended and stamp(night.ended),
        "seconds": round(night.seconds, 1),
        "result": DONE if night.well else FAILED,
        "missed": night.missed,
        "late": night.late,
        "before": night.before and stamp(night.before),
        "backup": night.backup,
        "steps": [vars(each) for each in night.steps],
    }


def _noted(night: Night) -> list[Any]:
    moments = (night.begun, night.ended, night.before)
    steps = [
        [s.name, s.result, s.seconds, s.message[:_LONGEST], s.backup]
        for s in night.steps
    ]
    return [*(each and stamp(each) for each in moments), night.free, steps]


def _understood(noted: Any) -> Night | None:
    """A night as it was noted, None when that is none."""
    try:
        begun, ended, before, free, steps = noted
        return Night(
            parse_stamp(begun),
            parse_stamp(ended) if ended else None,
            tuple(
                Step(name, result, float(seconds), one_line(message), one_line(backup))
                for name, result, seconds, message, backup in steps
                if name in STEPS and result in RESULTS
            ),
            parse_stamp(before) if before else None,
            int(free),
        )
    except (TypeError, ValueError, OverflowError):
        return None
