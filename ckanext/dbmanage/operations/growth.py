"""When the disk of the backups is full, as the last nights tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..engine.clock import now
from .nights import Night

#: nights that are looked at, and that are needed to say anything
_MOST, _LEAST = 30, 7
#: days of a forecast; beyond them nobody knows
_FAR = 3650

FEW, STEADY, FAR, DAY = "few", "steady", "far", "day"


@dataclass(frozen=True)
class Forecast:
    """`known` is `FEW` (too few nights to say), `STEADY` (it does not fill), `FAR` (not
    within ten years) or `DAY`: on `day`. `nights` are those looked at, `bytes` what a
    day takes, negative where more became free than was taken."""

    known: str
    nights: int
    bytes: int = 0
    day: datetime | None = None


def forecast(nights: Sequence[Night], free: int | None) -> Forecast:
    """Where a straight line through what was free after each night ends.

    `nights` are the newest first, `free` the bytes that are free now.
    """
    seen = [each for each in nights if each.ended and each.free][:_MOST]
    if len(seen) < _LEAST or not free:
        return Forecast(FEW, len(seen))
    zero = seen[0].begun
    days = [(each.begun - zero) / timedelta(days=1) for each in seen]
    if max(days) - min(days) < _LEAST - 1:
        return Forecast(FEW, len(seen))
    # least squares
    middle, mean = sum(days) / len(days), sum(each.free for each in seen) / len(seen)
    above = sum((d - middle) * (e.free - mean) for d, e in zip(days, seen, strict=True))
    slope = above / sum((day - middle) ** 2 for day in days)
    if slope >= 0:
        return Forecast(STEADY, len(seen), round(-slope))
    left = free / -slope
    if left > _FAR:
        return Forecast(FAR, len(seen), round(-slope))
    return Forecast(DAY, len(seen), round(-slope), now() + timedelta(days=left))
