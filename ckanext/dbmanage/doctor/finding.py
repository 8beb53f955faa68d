"""What a check finds: well, a hint, a problem; and how old things are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from ..engine.clock import now, parse_stamp
from ..engine.repository.repository import Repository
from ..engine.site import Site

OK, HINT, PROBLEM = "ok", "hint", "problem"
#: a backup a night, and one that failed is seen the next morning
FRESH, STALE = timedelta(hours=26), timedelta(days=7)
PROVEN = timedelta(days=31)


@dataclass(frozen=True)
class Finding:
    """What a check found: its name, `ok`, `hint` or `problem`, and a sentence."""

    name: str
    state: str
    text: str


Check = Callable[[Site, Repository], Iterator[tuple[str, str]]]


def age(time: str | None) -> timedelta:
    if not time:
        return timedelta.max
    return now() - parse_stamp(time)


def told(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
