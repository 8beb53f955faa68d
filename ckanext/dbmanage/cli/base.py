"""What the commands share: options, whose site it is, how they fail and ask."""

import sys
from typing import Any

import click

from ..engine import signals
from ..engine.errors import explanation_of
from ..engine.layout import PARTS
from ..engine.printable import one_line
from ..engine.report import Standing
from ..operations.context import Portal
from ..operations.journal import TOLD
from ..portal.config import Options, current
from .output import Talk, echo, told

#: where a context keeps who is told what goes on
_TALK = "dbmanage.talk"


class Told(click.Command):
    """A command whose failures are one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = told(error.message)  # type: ignore[misc]
            raise
        except TOLD as error:
            raise click.ClickException(told(explanation_of(error))) from error


class Command(Told):
    """The same, and a signal ends it in good order: it says what is true then."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with signals.ended_by_signals():
                return super().invoke(ctx)
        except (KeyboardInterrupt, signals.Ended, click.Abort) as error:
            talk: Talk | None = ctx.meta.get(_TALK)
            if talk:
                talk.end()
            said = (talk.standing if talk else Standing()).sentence()
            if isinstance(error, KeyboardInterrupt):
                raise click.ClickException(told(f"ended by Ctrl-C. {said}")) from error
            by = f"ended by {error.name}. " if isinstance(error, signals.Ended) else ""
            echo(told(by + said), err=True)
            raise


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document."
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Print results and warnings only."
)
note_option = click.option("--note", default="", help="Why, for the journal.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
parts_option = click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    metavar="PART",
    help="Only this part: database, datastore or files; may be repeated.",
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
    help="Do not back up what was replaced afterwards.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="How many processes read; ckanext.dbmanage.jobs without it.",
)


def options_of(ctx: click.Context) -> Options:
    """The site's options, of CKAN or of what `python -m` has read."""
    given = getattr(ctx.find_root().obj, "config", None)
    return current() if given is None else Options(given)


def portal_of(ctx: click.Context, talk: Talk, note: str = "") -> Portal:
    """The site that a command is for, who is told what goes on, and the note why."""
    ctx.meta[_TALK] = talk
    why = {"note": one_line(note)[:500]} if note else {}
    return Portal(options_of(ctx), talk, ctx.meta.get("flask_app"), why)


def refuse_without_terminal() -> None:
    """Refuses to go on where nobody can be asked. Raises UsageError."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask (no terminal): say --yes")


def ask(question: str) -> None:
    """Asks whether to go on; ends the command when not.

    Nothing may be locked meanwhile: the answer may never come.
    """
    click.confirm(one_line(question), abort=True, err=True)


_DURATION = {"s": 1, "m": 60, "h": 3600}


def _seconds(_: click.Context, __: click.Parameter, value: str) -> int:
    unit = _DURATION.get(value[-1:])
    if unit is None or not value[:-1].isdecimal() or int(value[:-1]) == 0:
        raise click.BadParameter("a time such as 90s, 30m or 2h")
    return int(value[:-1]) * unit


duration_option = click.option(
    "--for",
    "seconds",
    default="30m",
    callback=_seconds,
    metavar="TIME",
    help="It ends by itself after this time, 30m when none is given.",
)
