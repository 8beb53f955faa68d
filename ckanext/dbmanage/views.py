"""The page of the public dumps, for people.

From the published list on the disk alone: no query, no action. The files beside it are
answered before Flask, by `downloads`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_decimal
from ckan.plugins import toolkit as tk
from flask import Blueprint

from . import config
from .engine import published
from .engine.errors import Refused

#: older than that, something has not run for a while
_STALE = timedelta(days=2)


def blueprint() -> Blueprint:
    """The extension's pages."""
    made = Blueprint("dbmanage", __name__)
    try:
        path = config.public_path(tk.config)
        made.add_url_rule(f"{path}/", "dumps", dumps, methods=["GET"])
    except Refused:
        pass  # `downloads` says so in the log, and `doctor`
    return made


def dumps() -> str:
    """What is published: files, how to use them, licence."""
    try:
        found = published.read(config.public_dir(tk.config))
    except (OSError, Refused):
        found = None
    root = config.public_root(tk.config)
    site = str(tk.config.get("ckan.site_url") or "").rstrip("/")
    contact = config.public_contact(tk.config)
    said: dict[str, Any] = {
        "root": root,
        "url": site + root,
        "contact": contact,
        "contact_url": contact if "://" in contact else f"mailto:{contact}",
        "published": found,
        "number": _number,
        "size": _size,
    }
    if found:
        files: dict[str, list[published.File]] = {}
        for file in found.files.values():
            files.setdefault(file.kind, []).append(file)
        moment = datetime.fromisoformat(
            found.document["snapshot"].replace("Z", "+00:00")
        ).astimezone(timezone.utc)
        age = published.age(found)
        said |= {
            "kinds": files,
            "stale": age > _STALE,
            "age": format_timedelta(age, locale=_locale()),
            "moment": format_datetime(moment, "long", locale=_locale()),
            "snapshot": found.document["snapshot"],
            "licence": _licence(found.document.get("licence")),
        }
    return tk.render("dbmanage/dump.html", said)


def _locale() -> Locale:
    language = str(tk.h.lang() or "en").partition("@")[0]
    try:
        return Locale.parse(language, "_")
    except (ValueError, UnknownLocaleError):
        return Locale("en")


def _number(count: int) -> str:
    return format_decimal(count, locale=_locale())


def _size(count: int) -> str:
    power = min((len(str(count)) - 1) // 3, 4)
    digits = "#,##0.#" if power > 1 else "#,##0"
    told = format_decimal(count / 1000**power, digits, locale=_locale())
    return f"{told}\u00a0{('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _licence(given: Any) -> dict[str, str] | None:
    """The licence as the list has it, its address only if it is one of the web."""
    if not isinstance(given, dict) or not isinstance(given.get("title"), str):
        return None
    url = str(given.get("url") or "")
    safe = url if url.startswith(("http://", "https://")) else ""
    return {"title": given["title"], "url": safe}
