"""`ckan db push`, `pull`, and the `--remote` of others."""

import click

from ..engine.printable import one_line
from ..engine.words import size
from ..operations.context import Portal
from ..operations.offsite import run_prune_remote, run_pull, run_push
from ..operations.there import place_of
from ..operations.verify_there import run_verify_remote
from .arguments import Id
from .base import (
    Command,
    json_option,
    portal_of,
    quiet_option,
)
from .columns import fitted, width
from .output import Talk, echo, echo_json, result


@click.command(cls=Command)
@click.argument("id", required=False, type=Id("latest", "oldest"))
@json_option
@quiet_option
@click.pass_context
def push(ctx: click.Context, id: str | None, as_json: bool, quiet: bool) -> None:
    """Copy backups to the other place.

    Without ID all that are missing there, the newest first. restic carries and encrypts
    them: `ckanext.dbmanage.remote.repository` says where to. CKAN's configuration file
    goes along. A copy counts once what stands there was compared with the manifest.
    """
    portal = portal_of(ctx, Talk(quiet or as_json))
    done = []
    for each in run_push(portal, id):
        done.append(each)
        if as_json:
            continue
        if each.error:
            portal.talk.warn(each.error)
        else:
            echo(f"{each.id}  copied, {size(each.bytes)} were not there before")
    failed = [each for each in done if each.error]
    if as_json:
        echo_json([vars(each) for each in done])
    elif not done:
        portal.talk.say(f"all backups are at {place_of(portal).shown}")
    if failed:
        names = ", ".join(each.id for each in failed)
        raise click.ClickException(f"not copied: {names}; why stands above")


@click.command(cls=Command)
@click.argument("id", type=Id("latest", "oldest", here=False, there=True))
@quiet_option
@click.pass_context
def pull(ctx: click.Context, id: str, quiet: bool) -> None:
    """Bring a backup back from the other place.

    It is checked as if a stranger had sent it, byte by byte, before it counts as a
    backup here. The ID may also be latest or oldest: of those that are there.
    """
    echo(run_pull(portal_of(ctx, Talk(quiet)), id).id)


def verify_remote(
    portal: Portal, id: str, sample: int, prove: bool, as_json: bool
) -> None:
    """`verify --remote`."""
    name, problems = run_verify_remote(portal, id, sample, prove)
    if as_json:
        echo_json([{"id": name, "ok": not problems, "problems": problems}])
    else:
        result(f"{name}  {_verdict(problems, prove)} at the other place", 4)
        for problem in problems:
            result(f"  {one_line(problem)}", 4)
    if problems:
        raise click.ClickException(
            f"{_verdict(problems, prove)} at the other place: {name}"
        )


def _verdict(problems: list[str], prove: bool) -> str:
    if prove:
        return "not proven" if problems else "proven"
    return "damaged" if problems else "verified"


def prune_remote(portal: Portal, dry_run: bool, as_json: bool) -> None:
    """`prune --remote`."""
    decisions, gone = run_prune_remote(portal, dry_run)
    if as_json:
        found = [vars(each) for each in decisions]
        echo_json({"backups": found, "kept_there": not gone})
        return
    for each in decisions:
        verb = "forget" if each.forget else "keep"
        reason = each.reason
        if each.forget and not gone:
            verb, reason = "keep", "kept there: the place lets nobody delete"
        echo(fitted(f"{each.id}  {verb:6}  {reason}", 26, width()))
