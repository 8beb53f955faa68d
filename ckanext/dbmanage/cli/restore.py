"""`ckan db restore`, `undo`, `dump`, `load`."""

import os
import sys

import click

from ..engine.backup.dump import to_file, to_stream
from ..engine.printable import one_line
from ..operations.context import Portal, open_site
from ..operations.restore import (
    last_to_undo,
    look_at_restore,
    preview_restore,
    run_restore,
    run_undo,
)
from .base import (
    Command,
    ask,
    database_option,
    no_backup_option,
    note_option,
    parts_option,
    portal_of,
    quiet_option,
    refuse_without_terminal,
    yes_option,
)
from .output import Talk, echo, next_steps, preview_table, replaced_names


@click.command(cls=Command)
@click.argument("source", metavar="ID|DIR|FILE")
@parts_option
@click.option(
    "--preview", is_flag=True, help="Only show what would be lost and gained."
)
@click.option(
    "--trust", is_flag=True, help="Run the SQL of a backup not signed by this site."
)
@no_backup_option
@note_option
@yes_option
@quiet_option
@click.pass_context
def restore(
    ctx: click.Context,
    source: str,
    only: tuple[str, ...],
    preview: bool,
    trust: bool,
    no_backup: bool,
    note: str,
    yes: bool,
    quiet: bool,
) -> None:
    """Restore a backup (ID, latest, oldest, its directory) or a file of pg_dump -Fc.

    A directory or a file is written with a slash, as in ./portal.dump. It goes into a
    copy beside what is live, is checked there, and is switched in at once; what was
    replaced is kept for `ckan db undo`, and backed up.
    """
    portal = portal_of(ctx, Talk(quiet), note)
    if preview:
        echo(preview_table(preview_restore(portal, source, only)))
    else:
        _restore(portal, source, only, trust, no_backup, yes)


def _restore(
    portal: Portal,
    source: str,
    only: tuple[str, ...],
    trust: bool,
    no_backup: bool,
    yes: bool,
) -> None:
    confirmed = None
    if not yes:
        refuse_without_terminal()
        confirmed = look_at_restore(portal, source, only, trust)
        echo(preview_table(confirmed.rows), err=True)
        parts = " and ".join(confirmed.parts)
        ask(f"Replace the live {parts} by {confirmed.name}?")
    restored = run_restore(
        portal, source, only, trust=trust, no_backup=no_backup, attended=True,
        confirmed=confirmed,
    )  # fmt: skip
    echo(f"restored {' and '.join(restored.parts)} from {one_line(restored.source)}")
    if restored.replaced.parts:
        portal.talk.say(
            f"what it replaced is kept: {replaced_names(restored)}; `ckan db undo` "
            "goes back"
        )
    portal.talk.say(next_steps(restored))


@click.command(cls=Command)
@note_option
@yes_option
@quiet_option
@click.pass_context
def undo(ctx: click.Context, note: str, yes: bool, quiet: bool) -> None:
    """Switch back what the last restore replaced; a second undo takes that back."""
    portal, operation = portal_of(ctx, Talk(quiet), note), ""
    if not yes:
        refuse_without_terminal()
        last = last_to_undo(portal)
        operation = last["operation"]
        ask(
            "Switch back to the state before the last "
            "{what} of {time} ({source})?".format_map(last)
        )
    undone = run_undo(portal, operation)
    echo(f"undone: {' and '.join(undone.parts)} as before")
    portal.talk.say(
        f"what it replaced is kept: {replaced_names(undone)}; a second undo goes back"
    )
    portal.talk.say(next_steps(undone))


@click.command(cls=Command)
@click.argument("file", type=click.Path(allow_dash=True))
@database_option
@quiet_option
@click.pass_context
def dump(ctx: click.Context, file: str, only: str, quiet: bool) -> None:
    """Write one database to FILE (- is stdout) as pg_restore reads it."""
    if file == "-" and sys.stdout.isatty():
        raise click.UsageError("a dump is not for a terminal: name a file, or a pipe")
    talk = Talk(quiet)
    site, _ = open_site(portal_of(ctx, talk))
    if file == "-":
        to_stream(site, only, sys.stdout.buffer, talk.progress)
    else:
        to_file(site, only, file, talk.progress)
        talk.say(f"dumped the {only} {site.databases[only].name!r} to {file}")


@click.command(cls=Command)
@click.argument("file", type=click.Path())
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
    """Load one database from FILE, as `restore` does: copy, checks, switch.

    This runs the SQL in FILE as CKAN's database role: load only what you trust.
    """
    path = os.path.join(os.curdir, file)  # never an id
    portal = portal_of(ctx, Talk(quiet), note)
    _restore(portal, path, (only,), trust=True, no_backup=no_backup, yes=yes)
