"""`python -m ckanext.dbmanage -c ckan.ini VERB`: the commands without CKAN.

`ckan` cannot start when its database is gone; this can, to bring it back.
"""

import logging
import os
import sys
from types import SimpleNamespace
from typing import Any

import click

from . import cli


class Main(click.Group):
    """Says where the commands are that are none here."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if any(each.name == args[0] and each.needs_ckan for each in cli.COMMANDS):
            from .portal.command import typed

            ctx.fail(f"{args[0]} runs CKAN's own code: `{typed()} db {args[0]}`")
        return cli.resolved(self, ctx, args)


@click.group(cls=Main, help=__doc__)
@click.option(
    "-c", "--config", "ini", metavar="FILE", help="CKAN's configuration file."
)
@click.pass_context
def main(ctx: click.Context, ini: str | None) -> None:
    from ckan.exceptions import CkanConfigurationException

    from .engine.errors import Refused
    from .portal.ini import loaded

    # the file's own loggers say on stderr what nobody asked for here
    logging.disable(logging.INFO)
    if ctx.invoked_subcommand == cli.RECOVER.name:  # which brings the file
        ctx.obj = SimpleNamespace(ini=ini)
        return
    try:
        ctx.obj = SimpleNamespace(config=loaded(ini))
    except (CkanConfigurationException, Refused) as error:
        if "--nagios" in sys.argv:  # a monitor takes exit code 2 for a problem found
            from .cli.output import echo

            echo("DBMANAGE UNKNOWN - CKAN's configuration cannot be read")
            sys.exit(3)
        raise click.UsageError(str(error).strip().removeprefix("ERROR: ")) from error


for command in (*cli.COMMANDS, cli.RECOVER):
    if not command.needs_ckan:
        main.add_command(command)

if __name__ == "__main__":
    if asked := os.environ.get("_CKAN_COMPLETE"):
        from .cli.completion import answer

        sys.exit(answer(asked))
    main(prog_name="python -m ckanext.dbmanage")
