"""`ckan db restore`, `undo`, `dump`, `load`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from ..engine.printable import one_line
from ..operations.restore import preview as preview_
from ..operations.restore import previewed
from ..operations.restore import restore as restore_
from ..operations.restore import undo as undo_
from .base import (
    Command,
    may_go_on,
    no_backup_option,
    one_option,
    opened,
    parts_option,
    portal_of,
    quiet_option,
    yes_option,
)
from .output import Talk, compared, echo, kept

if TYPE_CHECKING:
    from ..engine.repository.repository import Repository
    from ..engine.restore.source import Source
    from ..engine.site import Site


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
    """Restore a backup (ID, latest, oldest, its directory) or a file of pg_dump -Fc.

    A directory or a file is written with a slash, as in ./portal.dump. It goes into a
    copy beside what is live, is checked there, and is switched in at once; what was
    replaced is kept for `ckan db undo`, and backed up.
    """
    talk = Talk(quiet)
    _restore(ctx, talk, source, only, preview, trust, no_backup, yes)


def _restore(
    ctx: click.Context,
    talk: Talk,
    name: str,
    only: tuple[str, ...],
    preview: bool,
    trust: bool,
    no_backup: bool,
    yes: bool,
) -> None:
    portal = portal_of(ctx, talk)
    if preview:
        echo(compared(preview_(portal, name, only)))
        return
    if not (yes or sys.stdin.isatty()):
        may_go_on("", yes)

    def agree(site: Site, repository: Repository, source: Source | None) -> None:
        assert source is not None
        if not yes:
            rows = previewed(site, repository, source)
            talk.end()
            echo(compared(rows), err=True)
        may_go_on(
            f"Replace the live {' and '.join(source.parts)} by {source.name}?", yes
        )

    restored = restore_(
        portal, name, only, trust=trust, no_backup=no_backup, agree=agree
    )
    source = one_line(restored.source)
    echo(f"restored {' and '.join(restored.parts)} from {source}")
    if restored.replaced.parts:
        talk.say(
            f"what it replaced is kept: {kept(restored)}; `ckan db undo` goes back"
        )


@click.command(cls=Command)
@yes_option
@quiet_option
@click.pass_context
def undo(ctx: click.Context, yes: bool, quiet: bool) -> None:
    """Switch back what the last restore replaced; a second undo takes that back."""
    if not (yes or sys.stdin.isatty()):
        may_go_on("", yes)
    talk = Talk(quiet)

    def agree(site: Site, repository: Repository, _: Source | None) -> None:
        from ..engine.restore.history import last_switch

        last = last_switch(site, repository) or {}
        known = "{what} of {time} ({source})".format_map(last) if last else "restore"
        may_go_on(f"Switch back to the state before the last {known}?", yes)

    undone = undo_(portal_of(ctx, talk), agree)
    echo(f"undone: {' and '.join(undone.parts)} as before")
    talk.say(f"what it replaced is kept: {kept(undone)}; a second undo goes back")


@click.command(cls=Command)
@click.argument("file", type=click.Path(allow_dash=True))
@one_option
@quiet_option
@click.pass_context
def dump(ctx: click.Context, file: str, only: str, quiet: bool) -> None:
    """Write one database to FILE (- is stdout) as pg_restore reads it."""
    from ..engine.backup import dump as engine

    if file == "-" and sys.stdout.isatty():
        raise click.UsageError("a dump is not for a terminal: name a file, or a pipe")
    talk = Talk(quiet)
    site, _ = opened(ctx, talk, writes=False)
    if file == "-":
        engine.to_stream(site, only, sys.stdout.buffer, talk.progress)
    else:
        engine.to_file(site, only, file, talk.progress)
        talk.end()
        talk.say(f"dumped the {only} {site.databases[only].name!r} to {file}")


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@one_option
@no_backup_option
@yes_option
@quiet_option
@click.pass_context
def load(
    ctx: click.Context, file: str, only: str, no_backup: bool, yes: bool, quiet: bool
) -> None:
    """Load one database from FILE, as `restore` does: copy, checks, switch.

    This runs the SQL in FILE as CKAN's database role: load only what you trust.
    """
    path = os.path.join(os.curdir, file)  # never an id
    _restore(ctx, Talk(quiet), path, (only,), False, True, no_backup, yes)
