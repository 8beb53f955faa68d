"""`ckan db restore`, `undo`, `dump`, `load`."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict

import click

from ..engine import words
from ..engine.clock import parse_stamp
from ..engine.errors import Refused
from ..engine.layout import ID
from ..engine.printable import one_line
from ..engine.restore.history import REDO
from ..operations.context import Portal
from ..operations.dump import run_dump
from ..operations.elsewhere import address_of, dumped, is_address
from ..operations.offsite import here
from ..operations.preview import preview_restore
from ..operations.restore import (
    Look,
    last_to_undo,
    look_at_restore,
    run_restore,
    run_undo,
)
from ..operations.things import Brought, Selection
from .arguments import File, Id, Source
from .base import (
    Command,
    ask_name,
    ask_to_replace,
    database_option,
    no_backup_option,
    note_option,
    parts_option,
    portal_of,
    quiet_option,
    refuse_without_terminal,
    yes_option,
)
from .columns import width
from .output import (
    Talk,
    echo,
    echo_json,
    next_steps,
    replaced_names,
    result,
    told,
    when,
)
from .tables import preview_names, preview_table
from .things import restore_things, selection_options


@click.command(cls=Command)
@click.argument(
    "source", metavar="ID|DIR|FILE", type=Source("latest", "oldest", there=True)
)
@parts_option
@selection_options
@click.option(
    "--preview", is_flag=True, help="Only show what would be lost and gained, by name."
)
@click.option(
    "--trust",
    is_flag=True,
    help="Run the SQL of a backup that is not signed by this site.",
)
@no_backup_option
@note_option
@yes_option
@click.option("--json", "as_json", is_flag=True, help="With --preview: as JSON.")
@quiet_option
@click.pass_context
def restore(
    ctx: click.Context,
    source: str,
    only: tuple[str, ...],
    selection: Selection | None,
    preview: bool,
    trust: bool,
    no_backup: bool,
    note: str,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Bring back a backup, a file of pg_dump -Fc, or one thing.

    Give its ID (also latest or oldest), its directory or its file; a directory or a
    file with a slash, as in ./portal.dump. It is loaded into a copy beside the live
    database and checked there; then the copy is switched in. What it replaces is kept
    for `ckan db undo`, and backed up. A backup that is only at the other place is
    pulled first.

    With --dataset, --organization, --group, --user, --table or --upload only that comes
    back, as it was then, and the rest of the portal stays as it is.
    """
    if as_json and not preview:
        raise click.UsageError("--json is for --preview")
    if is_address(source):
        raise click.UsageError("a database elsewhere is brought in by `ckan db load`")
    if selection and (only or no_backup):
        raise click.UsageError("--only and --no-backup are for a whole backup")
    portal = portal_of(ctx, Talk(quiet or as_json), note)
    source = here(portal, source)
    if selection:
        restore_things(
            portal, source, selection, preview=preview, trust=trust, yes=yes,
            as_json=as_json,
        )  # fmt: skip
        return
    if not preview:
        restore_as_asked(portal, source, only, trust, no_backup, yes)
        return
    found = preview_restore(portal, source, only)
    if as_json:
        echo_json(asdict(found))
    else:
        table = preview_table(found.rows, width())
        echo("\n".join([table, *preview_names(found)]))


def restore_as_asked(
    portal: Portal,
    source: str,
    only: tuple[str, ...],
    trust: bool,
    no_backup: bool,
    yes: bool,
    called: str = "",
) -> None:
    """Asks, unless `yes`, and restores."""
    confirmed = None
    if not yes:
        refuse_without_terminal()
        confirmed = look_at_restore(portal, source, only, trust, called)
        echo(told(f"{one_line(confirmed.name)} and what is live:"), err=True)
        echo(preview_table(confirmed.rows, width(sys.stderr)), err=True)
        ask_name(_question(portal, confirmed), portal.options)
    restored = run_restore(
        portal, source, only, trust=trust, no_backup=no_backup, attended=True,
        confirmed=confirmed, called=called,
    )  # fmt: skip
    result(f"restored {words.parts(restored.parts)} from {one_line(restored.source)}")
    if restored.replaced.parts:
        portal.talk.say(
            f"what it replaced is kept: {replaced_names(restored)}; `ckan db undo` "
            "goes back"
        )
    portal.talk.say(next_steps(restored))


def _question(portal: Portal, about: Look) -> str:
    """What is replaced by what: site, parts, age and loss."""
    site = portal.options.site_address
    if not about.whole:
        site = f"the {words.parts(about.parts)} of {site}"
    source, then = about.name, "differ"
    if about.moment:
        source = f"the backup of {when(about.moment)}"
        then = "changed since then"
    return f"Replace {site} with {source}?{_changed(about.differing('datasets'), then)}"


def _changed(count: int | None, then: str = "changed since then") -> str:
    """How much is lost, where that is known."""
    return "" if count is None else f" {words.many(count, 'dataset')} {then}."


@click.command(cls=Command)
@note_option
@yes_option
@quiet_option
@click.pass_context
def undo(ctx: click.Context, note: str, yes: bool, quiet: bool) -> None:
    """Switch back what the last restore replaced.

    A second undo takes the first one back.
    """
    portal, operation = portal_of(ctx, Talk(quiet), note), ""
    if not yes:
        refuse_without_terminal()
        last, count = last_to_undo(portal)
        operation = last["operation"]
        ask_name(_undo_question(portal, last) + _changed(count), portal.options)
    undone = run_undo(portal, operation)
    if isinstance(undone, Brought):
        result(said_of(undone))
        return
    redo, one = undone.what == REDO, undone.parts in (["database"], ["datastore"])
    parts, source = words.parts(undone.parts), one_line(undone.source)
    result(
        f"redone: {parts} {'comes' if one else 'come'} from {source} again"
        if redo
        else f"undone: {parts} {'is what it was' if one else 'are what they were'} "
        "before"
    )
    portal.talk.say(
        f"what it replaced is kept: {replaced_names(undone)}; `ckan db undo` "
        + ("goes back" if redo else "is a redo now, and brings it back")
    )
    portal.talk.say(next_steps(undone))


def said_of(done: Brought) -> str:
    """What was done with single things, in a line."""
    fates = {"created": "is there again", "changed": "is as it was then"}
    if done.what != "restore":
        fates["changed"] = "is as it was before"
    fates["gone"] = "is gone again"
    first, *others = [
        f"the {kind} {one_line(name)} {fates[fate]}"
        for kind, _, name, fate in done.things
    ]
    more = f", and {words.many(len(others), 'thing')} more" if others else ""
    return f"{first}{more} ({one_line(done.source)})"


def _undo_question(portal: Portal, last: Mapping[str, str]) -> str:
    if last["things"]:
        of = f"the return of {one_line(last['things'])} ({last['source']})"
        verb = "Redo" if last["way"] == REDO else "Undo"
        return f"{verb} {of}, {when(parse_stamp(last['time']))}?"
    of = (
        f"the {last['of']} ({last['source']})"
        if last["source"]
        else f"the {last['of']}"
    )
    at, site = when(parse_stamp(last["time"])), portal.options.site_address
    if last["way"] == REDO:
        return f"Redo {of} of {site}, which was undone {at}?"
    return f"Undo {of} of {site}, made {at}: back to the state before it?"


@click.command(cls=Command)
@click.argument("file", type=File(dir_okay=False, allow_dash=True))
@database_option
@click.option(
    "--from",
    "source",
    metavar="ID",
    type=Id("latest", "oldest"),
    help="Write what this backup holds, not the live database.",
)
@yes_option
@quiet_option
@click.pass_context
def dump(
    ctx: click.Context, file: str, only: str, source: str | None, yes: bool, quiet: bool
) -> None:
    """Write one database to a file, as pg_dump -Fc does.

    `pg_restore` and `ckan db load` read it. With - in place of FILE it goes to stdout.
    """
    if file == "-" and sys.stdout.isatty():
        raise click.UsageError(
            "a dump is not written to a terminal: name a file, or use a pipe"
        )
    if file != "-":
        ask_to_replace(file, yes)
    talk = Talk(quiet)
    portal = portal_of(ctx, talk)
    if file == "-":
        run_dump(portal, only, "stdout", sys.stdout.buffer, source=source)
    else:
        done = run_dump(portal, only, file, source=source)
        talk.say(f"dumped the {only} {done} to {file}")


@click.command(cls=Command)
@click.argument("file", metavar="FILE|URL", type=File())
@database_option
@no_backup_option
@note_option
@yes_option
@quiet_option
@click.pass_context
def load(
    ctx: click.Context,
    file: str,
    only: str,
    no_backup: bool,
    note: str,
    yes: bool,
    quiet: bool,
) -> None:
    """Replace one database by a dump, or by another database.

    As `ckan db restore` does it: a copy is loaded and checked, then switched in. A
    database of another cluster is named by a URL, postgresql://USER@HOST:PORT/NAME,
    and is only read; its password comes from PGPASSWORD or ~/.pgpass. This runs the SQL
    in it as CKAN's database role: load only what you trust.
    """
    if ID.fullmatch(file) or file in ("latest", "oldest"):
        raise click.UsageError(f"a backup comes back by `ckan db restore {file}`")
    portal = portal_of(ctx, Talk(quiet), note)
    if not is_address(file):
        # never an id
        path = file if os.sep in file else os.path.join(os.curdir, file)
        restore_as_asked(portal, path, (only,), True, no_backup, yes)
        return
    try:
        url = address_of(file)
    except Refused as error:
        raise click.UsageError(str(error)) from None
    if not yes:
        refuse_without_terminal()
    with dumped(portal, url, only) as found:
        restore_as_asked(
            portal, found.path, (only,), True, no_backup, yes, found.called
        )
