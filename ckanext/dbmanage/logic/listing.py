"""Backups, and lines of the journal, narrowed down to what somebody looks for.

What they are narrowed by are parameters of actions; nothing here asks a disk.
"""

from datetime import datetime, tzinfo
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from ckan.plugins import toolkit as tk

from ..engine.clock import parse_stamp

Data = dict[str, Any]
#: what the state of a backup may be, as `Backup.describe` says it
STATES = ("proven", "verified", "unverified", "damaged", "foreign", "unreadable")


def backups(every: list[Data], data: Data) -> list[Data]:
    """Those that are looked for by `q`, `state`, `parts`, `held` and `reason`.

    Raises ValidationError for a state that no backup can have: a wrong word would else
    pass for "there is none".
    """
    state, words = data.get("state"), str(data.get("q") or "").casefold().split()
    known = {*STATES, *(each["state"] for each in every)}
    if state and state not in known:
        choose = tk._("Choose from {}").format(", ".join(sorted(known)))
        raise tk.ValidationError({"state": [choose]})

    def wanted(each: Data) -> bool:
        return (
            state in (None, each["state"])
            and (not data["parts"] or sorted(data["parts"]) == sorted(each["parts"]))
            and data.get("held") in (None, each["keep"])
            and str(each["reason"] or "").startswith(data.get("reason") or "")
        )

    found = list(filter(wanted, every))
    if words:
        zone, language = tk.h.get_display_timezone(), _language()
        texts = [(each, _text(each, zone, language)) for each in found]
        found = [e for e, text in texts if all(word in text for word in words)]
    return found


def _text(backup: Data, zone: tzinfo, language: Locale) -> str:
    """What a search looks at: id, note, reason, and the day in any of its forms."""
    days: list[str] = []
    if moment := _moment(backup["created"]):
        day = moment.astimezone(zone).date()
        forms = ("short", "medium", "long", "full")
        days = [str(day), *(format_date(day, form, language) for form in forms)]
    parts = (backup["id"], backup["note"] or "", backup["reason"] or "", *days)
    return " ".join(parts).casefold()


def _language() -> Locale:
    """The language of who asks, English where nobody says one."""
    try:
        return Locale.parse(str(tk.h.lang() or "en").partition("@")[0], "_")
    except (ValueError, UnknownLocaleError, RuntimeError):
        return Locale("en")


def lines(every: list[Data], data: Data) -> list[Data]:
    """Lines of the journal by `what`, `who`, `since` and `until`."""
    zone = tk.h.get_display_timezone()
    since, until = data.get("since"), data.get("until")

    def wanted(line: Data) -> bool:
        return (
            data.get("what") in (None, line["what"])
            and data.get("who") in (None, line["user"], line["by"])
            and (not since or _at(line["time"], since, zone) >= since)
            and (not until or _at(line["time"], until, zone) <= until)
        )

    return list(filter(wanted, every))


def _at(time: str, limit: str, zone: tzinfo) -> str:
    """A line's time in the form of a limit: a day of the site's zone, or a moment."""
    if len(limit) > len("2026-11-23"):
        return time
    return str(parse_stamp(time).astimezone(zone).date())


def _moment(time: str | None) -> datetime | None:
    try:
        return parse_stamp(time or "")
    except ValueError:
        return None
