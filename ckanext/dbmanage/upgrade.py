"""What CKAN's own code says of a database: its migrations, its DataStore's rights.

Knows CKAN and its plugins, and needs neither an application nor a database to run, so
that `python -m ckanext.dbmanage` can use it when CKAN cannot start.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from alembic.script import ScriptDirectory

from . import config
from .engine import postgres
from .engine.errors import DbmanageError
from .engine.postgres import Database


def installed_heads(plugins: list[str]) -> dict[str, frozenset[str]]:
    """The alembic heads of the installed code by version table.

    Core's, and those of each enabled plugin that has migrations of its own; where
    they are looked for is what `ckan.cli.db._resolve_alembic_config` does.
    """
    import ckan.migration

    directories = {"alembic_version": Path(ckan.migration.__file__).parent}
    classes = {e.name: e for e in entry_points(group="ckan.plugins")}
    for plugin in plugins:
        if plugin in classes:
            directory = _migrations(
                plugin, inspect.getsourcefile(classes[plugin].load())
            )
            if (directory / "env.py").exists():
                directories[f"{plugin}_alembic_version"] = directory
    return {
        table: frozenset(ScriptDirectory(str(directory)).get_heads())
        for table, directory in directories.items()
    }


def _migrations(plugin: str, source: str | None) -> Path:
    directory = os.path.dirname(source or "")
    start = directory.rfind("/ckanext/") + len("/ckanext/")
    end = directory.find("/", start)
    return Path(directory if end < 0 else directory[:end]) / "migration" / plugin


def prepare(settings: config.Config) -> Callable[[Mapping[str, Database]], None]:
    """What turns a restored copy into this site's DataStore: CKAN's own permissions.

    The function takes the scratch databases by part.
    """

    def run(copies: Mapping[str, Database]) -> None:
        copy = copies.get("datastore")
        if copy is not None:
            set_permissions(copy, config.databases(settings)["database"])

    return run


def set_permissions(datastore: Database, main: Database) -> None:
    """Runs core's `ckan datastore set-permissions` on a DataStore, as its owner.

    Measured: the owner may run all of it, no superuser is needed. Raises
    DbmanageError.
    """
    from ckanext.datastore.cli import permissions_sql

    assert datastore.read_url is not None
    script = permissions_sql(
        maindb=datastore.name,  # its CONNECT is given back three lines further on
        datastoredb=datastore.name,
        mainuser=main.role,
        writeuser=datastore.role,
        readuser=datastore.role_of(datastore.read_url),
    )
    lines = [line for line in script.splitlines() if not line.startswith("\\connect")]
    with postgres.closing(datastore.connect()) as connection:
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("\n".join(lines))
        except Exception as error:
            raise DbmanageError(
                "the permissions of the DataStore could not be set: "
                f"{' '.join(str(error).split())}"
            ) from error
