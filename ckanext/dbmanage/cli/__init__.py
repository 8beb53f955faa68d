"""The commands: `ckan db …`, and most of them as `python -m ckanext.dbmanage` too."""

import re
from importlib import import_module
from typing import Any

import click


class Lazy(click.Command):
    """A command whose module is imported when it is called, or asked for its help.

    `help` is the first sentence of the command's own.
    """

    def __init__(self, module: str, name: str, help: str) -> None:
        super().__init__(name, help=help)
        self._module, self._name = module, name

    @property
    def needs_ckan(self) -> bool:
        """Whether it runs CKAN's own code, so that there is no `python -m` for it."""
        return self._module in ("records", "worker") or self._name in ("init", "clean")

    def load(self) -> click.Command:
        """The command itself."""
        module = import_module(f".{self._module}", __package__)
        return getattr(module, self._name)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        return self.load().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        return ctx.command.invoke(ctx)


#: module and name, and the first sentence of the help; in the order of the manual
_LIST = """
backup backup: Take a backup, check it, and print its id.
repository backups: List the backups, or show one: an ID, latest or oldest.
backup verify: Read every byte of a backup (the latest without ID) and name what was
  changed.
restore restore: Restore a backup (ID, latest, oldest, its directory) or a file of
  pg_dump -Fc.
restore undo: Switch back what the last restore replaced; a second undo takes that back.
restore dump: Write one database to FILE (- is stdout) as pg_restore reads it.
restore load: Load one database from FILE, as `restore` does: copy, checks, switch.
repository keep: Hold a backup, whatever retention says.
repository forget: Delete backups for good.
repository prune: Forget backups by the rules of retention, with the reason for each.
site maintenance: Take the site away for visitors (503 and a calm page), or end it, or
  ask.
site arm: Let the sysadmin page do one thing with this backup, once, for some minutes.
site doctor: Check everything that the portal's data needs; each problem with what
  mends it.
worker worker: Do the jobs of the sysadmin page: what it asks for waits until one runs.
upgrade init: Migrate the database: a copy of it first, then switch that in.
upgrade upgrade: Migrate the database: a copy of it first, then switch that in.
upgrade clean: Remove everything from the database and the search index.
records export: Write all records of a KIND as JSON Lines, as of one moment, in order
  of name.
records publish: Write the public dumps: what everyone may read, as files at /dump/.
records reindex: Rebuild the search index in bulk; search serves the old one until the
  end.
"""
COMMANDS = tuple(
    Lazy(module, name, " ".join(help.split()))
    for module, name, help in re.findall(
        r"^(\w+) (\w+): (.+(?:\n  .+)*)$", _LIST, re.MULTILINE
    )
)


def extend_core() -> list[click.Command]:
    """Puts the commands into core's own group; a second call changes nothing.

    Returns no command: core would take a group for another one of the same name.
    """
    # a web server, which asks for no command, starts without these
    from ckan.cli import db as core

    from ..portal import isolated

    isolated.allow_percent()
    for command in COMMANDS:
        core.db.add_command(command)
    return []
