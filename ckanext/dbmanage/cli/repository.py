"""`ckan db backups`, `keep`, `forget`, `prune`."""

import sys

import click

from ..engine.disk import whole
from ..engine.errors import Untrusted
from ..engine.layout import UNSIGNED
from ..engine.printable import one_line
from ..engine.repository.backup import Backup
from ..engine.uploads import contents
from ..engine.uploads.listing import of
from ..engine.words import many, size
from ..operations import retain
from ..operations.context import open_site
from ..operations.in_use import why_empty
from ..operations.prune import run_prune
from ..operations.there import listed, run_look
from .arguments import File, Id
from .base import (
    Command,
    ask,
    ask_to_replace,
    json_option,
    nobody_watches,
    note_option,
    portal_of,
    quiet_option,
    refuse_without_terminal,
    yes_option,
)
from .columns import fitted, width
from .output import Talk, echo, echo_json, result, told
from .places import last_look, place_fact, remote_option
from .tables import backup_facts, backup_table


@click.command(cls=Command)
@click.argument("id", required=False, type=Id("latest", "oldest"))
@click.option("--fetch", metavar="PATH", help="Take this upload out of the backup.")
@click.option(
    "-O",
    "--output",
    type=File(dir_okay=False),
    help="Where to; standard output without it.",
)
@yes_option
@remote_option("Look what is at the other place now.")
@json_option
@click.pass_context
def backups(
    ctx: click.Context,
    id: str | None,
    fetch: str | None,
    output: str | None,
    yes: bool,
    remote: bool,
    as_json: bool,
) -> None:
    """List the backups, or show one.

    The ID may also be latest or oldest. With --fetch one upload is taken out of the
    backup, by its path as files.jsonl.zst has it. Which backups are at the other place
    is told as the last look saw it; --remote looks anew.
    """
    talk = Talk(quiet=as_json or fetch is not None)
    portal = portal_of(ctx, talk)
    site, repository = open_site(portal)
    if remote:
        run_look(portal)
    if fetch is not None:
        if id is None:
            raise click.UsageError("--fetch needs the ID of a backup")
        if output is not None:
            ask_to_replace(output, yes)
        _fetch(repository.find(id), fetch, output)
        return
    found = repository.backups() if id is None else [repository.find(id)]
    described = [one.describe() for one in found]
    described, seen = listed(repository, described, every=id is None)
    if as_json:
        echo_json(described)
    elif id:
        echo(backup_facts(found[0], described[0]))
        echo(place_fact(described[0], seen))
    elif not described:
        why = why_empty(portal.options, site, repository)
        none = f"No backups in {repository.path}: `ckan db backup` takes one"
        echo(told(f"No backups: {why}" if why else none), err=True)
    else:
        echo(backup_table(described, bool(seen.time)))
        if seen.time:
            echo(fitted(last_look(seen), 2, width()), err=True)


def _fetch(found: Backup, path: str, output: str | None) -> None:
    found.refuse_closed()
    if not found.signed:
        raise Untrusted(
            f"backup {found.id} {UNSIGNED} with this site's secret: nobody vouches for "
            f"its list of uploads. Its uploads come back with `ckan db restore "
            f"{found.id} --only files --trust`"
        )
    listed = of(found)
    if output is None:
        if sys.stdout.isatty():
            raise click.UsageError(
                "an upload is not written to a terminal: give -O FILE, or a pipe"
            )
        contents.fetch(listed, found.objects, path, sys.stdout.buffer)
        return
    with whole(output, 0o600) as file:
        contents.fetch(listed, found.objects, path, file)


@click.command(cls=Command)
@click.argument("id", type=Id("latest", "oldest"))
@click.option(
    "--release", is_flag=True, help="Stop holding it: retention decides again."
)
@note_option
@click.pass_context
def keep(ctx: click.Context, id: str, release: bool, note: str) -> None:
    """Hold a backup, so that retention never deletes it."""
    found = retain.keep(portal_of(ctx, Talk(quiet=False), note), id, not release)
    echo(f"{found.id}  {'no longer held' if release else 'held'}")


@click.command(cls=Command)
@click.argument("ids", metavar="ID…", nargs=-1, required=True, type=Id())
@click.option(
    "--newest",
    is_flag=True,
    help="Delete the newest proven backup too, if its ID is given.",
)
@yes_option
@json_option
@quiet_option
@click.pass_context
def forget(
    ctx: click.Context,
    ids: tuple[str, ...],
    newest: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Delete backups for good.

    The contents of uploads that no other backup names go too. A backup that is held is
    refused: `keep --release` first. The newest proven backup (the newest verified one,
    where none is proven) is deleted only with --newest, even with --yes; at a terminal
    its ID can be typed instead.
    """
    portal = portal_of(ctx, Talk(quiet or as_json))
    said = [*ids] if newest else []
    if not yes:
        refuse_without_terminal()
        said += _confirmed(retain.look_at_forget(portal, ids), newest)
    done = retain.forget(portal, ids, newest=said)
    if as_json:
        freed = done.bytes + done.objects.bytes
        echo_json({"forgotten": done.forgotten, "bytes": freed})
        return
    for name in done.forgotten:
        echo(f"{name}  deleted")
    freed = size(done.bytes + done.objects.bytes)
    portal.talk.say(f"{freed} are free again")


def _confirmed(doomed: list[retain.Doomed], newest: bool) -> list[str]:
    """Asks whether backups are to go, and ends the command when not.

    The id of the newest good one is asked for, unless `newest` has said that it goes.
    Returns the ids that were typed.
    """
    typed = []
    for each in doomed:
        about = each.about
        said = [
            about["id"],
            about["state"],
            size(about["bytes"]),
            one_line(about["note"]),
        ]
        line = fitted("  ".join(filter(None, said)), 2, width(sys.stderr))
        echo(line, err=True)
        if each.newest and newest:
            echo(f"  {each.newest}", err=True)
        elif each.newest:
            question = f"  {each.newest}. Type its ID to delete it all the same"
            if click.prompt(question, err=True).strip() != about["id"]:
                raise click.Abort
            typed.append(about["id"])
    what = "this backup" if len(doomed) == 1 else f"these {len(doomed)} backups"
    ask(f"Delete {what} for good?")
    return typed


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@remote_option("Delete backups at the other place, by the rules for it.")
@json_option
@quiet_option
@click.pass_context
def prune(
    ctx: click.Context, dry_run: bool, remote: bool, as_json: bool, quiet: bool
) -> None:
    """Delete the backups that no retention rule keeps.

    The reason is told for each backup. Then the contents of uploads are deleted that no
    backup names any more, and what a restore replaced, once it is older than
    `ckanext.dbmanage.undo_days`: `ckan db undo` cannot bring it back then.
    """
    portal = portal_of(ctx, Talk(quiet or as_json))
    if remote:  # what lists backups starts without it
        from .offsite import prune_remote

        prune_remote(portal, dry_run, as_json)
        return
    done = run_prune(portal, dry_run, by_itself=nobody_watches())
    if as_json:
        echo_json(
            {
                "backups": [
                    {"id": d.backup.id, "forget": d.forget, "reason": d.reason}
                    for d in done.decisions
                ],
                "objects": done.objects.count,
                "bytes": done.objects.bytes,
                "dropped": done.dropped,
            }
        )
        return
    for decision in done.decisions:
        verb = "forget" if decision.forget else "keep"
        said = f"{decision.backup.id}  {verb:6}  {one_line(decision.reason)}"
        result(said, 26)
    for name in done.dropped:
        result(f"{name}  {'would be ' if dry_run else ''}dropped: too old to undo")
    if done.objects.count:
        result(
            f"{'would free' if dry_run else 'freed'} {size(done.objects.bytes)} of "
            f"{many(done.objects.count, 'stored upload')} that no backup names"
        )
    else:
        result("every stored upload belongs to a backup: nothing to free")
