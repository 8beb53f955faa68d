"""The plugins and the migrations that the installed code has."""

import inspect
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from alembic.script import ScriptDirectory

from ..engine.errors import Refused, summary_of

#: the version table of core's migrations; a plugin's has the plugin's name before it
CORE = "alembic_version"


class Migrations(NamedTuple):
    """What the installed code of CKAN or a plugin knows of its schema's revisions."""

    heads: frozenset[str]
    revisions: frozenset[str]


def installed_migrations(plugins: Iterable[str]) -> dict[str, Migrations]:
    """The alembic revisions of the installed code by version table. Raises Refused.

    Core's, and those of each of the plugins that has migrations of its own.
    """
    return _installed(tuple(plugins))


@cache
def _installed(plugins: tuple[str, ...]) -> dict[str, Migrations]:
    found = {}
    for table, scripts in script_directories(plugins).items():
        try:  # which runs each script, and one may be for another CKAN
            revisions = frozenset(each.revision for each in scripts.walk_revisions())
        except Exception as error:
            raise Refused(
                f"the migrations of {owner_of(table)} cannot be read: "
                f"{summary_of(error)}. Install a version of it for this CKAN, "
                "or take it out of ckan.plugins"
            ) from error
        found[table] = Migrations(frozenset(scripts.get_heads()), revisions)
    return found


def owner_of(table: str) -> str:
    """The plugin whose version table this is, or `CKAN`."""
    return table.removesuffix(CORE).rstrip("_") or "CKAN"


def core_plugins(plugins: Iterable[str]) -> list[str]:
    """Those of the plugins that CKAN itself brings."""
    return [name for name in plugins if is_core(name)]


def is_core(plugin: str) -> bool:
    """Whether CKAN itself brings a plugin."""
    found = entry_points(group="ckan.plugins", name=plugin)
    return any(e.dist is not None and e.dist.name == "ckan" for e in found)


@cache
def script_directories(plugins: tuple[str, ...]) -> dict[str, ScriptDirectory]:
    """The migrations of core and of these plugins by version table. Raises Refused.

    They are looked for where `ckan.cli.db._resolve_alembic_config` does it.
    """
    import ckan.migration

    directories = {CORE: Path(ckan.migration.__file__).parent}
    installed = {each.name: each for each in entry_points(group="ckan.plugins")}
    for plugin in plugins:
        if plugin in installed:
            directory = _directory(plugin, _source(installed[plugin]))
            if (directory / "env.py").exists():
                directories[f"{plugin}_{CORE}"] = directory
    return {table: ScriptDirectory(str(d)) for table, d in directories.items()}


def _source(plugin: EntryPoint) -> str | None:
    """The file that a plugin's class, or at least its module, stands in."""
    try:
        return inspect.getsourcefile(plugin.load())
    except Exception:  # it may have been written for another CKAN
        try:  # which imports its package
            found = find_spec(plugin.module)
        except Exception as error:
            raise Refused(
                f"the plugin {plugin.name!r} cannot be imported: {summary_of(error)}. "
                "Install a version of it for this CKAN, "
                "or take it out of ckan.plugins"
            ) from error
        return found and found.origin


def _directory(plugin: str, source: str | None) -> Path:
    directory = os.path.dirname(source or "")
    start = directory.rfind("/ckanext/") + len("/ckanext/")
    end = directory.find("/", start)
    return Path(directory if end < 0 else directory[:end]) / "migration" / plugin
