"""`ckan db nightly`."""

import shlex

import click

from ..engine.clock import day_and_time
from ..engine.printable import one_line
from ..operations.context import Portal
from ..operations.install import install, plan_install
from ..operations.nightly import NotNow, run_nightly
from ..operations.nights import Night, told
from .base import (
    Command,
    json_option,
    nobody_watches,
    portal_of,
    quiet_option,
    yes_option,
)
from .output import Talk, echo, echo_json, result, took


@click.command(cls=Command)
@click.option(
    "--catch-up",
    is_flag=True,
    help="Only if the last night is missing: for cron's @reboot.",
)
@click.option(
    "--install",
    "is_install",
    is_flag=True,
    help="Show what makes it run by itself; with --yes write it.",
)
@yes_option
@json_option
@quiet_option
@click.pass_context
def nightly(
    ctx: click.Context,
    catch_up: bool,
    is_install: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Do the whole night: back up, prove, copy, prune, publish.

    A backup is taken. Each `ckanext.dbmanage.prove_every` nights it is also proven.
    What is missing at the other place is copied there. Backups that no rule keeps are
    forgotten, here and there. The public dumps are written, if there are any. A step
    runs though one before it failed, unless it needs that one. Run it by a timer.

    With --install the timer is shown: for root a service and a timer of systemd, which
    runs as the user whose backups these are, for others the lines of their crontab.
    With --yes it is written and begins.
    """
    talk = Talk(quiet or as_json)
    portal = portal_of(ctx, talk)
    if is_install:
        _install(portal, yes, as_json)
        return
    if yes:
        raise click.UsageError("--yes is for --install: a night asks nothing")
    try:
        night = run_nightly(portal, catch_up=catch_up, by_itself=nobody_watches())
    except NotNow as error:
        if as_json:
            echo_json({"result": "skipped", "message": str(error)})
        else:
            talk.say(str(error))
        return
    if as_json:
        echo_json(told(night))
    else:
        _report(night)
    if night.failed:
        names = ", ".join(each.name for each in night.failed)
        raise click.ClickException(f"failed this night: {names}; why stands above")


def _report(night: Night) -> None:
    if night.late and night.before:
        missed = f", {night.missed} missed between" if night.missed else ""
        said = f"made up: the night before began {day_and_time(night.before)}{missed}"
        result(said)
    for each in night.steps:
        about = "  ".join(filter(None, [each.backup, one_line(each.message)]))
        seconds = took(each.seconds) if each.result in ("done", "failed") else ""
        result(f"{each.name:8} {each.result:8} {seconds:>10}  {about}".rstrip(), 29)


def _install(portal: Portal, yes: bool, as_json: bool) -> None:
    plan = plan_install(portal)
    begun = yes and install(plan)
    commands = [shlex.join(each) for each in plan.commands]
    if as_json:
        files = plan.files or {"crontab": plan.cron}
        echo_json({"files": files, "commands": commands, "written": yes})
        return
    if not yes:
        for path, text in plan.files.items():
            echo(f"# {path}\n{text}")
        echo(plan.cron or "\n".join(commands))
        portal.talk.say("nothing was written: add --yes for that")
        return
    for path in plan.files or ["the crontab of this user"]:
        echo(f"{path}  written")
    if not begun:
        portal.talk.say("systemd does not run here; where it does:")
        echo("\n".join(commands))
