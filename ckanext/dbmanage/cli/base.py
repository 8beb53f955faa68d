"""What the commands share: options, how a site is opened, how they ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..engine import signals
from ..engine.errors import explanation_of
from ..engine.printable import one_line, sentence
from ..operations.context import Portal, open_site
from ..operations.index import open_to_change
from ..portal.config import Options, current
from .output import Talk

if TYPE_CHECKING:
    from ..engine.repository.repository import Repository
    from ..engine.site import Site


_PARTS = ("database", "datastore", "files")


class Command(click.Command):
    """A command whose failures are one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from psycopg2 import Error as DatabaseError
        from sqlalchemy.exc import SQLAlchemyError

        from ..engine.errors import DbmanageError

        try:
            with signals.ended_by_signals():
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = sentence(error.message)  # type: ignore[misc]
            raise
        except (DbmanageError, DatabaseError, SQLAlchemyError, OSError) as error:
            raise click.ClickException(sentence(explanation_of(error))) from error


as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document."
)

quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Only results and warnings."
)

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")

parts_option = click.option(
    "--only",
    type=click.Choice(_PARTS),
    multiple=True,
    metavar="PART",
    help="Only this part: database, datastore or files; may be repeated.",
)

one_option = click.option(
    "--only",
    type=click.Choice(_PARTS[:2]),
    default="database",
    metavar="PART",
    help="Which database: database (the default) or datastore.",
)

no_backup_option = click.option(
    "--no-backup",
    is_flag=True,
    help="Do not back up what was replaced afterwards.",
)


def options_of(ctx: click.Context) -> Options:
    """The site's options, of CKAN or of what `python -m` has read."""
    given = getattr(ctx.find_root().obj, "config", None)
    return current() if given is None else Options(given)


def portal_of(ctx: click.Context, talk: Talk) -> Portal:
    return Portal(options_of(ctx), talk, ctx.meta.get("flask_app"))


def opened(
    ctx: click.Context, talk: Talk, writes: bool = True
) -> tuple[Site, Repository]:
    return (open_to_change if writes else open_site)(portal_of(ctx, talk))


def may_go_on(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask (no terminal): say --yes")
    click.confirm(one_line(question), abort=True, err=True)


_DURATION = {"s": 1, "m": 60, "h": 3600}


def seconds(_: click.Context, __: click.Parameter, value: str) -> int:
    unit = _DURATION.get(value[-1:])
    if unit is None or not value[:-1].isdecimal() or int(value[:-1]) == 0:
        raise click.BadParameter("a time such as 90s, 30m or 2h")
    return int(value[:-1]) * unit
