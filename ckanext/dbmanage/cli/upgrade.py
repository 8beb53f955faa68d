"""`ckan db upgrade`, `init` and `clean`: core's, made safe."""

from typing import Any

import click
from ckan.cli import db as core

from ..engine.errors import Refused
from ..engine.words import many
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
from .output import (
    Talk,
    echo,
    rehearsed_cost,
    replaced_names,
    result,
)
from .tables import upgrade_report

_HELP = {
    "init": "Create CKAN's tables, or migrate those there are.\n\n"
    'This is what helps against "Database is not initialised". ',
    "upgrade": "Migrate the database, on a copy of it.\n\n",
}
_HOW = """A database that has tables is copied; the copy is migrated and checked, then
switched in. Before that, what would make the migrations fail is named, and the old
state is backed up; `ckan db undo` goes back to it. In an empty database CKAN itself
creates the tables.
"""

_IN_PLACE = (
    "the live database itself is migrated. Its tables are locked meanwhile: visitors "
    "wait, or see errors. Nothing is checked before it is live. `ckan db undo` cannot "
    "go back; only a restore of the backup can"
)


def _made_safe(of_core: click.Command) -> click.Command:
    """Core's `upgrade` or `init` with all its options, made safe."""

    name = str(of_core.name)

    @click.command(cls=Command, name=name, help=_HELP[name] + _HOW)
    @click.option(
        "--rehearse",
        is_flag=True,
        help="Do all but the switch, and report what was seen.",
    )
    @click.option(
        "--in-place",
        is_flag=True,
        help="Migrate the live database itself: needs no right to make a copy.",
    )
    @click.option(
        "--no-backup", is_flag=True, help="Do not keep a backup of the state before."
    )
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
            raise click.UsageError(
                "--rehearse and --in-place exclude each other: give one"
            )
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
                raise Refused(
                    "the database is empty: `ckan db init` creates the tables"
                )
            talk.standing.done = (
                "CKAN may have made some of its tables: `ckan db init` goes on"
            )
            ctx.invoke(of_core, **options)
        elif not plan.steps:
            result("Nothing to do: the database fits the installed code")
        elif rehearse:
            result(f"rehearsed: the upgrade would work. {rehearsed_cost(report)}")
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
@click.option("--no-backup", is_flag=True, help="Do not take a backup first.")
@note_option
@yes_option
@quiet_option
@click.pass_context
def clean(
    ctx: click.Context, no_backup: bool, note: str, yes: bool, quiet: bool
) -> None:
    """Delete all data from database and search index.

    A backup is taken first, unless the database is empty.
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
        talk.warn(f"not deleted: {each}")
    echo(
        "CKAN's tables are gone; what stays is named above"
        if stays
        else "The database is empty"
    )
    talk.say(
        "Next: `ckan db init` creates new tables; `ckan db load FILE` or `ckan db "
        "restore ID` brings data back"
    )
