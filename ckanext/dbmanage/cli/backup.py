"""`ckan db backup`, `verify`."""

import click

from ..engine import words
from ..engine.printable import one_line
from ..operations.backup import take_backup, verify_backups, why_incomplete
from .arguments import Id
from .base import (
    Command,
    json_option,
    parts_option,
    portal_of,
    quiet_option,
)
from .output import Talk, echo, echo_json, verdict
from .places import remote_option, sample_option


@click.command(cls=Command)
@click.option("--note", default="", help="A note to store with the backup.")
@parts_option
@click.option(
    "--keep", is_flag=True, help="Hold this backup: retention never deletes it."
)
@json_option
@quiet_option
@click.pass_context
def backup(
    ctx: click.Context,
    note: str,
    only: tuple[str, ...],
    keep: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take a backup, check it, and print its id."""
    talk = Talk(quiet or as_json)
    taken = take_backup(portal_of(ctx, talk, note), only, note, keep)
    about = taken.describe()
    if as_json:
        wanted = ("id", "path", "parts", "bytes", "added", "seconds")
        echo_json({key: about[key] for key in wanted})
    else:
        talk.say(
            f"backed up {words.parts(about['parts'])}: {words.size(about['bytes'])}, "
            f"{words.size(sum(about['added'].values()))} of it new, "
            f"in {about['seconds']:.1f} s, verified, in {about['path']}"
        )
        echo(taken.id)
    if why := why_incomplete(taken):
        raise click.ClickException(why)


@click.command(cls=Command)
@click.argument("id", required=False, type=Id("latest", "oldest"))
@click.option("--all", "every", is_flag=True, help="All backups.")
@click.option(
    "--prove", is_flag=True, help="Also restore it into a copy, and check that."
)
@remote_option("Look at what stands at the other place.")
@sample_option
@json_option
@quiet_option
@click.pass_context
def verify(
    ctx: click.Context,
    id: str | None,
    every: bool,
    prove: bool,
    remote: bool,
    sample: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read a backup again, and name what has changed.

    Every byte is read. Without ID it is the latest backup. With --prove the backup is
    also restored into scratch databases beside the live site. They are migrated to the
    installed CKAN, their rows are counted, CKAN reads from them, and they are dropped.
    An evidence page tells what was seen.

    With --remote restic checks the repository at the other place, and the backup there
    is compared with its manifest. With --sample a part of the data there is read again
    too, the next part each time. With --prove the whole backup is brought here for it.
    """
    if id is not None and every:
        raise click.UsageError("give either an ID or --all")
    if sample and (prove or not remote):
        raise click.UsageError("--sample is for --remote, without --prove")
    talk = Talk(quiet or as_json)
    portal = portal_of(ctx, talk)
    if remote:
        if every:
            raise click.UsageError("--remote looks at one backup: leave out --all")
        from .offsite import verify_remote

        verify_remote(portal, id or "latest", sample, prove, as_json)
        return
    chosen = None if every else "latest" if id is None else id
    results, verdicts = [], dict[str, list[str]]()
    place = ""
    for found, problems in verify_backups(portal, chosen, prove):
        results.append({"id": found.id, "ok": not problems, "problems": problems})
        said, place = verdict(problems, prove), found.path.parent
        verdicts.setdefault(said, []).append(found.id)
        if not as_json:
            talk.result(f"{found.id}  {said}", *(f"  {one_line(p)}" for p in problems))
    if as_json:
        echo_json(results)
    if unproven := verdicts.get("not proven"):
        raise click.ClickException(
            f"not proven: {', '.join(unproven)}; the problems stand above and in "
            f"{place}/state"
        )
    if broken := verdicts.get("damaged"):
        raise click.ClickException(
            f"damaged: {', '.join(broken)}; take a new backup with `ckan db backup`"
        )
    if closed := verdicts.get("cannot be read"):
        raise click.ClickException(
            f"cannot be read: {', '.join(closed)}; what mends it stands above"
        )
    if foreign := verdicts.get("foreign"):
        raise click.ClickException(
            f"foreign: {', '.join(foreign)}; not signed by this site, but no byte has "
            "changed"
        )
