"""The commands: `ckan db …`, and the same as `python -m ckanext.dbmanage`."""

from __future__ import annotations

import click

from .backups import backup, backups, keep, prune, verify
from .restore import dump, load, restore, undo
from .site import arm, doctor, maintenance
from .upgrade import of_core

COMMANDS = (
    backup,
    backups,
    verify,
    restore,
    undo,
    dump,
    load,
    keep,
    prune,
    maintenance,
    arm,
    doctor,
)


def extend_core() -> list[click.Command]:
    """Puts the commands into core's own group; a second call changes nothing.

    Returns no command: core would take a group for another one of the same name.
    """
    from ckan.cli import db as core

    from ..portal import isolated
    from . import records

    isolated.allow_percent()
    for command in (*COMMANDS, *of_core(), *records.COMMANDS):
        core.db.add_command(command)
    return []
