"""`ckan db history`."""

from typing import Any

import click

from ..engine import words
from ..engine.clock import day_and_time, parse_stamp
from ..engine.errors import Refused
from ..engine.printable import one_line
from ..engine.words import many
from ..operations.context import open_site
from ..operations.history import called_alike, find_history
from ..portal.indexed import KINDS
from .base import Command, json_option, portal_of
from .columns import fitted, taken, width
from .output import Talk, echo, echo_json


@click.command(cls=Command)
@click.argument("kind", metavar="KIND", type=click.Choice(KINDS))
@click.argument("name", metavar="NAME|ID")
@json_option
@click.pass_context
def history(ctx: click.Context, kind: str, name: str, as_json: bool) -> None:
    """Tell in which backups a record stands.

    And what it was called, when it changed, and when it went. KIND is dataset,
    organization, group, user, resource or table (of the DataStore). One whose name has
    changed is followed by its id; where a name was given to another one later, both are
    told. A deleted dataset stays in CKAN's database, in the state deleted, until it is
    purged.
    """
    site, repository = open_site(portal_of(ctx, Talk(quiet=as_json)))
    found = find_history(site, repository, kind, name)
    if as_json:
        echo_json(found)
    else:
        lines = [line for each in found["things"] for line in _thing(kind, each)]
        echo("\n".join(fitted(line, 6, width()) for line in lines + _rest(found)))
    if not found["things"]:
        near = called_alike(repository, kind, name)
        raise Refused(f"no backup knows the {kind} {one_line(name)!r}{near}")


def _thing(kind: str, thing: dict[str, Any]) -> list[str]:
    """A record, and a line for each of its runs.

    On a terminal that is too narrow for that each has some lines, under no heading.
    """
    rows = [("FROM", "TO", "BACKUPS", "STATE", "CHANGED", "NAME")]
    seen = False
    for run in thing["runs"]:
        seen |= run["there"]
        rows.append((run["from"], run["to"], str(run["backups"]), *_facts(run, seen)))
    rows.append(("now", "", "", *_facts(thing["now"], seen)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([*(f"{{:{width}}}" for width in widths[:-1]), "{}"])
    head = one_line(f"{kind} {thing['name'] or ''}").rstrip()
    lines = [f"  {form.format(*row)}".rstrip() for row in rows]
    if width() and max(map(taken, lines)) > width():
        lines = []
        for first, last, count, state, changed, called in rows[1:]:
            over = f" to {last}" if last != first else ""
            many = f" ({count} backups)" if over and last else ""
            lines.append(f"  {first}{over if last else ''}{many}: {state}")
            more = (changed and f"changed {changed}", called)
            lines += [f"      {each}" for each in more if each]
    return [f"{head}, id {one_line(thing['id'])}", *lines]


def _facts(run: dict[str, Any] | None, seen: bool) -> tuple[str, str, str]:
    """Its state, when it changed, and what it is called."""
    if run is None:
        return "not known", "", ""
    if not run["there"]:
        return "gone" if seen else "not there yet", "", ""
    changed = run["modified"] and day_and_time(parse_stamp(run["modified"]))
    called = "  ".join(filter(None, map(one_line, (run["name"], run["title"]))))
    return one_line(run["state"]) or "there", changed or "", called


def _rest(found: dict[str, Any]) -> list[str]:
    """What is to be known of the backups themselves."""
    whys: dict[str, list[str]] = {}
    for each in found["unknown"]:
        whys.setdefault(one_line(each["why"]), []).append(each["backup"])
    lines = [f"not known: {_ids(ids)}: {why}" for why, ids in whys.items()]
    if found["damaged"]:
        lines.append(
            f"damaged, so look before you rely on it: {_ids(found['damaged'])}"
        )
    if found["unsigned"]:
        ids = _ids(found["unsigned"])
        lines.append(f"not signed by this site, so what it says may be forged: {ids}")
    if found["ignored"]:
        ids = _ids(found["ignored"])
        lines.append(f"with lines of kinds that are not known here, ignored: {ids}")
    return [*lines, f"{many(found['backups'], 'backup')} looked at"]


def _ids(ids: list[str]) -> str:
    """Ids for a sentence: the newest few, and how many more."""
    shown = [*reversed(ids)][:3]
    more = len(ids) - len(shown)
    return words.listed([*shown, *([f"{more} more"] if more else [])])
