"""How old what protects a portal's data is, and how old it may be.

One rule for the doctor, monitors, metrics, the page, and whoever is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..engine.clock import (
    has_come,
    is_future,
    is_stamp,
    now,
    parse_id,
    parse_stamp,
    stamp,
)
from ..engine.offsite.look import Seen
from ..portal.config import Options
from ..portal.remote import is_set
from ..records import published

BACKUP, PROOF, PUSH, PUBLISH = "backup", "proof", "push", "publish"
FRESH, LATE, FUTURE, NEVER = "fresh", "late", "future", "never"
#: beyond this a backup, or its copy elsewhere, is more than late
STALE = timedelta(days=7)


@dataclass(frozen=True)
class Age:
    """The age of one of these: of the newest backup, proof, copy elsewhere, dump.

    `time` is its stamp, None when there never was one; `first` since when there could
    be one, for the same; `limit` how old it may be, and zero is no limit.
    """

    limit: timedelta
    time: str | None
    first: str | None = None

    @property
    def state(self) -> str:
        """`fresh`, `late`, `never`, or `future`: then nobody knows how old it is."""
        if not self.time:
            return NEVER
        if is_future(moment := parse_stamp(self.time)):
            return FUTURE
        return LATE if self.limit and now() - moment > self.limit else FRESH

    @property
    def overdue(self) -> bool:
        """Whether there is to be a newer one; at first not before the limit is over."""
        if self.state == NEVER:
            return self.first is not None and Age(self.limit, self.first).overdue
        return self.state != FRESH

    @property
    def stale(self) -> bool:
        """Whether it is older than a week too."""
        most = max(self.limit, STALE)
        return self.overdue and Age(most, self.time or self.first).state != FRESH

    @property
    def due(self) -> str | None:
        """Since when it is late, or until when it is not; None where nobody knows."""
        since = self.time or self.first
        return since and stamp(parse_stamp(since) + self.limit)

    @property
    def seconds(self) -> float | None:
        """The age in seconds; None where there is none, or nobody knows it."""
        if not self.time or self.state == FUTURE:
            return None
        return max((now() - parse_stamp(self.time)).total_seconds(), 0.0)


def of_copy(options: Options, seen: Seen, first: str | None) -> Age | None:
    """The age of the newest backup that is at the other place; None without a place.

    It counts once it was compared there. `first` is when the oldest backup was taken.
    """
    if not is_set(options):
        return None
    ids = sorted(filter(has_come, seen.whole), reverse=True)
    ids += sorted(set(seen.whole) - set(ids), reverse=True)
    times = [time for id in ids if (time := _time_of(id))]
    return Age(options.limits[PUSH], next(iter(times), None), first)


def _time_of(id: str) -> str | None:
    try:
        return stamp(parse_id(id))
    except ValueError:
        return None


def of_dumps(options: Options, directory: str) -> Age | None:
    """The age of the public dumps; None where there are none.

    It is the moment of the databases that they show.
    """
    if not directory:
        return None
    try:
        found = published.read(Path(directory))
    except OSError:  # the check of the dumps tells
        return None
    return Age(options.limits[PUBLISH], moment_of(found.document)) if found else None


def moment_of(document: Mapping[str, object]) -> str:
    """The moment that a list of public dumps says, as a stamp."""
    return stamp(parse_stamp(str(document["snapshot"])))


def known_time(time: object) -> str | None:
    """A stamp out of what others may have written, or None."""
    return time if isinstance(time, str) and is_stamp(time) else None
