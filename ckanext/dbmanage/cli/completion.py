"""What a shell completes after `ckan`, without the second that CKAN's start takes.

CKAN's own completion makes its application at each press of the key, and what fails
then is said amid the line. Here none is made, no logger is set up, which may make a
file, and nothing is said. CKAN itself is asked for commands of other plugins alone.

    eval "$(_CKAN_COMPLETE=bash_source python -m ckanext.dbmanage)"
"""

import os
import re
import shlex
import sys
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from . import COMMANDS, extend_core

_VARIABLE = "_CKAN_COMPLETE"


class _Configured:
    """What commands find in CKAN's context; the file is read when an id is wanted."""

    def __init__(self, ini: str | None) -> None:
        self._ini = ini

    @cached_property
    def config(self) -> Any:
        from ..portal.ini import loaded

        core: Any = import_module("ckan.cli")
        core.loggingFileConfig = lambda _: None
        return loaded(self._ini)


class _Db(click.Group):
    """`ckan db`: core is imported for its own commands, and for the list of all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        extend_core()
        self.commands = import_module("ckan.cli.db").db.commands
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self.list_commands(ctx)
        return super().get_command(ctx, cmd_name)


class _Ckan(click.Group):
    """`ckan`: core is imported for all but `db`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self.commands = import_module("ckan.cli.cli").ckan.commands | self.commands
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name not in self.list_commands(ctx):
            # it finds the same question in the environment
            program = str(Path(sys.executable).parent / "ckan")
            os.execv(program, [program])  # noqa: S606
        return super().get_command(ctx, cmd_name)


def _configure(ctx: click.Context, _: click.Parameter, ini: str | None) -> None:
    ctx.obj = _Configured(ini)


_CKAN = _Ckan(
    "ckan",
    [_Db("db", {str(each.name): each for each in COMMANDS})],
    params=[click.Option(["-c", "--config"], type=click.Path(), callback=_configure)],
)


def answer(asked: str) -> int:
    """Prints what a shell asks for: `bash_source` are the lines that turn it on.

    Returns the exit code.
    """
    shell, _, what = asked.partition("_")
    kind = get_completion_class(shell)
    if kind is None:
        return 1
    found = kind(_CKAN, {}, "ckan", _VARIABLE)
    if what != "source":
        click.echo(found.complete().encode())
        return 0
    # isolated: nothing in the working directory is taken for a module
    program = shlex.join([sys.executable, "-Im", str(__package__).rpartition(".")[0]])
    quiet = f"{program} 2>/dev/null)"
    lines = re.sub(r"(?<= )(\$1|ckan)\)", lambda _: quiet, found.source())
    # fish would sort the ids, and end what is said of one at a comma
    lines = lines.replace("complete --no-files", "complete --keep-order --no-files")
    click.echo(lines.replace('string split ","', 'string split -m 1 ","'))
    return 0
