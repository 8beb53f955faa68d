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
_CALENDAR = re.compile(r"^OnCalendar=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_DAILY = re.compile(r"(?:\*-\*-\* )?([01]?\d|2[0-3]):([0-5]\d)(?::[0-5]\d)?", re.ASCII)


def next_night(options: Options, units: Path = UNITS) -> datetime | None:
    """When the timer that is enabled for this site is due next; None without one.

    It may be some time later, as `RandomizedDelaySec` says. It raises nothing.
    """
    ini = options.text("__file__")
    place = Place("", "", ini, ())
    for timer, service in _enabled(units):
        if not ini or not place.is_own(service):
            continue
        times = list[str]()
        for given in _CALENDAR.findall(timer):  # an empty one takes back those before
            times = [*times, given] if given else []
        found = [_DAILY.fullmatch(each) for each in times]
        daily = [due(int(at[1]), int(at[2])) for at in found if at]
        # one that is of another form may come before
        return min(daily) if daily and len(daily) == len(times) else None
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
                files = [entry, *_own_files(units, f"{stem}{at}.timer", entry.name)]
                texts = ["\n".join(path.read_text("utf-8") for path in files)]
                texts.append(service.read_text("utf-8"))
                timer, service = (each.replace("%i", instance) for each in texts)
                yield timer, service


def _own_files(units: Path, *names: str) -> list[Path]:
    """What `systemctl edit` wrote for units of these names, in the order it counts."""
    found = {
        path.name: path
        for name in dict.fromkeys(names)
        for path in (units / f"{name}.d").glob("*.conf")
    }
    return [found[name] for name in sorted(found)]
