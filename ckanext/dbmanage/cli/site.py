"""`ckan db maintenance`, `arm`, `doctor`."""

import sys
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

import click

from ..doctor.examine import examine, reason
from ..doctor.finding import PROBLEM, Finding
from ..doctor.mend import mend
from ..doctor.monitored import monitored, unknown
from ..engine.clock import day_and_time, parse_stamp, time_ahead, who
from ..engine.errors import Refused, explanation_of
from ..engine.printable import one_line
from ..engine.redis.arming import UNDO, Arming
from ..engine.redis.maintenance import AWAY, READ_ONLY, Maintenance
from ..operations.allowed import refused_on_the_web
from ..operations.context import Portal, find_site, open_site
from ..operations.index import open_to_change
from ..operations.journal import TOLD
from ..operations.watched import look
from .arguments import Id
from .base import (
    Command,
    json_option,
    note_option,
    portal_of,
    quiet_option,
    time_options,
)
from .codes import FAILED
from .output import Talk, as_typed, echo, echo_json, result


@click.command(cls=Command)
@click.argument("what", type=click.Choice(["on", "off", "status"]))
@click.option(
    "--read-only", is_flag=True, help="Visitors can still read; only saving waits."
)
@time_options
@note_option
@json_option
@click.pass_context
def maintenance(
    ctx: click.Context,
    what: str,
    read_only: bool,
    seconds: int,
    note: str,
    as_json: bool,
) -> None:
    """Close the site to visitors, open it, or tell which.

    Visitors see a page that says so, with status 503. Sysadmins who sign in with a
    browser still see the site, and each page has a button that ends this; but nobody
    does while a restore or an upgrade has closed the site.
    """
    portal = portal_of(ctx, Talk(quiet=as_json), note)
    opened = open_site if what == "status" else open_to_change
    site, repository = opened(portal)
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    if what == "on":
        level = READ_ONLY if read_only else AWAY
        keeper.by_hand(level, seconds)
        what = f"maintenance {level}"
    elif what == "off" and keeper.off():
        what = "maintenance off"
    if " " in what:
        with suppress(OSError):  # it is done, whether or not it can be written down
            repository.record("maintenance", "done", what=what)
    status = keeper.status()
    if as_json:
        echo_json(status or {"level": "off"})
    elif status is None:
        echo("off: the site is open to visitors")
    else:
        ends = f"until {time_ahead(status['seconds_left'])}"
        if status["held"]:
            ends = "until the operation ends"
        since = day_and_time(parse_stamp(status["since"]))
        result(
            f"{status['level']} {ends}: {status['reason']}, since {since}, by "
            f"{status['owner']}"
        )


@click.command(cls=Command)
@click.argument("id", metavar="ID|undo", type=Id("latest", "oldest", UNDO))
@click.option(
    "--to",
    type=click.Choice(["restore", "delete", "release", "download"]),
    default="restore",
    help="What the page may do. The default is restore.",
)
@time_options
@note_option
@quiet_option
@click.pass_context
def arm(
    ctx: click.Context, id: str, to: str, seconds: int, note: str, quiet: bool
) -> None:
    """Let the web page do one thing with a backup, once.

    The sysadmin page may restore the backup; with --to it may delete it, release it
    (stop holding it) or download one file of it, which may be all.tar. With undo in
    place of an ID the page may undo the last restore. What was armed before is armed no
    longer.
    """
    if id == UNDO and to != "restore":
        raise click.UsageError("there is no --to for undo: leave it out")
    talk = Talk(quiet)
    portal = portal_of(ctx, talk, note)
    site, repository = open_to_change(portal)
    name = id if id == UNDO else repository.find(id).id
    if why := refused_on_the_web(site, repository, portal.options, name, to):
        raise Refused(f"not armed, for the sysadmin page would refuse it: {why}")
    armed = Arming(site).arm(name, seconds, who(), to)
    repository.record(name, "done", what="arm", to=to, until=armed["until"])
    deed = UNDO if id == UNDO else to
    result(f"{name}  armed to {deed} until {time_ahead(seconds)}")
    talk.say(f"good for one {to} from the sysadmin page")


@click.command(cls=Command)
@click.option("--fix", is_flag=True, help="Repair what can be repaired safely.")
@click.option("--preview", is_flag=True, help="With --fix: only say what it would do.")
@json_option
@click.option(
    "--nagios",
    is_flag=True,
    help="Print one line for a monitor; exit with its codes 0, 1, 2 or 3.",
)
@click.pass_context
def doctor(
    ctx: click.Context, fix: bool, preview: bool, as_json: bool, nagios: bool
) -> None:
    """Check all that the portal's data needs.

    Each problem is told with what mends it. --fix finishes what was left half-way,
    brings the search index up to date, sets the DataStore's permissions and closes the
    repository to other users.

    --nagios ends with the exit codes of a monitor's plugin: 0 is OK, 1 WARNING (a
    hint), 2 CRITICAL (a problem), 3 UNKNOWN (the doctor itself cannot know).
    """
    if nagios:
        _as_plugin(ctx, fix, preview)
    portal = portal_of(ctx, Talk(quiet=as_json))
    found = _mended(portal, preview) if fix else []
    try:
        found = found or examine(portal, *find_site(portal))
    except TOLD as error:
        found = [Finding("configuration", PROBLEM, explanation_of(error))]
    found = [replace(each, text=as_typed(each.text)) for each in found]
    problems = [each for each in found if each.state == PROBLEM]
    if as_json:
        echo_json([each.told for each in found])
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            said = f"{each.state:8} {each.name:{width}}  {one_line(each.text)}"
            result(said, width + 11)
    if problems:
        sys.exit(FAILED)


def _mended(portal: Portal, preview: bool) -> list[Finding]:
    """Repairs what can be repaired; what stands in the way of that, else nothing."""
    try:
        mend(portal, preview)
    except TOLD as error:
        return [Finding("repair", PROBLEM, explanation_of(error))]
    return []


def _as_plugin(ctx: click.Context, fix: bool, preview: bool) -> NoReturn:
    """`doctor --nagios`: whatever happens, one line and one of a monitor's codes."""
    try:
        portal = portal_of(ctx, Talk(quiet=True))
        site, repository = find_site(portal)
        found = _mended(portal, preview) if fix else []
        found = found or examine(portal, site, repository)
        report = monitored(found, look(portal.options, site, repository))
    except Exception as error:
        report = unknown(reason(error))
    echo(as_typed(report.line))
    sys.exit(report.code)
