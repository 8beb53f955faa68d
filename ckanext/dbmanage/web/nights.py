"""Nights as the page shows them: a year of months, rules of retention to look at."""

from datetime import date
from typing import Any

from babel.dates import format_date
from flask import request

from . import helpers
from .guard import attempt, read

#: the fields of the form of rules, in its order
FIELDS = ("last", "within", "hourly", "daily", "weekly", "monthly", "yearly", "min")


def year(days: list[list[str]]) -> list[dict[str, Any]]:
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
