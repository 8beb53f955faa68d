"""The commands: `ckan db …`, and most of them as `python -m ckanext.dbmanage` too."""

import io
import re
import sys
from importlib import import_module
from typing import Any

import click


class Lazy(click.Command):
    """A command whose module is imported when it is called, or asked for its help.

    `help` is the first sentence of the command's own.
    """

    def __init__(self, module: str, name: str, help: str) -> None:
        # given, it is wrapped where it is too long, and not cut
        super().__init__(name, help=help, short_help=help)
        self._module, self._name = module, name

    @property
    def needs_ckan(self) -> bool:
        """Whether it runs CKAN's own code, so that there is no `python -m` for it."""
        of_ckan = ("records", "imports", "worker")
        return self._module in of_ckan or self._name in ("init", "clean")

    def load(self) -> click.Command:
        """The command itself."""
        module = import_module(f".{self._module}", __package__)
        # a word of Python's has a line after it there
        found = vars(module)
        return found.get(self._name) or found[f"{self._name}_"]

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        for stream in (sys.stdout, sys.stderr):
            # a terminal of few letters shows a `?`, and ends no command
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return self.load().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        return ctx.command.invoke(ctx)


#: module and name, and the first sentence of the help; in the order of the manual
_LIST = """
backup backup: Take a backup, check it, and print its id.
repository backups: List the backups, or show one.
history history: Tell in which backups a record stands.
backup verify: Read a backup again, and name what has changed.
restore restore: Bring back a backup, a file of pg_dump -Fc, or one thing.
restore undo: Switch back what the last restore replaced.
restore dump: Write one database to a file, as pg_dump -Fc does.
restore load: Replace one database by a dump, or by another database.
repository keep: Hold a backup, so that retention never deletes it.
repository forget: Delete backups for good.
repository prune: Delete the backups that no retention rule keeps.
offsite push: Copy backups to the other place.
offsite pull: Bring a backup back from the other place.
nightly nightly: Do the whole night: back up, prove, copy, prune, publish.
site maintenance: Close the site to visitors, open it, or tell which.
site arm: Let the web page do one thing with a backup, once.
watch notify: Tell people what is not well, and its end.
watch metrics: Print what Prometheus is to know of the backups.
site doctor: Check all that the portal's data needs.
worker worker: Do the jobs of the sysadmin page.
upgrade init: Create CKAN's tables, or migrate those there are.
upgrade upgrade: Migrate the database, on a copy of it.
upgrade clean: Delete all data from database and search index.
records export: Write all records of a KIND as JSON Lines.
imports import: Create or change records of a KIND out of JSON Lines.
records publish: Write the public dumps, the files at /dump/.
records reindex: Rebuild the search index while the old one serves.
"""
COMMANDS = tuple(
    Lazy(module, name, " ".join(help.split()))
    for module, name, help in re.findall(
        r"^(\w+) (\w+): (.+(?:\n  .+)*)$", _LIST, re.MULTILINE
    )
)
#: by `python -m` alone: there is no portal yet that `ckan` could start
RECOVER = Lazy("recover", "recover", "Bring a portal back on a new machine.")


def resolved(group: click.Group, ctx: click.Context, args: list[str]) -> Any:
    """As `click.Group.resolve_command`; says why there is no such command.

    click names the command most like a mistyped one itself since 8.4.
    """
    try:
        return click.Group.resolve_command(group, ctx, args)
    except click.UsageError as error:
        from ..engine.words import alike

        near, said = alike(args[0], group.commands), error.format_message()
        if any(each.name == args[0] for each in COMMANDS):
            ini = getattr(ctx.find_root().obj, "config", {}).get("__file__", "ckan.ini")
            near = f": the plugin is not enabled. Add dbmanage to ckan.plugins in {ini}"
        elif not near or "Did you mean" in said:
            raise
        ctx.fail(said.rstrip(".") + near)


def extend_core() -> list[click.Command]:
    """Puts the commands into core's own group; a second call changes nothing.

    Returns no command: core would take a group for another one of the same name.
    """
    # a web server, which asks for no command, starts without these
    from ckan.cli import db as core

    from ..portal import isolated

    isolated.allow_percent()
    for command in core.db.commands.values():
        first = " ".join((command.help or "").partition("\n\n")[0].split())
        command.short_help = command.short_help or first
    for command in COMMANDS:
        core.db.add_command(command)
    return []
