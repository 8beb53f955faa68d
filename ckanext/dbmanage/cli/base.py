"""What the commands share: options, whose site it is, how they fail and ask."""

import os
import stat
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import wraps
from typing import Any

import click

from ..engine import signals
from ..engine.clock import day_and_time, seconds_of, seconds_until
from ..engine.errors import explanation_of
from ..engine.layout import PARTS
from ..engine.printable import one_line
from ..engine.report import Standing
from ..operations.context import Portal
from ..operations.journal import TOLD
from ..portal.config import Options, current
from .output import Talk, echo, size, told

#: where a context keeps who is told what goes on
TALK = "dbmanage.talk"


class Told(click.Command):
    """A command whose failures are one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = told(error.message, "Error: ")  # type: ignore[misc]
            raise
        except TOLD as error:
            said = told(explanation_of(error), "Error: ")
            raise click.ClickException(said) from error
        finally:
            if talk := ctx.meta.get(TALK):
                talk.end()  # the line of the progress is no place for what comes next


class Command(Told):
    """The same, and a signal ends it in good order: it says what is true then."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with signals.ended_by_signals():
                return super().invoke(ctx)
        except (KeyboardInterrupt, signals.Ended, click.Abort) as error:
            talk: Talk | None = ctx.meta.get(TALK)
            if talk:
                talk.hush()
            said = (talk.standing if talk else Standing()).sentence()
            if isinstance(error, KeyboardInterrupt):
                raise click.ClickException(
                    told(f"ended by Ctrl-C. {said}", "Error: ")
                ) from error
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


def options_of(ctx: click.Context) -> Options:
    """The site's options, of CKAN or of what `python -m` has read."""
    given = getattr(ctx.find_root().obj, "config", None)
    return current() if given is None else Options(given)


def portal_of(ctx: click.Context, talk: Talk, note: str = "") -> Portal:
    """The site that a command is for, who is told what goes on, and the note why."""
    ctx.meta[TALK] = talk
    why = {"note": one_line(note)[:500]} if note else {}
    return Portal(options_of(ctx), talk, ctx.meta.get("flask_app"), why)


def refuse_without_terminal() -> None:
    """Refuses to go on where nobody can be asked. Raises UsageError."""
    if not sys.stdin.isatty():
        raise click.UsageError(
            "this command asks before it goes on, and there is no terminal to ask on: "
            "add --yes to go on without the question"
        )


def nobody_watches() -> bool:
    """Whether a timer, cron or another program has begun this: there is no terminal."""
    return not any(
        stream and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)
    )


def ask(question: str) -> None:
    """Asks whether to go on; ends the command when not.

    Nothing may be locked meanwhile: the answer may never come.
    """
    _forget_typed()
    click.confirm(told(one_line(question)), abort=True, err=True)


def ask_name(question: str, options: Options) -> None:
    """Asks for the site's name, to go on; ends the command at anything else.

    As for `ask`. Raises ClickException.
    """
    echo(told(one_line(question)), err=True)
    _forget_typed()
    words = one_line(f"Type the site's name, {options.site_title}, to go on")
    typed = click.prompt(told(words), default="", show_default=False, err=True)
    if not options.is_site_title(typed):
        raise click.ClickException("that is not the site's name: nothing was touched")


def ask_to_replace(path: str, yes: bool) -> None:
    """Asks before a file that stands there is replaced; a pipe or a device is not.

    Raises UsageError where nobody can be asked.
    """
    try:
        about = os.stat(path)
    except OSError:  # who writes it says what is wrong
        return
    if yes or not stat.S_ISREG(about.st_mode):
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{one_line(path)} is there already, and nobody is there to ask (no "
            "terminal): name another file, or say --yes to replace it"
        )
    made = day_and_time(datetime.fromtimestamp(about.st_mtime, timezone.utc))
    ask(f"Replace {path} ({size(about.st_size)}, of {made})?")


def _forget_typed() -> None:
    """What was typed before a question stood there is no answer to it."""
    with suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


#: seconds that something may be armed, or the site away, by hand
_MOST = 30 * 86400


def _seconds(_: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0
    parse = seconds_until if parameter.name == "until" else seconds_of
    try:
        seconds = parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if seconds > _MOST:
        raise click.BadParameter(f"{value} is longer than 30d")
    return seconds


def time_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--for` and `--until`: hands `seconds` to a command."""

    @click.option(
        "--for",
        "lasting",
        callback=_seconds,
        metavar="TIME",
        help="It ends by itself after this time: 90s, 30m (the default), 2h or 1d.",
    )
    @click.option(
        "--until",
        callback=_seconds,
        metavar="HH:MM",
        help="It ends by itself at this time of the day, in UTC.",
    )
    @wraps(command)
    def timed(*arguments: Any, lasting: int, until: int, **options: Any) -> Any:
        if lasting and until:
            raise click.UsageError("--for and --until are two ways: give one")
        return command(*arguments, seconds=lasting or until or 1800, **options)

    return timed
