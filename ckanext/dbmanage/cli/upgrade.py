"""`ckan db upgrade`, `init` and `clean`: core's, made safe."""

from typing import Any

import click
from ckan.cli import db as core

from ..engine.errors import Refused
from ..operations.clean import look_at_clean, run_clean
from ..operations.upgrade import run_upgrade
from ..portal import changed
from ..portal.migrate import Report
from ..portal.plan import Plan, Wanted
from .base import (
    Command,
    ask_name,
    note_option,
    portal_of,
    quiet_option,
    refuse_without_terminal,
    yes_option,
)
from .output import Talk, echo, many, rehearsed_cost, replaced_names, upgrade_report

_HELP = """Migrate the database: a copy of it first, then switch that in.

What would make the migrations fail is named before; the state before is backed up, and
`ckan db undo` goes back to it. An empty database is made ready by CKAN itself.
"""

_IN_PLACE = (
    "the live database itself is migrated: its tables are locked meanwhile, so that "
    "visitors wait or see errors, nothing is looked at before it counts, and not "
    "`ckan db undo` goes back, but a restore of the backup"
)


def _made_safe(of_core: click.Command) -> click.Command:
    """Core's `upgrade` or `init` with all its options, made safe."""

    @click.command(cls=Command, name=of_core.name, help=_HELP)
    @click.option("--rehearse", is_flag=True, help="Do all but the switch, and report.")
    @click.option(
        "--in-place",
        is_flag=True,
        help="Migrate the live database itself: needs no right to make a copy.",
    )
    @click.option("--no-backup", is_flag=True, help="Do not keep the backup before it.")
    @note_option
    @quiet_option
    @click.pass_context
    def run(
        ctx: click.Context,
        /,
        rehearse: bool,
        in_place: bool,
        no_backup: bool,
        note: str,
        quiet: bool,
        **options: Any,
    ) -> None:
        if rehearse and in_place:
            raise click.UsageError("--rehearse and --in-place are two ways: give one")
        talk, report, known = Talk(quiet), Report(), list[Plan]()
        portal = portal_of(ctx, talk, note)

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
            switched = run_upgrade(
                portal, wanted, report, rehearse=rehearse, in_place=in_place,
                no_backup=no_backup, planned=planned,
            )  # fmt: skip
        finally:
            talk.end()
            if report.phases:
                echo(upgrade_report(report))
        (plan,) = known
        if plan.empty:
            if portal.app is None:  # CKAN itself makes its tables
                raise Refused("the database is empty: `ckan db init` makes its tables")
            ctx.invoke(of_core, **options)
        elif not plan.steps:
            echo("Nothing is pending: the database is at the installed code")
        elif rehearse:
            echo(f"rehearsed: the upgrade would work. {rehearsed_cost(report)}")
        else:
            echo(f"upgraded by {len(plan.steps)} migrations")
            talk.say("restart CKAN's web and worker processes now: they run old code")
        if switched:
            talk.say(
                f"the old state is kept: {replaced_names(switched)}; `ckan db undo` "
                "goes back"
            )

    run.params = [*of_core.params, *run.params]
    return run


init, upgrade = _made_safe(core.init), _made_safe(core.upgrade)


@click.command(cls=Command)
@click.option("--no-backup", is_flag=True, help="Do not take a backup before.")
@note_option
@yes_option
@quiet_option
@click.pass_context
def clean(
    ctx: click.Context, no_backup: bool, note: str, yes: bool, quiet: bool
) -> None:
    """Remove everything from the database and the search index.

    A backup is taken first, unless there is nothing.
    """
    # unlike core's, it needs neither Solr nor to own what is PostGIS's
    talk, confirmed = Talk(quiet), None
    portal = portal_of(ctx, talk, note)
    if not yes:
        refuse_without_terminal()
        site, confirmed = look_at_clean(portal)
        held, options = changed.datasets(site), portal.options
        count = "" if held is None else f"{many(held, 'dataset')} and "
        question = (
            f"Remove all of {options.site_address} from the database "
            f"{site.main.name!r}: {count}{many(len(confirmed.tables), 'table')}?"
        )
        ask_name(question, options)
    stays = run_clean(portal, no_backup, confirmed)
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
