"""Numbers, sizes and times as the visitor's language writes them, for the templates.

Times come as `2026-11-23T04:55:00Z` and are shown in the site's display time zone.
"""

from collections.abc import Callable
from datetime import timedelta, tzinfo
from functools import lru_cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import (
    format_date,
    format_time,
    format_timedelta,
    get_datetime_format,
    get_timezone,
)
from babel.numbers import format_decimal, format_percent
from babel.units import format_unit
from ckan.plugins import toolkit as tk
from flask import g
from flask_babel import get_translations
from markupsafe import Markup

from ..engine.clock import now, parse_stamp
from ..portal.command import on_server
from ..portal.config import Options, current
from .sysadmins import maintenance_by_hand
from .told import told

_UNITS = ("kilobyte", "megabyte", "gigabyte", "terabyte")


def _(message: str) -> str:
    """Marks a message for translation where it is looked up by name."""
    return message


_WORDS = {
    "state": {
        "proven": _("Proven"),
        "verified": _("Verified"),
        "unverified": _("Unverified"),
        "damaged": _("Damaged"),
        "foreign": _("Of another site"),
        "unreadable": _("Cannot be read"),
        "queued": _("Waiting"),
        "running": _("Running"),
        "done": _("Done"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
        "lost": _("Its worker died"),
        "skipped": _("Skipped"),
        "nothing": _("Nothing to do"),
        "none": _("No backup"),
    },
    "step": {
        "backup": _("Backup"),
        "prove": _("Proof"),
        "push": _("Copy to the other place"),
        "prune": _("Thinning out"),
        "publish": _("Publication"),
    },
    "phase": {
        "dump": _("Dump"),
        "verify": _("Verify"),
        "uploads": _("Uploads"),
        "unpack": _("Unpack"),
        "look": _("Look it up"),
        "write": _("Write"),
        "load": _("Load"),
        "check": _("Count rows"),
        "migrate": _("Migrate"),
        "read": _("Read through CKAN"),
        "push": _("Copy to the other place"),
        "pull": _("Bring back from the other place"),
        "compare": _("Compare"),
        "inspect": _("Inspect"),
        "switch": _("Switch"),
        "index": _("Search index"),
        "forget": _("Forget"),
        "objects": _("Uploads"),
        "export": _("Export"),
        "datasets": _("Datasets"),
        "organizations": _("Organizations"),
        "groups": _("Groups"),
        "users": _("Users"),
    },
    "record": {
        "dataset": _("Dataset"),
        "organization": _("Organization"),
        "group": _("Group"),
        "user": _("User"),
        "resource": _("Resource"),
        "table": _("DataStore table"),
        "upload": _("Uploaded file"),
    },
    "record state": {
        "active": _("active"),
        "deleted": _("deleted"),
        "draft": _("draft"),
        "pending": _("pending"),
    },
    "part": {
        "database": _("Database"),
        "datastore": _("DataStore"),
        "files": _("Uploads"),
    },
    "what": {
        "backup": _("Backup"),
        "verify": _("Verification"),
        "proof": _("Proof"),
        "restore": _("Restore"),
        "undo": _("Undo"),
        "redo": _("Redo"),
        "keep": _("Held"),
        "release": _("No longer held"),
        "delete": _("Deleted"),
        "download": _("Download"),
        "export": _("Export"),
        "publish": _("Publication"),
        "prune": _("Retention rules applied"),
        "notify": _("People told"),
        "arm": _("Armed"),
        "cancel": _("Cancelling a job"),
        "maintenance read-only": _("Saving paused"),
        "maintenance away": _("Site closed to visitors"),
        "maintenance off": _("Maintenance ended"),
        "upgrade": _("Upgrade"),
        "clean": _("Database emptied"),
        "preview": _("Preview of a restore"),
        "thing": _("One thing back"),
        "preview thing": _("Preview of one thing"),
        "tidy": _("Tidying up"),
        "push": _("Copied to the other place"),
        "pull": _("Brought back from the other place"),
        "nightly": _("Night"),
        "prune remote": _("Retention rules applied at the other place"),
    },
    "reason": {
        "manual": _("By hand"),
        "before upgrade": _("Before an upgrade"),
        "before clean": _("Before the database was emptied"),
        "before restore": _("Before a restore"),
    },
    "fate": {
        "created": _("made again"),
        "changed": _("put back to what it was"),
        "gone": _("taken away again"),
    },
    "event": {
        "done": _("done"),
        "failed": _("failed"),
        "asked": _("asked for"),
        "refused": _("refused"),
        "cancelled": _("cancelled"),
        "found damage": _("found damage"),
        "not proven": _("not proven"),
        "not signed": _("not signed by this site"),
    },
}


def counted(kind: str, n: int) -> str:
    """So many records of a kind: 50 datasets."""
    words = {
        "datasets": tk.ungettext("{n} dataset", "{n} datasets", n),
        "organizations": tk.ungettext("{n} organization", "{n} organizations", n),
        "groups": tk.ungettext("{n} group", "{n} groups", n),
        "users": tk.ungettext("{n} user", "{n} users", n),
    }
    return words.get(kind, f"{{n}} {kind}").format(n=number(n))


def word(kind: str, name: str) -> str:
    """The word for a state, a phase, a part, what a job or the journal is about."""
    # no markup: the name may be what somebody wrote
    return _messages()(_WORDS[kind].get(name, name)) if name else ""


def translated(message: str, **variables: Any) -> Markup:
    """What `_` is in the templates of a page, in a tenth of its time."""
    found = Markup(_messages()(message))  # noqa: S704
    return found % variables if "%" in found else found


def _messages() -> Callable[[str], str]:
    """What translates into the visitor's language, found once.

    A page has hundreds of messages, and CKAN looks for the language at each.
    """
    try:
        return g.dbmanage_messages
    except AttributeError:
        g.dbmanage_messages = get_translations().ugettext
        return g.dbmanage_messages


def locale() -> Locale:
    """The visitor's language."""
    return _visitor()[0]


def _visitor() -> tuple[Locale, tzinfo, bool]:
    """The language, the zone, and whether it is read from the right, found once.

    A page asks hundreds of times, and CKAN goes through its configuration each time.
    """
    try:
        return g.dbmanage_visitor
    except AttributeError:
        language = _locale(str(tk.h.lang() or "en").partition("@")[0])
        zone = tk.h.get_display_timezone()
        g.dbmanage_visitor = language, zone, tk.h.is_rtl_language()
        return g.dbmanage_visitor


@lru_cache(maxsize=100)
def _locale(language: str) -> Locale:
    try:
        return Locale.parse(language, "_")
    except (ValueError, UnknownLocaleError):
        return Locale("en")


def size(count: float | None) -> str:
    """Bytes: 52.4 MB."""
    return _size(count or 0, locale())


@lru_cache(maxsize=10_000)
def _size(count: float, where: Locale) -> str:
    # by the rule of `engine.words.size`
    if count < 1000:
        said = format_unit(count, "digital-byte", "long", format="0", locale=where)
        return said.replace("digital-byte", "B")  # where a language has no word for it
    power = 1
    while power < len(_UNITS) and count / 1000**power >= 999.95:
        power += 1
    unit = f"digital-{_UNITS[power - 1]}"
    return format_unit(
        count / 1000**power, unit, "short", format="#,##0.0", locale=where
    )


def number(count: float | None) -> str:
    """A whole number with its thousands apart."""
    return format_decimal(count or 0, locale=locale())


def percent(part: float, whole: float) -> str:
    """A share."""
    return format_percent(min(part / whole, 1) if whole else 0, locale=locale())


def moment(time: str | None, form: str = "medium") -> str:
    """A point in time in the site's zone, as the language writes it; a page names the
    zone once. `form` is of the day: `medium`, `long`; or `clock`: hours to seconds.
    """
    if not time:
        return ""
    where, zone, from_the_right = _visitor()
    shown = _moment(time, form, zone, where)
    # within a sentence from the right, a moment is read as one piece
    return f"\u2068{shown}\u2069" if from_the_right else shown


@lru_cache(maxsize=10_000)
def _moment(time: str, form: str, zone: tzinfo, where: Locale) -> str:
    there = parse_stamp(time).astimezone(zone)
    where = _worldly(where)
    if form == "clock":
        return format_time(there, "medium", zone, where)
    together = get_datetime_format("medium", where)
    day, hour = (
        format_date(there.date(), form, where),
        format_time(there, "short", zone, where),
    )
    return str(together).replace("{1}", day).replace("{0}", hour)


def day(time: str) -> str:
    """The day of a point in time in the site's zone."""
    where, zone, _ = _visitor()
    there = parse_stamp(time).astimezone(zone)
    return format_date(there.date(), "medium", _worldly(where))


def _worldly(where: Locale) -> Locale:
    """English without a country is the world's, not America's."""
    return Locale("en", "GB") if str(where) == "en" else where


def hour(time: str, zone: tzinfo, where: Locale) -> str:
    """A point in time as the clock of a zone shows it, its day too unless it is today.

    Needs no request. UTC is named, for few people live by it.
    """
    there, today = parse_stamp(time).astimezone(zone), now().astimezone(zone)
    where = _worldly(where)
    shown = format_time(there, "short", zone, where)
    if there.date() != today.date():
        shown = f"{format_date(there.date(), 'medium', where)}, {shown}"
    shown = f"{shown} UTC" if there.tzname() == "UTC" else shown
    # within a sentence from the right, a moment is read as one piece
    return f"\u2068{shown}\u2069" if where.text_direction == "rtl" else shown


def zone_of(options: Options) -> tzinfo:
    """The site's display time zone, without a request."""
    name = options.text("ckan.display_timezone") or "UTC"
    try:
        return get_timezone(None if name == "server" else name)
    except LookupError:
        return get_timezone("UTC")


def maintenance() -> dict[str, str] | None:
    """For a sysadmin's pages what was set by hand: `{level, until}`, or None."""
    known = maintenance_by_hand()
    if known is None:
        return None
    where, there, _ = _visitor()
    until = hour(known["until"], there, where) if known["until"] else ""
    return {"level": known["level"], "until": until}


def ago(time: str | None) -> str:
    """How long ago, or in how long."""
    if not time:
        return ""
    delta = parse_stamp(time) - now()
    return format_timedelta(delta, add_direction=True, locale=locale())


def since(seconds: float | None) -> str:
    """How long ago, of a time span: 1 second ago."""
    # what is under way now is not "in 0 seconds"
    passed = timedelta(seconds=-max(1, round(seconds or 0)))
    return format_timedelta(passed, add_direction=True, locale=locale())


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
    return str(_visitor()[1])


def ckan() -> str:
    """`ckan`, as it is typed on the server."""
    return on_server(current())


def functions() -> dict[str, Callable[..., Any]]:
    """The template helpers by name."""
    shown = (
        size, number, percent, counted, moment, day, ago, since, duration, clock, zone,
        word, told, maintenance, ckan,
    )  # fmt: skip
    return {f"dbmanage_{each.__name__}": each for each in shown}
