"""What CKAN's own code says of a database: its migrations, its DataStore's rights.

Knows CKAN and its plugins, and needs neither an application nor a database to run, so
that `python -m ckanext.dbmanage` can use it when CKAN cannot start.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory

from . import config
from .config import Migrations
from .engine import postgres
from .engine.errors import DbmanageError, ToolFailed
from .engine.postgres import Database


def installed_migrations(plugins: list[str]) -> dict[str, Migrations]:
    """The alembic revisions of the installed code by version table.

    Core's, and those of each enabled plugin that has migrations of its own; where
    they are looked for is what `ckan.cli.db._resolve_alembic_config` does.
    """
    return _installed(tuple(plugins))


@cache
def _installed(plugins: tuple[str, ...]) -> dict[str, Migrations]:
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
    scripts = {table: ScriptDirectory(str(d)) for table, d in directories.items()}
    return {
        table: Migrations(
            frozenset(script.get_heads()),
            frozenset(each.revision for each in script.walk_revisions()),
        )
        for table, script in scripts.items()
    }


def _migrations(plugin: str, source: str | None) -> Path:
    directory = os.path.dirname(source or "")
    start = directory.rfind("/ckanext/") + len("/ckanext/")
    end = directory.find("/", start)
    return Path(directory if end < 0 else directory[:end]) / "migration" / plugin


def prepare(
    settings: config.Config,
) -> Callable[[Mapping[str, Database], list[str]], None]:
    """What turns a restored copy into this site's: migrations, DataStore's rights.

    The function takes the scratch databases by part and the version tables of those
    whose migrations the installed code has yet to run.
    """

    def run(copies: Mapping[str, Database], older: list[str]) -> None:
        if older:
            migrate(settings, copies, older)
        copy = copies.get("datastore")
        if copy is not None:
            set_permissions(copy, config.databases(settings)["database"])

    return run


def migrate(
    settings: config.Config, copies: Mapping[str, Database], tables: list[str]
) -> None:
    """Runs the migrations of the installed code on copies of the site's databases.

    `tables` are the version tables to bring to their heads. Raises ToolFailed.
    """
    plugins = [t.removesuffix("_alembic_version") for t in sorted(tables)]
    command = "from ckan.cli.cli import ckan; ckan()"
    if "alembic_version" in tables:
        # core's own plugins read core's tables; others' migrations come after these
        core = [name for name in config.plugins(settings) if _is_core(name)]
        isolated(settings, copies, core, command, "db", "upgrade")
        plugins.remove("alembic_version")
    for plugin in plugins:
        isolated(settings, copies, [plugin], command, "db", "upgrade", "-p", plugin)


def _is_core(plugin: str) -> bool:
    found = [e for e in entry_points(group="ckan.plugins") if e.name == plugin]
    return any(e.dist is not None and e.dist.name == "ckan" for e in found)


def sample(
    settings: config.Config,
) -> Callable[[Mapping[str, Database]], dict[str, Any]]:
    """What reads a sample of a copy through CKAN (`records.print_sample`)."""
    code = "from ckanext.dbmanage.records import print_sample; print_sample()"

    def read(copies: Mapping[str, Database]) -> dict[str, Any]:
        core = [name for name in config.plugins(settings) if _is_core(name)]
        return json.loads(isolated(settings, copies, core, code).splitlines()[-1])

    return read


#: CKAN 2.10 and 2.11 do not start without these
_LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = ERROR
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(message)s
"""

_NEED_DATASTORE = {"datastore", "datapusher", "datatables_view", "recline_view"}

#: nothing listens there: a copy's CKAN must not touch a live service
_CLOSED = "127.0.0.1:9"


def isolated(
    settings: config.Config,
    copies: Mapping[str, Database],
    plugins: list[str],
    code: str,
    *arguments: str,
) -> str:
    """Runs Python code with CKAN on copies, every live service out of its reach.

    With the site's configuration, but only these plugins; `-c` and the configuration
    file are put before the arguments. Returns what it printed. Raises ToolFailed.
    The environment wins over every configuration file (facts: measured), so each
    address is set there.
    """
    if "datastore" not in copies:  # CKAN refuses to start with one database for both
        plugins = [name for name in plugins if name not in _NEED_DATASTORE]
    main = copies["database"]
    store = copies.get("datastore", main)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CKAN_")}
    secret = {"PGUSER": main.url.username, "PGPASSWORD": main.url.password}
    environment |= {k: str(v) for k, v in secret.items() if v is not None}
    # alembic takes a % in a URL for one of its own
    address = main.url.set(username=None, password=None)
    environment |= {
        "CKAN_SQLALCHEMY_URL": address.render_as_string(hide_password=False),
        "CKAN_DATASTORE_WRITE_URL": store.url.render_as_string(hide_password=False),
        "CKAN_DATASTORE_READ_URL": (store.read_url or store.url).render_as_string(
            hide_password=False
        ),
        "CKAN_REDIS_URL": f"redis://{_CLOSED}/0",
        "CKAN_SOLR_URL": f"http://{_CLOSED}/solr/none",
    }
    with tempfile.TemporaryDirectory(prefix="dbmanage") as directory:
        ini = Path(directory) / "ckan.ini"
        ini.write_text(
            f"[app:main]\nuse = config:{os.path.abspath(settings['__file__'])}\n"
            f"ckan.plugins = {' '.join(plugins)}\nckan.storage_path = {directory}\n"
            + _LOGGING
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "-c", str(ini), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ToolFailed(
            f"CKAN failed on the copy ({' '.join(arguments) or 'reading a sample'}); "
            "all that is live is as it was:\n  " + "\n  ".join(lines[-6:])
        )
    return done.stdout


#: core makes this type at the first search, and fails when two come at once
_NESTED = """DO $$ BEGIN IF to_regtype('nested') IS NULL THEN
    CREATE TYPE nested AS (json json, extra text); END IF; END $$"""


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
                cursor.execute(_NESTED)
        except Exception as error:
            raise DbmanageError(
                "the permissions of the DataStore could not be set: "
                f"{' '.join(str(error).split())}"
            ) from error
