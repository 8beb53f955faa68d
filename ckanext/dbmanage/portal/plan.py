"""The migrations that are installed, and those that are pending."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from ..engine.errors import Refused, summary_of
from ..engine.postgres.database import closing, literal, quoted
from ..engine.postgres.emptying import is_taken
from ..engine.postgres.tables import migration_heads
from ..engine.site import Site
from . import blockers
from .blockers import Drops
from .config import Options
from .site import Migrations

#: the version table of core's migrations; a plugin's has the plugin's name before it
CORE = "alembic_version"


def installed_migrations(plugins: list[str]) -> dict[str, Migrations]:
    """The alembic revisions of the installed code by version table.

    Core's, and those of each enabled plugin that has migrations of its own; where
    they are looked for is what `ckan.cli.db._resolve_alembic_config` does.
    """
    return _installed(tuple(plugins))


@cache
def _installed(plugins: tuple[str, ...]) -> dict[str, Migrations]:
    found = {}
    for table, script in scripts_of(plugins).items():
        try:  # which runs each script, and one may be for another CKAN
            known = frozenset(each.revision for each in script.walk_revisions())
        except Exception as error:
            raise Refused(
                f"the migrations of {_owner(table)} cannot be read: "
                f"{summary_of(error)}. "
                "Install a version of it for this CKAN, or take it out of ckan.plugins"
            ) from error
        found[table] = Migrations(frozenset(script.get_heads()), known)
    return found


def _owner(table: str) -> str:
    """The plugin that a version table is of, or `CKAN`."""
    return table.removesuffix(CORE).rstrip("_") or "CKAN"


@cache
def scripts_of(plugins: tuple[str, ...]) -> dict[str, ScriptDirectory]:
    import ckan.migration

    directories = {CORE: Path(ckan.migration.__file__).parent}
    classes = {e.name: e for e in entry_points(group="ckan.plugins")}
    for plugin in plugins:
        if plugin in classes:
            directory = _migrations(plugin, _source(classes[plugin]))
            if (directory / "env.py").exists():
                directories[f"{plugin}_{CORE}"] = directory
    return {table: ScriptDirectory(str(d)) for table, d in directories.items()}


def _source(plugin: EntryPoint) -> str | None:
    try:
        return inspect.getsourcefile(plugin.load())
    except Exception:  # it may have been written for another CKAN
        try:  # which imports its package
            found = find_spec(plugin.module)
        except Exception as error:
            raise Refused(
                f"the plugin {plugin.name!r} cannot be imported: {summary_of(error)}. "
                "Install a version of it for this CKAN, or take it out of ckan.plugins"
            ) from error
        return found and found.origin


def _migrations(plugin: str, source: str | None) -> Path:
    directory = os.path.dirname(source or "")
    start = directory.rfind("/ckanext/") + len("/ckanext/")
    end = directory.find("/", start)
    return Path(directory if end < 0 else directory[:end]) / "migration" / plugin


def is_core(plugin: str) -> bool:
    found = [e for e in entry_points(group="ckan.plugins") if e.name == plugin]
    return any(e.dist is not None and e.dist.name == "ckan" for e in found)


@dataclass(frozen=True)
class Wanted:
    """What core's `ckan db upgrade` was asked for, by its own options' names."""

    version: str = "head"
    plugin: str = ""
    skip_core: bool = False
    skip_plugins: bool = False


@dataclass(frozen=True)
class Step:
    """A migration that is pending."""

    table: str
    revision: str
    about: str
    script: Path

    @property
    def owner(self) -> str:
        """The plugin that it is of, or `CKAN`."""
        return _owner(self.table)


@dataclass(frozen=True)
class Plan:
    """The migrations that are pending, and what stands in their way.

    `site` is the site with the revisions aimed at as its heads; `empty`: there is
    nothing yet to be upgraded.
    """

    site: Site
    steps: list[Step]
    blockers: list[str]
    losses: list[str]
    empty: bool = False

    @property
    def tables(self) -> list[str]:
        """The version tables that are to change."""
        return sorted({step.table for step in self.steps})

    @property
    def drops(self) -> Drops:
        """What its scripts take away."""
        return blockers.drops(step.script for step in self.steps)


def plan(options: Options, site: Site, wanted: Wanted) -> Plan:
    """What an upgrade of the live database has to do. Raises Refused."""
    with closing(site.databases["database"].connect()) as connection:
        there = migration_heads(connection)
        if CORE not in there:
            empty = not is_taken(connection, _tables_of_core())
            return Plan(site, [], [] if empty else [_NO_VERSION], [], empty)
        scripts = scripts_of(tuple(options.plugins))
        tables = [table for table in scripts if _is_wanted(table, wanted)]
        if wanted.plugin and not tables:
            raise Refused(
                f"the plugin {wanted.plugin!r} is not enabled or has no migrations"
            )
        problems = list(_odd_heads(there, scripts, site))
        others = list(_not_enabled(there, scripts))
        heads = {table: frozenset(there.get(table, ())) for table in scripts}
        steps: list[Step] = []
        if not problems:
            for table in tables:
                asked = wanted.version if _is_named(table, wanted) else "head"
                pending = _pending(scripts[table], asked, there.get(table, []))
                steps += [
                    Step(table, each.revision, each.doc or "", Path(each.path))
                    for each in reversed(pending)
                ]
                if pending:
                    heads[table] = frozenset({pending[0].revision})
        site = replace(site, heads=heads)
        known = Plan(site, steps, [], [])
        if steps:
            core = [step.revision for step in steps if step.table == CORE]
            problems += [*others, *blockers.server(connection)]
            problems += blockers.blockers(connection, core, known.drops)
            problems += _unloadable(known)
        found = [] if problems else list(blockers.losses(connection, known.drops))
        found += [] if steps else others
    return replace(known, blockers=problems, losses=found)


_NO_VERSION = (
    "the database has tables, but none of CKAN's own migrations: is sqlalchemy.url "
    "right? A database of CKAN 2.8 or older is first upgraded with CKAN 2.9"
)


def _tables_of_core() -> set[str]:
    from ckan.model.meta import metadata

    return set(metadata.tables)


def _is_wanted(table: str, wanted: Wanted) -> bool:
    if wanted.plugin:
        return table == f"{wanted.plugin}_{CORE}" and not wanted.skip_core
    return not (wanted.skip_core if table == CORE else wanted.skip_plugins)


def _is_named(table: str, wanted: Wanted) -> bool:
    return table == (f"{wanted.plugin}_{CORE}" if wanted.plugin else CORE)


def _odd_heads(
    there: Mapping[str, list[str]], scripts: Mapping[str, ScriptDirectory], site: Site
) -> Iterator[str]:
    """Revisions in the database, or in the code, that no migration can start at."""
    for table, script in scripts.items():
        owner, revisions = _owner(table), there.get(table, [])
        if unknown := set(revisions) - site.revisions[table]:
            yield (
                f"{owner}'s schema is at {', '.join(sorted(unknown))}, which the "
                "installed code does not know: install the version of it that the "
                "database was last used with, or a newer one"
            )
        elif len(revisions) > 1:
            # the one that has the others behind it
            newest = max(
                revisions, key=lambda r: len(list(script.iterate_revisions(r, "base")))
            )
            yield (
                f"{table} holds {len(revisions)} revisions ({', '.join(revisions)}), "  # noqa: S608
                "and only the newest is right:\n"
                f"    DELETE FROM {quoted('public', table)} WHERE version_num <> "
                f"{literal(newest)};"
            )
        if len(heads := script.get_heads()) > 1:
            yield (
                f"the code of {owner} has {len(heads)} last migrations "
                f"({', '.join(sorted(heads))}): install a release of it"
            )


def _not_enabled(
    there: Mapping[str, list[str]], scripts: Mapping[str, ScriptDirectory]
) -> Iterator[str]:
    """Migrations that nobody looks after."""
    for table, revisions in there.items():
        if table not in scripts and revisions:
            yield (
                f"the database holds migrations of the plugin {_owner(table)!r}, which "
                "is not enabled: enable it, that they are looked after; or, when it is "
                f"gone for good:\n    DROP TABLE {quoted('public', table)};"
            )


def _pending(script: ScriptDirectory, target: str, there: list[str]) -> list[Any]:
    try:
        return list(script.iterate_revisions(target, there[0] if there else "base"))
    except (CommandError, RevisionError) as error:
        raise Refused(
            f"there is no way from {there[0] if there else 'nothing'} to the version "
            f"{target!r}: {error}"
        ) from error


def _unloadable(known: Plan) -> Iterator[str]:
    """Plugins that are to migrate and that the installed CKAN cannot import."""
    classes = {e.name: e for e in entry_points(group="ckan.plugins")}
    for owner in sorted({step.owner for step in known.steps} - {"CKAN"}):
        try:
            classes[owner].load()
        except Exception as error:
            yield (
                f"the plugin {owner!r} has migrations to run and cannot be imported: "
                f"{summary_of(error)}. Install a version of it for CKAN "
                f"{known.site.versions.get('ckan')}, or take it out of ckan.plugins"
            )
