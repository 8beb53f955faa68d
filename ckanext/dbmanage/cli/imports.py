"""`ckan db import`. It writes by CKAN's actions, and so needs a CKAN that runs."""

import shlex
import sys
import time

import click

from ..engine.words import listed, many
from ..operations.imports import run_import
from ..records.kinds import EXPORTED
from ..records.written import How, There
from .arguments import File
from .base import Command, portal_of, quiet_option
from .output import Talk


@click.command("import", cls=Command)
@click.argument("kind", type=click.Choice(list(EXPORTED)))
@click.argument(
    "file", default="-", type=File(exists=True, dir_okay=False, allow_dash=True)
)
@click.option("--update", is_flag=True, help="Change the records that are there.")
@click.option(
    "--create-only", is_flag=True, help="Leave the records that are there as they are."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on after an import that was ended: skip what has its id and name there.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check every line, and keep nothing of it."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="How many processes write. The default is ckanext.dbmanage.jobs.",
)
@quiet_option
@click.pass_context
def import_(
    ctx: click.Context,
    kind: str,
    file: str,
    update: bool,
    create_only: bool,
    resume: bool,
    dry_run: bool,
    jobs: int | None,
    quiet: bool,
) -> None:
    """Create or change records of a KIND out of JSON Lines.

    FILE is what `ckan db export` or `ckanapi dump` wrote, plain, gzip or zstd; standard
    input without it, or -. Each line is created by CKAN's own action, with its id. A
    line whose record is there already is refused, unless an option says otherwise. What
    is refused is named, and stands in a file beside FILE, to be mended and given again.
    """
    if update + create_only + resume > 1:
        raise click.UsageError(
            "--update, --create-only and --resume exclude each other: give one. The "
            "first two may be given again as they are after an import that was ended"
        )
    if file == "-" and sys.stdin.isatty():
        raise click.UsageError("name a FILE, or give the lines as standard input")
    there = There.REFUSED
    for given, way in (
        (update, There.CHANGED), (create_only, There.LEFT), (resume, There.RESUMED),
    ):  # fmt: skip
        there = way if given else there
    talk, begun = Talk(quiet), time.monotonic()
    found = run_import(
        portal_of(ctx, talk), kind, file, How(there, dry_run),
        stdin=sys.stdin.buffer, jobs=jobs,
    )  # fmt: skip
    done, one = found.done, kind.removesuffix("s")
    counts = [f"{many(done.created, one)} created"]
    counts += [f"{done.changed} changed"] * bool(done.changed or update)
    counts += [f"{done.left} left as they were"] * bool(done.left)
    counts += [f"{found.refused} refused"] * bool(found.refused)
    tense = "would be imported, nothing is kept: " if dry_run else ""
    talk.say(
        f"{tense}{', '.join(counts)}, from {'standard input' if file == '-' else file} "
        f"in {time.monotonic() - begun:.1f} s"
    )
    if done.sysadmins:
        some = listed(sorted(done.sysadmins)[:20])
        talk.warn(f"the file makes {many(len(done.sysadmins), 'sysadmin')}: {some}")
    if done.relationships:
        talk.say(f"{many(done.relationships, 'relationship')} between datasets")
    if found.refused:
        mend = ""
        if found.path:
            again = f"ckan db import {kind} {shlex.quote(str(found.path))}"
            mend = f"; they are in {found.path}: mend them, then `{again}`"
        raise click.ClickException(
            f"{many(found.refused, 'line')} refused, see the warnings above{mend}"
        )
