"""Moments, all in UTC, as they are written everywhere; and who is at work."""

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


def who() -> str:
    """The user of the system, and the host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
