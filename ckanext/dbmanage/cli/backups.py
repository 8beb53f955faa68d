"""`ckan db backup`, `backups`, `verify`, `keep`, `prune`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ..engine.printable import one_line
from ..operations import retain
from ..operations.backup import backup as backup_
from ..operations.backup import incomplete
from ..operations.backup import verify as verify_
from ..operations.index import open_to_change
from .base import (
    Command,
    as_json,
    opened,
    options_of,
    parts_option,
    portal_of,
    quiet_option,
)
from .output import Talk, echo, shown, size, table, verdict

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup


@click.command(cls=Command)
@click.option("--note", default="", help="A note to keep with the backup.")
@parts_option
@click.option("--keep", is_flag=True, help="Hold this backup, whatever retention says.")
@as_json
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
    taken = backup_(portal_of(ctx, talk), only, note, keep)
    about = taken.describe()
    if as_json:
        wanted = ("id", "path", "parts", "bytes", "seconds")
        echo(json.dumps({key: about[key] for key in wanted}))
    else:
        talk.say(
            f"backed up {' and '.join(about['parts'])}: {size(about['bytes'])} "
            f"in {about['seconds']:.1f} s, verified, in {about['path']}"
        )
        echo(taken.id)
    if why := incomplete(taken):
        raise click.ClickException(why)


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option("--fetch", metavar="PATH", help="Write this upload of the backup.")
@click.option(
    "-O", "--output", type=click.Path(), help="Where to; standard output without it."
)
@as_json
@click.pass_context
def backups(
    ctx: click.Context,
    id: str | None,
    fetch: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """List the backups, or show one: an ID, latest or oldest.

    With --fetch one upload comes out of it, by its path as files.jsonl has it.
    """
    _, repository = opened(ctx, Talk(quiet=as_json or fetch is not None), writes=False)
    if fetch is not None:
        if id is None:
            raise click.UsageError("--fetch needs the ID of a backup")
        _fetch(repository.find(id), fetch, output)
        return
    found = repository.backups() if id is None else [repository.find(id)]
    described = [one.describe() for one in found]
    if as_json:
        echo(json.dumps(described))
    elif id:
        echo(shown(found[0], described[0]))
    elif not described:
        echo(f"No backups in {repository.path}: `ckan db backup` takes one", err=True)
    else:
        echo(table(described))


def _fetch(found: Backup, path: str, output: str | None) -> None:
    from ..engine.disk import whole
    from ..engine.errors import Untrusted
    from ..engine.layout import UNSIGNED
    from ..engine.uploads import objects
    from ..engine.uploads.listing import of

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
                "an upload is not for a terminal: give -O, or a pipe"
            )
        objects.fetch(listed, found.objects, path, sys.stdout.buffer)
        return
    with whole(output, 0o600) as file:
        objects.fetch(listed, found.objects, path, file)


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option("--all", "every", is_flag=True, help="Every backup.")
@click.option(
    "--prove", is_flag=True, help="Also restore it beside the live site, and look."
)
@as_json
@quiet_option
@click.pass_context
def verify(
    ctx: click.Context,
    id: str | None,
    every: bool,
    prove: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read every byte of a backup (the latest without ID) and name what was changed.

    With --prove it is restored into scratch databases, migrated to the installed CKAN,
    counted, read through CKAN, and dropped; an evidence page tells what was seen.
    """
    if id is not None and every:
        raise click.UsageError("give an ID or --all")
    talk = Talk(quiet or as_json)
    portal = portal_of(ctx, talk)
    site, repository = open_to_change(portal, heads=prove)
    chosen = "latest" if id is None else id
    found = repository.backups() if every else [repository.find(chosen)]
    results = []
    for one in found:
        problems = verify_(portal, site, repository, one, prove)
        results.append({"id": one.id, "ok": not problems, "problems": problems})
        if not as_json:
            echo(f"{one.id}  {verdict(problems, prove)}")
            for problem in problems:
                echo(f"  {one_line(problem)}")
    if as_json:
        echo(json.dumps(results))
    verdicts = {r["id"]: verdict(r["problems"], prove) for r in results}
    unproven = [name for name, verdict in verdicts.items() if verdict == "not proven"]
    if unproven:
        raise click.ClickException(
            f"not proven: {', '.join(unproven)}; the problems stand above and in "
            f"{repository.path / 'state'}"
        )
    broken = [name for name, verdict in verdicts.items() if verdict == "damaged"]
    if broken:
        raise click.ClickException(
            f"damaged: {', '.join(broken)}; take a new backup with `ckan db backup`"
        )
    if not all(result["ok"] for result in results):
        raise click.ClickException("not all are this site's own; their bytes are whole")


@click.command(cls=Command)
@click.argument("id")
@click.option("--release", is_flag=True, help="Give it back to retention.")
@click.pass_context
def keep(ctx: click.Context, id: str, release: bool) -> None:
    """Hold a backup, whatever retention says."""
    found = retain.keep(portal_of(ctx, Talk(quiet=False)), id, not release)
    echo(f"{found.id}  {'released' if release else 'kept'}")


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@as_json
@quiet_option
@click.pass_context
def prune(ctx: click.Context, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Forget backups by the rules of retention, with the reason for each.

    Then what no backup names any more, and what a restore replaced and `undo` would
    bring back, once it is older than `ckanext.dbmanage.undo_days`.
    """
    from ..engine.operation import Operation
    from ..engine.postgres.locks import live_lock
    from ..engine.repository import retention
    from ..engine.repository.prune import prune_backups, unnamed_objects
    from ..engine.restore import history
    from ..engine.restore.recover import recover
    from ..engine.restore.scratch import drop_replaced, replaced

    talk = Talk(quiet or as_json)
    site, repository = opened(ctx, talk)
    options = options_of(ctx)
    with repository.lock("prune"):
        days = options.undo_days
        rules = options.retention
        decisions = retention.decide(repository.backups(), rules, days)
        if dry_run:
            forgotten = {d.backup.id for d in decisions if d.forget}
            objects = unnamed_objects(repository, forgotten)
        else:
            objects = prune_backups(repository, decisions, talk.progress).objects
        op = Operation(site, repository, talk)
        with live_lock(site.main):
            if not dry_run:
                recover(op)
            outlived = history.outlived(site, repository, days)
            dropped = (replaced if dry_run else drop_replaced)(op, outlived)
        if not dry_run:
            repository.record(
                "prune", "done", what="prune", dropped=dropped,
                forgotten=[d.backup.id for d in decisions if d.forget],
            )  # fmt: skip
    talk.end()
    if objects.problem:
        talk.warn(objects.problem)
    if as_json:
        document = {
            "backups": [
                {"id": d.backup.id, "forget": d.forget, "reason": d.reason}
                for d in decisions
            ],
            "objects": objects.count,
            "bytes": objects.bytes,
            "dropped": dropped,
        }
        echo(json.dumps(document))
        return
    for decision in decisions:
        verb = "forget" if decision.forget else "keep"
        echo(f"{decision.backup.id}  {verb:6}  {one_line(decision.reason)}")
    for name in dropped:
        echo(f"{name}  {'would be ' if dry_run else ''}dropped: too old to undo")
    echo(
        f"{'would free' if dry_run else 'freed'} {objects.count} contents of uploads, "
        f"{size(objects.bytes)}"
    )
