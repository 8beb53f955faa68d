"""`ckan db restore`, `undo`, `dump`, `load`."""

import os
import sys

import click

from ..engine import words
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
    complete_sources,
    database_option,
    no_backup_option,
    parts_option,
    portal_of,
    quiet_option,
    refuse_without_terminal,
    yes_option,
)
from .output import Talk, echo, preview_table, replaced_names


@click.command(cls=Command)
@click.argument("source", metavar="ID|DIR|FILE", shell_complete=complete_sources)
@parts_option
@click.option(
    "--preview", is_flag=True, help="Only show what would be lost and gained."
)
@click.option(
    "--trust",
    is_flag=True,
    help="Run the SQL of a backup that is not signed by this site.",
)
@no_backup_option
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
    yes: bool,
    quiet: bool,
) -> None:
    """Bring back a backup, or a file of pg_dump -Fc.

    Give its ID (also latest or oldest), its directory or its file; a directory or a
    file with a slash, as in ./portal.dump. It is loaded into a copy beside the live
    database and checked there; then the copy is switched in. What it replaces is kept
    for `ckan db undo`, and backed up.
    """
    portal = portal_of(ctx, Talk(quiet))
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
        parts = words.parts(confirmed.parts)
        ask(f"Replace the live {parts} by {confirmed.name}?")
    restored = run_restore(
        portal, source, only, trust=trust, no_backup=no_backup, attended=True,
        confirmed=confirmed,
    )  # fmt: skip
    echo(f"restored {words.parts(restored.parts)} from {one_line(restored.source)}")
    if restored.replaced.parts:
        portal.talk.say(
            f"what it replaced is kept: {replaced_names(restored)}; `ckan db undo` "
            "goes back"
        )


@click.command(cls=Command)
@yes_option
@quiet_option
@click.pass_context
def undo(ctx: click.Context, yes: bool, quiet: bool) -> None:
    """Switch back what the last restore replaced.

    A second undo takes the first one back.
    """
    portal, operation = portal_of(ctx, Talk(quiet)), ""
    if not yes:
        refuse_without_terminal()
        last = last_to_undo(portal)
        operation = last["operation"]
        ask(
            "Switch back to the state before the last "
            "{what} of {time} ({source})?".format_map(last)
        )
    undone = run_undo(portal, operation)
    echo(f"switched back: {words.parts(undone.parts)}")
    portal.talk.say(
        f"what it replaced is kept: {replaced_names(undone)}; a second undo goes back"
    )


@click.command(cls=Command)
@click.argument("file", type=click.Path(allow_dash=True))
@database_option
@quiet_option
@click.pass_context
def dump(ctx: click.Context, file: str, only: str, quiet: bool) -> None:
    """Write one database to a file, as pg_dump -Fc does.

    `pg_restore` and `ckan db load` read it. With - in place of FILE it goes to stdout.
    """
    if file == "-" and sys.stdout.isatty():
        raise click.UsageError(
            "a dump is not written to a terminal: name a file, or use a pipe"
        )
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
@yes_option
@quiet_option
@click.pass_context
def load(
    ctx: click.Context, file: str, only: str, no_backup: bool, yes: bool, quiet: bool
) -> None:
    """Replace one database by a file of pg_dump -Fc.

    As `ckan db restore` does it: a copy is loaded and checked, then switched in. This
    runs the SQL in FILE as CKAN's database role: load only what you trust.
    """
    path = os.path.join(os.curdir, file)  # never an id
    portal = portal_of(ctx, Talk(quiet))
    _restore(portal, path, (only,), trust=True, no_backup=no_backup, yes=yes)
