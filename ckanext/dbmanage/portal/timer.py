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
    """The next moment at which the clock on this server's wall shows this time.

    As systemd has it: a day on which clocks skip that time has none, and one on which
    they show it twice has the first.
    """
    local = now().astimezone()
    found = local
    for days in range(3):
        day = (local + timedelta(days=days)).date()
        # without a zone it is the wall's
        found = datetime(day.year, day.month, day.day, hour, minute).astimezone()
        shown = found.astimezone(timezone.utc).astimezone()
        if found > local and (shown.hour, shown.minute) == (hour, minute):
            break
    return found.astimezone(timezone.utc)


def _enabled(units: Path) -> Iterator[tuple[str, str]]:
    """The texts of the timers of nights that are enabled, and of their services.

    Of a template's instance, `NAME@portal.timer`, `%i` is filled in.
    """
    with suppress(OSError):
        for entry in sorted((units / "timers.target.wants").glob(f"{NAME}*.timer")):
            stem, at, instance = entry.stem.partition("@")
            with suppress(OSError, UnicodeDecodeError):
                service = units / f"{stem}{at}.service"
                texts = [path.read_text("utf-8") for path in (entry, service)]
                timer, service = (each.replace("%i", instance) for each in texts)
                yield timer, service
