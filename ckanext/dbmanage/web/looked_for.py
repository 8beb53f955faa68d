"""What somebody looks for in the list of backups and in the journal.

The forms send it in the address, so that a page can be bookmarked and works without
JavaScript. What may be chosen is what is there; anything else is left out.
"""

from collections import Counter
from typing import Any

from flask import request

from ..engine.clock import parse_id, stamp
from ..engine.printable import one_line
from ..portal.indexed import KINDS
from .guard import attempt, read

#: backups, and notes to choose from, on one page of the list
_PAGE, _NOTES = 10, 8
#: lines of the journal at first, and the most that are shown
_LINES, _MOST_LINES = 100, 1000


def backups() -> dict[str, Any]:
    """A page of the list, how many there are, and what may be looked for in it.

    `notes` are the most frequent ones, `choices` by field a list of (value, count).
    """
    every = read("backup_list", limit=100_000)
    states, parts, reasons, notes = Counter(), Counter(), Counter(), Counter()
    for each in every:
        states[each["state"]] += 1
        parts[" ".join(each["parts"])] += 1
        reasons[str(each["reason"] or "").partition(" of ")[0]] += 1
        notes[each["note"] or ""] += 1
    held = sum(each["keep"] for each in every)
    choices = {
        "state": states.most_common(),
        "parts": parts.most_common(),
        "held": [("yes", held), ("no", len(every) - held)],
        "reason": reasons.most_common(),
    }
    chosen = _chosen(choices)
    if q := request.args.get("q", "").strip():
        chosen["q"] = q
    found = read("backup_list", limit=100_000, **chosen) if chosen else every
    ids, before = [each["id"] for each in found], request.args.get("before", "")
    at = ids.index(before) + 1 if before in ids else 0
    shown = found[at : at + _PAGE]
    return {
        "backups": shown,
        "total": len(every),
        "found": len(found),
        "first": at + 1,
        "older": ids[at + _PAGE - 1] if at + _PAGE < len(found) else None,
        # of the page before this one; the first of all pages needs no name
        "newer": ids[at - _PAGE - 1] if at > _PAGE else "" if at else None,
        "chosen": chosen,
        "choices": choices,
        "notes": [e for e in notes.most_common(_NOTES + 1) if e[0]][:_NOTES],
    }


def journal() -> dict[str, Any]:
    """Lines of the journal, how many there are, and what may be looked for in it."""
    asked = {k: request.args.get(k, "") for k in ("what", "who", "since", "until")}
    asked = {key: value.strip() for key, value in asked.items() if value.strip()}
    lines = request.args.get("limit", "")
    limit = int(lines) if lines.isdecimal() and len(lines) < 10 else _LINES
    limit = min(max(limit, 1), _MOST_LINES)
    found, errors = attempt("journal", limit=limit, **asked)
    if errors:  # a day that is none: all is shown, and why
        found = read("journal", limit=limit)
    more = min(limit * 2, _MOST_LINES) if found["count"] > limit < _MOST_LINES else None
    return {"journal": found, "chosen": asked, "errors": errors, "more": more}


def history() -> dict[str, Any]:
    """The history of a record, of which kind, and what is wrong with the question."""
    asked = {key: request.args.get(key, "").strip() for key in ("kind", "name")}
    found, errors = attempt("history", **asked) if asked["name"] else (None, {})
    for thing in (found or {}).get("things", ()):
        seen = False
        for run in thing["runs"]:
            run["times"] = [stamp(parse_id(run[end])) for end in ("from", "to")]
            seen |= run["there"]
            run["before"] = not seen
        for each in filter(None, (thing, *thing["runs"], thing["now"])):
            texts = {"id", "name", "title", "state"} & each.keys()
            each |= {key: one_line(each[key]) for key in texts}
    if found:
        _offer(found)
    return {"found": found, "chosen": asked, "errors": errors, "kinds": KINDS}


def _offer(found: dict[str, Any]) -> None:
    """Adds to each run the backups that it can be brought back from, in `offered`.

    The newest first, those that a look at all bytes found damaged last.
    """
    every = read("backup_list", limit=100_000)
    every.sort(key=lambda each: (each["future"], each["id"]))
    place = {each["id"]: number for number, each in enumerate(every)}
    no = {each["backup"] for each in found["unknown"]} | {*found["unsigned"]}
    damaged = {*found["damaged"]}
    for run in (run for thing in found["things"] for run in thing["runs"]):
        first, last = (place.get(run[end], -1) for end in ("from", "to"))
        among = every[first : last + 1] if 0 <= first <= last and run["there"] else []
        among.reverse()
        some = [e | {"bad": e["id"] in damaged} for e in among if e["id"] not in no]
        run["offered"] = sorted(some, key=lambda each: each["bad"])


def _chosen(choices: dict[str, list[tuple[str, int]]]) -> dict[str, Any]:
    """What of the fields with choices is looked for, of what may be."""
    asked = {name: request.args.get(name, "") for name in choices}
    return {
        name: value
        for name, value in asked.items()
        if value and value in dict(choices[name])
    }
