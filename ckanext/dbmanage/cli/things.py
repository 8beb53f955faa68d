"""`ckan db restore ID --dataset NAME` and its brothers: one thing back."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from typing import Any

import click

from ..engine.clock import parse_stamp
from ..engine.printable import one_line
from ..engine.words import many, size
from ..operations.context import Portal
from ..operations.thing_preview import (
    ComparedThing,
    ThingPreview,
    preview_things,
    refuse_hindered,
)
from ..operations.things import Selection, bring_back
from ..portal.isolated import NICE
from .base import ask, refuse_without_terminal
from .columns import fitted, width
from .output import echo, echo_json, result, when

#: what can be selected, with the name of its argument and what it is called by
_KINDS = (
    ("dataset", "NAME", "Bring back this dataset alone, by name or id."),
    ("organization", "NAME", "Bring back this organization alone."),
    ("group", "NAME", "Bring back this group alone."),
    ("user", "NAME", "Bring back this user alone, with the hash of the password."),
    ("table", "RESOURCE", "Bring back the DataStore table of this resource's id."),
    ("upload", "PATH", "Bring back this file alone, as the backup's list names it."),
)
#: letters of a value, and entries of a list, that are shown
_LETTERS, _ENTRIES = 60, 8


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that select things: hands a `selection`, or None, to a command."""

    @wraps(command)
    def selecting(
        *arguments: Any, with_datasets: bool, as_name: str, **options: Any
    ) -> Any:
        given = {kind: options.pop(kind) for kind, *_ in _KINDS}
        chosen = _selection(given, with_datasets, as_name)
        return command(*arguments, selection=chosen, **options)

    for option in (
        click.option(
            "--as", "as_name", metavar="NAME", default="",
            help="Bring it back under this name: its own is taken by another.",
        ),
        click.option(
            "--with-datasets", is_flag=True,
            help="With --organization: its datasets too.",
        ),
        *(
            click.option(f"--{kind}", multiple=True, metavar=metavar,
                         help=f"{about} May be repeated.")
            for kind, metavar, about in reversed(_KINDS)
        ),
    ):  # fmt: skip
        selecting = option(selecting)
    return selecting


def _selection(
    given: dict[str, tuple[str, ...]], with_datasets: bool, as_name: str
) -> Selection | None:
    """What was selected. Raises UsageError for what does not go together."""
    kinds = [kind for kind, names in given.items() if names]
    if len(kinds) > 1:
        named = " and ".join(f"--{kind}" for kind in kinds)
        raise click.UsageError(f"{named} are two kinds of thing: bring back one first")
    kind = kinds[0] if kinds else ""
    if with_datasets and kind != "organization":
        raise click.UsageError("--with-datasets is for --organization")
    names = given.get(kind, ())
    if not all(each.strip() and "\0" not in each for each in names):
        raise click.UsageError(f"--{kind} names nothing")
    alone = kind not in ("", "table", "upload") and len(names) == 1
    if as_name and not (alone and not with_datasets):
        raise click.UsageError("--as is for one dataset, organization, group or user")
    return Selection(kind, names, with_datasets, as_name) if kind else None


def restore_things(
    portal: Portal,
    source: str,
    selection: Selection,
    *,
    preview: bool,
    trust: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Shows what would change, or asks unless `yes`, and brings back."""
    os.nice(NICE)  # the portal serves all the while: its visitors go first
    if preview:
        found = preview_things(portal, source, selection, trust=trust)
        if as_json:
            echo_json(asdict(found))
        else:
            echo("\n".join(fitted(each, 6, width()) for each in _lines(found)))
        return
    if not yes:
        refuse_without_terminal()
        found = preview_things(portal, source, selection, trust=trust)
        refuse_hindered(found)
        portal.talk.end()
        lines = [fitted(each, 6, width(sys.stderr)) for each in _lines(found)]
        echo("\n".join(lines), err=True)
        ask(_question(portal, found))
    brought = bring_back(portal, source, selection, trust=trust)
    for kind, _, name, change in brought.things:
        what = "brought back" if change == "created" else "put back"
        result(f"{what} {kind} {one_line(name)} from {one_line(brought.source)}")
    portal.talk.say("`ckan db undo` takes it back")


def _question(portal: Portal, found: ThingPreview) -> str:
    first = found.things[0]
    what = f"{first.kind} {first.name}"
    if more := len(found.things) - 1:
        what += f" and {many(more, 'other thing')}"
    return f"Bring back {what} of {portal.options.site_address} {_age(found)}?"


def _age(found: ThingPreview) -> str:
    if found.moment is None:
        return f"as in {found.source}"
    return f"as of {when(parse_stamp(found.moment))}"


def _lines(found: ThingPreview) -> Iterator[str]:
    """What would change, a line each."""
    yield one_line(f"{found.source}, {_age(found)}:")
    for thing in found.things:
        id = f", id {thing.id}" * (thing.id != thing.name)
        yield one_line(f"{thing.kind} {thing.name}{id}: {_change(thing)}")
        yield from (one_line(each).join(("  ", "")) for each in _of_thing(thing))
    yield from map(one_line, found.lacking)


def _change(thing: ComparedThing) -> str:
    if thing.now is None:
        return "is not there now, and comes back"
    if thing.now != thing.then:
        return f"is {thing.now} now, and {thing.then} again"
    return "goes back to what it was" if thing.differs else "is now what it was then"


def _of_thing(thing: ComparedThing) -> Iterator[str]:
    for each in thing.fields:
        yield f"{each['field']}: {_now_and_then(each)}"
    for each in thing.lists:
        parts = [
            f"{_some(each[key])} {verb}"
            for key, verb in (("back", "comes back"), ("gone", "goes"))
            if each[key]
        ]
        yield f"{each['field']}: {'; '.join(parts)}"
    for each in thing.resources:
        name = f"resource {each['name']} ({each['id']})"
        if each["change"] != "changed":
            yield f"{name}: {'comes back' if each['change'] == 'back' else 'goes'}"
        for changed in each["fields"]:
            yield f"{name}: {changed['field']}: {_now_and_then(changed)}"
    for each in thing.uploads:
        if each["changed"]:
            now, then = _counted(each["now"], size), _counted(each["then"], size)
            other = ", another content" if now == then else ""
            yield f"upload {each['name']}: now {now}, then {then}{other}"
    for each in thing.tables:
        now, then = _counted(each["now"], _rows), _counted(each["then"], _rows)
        yield f"DataStore table {each['name']}: now {now}, then {then}"
    if thing.taken:
        yield (
            f"another {thing.kind} is called {thing.name} now: --as NAME brings this "
            "one back under another name"
        )
    for each in thing.needs:
        option = f"--{each['kind']} {shlex.quote(each['name'])}"
        yield (
            f"needs the {each['kind']} {each['name']}, which is not there: bring it "
            f"back first ({option})"
        )


def _now_and_then(each: dict[str, Any]) -> str:
    return f"now {_value(each['now'])}, then {_value(each['then'])}"


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    text = one_line(value)
    short = text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"
    return f"“{short}”" if isinstance(value, str) else short


def _some(entries: list[str]) -> str:
    more = len(entries) - _ENTRIES
    shown = ", ".join(entries[:_ENTRIES])
    return f"{shown} and {more} more" if more > 0 else shown


def _rows(count: int) -> str:
    return many(count, "row")


def _counted(value: Any, said: Callable[[Any], str]) -> str:
    return "none" if value is None else said(value)
