"""Nights for the page and the API: the last one, the next one, the year."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from statistics import median
from typing import Any

from ckan.plugins import toolkit as tk

from ..engine.clock import now, parse_stamp, stamp
from ..engine.repository.repository import Repository
from ..operations.growth import forecast
from ..operations.nights import DONE, FAILED, Night, at_work, nights, told
from ..portal.config import Options
from ..portal.timer import UNITS, next_night
from .known import reread, stamped

Described = dict[str, Any]

#: what a day of the year is, the better one later; a day before all is none of these
_RANKS = ("none", "failed", "verified", "proven")
#: months of a year that begins amid one
_MONTHS = 12
#: gaps between nights that tell of their rhythm
_GAPS = 7


def remembered(repository: Repository) -> tuple[Night, ...]:
    """The nights, the newest first; read again only when there is another."""
    path = repository.path / ".nights.json"
    return reread((path, "nights"), stamped(path), lambda: nights(repository))


def of_nights(
    repository: Repository,
    options: Options,
    whole: list[Described],
    free: int | None,
) -> dict[str, Any]:
    """What `dbmanage_status` tells of nights; `whole` are the backups of all parts."""
    known = remembered(repository)
    last = known[0] if known else None
    # whoever is at work has signed its lock
    running = at_work(repository) if last and last.ended is None else ""
    ended = [each for each in known if each.ended or each is not last or not running]
    growth = forecast(known, free)
    return {
        "night": ended[0] and told(ended[0]) if ended else None,
        "night_running": running and last and stamp(last.begun),
        "next_night": _next(options, ended),
        "year": reread(
            (repository.path, "year"),
            # what is kept of each while nothing has changed is the same: soon compared
            (stamp()[:15], known, whole, running),
            lambda: _year(ended, whole),
        ),
        "forecast": vars(growth) | {"day": growth.day and stamp(growth.day)},
    }


def _next(options: Options, known: Sequence[Night]) -> dict[str, str] | None:
    """When the next night is due, and whether that is `known` from the timer or from
    the `rhythm` of the last ones; None where nobody knows."""
    # what is enabled is known by links, which a change of the directory tells
    wants = UNITS / "timers.target.wants"
    by_timer = reread(
        (Path(options.text("__file__")), "timer"),
        (stamped(UNITS), stamped(wants), stamp()[:15]),
        lambda: next_night(options),
    )
    if by_timer:
        return {"time": stamp(by_timer), "known": "timer"}
    begun = [each.begun for each in known[: _GAPS + 1]]
    gaps = [(a - b).total_seconds() for a, b in zip(begun, begun[1:], strict=False)]
    if not gaps or (gap := timedelta(seconds=median(gaps))) < timedelta(hours=1):
        return None
    due = begun[0] + gap
    if due < now() - gap:
        return None  # they have stopped
    return {"time": stamp(due), "known": "rhythm"}


def _year(known: Sequence[Night], whole: list[Described]) -> list[list[str]]:
    """The days of a year to today, in the site's zone: `[day, state]` of each.

    The state is empty before there was any night or backup, and today until there is.
    """
    zone: tzinfo = tk.h.get_display_timezone()
    best: dict[date, str] = {}
    for moment, state in (*_of_nights(known), *_of_backups(whole)):
        day = moment.astimezone(zone).date()
        best[day] = max(best.get(day, "none"), state, key=_RANKS.index)
    today = now().astimezone(zone).date()
    months = today.year * 12 + today.month - _MONTHS
    begin = date(months // 12, months % 12 + 1, 1)
    first = min(best, default=today)
    found = []
    for number in range((today - begin).days + 1):
        day = begin + timedelta(days=number)
        unknown = "" if day < first or day == today else "none"
        found.append([str(day), best.get(day, unknown)])
    return found


def _of_nights(known: Sequence[Night]) -> Iterator[tuple[datetime, str]]:
    for night in known:
        backup, proof = night.step("backup"), night.step("prove")
        if backup is None or backup.result == FAILED:
            yield night.begun, "failed"
        elif proof and proof.result in (DONE, FAILED):
            yield night.begun, "proven" if proof.result == DONE else "failed"
        else:
            yield night.begun, "verified"


def _of_backups(whole: list[Described]) -> Iterator[tuple[datetime, str]]:
    for each in whole:
        disproved = each["state"] == "verified" and each["proved"]
        state = "failed" if disproved or each["state"] == "damaged" else each["state"]
        if state in _RANKS and each["created"] and not each["future"]:
            yield parse_stamp(each["created"]), state
