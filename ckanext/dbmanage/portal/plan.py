"""The migrations that are pending, and what stands in their way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
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
from .installed import CORE, owner_of, script_directories


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
        return owner_of(self.table)


@dataclass(frozen=True)
class Plan:
    """The migrations that are pending, and what stands in their way.

    The heads of `site` are the revisions aimed at. The database may be `empty`: there
    is nothing to upgrade yet.
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
        """What the scripts take away."""
        return blockers.drops(step.script for step in self.steps)


def plan(options: Options, site: Site, wanted: Wanted) -> Plan:
    """What an upgrade of the live database has to do. Raises Refused."""
    with closing(site.databases["database"].connect()) as connection:
        there = migration_heads(connection)
        if CORE not in there:
            empty = not is_taken(connection, _tables_of_core())
            return Plan(site, [], [] if empty else [_NO_VERSION], [], empty)
        scripts = script_directories(tuple(options.plugins))
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
    """Revisions, in the database or in the code, where no migration can start."""
    for table, script in scripts.items():
        owner, revisions = owner_of(table), there.get(table, [])
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
    """Migrations of plugins that are not enabled."""
    for table, revisions in there.items():
        if table not in scripts and revisions:
            owner = owner_of(table)
            yield (
                f"the database holds migrations of the plugin {owner!r}, which "
                "is not enabled: enable it, so that they go on; or, when it is "
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
