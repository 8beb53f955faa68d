"""What the commands share: options, whose site it is, how they fail and ask."""

import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..engine import signals
from ..engine.errors import explanation_of
from ..engine.layout import PARTS
from ..engine.printable import one_line, sentence
from ..operations.context import Portal, find_site
from ..operations.journal import TOLD
from ..portal.config import Options, current
from .output import Talk


class Command(click.Command):
    """A command whose failures are one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with signals.ended_by_signals():
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = sentence(error.message)  # type: ignore[misc]
            raise
        except TOLD as error:
            raise click.ClickException(sentence(explanation_of(error))) from error


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document."
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Print results and warnings only."
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
parts_option = click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    metavar="PART",
    help="Only this part: database, datastore or files (the uploads). May be repeated.",
)
database_option = click.option(
    "--only",
    type=click.Choice(PARTS[:2]),
    default="database",
    metavar="PART",
    help="Which database: database (the default) or datastore.",
)
no_backup_option = click.option(
    "--no-backup",
    is_flag=True,
    help="Do not take a backup of what was replaced.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="How many processes read. The default is ckanext.dbmanage.jobs.",
)


def complete_ids(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The backups' ids that begin so, for the shell."""
    try:
        names = find_site(portal_of(ctx, Talk(quiet=True)))[1].names()
    except Exception:  # amid a line nobody wants to read why
        names = []
    known = [*names, "latest", "oldest"] if names else []
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]


def complete_sources(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same; what has a slash is completed as a file."""
    if "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return complete_ids(ctx, parameter, incomplete)


def options_of(ctx: click.Context) -> Options:
    """The site's options, of CKAN or of what `python -m` has read."""
    given = getattr(ctx.find_root().obj, "config", None)
    return current() if given is None else Options(given)


def portal_of(ctx: click.Context, talk: Talk) -> Portal:
    """The site that a command is for, and who is told what goes on."""
    return Portal(options_of(ctx), talk, ctx.meta.get("flask_app"))


def refuse_without_terminal() -> None:
    """Refuses to go on where nobody can be asked. Raises UsageError."""
    if not sys.stdin.isatty():
        raise click.UsageError(
            "this command asks before it goes on, and there is no terminal to ask on: "
            "add --yes to go on without the question"
        )


def ask(question: str) -> None:
    """Asks whether to go on; ends the command when not.

    Nothing may be locked meanwhile: the answer may never come.
    """
    click.confirm(one_line(question), abort=True, err=True)


_DURATION = {"s": 1, "m": 60, "h": 3600}


def _seconds(_: click.Context, __: click.Parameter, value: str) -> int:
    unit = _DURATION.get(value[-1:])
    if unit is None or not value[:-1].isdecimal() or int(value[:-1]) == 0:
        raise click.BadParameter("give a time such as 90s, 30m or 2h")
    return int(value[:-1]) * unit


duration_option = click.option(
    "--for",
    "seconds",
    default="30m",
    callback=_seconds,
    metavar="TIME",
    help="For how long; it ends by itself. The default is 30m.",
)
