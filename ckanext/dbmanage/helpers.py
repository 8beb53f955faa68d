"""Numbers, sizes and times as the visitor's language writes them, for the templates.

Times come as `2026-11-23T04:55:00Z` and are shown in the site's display time zone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_decimal, format_percent
from babel.units import format_unit
from ckan.plugins import toolkit as tk

_UNITS = ("kilobyte", "megabyte", "gigabyte", "terabyte")


def locale() -> Locale:
    """The visitor's language."""
    language = str(tk.h.lang() or "en").partition("@")[0]
    try:
        return Locale.parse(language, "_")
    except (ValueError, UnknownLocaleError):
        return Locale("en")


def size(count: float | None) -> str:
    """Bytes: 52.4 MB."""
    power = min(max((len(str(int(count or 0))) - 1) // 3, 1), len(_UNITS))
    unit = f"digital-{_UNITS[power - 1]}"
    told = (count or 0) / 1000**power
    return format_unit(told, unit, "short", format="#,##0.#", locale=locale())


def number(count: float | None) -> str:
    """A whole number with its thousands apart."""
    return format_decimal(count or 0, locale=locale())


def percent(part: float, whole: float) -> str:
    """A share."""
    return format_percent(min(part / whole, 1) if whole else 0, locale=locale())


def moment(time: str | None, form: str = "medium") -> str:
    """A point in time in the site's zone, without the zone's name."""
    if not time:
        return ""
    zone: Any = tk.h.get_display_timezone()
    if form == "long":
        return format_datetime(known(time), "d MMMM y, HH:mm", zone, locale())
    return format_datetime(known(time), "d MMM y, HH:mm", zone, locale())


def ago(time: str | None) -> str:
    """How long ago, or in how long."""
    if not time:
        return ""
    delta = known(time) - datetime.now(timezone.utc)
    return format_timedelta(delta, add_direction=True, locale=locale())


def duration(seconds: float | None) -> str:
    """A time span: 2 minutes."""
    return format_timedelta(timedelta(seconds=seconds or 0), locale=locale())


def clock(seconds: float | None) -> str:
    """A time span as a clock shows it: 2:41."""
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def zone() -> str:
    """The name of the site's display time zone."""
    return str(tk.h.get_display_timezone())


def known(time: str) -> datetime:
    """The point in time that a text says."""
    return datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def functions() -> dict[str, Callable[..., Any]]:
    """The template helpers by name."""
    shown = (size, number, percent, moment, ago, duration, clock, zone)
    return {f"dbmanage_{each.__name__}": each for each in shown}
