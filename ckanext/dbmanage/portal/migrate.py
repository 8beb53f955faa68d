"""What CKAN's own code says of a database: its migrations, its DataStore's rights.

Knows CKAN and its plugins, and needs neither an application nor a database to run, so
that `python -m ckanext.dbmanage` can use it when CKAN cannot start.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from ..engine.errors import Damaged, DbmanageError, Refused, ToolFailed, words
from ..engine.postgres import writes
from ..engine.postgres.database import Database, closing, literal, query, quoted
from ..engine.postgres.emptying import is_taken
from ..engine.postgres.tables import migration_heads
from ..engine.postgres.writes import Changes
from ..engine.report import Warn
from ..engine.site import Site
from . import blockers, config
from .blockers import Drops
from .config import Migrations
from .datastore import bring_permissions
from .isolated import Heard, isolated

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
    for table, script in _scripts(plugins).items():
        try:  # which runs each script, and one may be for another CKAN
            known = frozenset(each.revision for each in script.walk_revisions())
        except Exception as error:
            raise Refused(
                f"the migrations of {_owner(table)} cannot be read: {_brief(error)}. "
                "Install a version of it for this CKAN, or take it out of ckan.plugins"
            ) from error
        found[table] = Migrations(frozenset(script.get_heads()), known)
    return found


def _owner(table: str) -> str:
    """The plugin that a version table is of, or `CKAN`."""
    return table.removesuffix(CORE).rstrip("_") or "CKAN"


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {words(error)}"


@cache
def _scripts(plugins: tuple[str, ...]) -> dict[str, ScriptDirectory]:
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
                f"the plugin {plugin.name!r} cannot be imported: {_brief(error)}. "
                "Install a version of it for this CKAN, or take it out of ckan.plugins"
            ) from error
        return found and found.origin


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
        if "datastore" in copies:
            set_up_datastore(settings, copies)

    return run


def migrate(
    settings: config.Config,
    copies: Mapping[str, Database],
    tables: Iterable[str],
    targets: Mapping[str, str] | None = None,
    heard: Heard | None = None,
) -> None:
    """Runs the migrations of the installed code on copies of the site's databases.

    `tables` are the version tables to bring to their heads, or to the revisions that
    `targets` names; what CKAN says is added to `heard`. Raises ToolFailed.
    """
    # core's own plugins read core's tables; others' migrations come after these
    plugins = sorted(
        (t.removesuffix(f"_{CORE}") for t in tables if t != CORE),
        key=lambda name: (not _is_core(name), name),
    )
    if CORE in tables:
        target = (targets or {}).get(CORE, "head")
        core = [name for name in config.plugins(settings) if _is_core(name)]
        arguments = ["-v", target, *_only_core()]
        _ckan(settings, copies, core, "db", "upgrade", *arguments, heard=heard)
    for plugin in plugins:
        target = (targets or {}).get(f"{plugin}_{CORE}", "head")
        arguments = ["-v", target, "-p", plugin]
        _ckan(settings, copies, [plugin], "db", "upgrade", *arguments, heard=heard)


def _only_core() -> list[str]:
    from ckan.cli import db

    known = [name for option in db.upgrade.params for name in option.opts]
    return [name for name in known if name == "--skip-plugins"]


def _ckan(
    settings: config.Config,
    copies: Mapping[str, Database],
    plugins: list[str],
    *arguments: str,
    heard: Heard | None = None,
) -> str:
    command = "from ckan.cli.cli import ckan; ckan()"
    return isolated(settings, copies, plugins, command, *arguments, heard=heard)


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


#: until 2.10 a field's description was all there was in its column's comment
_OLD_FIELDS = """SELECT 1 FROM pg_description d JOIN pg_class c ON c.oid = objoid
    WHERE classoid = 'pg_class'::regclass AND objsubid > 0 AND relkind = 'r'
    AND relnamespace = 'public'::regnamespace AND description LIKE '{%' LIMIT 1"""


def set_up_datastore(
    settings: config.Config,
    databases: Mapping[str, Database],
    heard: Heard | None = None,
) -> None:
    """Makes of a DataStore what the installed CKAN wants: permissions, data dictionary.

    What is missing of core's `ckan datastore set-permissions`, and as `datastore
    upgrade`. Raises ToolFailed, DbmanageError.
    """
    from ckanext.datastore.cli import datastore

    store = databases["datastore"]
    bring_permissions(store, config.databases(settings)["database"])
    with closing(store.connect()) as connection:
        old = query(connection, _OLD_FIELDS.replace("%", "%%"))
    if old and "upgrade" in datastore.commands and "database" in databases:
        _ckan(settings, databases, ["datastore"], "datastore", "upgrade", heard=heard)


# --------------------------------------------------------------------- the upgrade


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


def plan(settings: config.Config, site: Site, wanted: Wanted) -> Plan:
    """What an upgrade of the live database has to do. Raises Refused."""
    with closing(site.databases["database"].connect()) as connection:
        there = migration_heads(connection)
        if CORE not in there:
            empty = not is_taken(connection, _tables_of_core())
            return Plan(site, [], [] if empty else [_NO_VERSION], [], empty)
        scripts = _scripts(tuple(config.plugins(settings)))
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
                f"{_brief(error)}. Install a version of it for CKAN "
                f"{known.site.versions.get('ckan')}, or take it out of ckan.plugins"
            )


@dataclass
class Report:
    """What an upgrade or a rehearsal did, as far as it came.

    Seconds by phase; owner, revision, what it is about and seconds of each migration
    that was begun; the changes that were seen.
    """

    phases: dict[str, float] = field(default_factory=dict)
    steps: list[tuple[str, str, str, float | None]] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    _moment: float = 0.0

    def lap(self, phase: str) -> None:
        """Ends a phase, the first of which begins with an empty one."""
        before, self._moment = self._moment, time.monotonic()
        if phase:
            self.phases[phase] = self._moment - before


def migrated(
    settings: config.Config, known: Plan, report: Report, talk: Any
) -> Callable[[Mapping[str, Database], list[str]], None]:
    """What migrates copies and looks at what came of it, for the engine's `Prepare`.

    The function raises ToolFailed or Damaged, the report filled as far as it came.
    """

    def run(copies: Mapping[str, Database], _: list[str]) -> None:
        report.lap("copy")
        main = copies["database"]
        with closing(main.connect()) as connection:
            extras = blockers.extras(connection)
        with writes.watched(main) as report.changes:
            _migrate(settings, copies, known, report)
        talk.progress("check", 0, 0)
        with closing(main.connect()) as connection:
            problems = list(_lost(known, report.changes))
            problems += _fewer_extras(extras, blockers.extras(connection))
        problems += _unlike_models(settings, known, copies, talk.warn)
        problems += sample(settings)(copies)["problems"]
        report.lap("check")
        if problems:
            raise Damaged("the migrated copy", problems)

    return run


def migrate_live(settings: config.Config, known: Plan, report: Report) -> None:
    """Migrates the live databases themselves. Raises ToolFailed, DbmanageError."""
    try:
        _migrate(settings, known.site.databases, known, report)
    except DbmanageError as error:
        raise ToolFailed(
            f"{error}\nThe migrations above it in the report are done, this one and "
            "those after it are not. Mend its cause and run the upgrade again, or go "
            "back to the backup"
        ) from error
    with closing(known.site.databases["database"].connect()) as connection:
        there = migration_heads(connection)
    wrong = [t for t in known.tables if set(there.get(t, ())) != known.site.heads[t]]
    if wrong:
        raise ToolFailed(f"{', '.join(wrong)} did not come to what was aimed at")


def _migrate(
    settings: config.Config,
    databases: Mapping[str, Database],
    known: Plan,
    report: Report,
) -> None:
    heard: Heard = []
    targets = {table: min(known.site.heads[table]) for table in known.tables}
    try:
        migrate(settings, databases, known.tables, targets, heard)
    finally:
        report.lap("migrate")
        report.steps = list(_timed(known, heard))
    if "datastore" in databases:
        set_up_datastore(settings, databases, heard)


_BEGINS = re.compile(r"Running upgrade .*?-> (\w+),")


def _timed(known: Plan, heard: Heard) -> Iterator[tuple[str, str, str, float | None]]:
    """The migrations that were begun, None seconds for one that did not end."""
    moments: list[tuple[float, str]] = []
    for moment, line in heard:
        if begins := _BEGINS.search(line):
            moments.append((moment, begins[1]))
        elif not line:
            moments.append((moment, ""))
    said = {revision: number for number, (_, revision) in enumerate(moments)}
    for step in known.steps:
        if step.revision in said:
            number = said[step.revision]
            after = moments[number + 1 : number + 2]
            seconds = after[0][0] - moments[number][0] if after else None
            yield step.owner, step.revision, step.about, seconds


def _lost(known: Plan, changes: Changes) -> Iterator[str]:
    for table, (before, after) in sorted(changes.fewer.items()):
        yield (
            f"the migrations took {before - after} of {before} rows out of {table}; if "
            "that is meant, `ckan db upgrade --in-place` does not look"
        )
    said = {f"public.{table}" for table in known.drops.tables}
    for table, rows in sorted(changes.dropped.items()):
        if rows and table not in said:
            yield f"the table {table} with {rows} rows is gone, and no script says so"


def _fewer_extras(before: dict[str, int], after: dict[str, int]) -> Iterator[str]:
    for owner, count in before.items():
        if after[owner] != count:
            yield f"{count} extras of {owner}s became {after[owner]}"


def _unlike_models(
    settings: config.Config, known: Plan, copies: Mapping[str, Database], warn: Warn
) -> Iterator[str]:
    """What core's own `ckan db check` finds, where there is one.

    What only the database has (a plugin's tables, an operator's index) is told; what
    the code needs and the database lacks is a problem.
    """
    from ckan.cli import db

    core = known.site.heads[CORE] == frozenset(_scripts(())[CORE].get_heads())
    if "check" not in db.db.commands or not core:
        return
    plugins = [name for name in config.plugins(settings) if _is_core(name)]
    heard: Heard = []
    said = isolated(settings, copies, plugins, _CHECK, "db", "check", heard=heard)
    lines = said.splitlines()
    for what, about in zip(lines, lines[1:], strict=False):
        if about.startswith("\t") and what.startswith("remove_"):
            warn(f"only the database has this ({what}): {about.strip()}")
        elif about.startswith("\t"):
            yield f"CKAN's models and the migrated copy differ: {what} {about.strip()}"
    if not lines:
        yield f"`ckan db check` did not end: {' '.join(line for _, line in heard[-3:])}"


#: its result is read, whatever its exit code
_CHECK = """
from ckan.cli.cli import ckan
try:
    ckan()
except SystemExit:
    pass
"""
