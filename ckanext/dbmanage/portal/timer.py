"""When systemd begins the next night, as its files say: nobody is asked."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ..engine.clock import now
from .config import Options
from .units import NAME, Place

UNITS = Path("/etc/systemd/system")
_MOST = 1 << 16
_DAILY = re.compile(
    r"^OnCalendar=(?:\*-\*-\* )?(\d{1,2}):(\d{2})(?::\d{2})?\s*$", re.MULTILINE
)


def next_night(options: Options, units: Path = UNITS) -> datetime | None:
    """When the timer that is enabled for this site is due next; None without one.

    It may be some time later, as `RandomizedDelaySec` says. It raises nothing.
    """
    ini = options.text("__file__")
    place = Place("", "", ini, ())
    for timer, service in _enabled(units):
        at = _DAILY.search(timer)
        if ini and at and place.is_own(service) and int(at[1]) < 24 > int(at[2]) // 3:
            return due(int(at[1]), int(at[2]))
    return None


def due(hour: int, minute: int) -> datetime:
    """The next moment at which the clock on this server's wall shows this time."""
    local = now().astimezone()
    for days in (0, 1):
        day = (local + timedelta(days=days)).date()
        # without a zone it is the wall's: in the night in which clocks are set it moves
        there = datetime(day.year, day.month, day.day, hour, minute).astimezone()
        if there > local:
            break
    return there.astimezone(timezone.utc)


def _enabled(units: Path) -> Iterator[tuple[str, str]]:
    """The texts of the timers of nights that are enabled, and of their services.

    Of a template's instance, `NAME@portal.timer`, `%i` is filled in.
    """
    with suppress(OSError):
        for entry in sorted((units / "timers.target.wants").glob(f"{NAME}*.timer")):
            stem, at, instance = entry.stem.partition("@")
            with suppress(OSError, UnicodeDecodeError):
                service = units / f"{stem}{at}.service"
                texts = [p.open("rb").read(_MOST).decode() for p in (entry, service)]
                timer, service = (each.replace("%i", instance) for each in texts)
                yield timer, service
