"""`ckan db upgrade`, `init` and `clean`: core's, made safe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..engine.printable import one_line
from ..operations.clean import clean
from ..operations.upgrade import upgrade
from .base import Command, may_go_on, options_of, portal_of, quiet_option, yes_option
from .output import Talk, cost, echo, kept, reported

if TYPE_CHECKING:
    from ..engine.site import Site


def of_core() -> list[click.Command]:
    """Core's own `init`, `upgrade` and `clean`, made safe."""
    from ckan.cli import db as core

    there = [core.db.commands[name] for name in ("init", "upgrade", "clean")]
    if isinstance(there[0], Command):  # that was done before
        return there
    return [*map(upgrading, there[:2]), _clean(there[2])]


_UPGRADE = """Migrate the database: a copy of it first, then switch that in.

What would make the migrations fail is named before; the state before is backed up, and
`ckan db undo` goes back to it. An empty database is made ready by CKAN itself.
"""


def upgrading(core: click.Command, bare: bool = False) -> click.Command:
    """Core's `upgrade` or `init` with all its options, made safe.

    `bare`: without CKAN, which an empty database needs.
    """

    @click.command(cls=Command, name=core.name, help=_UPGRADE)
    @click.option("--rehearse", is_flag=True, help="Do all but the switch, and report.")
    @click.option(
        "--in-place",
        is_flag=True,
        help="Migrate the live database itself: needs no right to make a copy.",
    )
    @click.option("--no-backup", is_flag=True, help="Do not keep the backup before it.")
    @quiet_option
    @click.pass_context
    def run(
        ctx: click.Context,
        /,
        rehearse: bool,
        in_place: bool,
        no_backup: bool,
        quiet: bool,
        **options: Any,
    ) -> None:
        from ..engine.errors import Refused
        from ..portal.migrate import Report
        from ..portal.plan import Plan, Wanted

        if rehearse and in_place:
            raise click.UsageError("--rehearse and --in-place are two ways: give one")
        talk, report, known = Talk(quiet), Report(), list[Plan]()

        def planned(plan: Plan) -> None:
            known.append(plan)
            if plan.steps:
                talk.say(f"{len(plan.steps)} migrations are pending")
            for loss in plan.losses:
                talk.warn(loss)
            if plan.steps and in_place:
                talk.warn(_IN_PLACE)

        wanted = Wanted(**{k: v for k, v in options.items() if v})
        try:
            switched = upgrade(
                portal_of(ctx, talk), wanted, report, rehearse=rehearse,
                in_place=in_place, no_backup=no_backup, planned=planned,
            )  # fmt: skip
        finally:
            talk.end()
            if report.phases:
                echo(reported(report))
        (plan,) = known
        if plan.empty and bare:
            raise Refused("the database is empty: `ckan db init` makes its tables")
        if plan.empty:
            ctx.invoke(core, **options)
        elif not plan.steps:
            echo("Nothing is pending: the database is at the installed code")
        elif rehearse:
            echo(f"rehearsed: the upgrade would work. {cost(report)}")
        else:
            echo(f"upgraded by {len(plan.steps)} migrations")
            talk.say("restart CKAN's web and worker processes now: they run old code")
        if switched:
            talk.say(
                f"the old state is kept: {kept(switched)}; `ckan db undo` goes back"
            )

    run.params = [*core.params, *run.params]
    return run


_IN_PLACE = (
    "the live database itself is migrated: its tables are locked meanwhile, so that "
    "visitors wait or see errors, nothing is looked at before it counts, and not "
    "`ckan db undo` goes back, but a restore of the backup"
)

_CLEAN = """Remove everything from the database and the search index.

A backup is taken first, unless there is nothing.
"""


def _clean(core: click.Command) -> click.Command:
    """Core's `clean`, after a backup; it needs neither Solr nor PostGIS's owner."""

    @click.command(cls=Command, name=core.name, help=_CLEAN)
    @click.option("--no-backup", is_flag=True, help="Do not take a backup before.")
    @yes_option
    @quiet_option
    @click.pass_context
    def run(ctx: click.Context, no_backup: bool, yes: bool, quiet: bool) -> None:
        talk = Talk(quiet)

        def agree(site: Site, *_: Any) -> None:
            if yes:
                return
            if not sys.stdin.isatty():
                may_go_on("", yes)
            name = options_of(ctx).text("ckan.site_title") or site.id
            echo(one_line(f"This removes all of {name}: {site.url}"), err=True)
            if click.prompt("Type its name to go on", err=True).strip() != name:
                raise click.Abort

        stays = clean(portal_of(ctx, talk), no_backup, agree)
        for each in stays:
            talk.warn(f"left where it is: {each}")
        echo(
            "CKAN's tables are gone; what stays is named above"
            if stays
            else "The database is empty"
        )
        talk.say(
            "Next: `ckan db init` makes its tables, `ckan db load FILE` or `ckan db "
            "restore ID` brings data back"
        )

    return run
