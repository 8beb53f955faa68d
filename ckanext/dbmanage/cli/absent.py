"""What `ckan` says where the plugin is not enabled, or the commands are looked for.

An entry point of CKAN's, which reads it wherever the extension is installed.
"""

from functools import partial

import click
from ckan.cli.db import db

from . import resolved

db.resolve_command = partial(resolved, db)


@click.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1)
def dbmanage(words: tuple[str, ...]) -> None:
    """The commands are in `ckan db`."""
    raise click.UsageError(
        f"the commands are in `ckan db`: `ckan db {' '.join(words)}`"
    )
