"""Nights as the page shows them: pictures of them, rules of retention to look at."""

from datetime import date
from functools import lru_cache
from typing import Any

import orjson
from babel.dates import format_date
from ckan.plugins import toolkit as tk
from flask import request
from markupsafe import Markup

from ..engine.layout import PARTS
from . import helpers
from .guard import attempt, read

#: the fields of the form of rules, in its order
FIELDS = ("last", "within", "hourly", "daily", "weekly", "monthly", "yearly", "min")


def year(days: list[list[str]]) -> Markup:
    """A square for each day, for days as `dbmanage_status` tells."""
    return _drawn("year", days)


def chart(nights: list[dict[str, Any]], newest: dict[str, Any] | None) -> Markup:
    """Size and duration of backups as `dbmanage_status` tells; empty of a single one.

    `newest` is the newest whole one, whose sizes stand beside the parts' names.
    """
    sizes = newest["sizes"] if newest else {}
    return _drawn("chart", [nights, sizes]) if len(nights) > 1 else Markup()


def _drawn(name: str, facts: Any) -> Markup:
    """A picture of facts, as the visitor reads it.

    It is drawn once: facts change once a night, and it has hundreds of pieces.
    """
    return _picture(name, orjson.dumps(facts), tk.h.lang(), helpers.zone())


@lru_cache(maxsize=20)
def _picture(name: str, facts: bytes, *_: str) -> Markup:
    known = orjson.loads(facts)
    extra = (
        {"year": _months(known)}
        if name == "year"
        else {"nights": _bars(known[0]), "sizes": known[1], "parts": PARTS}
    )
    return Markup(tk.render(f"dbmanage/admin/{name}.html", extra))  # noqa: S704


def _months(days: list[list[str]]) -> list[dict[str, Any]]:
    """The months of a year: `name`, `days` as (number, state), and `lead`, the places
    that stand empty before the first day in the language's week."""
    where, months = helpers.locale(), list[dict[str, Any]]()
    for text, state in days:
        number = int(text[-2:])
        if number == 1 or not months:
            day = date.fromisoformat(text)
            name = format_date(day, "LLLL y", where)
            lead = (day.weekday() - where.first_week_day) % 7
            months.append({"name": name, "lead": lead, "days": []})
        months[-1]["days"].append((number, state))
    return months


def _bars(nights: list[dict[str, Any]]) -> dict[str, Any]:
    """Size and duration over time, as the inline SVG wants it: heights out of 100."""
    largest = max(sum(each["sizes"].values()) for each in nights) or 1
    longest = max(each["seconds"] or 0 for each in nights) or 1
    width = round(290 / len(nights) * 0.8, 2)
    bars = []
    for number, each in enumerate(nights):
        at, pieces = 0.0, []
        for part in PARTS:
            height = each["sizes"].get(part, 0) / largest * 100
            pieces.append({"part": part, "y": round(at, 2), "height": round(height, 2)})
            at += height
        x, seconds = number * 290 / len(nights), each["seconds"] or 0
        bars.append(
            {
                "x": round(x, 2),
                "created": helpers.moment(each["created"]),
                "size": helpers.size(sum(each["sizes"].values())),
                "clock": helpers.clock(seconds),
                "pieces": pieces,
                "point": f"{x + width / 2:.1f},{195 - seconds / longest * 50:.1f}",
            }
        )
    return {"bars": bars, "width": width, "largest": largest, "longest": longest}


def retention() -> dict[str, Any]:
    """What rules would keep and forget, those of the address or those that are set."""
    there = "there" in request.args
    given = {name: request.args.get(name, "").strip() for name in FIELDS}
    given = {name: value for name, value in given.items() if value}
    found, errors = attempt("retention_show", there=there, **given)
    if errors:  # no number: those that are set are shown, and why
        found = read("retention_show", there=there)
    # what somebody has typed stays to be mended
    shown = {
        **found["rules"],
        **{k: v for k, v in given.items() if k in found["rules"]},
    }
    return {"found": found, "errors": errors, "fields": shown}
