"""Moments, all in UTC, as they are written and said everywhere; and who is at work."""

import getpass
import os
import re
import socket
from datetime import datetime, timedelta, timezone

_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
_ID = "%Y%m%dT%H%M%SZ"
#: what the clocks of two hosts may differ by
SKEW = timedelta(minutes=5)
#: beyond that a clock was wrong, whatever its time zone
FAR = timedelta(days=1)
_UNITS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}


def now() -> datetime:
    """The present moment."""
    return datetime.now(timezone.utc)


def stamp(moment: datetime | None = None) -> str:
    """A moment, or the present one, as `2026-11-23T04:55:00Z`; stamps sort by time."""
    return f"{(moment or now()).astimezone(timezone.utc):{_STAMP}}"


def precise_stamp(moment: datetime) -> str:
    """A moment with its microseconds, as `2026-11-23T04:55:00.000000Z`."""
    return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S.%fZ}"


def parse_stamp(text: str) -> datetime:
    """The moment of a stamp of either form. Raises ValueError, TypeError."""
    if not _STAMPED.fullmatch(text):
        raise ValueError(f"{text!r} is not a moment")
    whole, _, fraction = text[:-1].partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction:0<6}+00:00")


def is_stamp(text: str) -> bool:
    """Whether a text is a stamp."""
    try:
        return bool(parse_stamp(text))
    except ValueError:
        return False


def id_stamp(moment: datetime | None = None) -> str:
    """A moment, or the present one, as ids begin with it: `20261123T045500Z`."""
    return f"{moment or now():{_ID}}"


def parse_id(text: str) -> datetime:
    """The moment that is the id of a backup. Raises ValueError."""
    return datetime.strptime(text, _ID).replace(tzinfo=timezone.utc)


def is_future(moment: datetime, by: timedelta = SKEW) -> bool:
    """Whether a moment that was noted has not come yet: the clock was wrong then."""
    return moment > now() + by


def has_come(id: str) -> bool:
    """Whether the moment of an id has come; not when a clock was wrong, or it is none.

    Nobody knows when such a backup was taken: it is the newest of nothing.
    """
    try:
        return not is_future(parse_id(id))
    except ValueError:
        return False


def is_older(time: str, age: timedelta) -> bool:
    """Whether a stamp is older than an age, or of the future: nobody knows its age."""
    moment = parse_stamp(time)
    return is_future(moment) or now() - moment > age


def seconds_of(text: str) -> int:
    """The seconds of a time such as `90s`, `90m`, `2h` or `1d`. Raises ValueError."""
    units = {name[0]: seconds for name, seconds in _UNITS.items()}
    if not re.fullmatch(r"[0-9]{1,6}[smhd]", text) or int(text[:-1]) == 0:
        raise ValueError(f"{text!r} is not a time such as 90s, 30m, 2h or 1d")
    return int(text[:-1]) * units[text[-1]]


def seconds_until(text: str) -> int:
    """The seconds until a time of the day such as `15:40`: today's, else tomorrow's.

    Raises ValueError.
    """
    if not re.fullmatch(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError(f"{text!r} is not a time of the day such as 15:40")
    hour, minute = map(int, text.split(":"))
    there = now().replace(hour=hour, minute=minute, second=0, microsecond=0)
    seconds = (there - now()).total_seconds()
    return round(seconds if seconds >= 1 else seconds + _UNITS["day"])


def span(seconds: float, most: int = 2) -> str:
    """A time span for people, by its largest units: `1 hour 30 minutes`."""
    left, said = max(round(seconds), 0), []
    for name, size in _UNITS.items():
        count, left = divmod(left, size)
        if count:
            said.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " ".join(said[:most]) or "0 seconds"


def ago(moment: datetime) -> str:
    """How long ago a moment was, for people: `1 hour ago`."""
    seconds = (now() - moment).total_seconds()
    return f"{span(seconds, 1)} ago" if seconds >= 1 else "just now"


def day_and_time(moment: datetime) -> str:
    """A moment for people: `26 Nov 06:39 UTC`; of another year with that."""
    there = moment.astimezone(timezone.utc)
    year = "" if there.year == now().year else f" {there.year}"
    return f"{there.day} {there:%b}{year} {there:%H:%M} UTC"


def time_ahead(seconds: float) -> str:
    """When a time from now on ends, for people: `15:40 UTC (for 30 minutes)`."""
    # what is left of a time is a moment less than what was said
    there = now() + timedelta(seconds=seconds + 30)
    today = there.date() == now().date()
    said = f"{there:%H:%M} UTC" if today else day_and_time(there)
    return f"{said} (for {span(seconds)})"


def who() -> str:
    """The user of the system, and the host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
