"""Migrations are run on copies, and what they did is reported."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..engine.errors import Damaged, DbmanageError, ToolFailed
from ..engine.postgres import writes
from ..engine.postgres.database import Database, closing
from ..engine.postgres.tables import migration_heads
from ..engine.postgres.writes import Changes
from ..engine.report import Warn
from . import blockers
from .config import Options
from .datastore import set_up_datastore
from .installed import CORE, core_plugins, installed_migrations, is_core
from .isolated import Heard, Isolated, sample
from .plan import Plan


def prepare(
    options: Options, warn: Warn = lambda _: None
) -> Callable[[Mapping[str, Database], list[str]], None]:
    """What turns a restored copy into this site's: migrations, DataStore's rights.

    The function takes the scratch databases by part and the version tables of those
    whose migrations the installed code has yet to run; `warn` is told of what is tried
    again.
    """

    def run(copies: Mapping[str, Database], older: list[str]) -> None:
        ckan = Isolated(options, copies)
        if older:
            to_the_head(ckan, older)
        if "datastore" in copies:
            set_up_datastore(ckan, warn)

    return run


def to_the_head(ckan: Isolated, older: list[str]) -> None:
    """Runs the installed migrations of these version tables. Raises ToolFailed."""
    _migrate(ckan, dict.fromkeys(older, "head"))


def _migrate(ckan: Isolated, targets: Mapping[str, str]) -> None:
    """Runs the migrations of the installed code on copies of the site's databases.

    `targets` are the revisions to come to, by version table. Raises ToolFailed.
    """
    plugins = [t.removesuffix(f"_{CORE}") for t in targets if t != CORE]
    if CORE in targets:
        core = core_plugins(ckan.options.plugins)
        ckan.command(core, "db", "upgrade", "-v", targets[CORE], *_only_core())
    # core's own plugins read core's tables; others' migrations come after these
    for plugin in sorted(plugins, key=lambda name: (not is_core(name), name)):
        target = targets[f"{plugin}_{CORE}"]
        ckan.command([plugin], "db", "upgrade", "-v", target, "-p", plugin)


def _only_core() -> list[str]:
    from ckan.cli import db

    known = [name for option in db.upgrade.params for name in option.opts]
    return [name for name in known if name == "--skip-plugins"]


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
    options: Options, known: Plan, report: Report, talk: Any
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
            _run_plan(options, copies, known, report, talk.warn)
        talk.progress("check", 0, 0)
        with closing(main.connect()) as connection:
            problems = list(_lost(known, report.changes))
            problems += _fewer_extras(extras, blockers.extras(connection))
        problems += _unlike_models(options, known, copies, talk.warn)
        problems += sample(options)(copies)["problems"]
        report.lap("check")
        if problems:
            raise Damaged("the migrated copy", problems)

    return run


def migrate_live(options: Options, known: Plan, report: Report, warn: Warn) -> None:
    """Migrates the live databases themselves. Raises ToolFailed, DbmanageError."""
    try:
        _run_plan(options, known.site.databases, known, report, warn)
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


def _run_plan(
    options: Options,
    databases: Mapping[str, Database],
    known: Plan,
    report: Report,
    warn: Warn,
) -> None:
    ckan = Isolated(options, databases)
    try:
        _migrate(ckan, {table: min(known.site.heads[table]) for table in known.tables})
    finally:
        report.lap("migrate")
        report.steps = list(_timed(known, ckan.heard))
    if "datastore" in databases:
        set_up_datastore(ckan, warn)


_BEGINS = re.compile(r"Running upgrade .*?-> (\w+),")


def _timed(known: Plan, heard: Heard) -> Iterator[tuple[str, str, str, float | None]]:
    """The migrations that were begun, None seconds for one that did not end."""
    marks = [
        (moment, begins[1] if begins else "")
        for moment, line in heard
        for begins in [_BEGINS.search(line)]
        if begins or not line  # an empty one ends a program
    ]
    seconds = {
        revision: after - before for (before, revision), (after, _) in pairwise(marks)
    }
    begun = {revision for _, revision in marks}
    for step in known.steps:
        if step.revision in begun:
            yield step.owner, step.revision, step.about, seconds.get(step.revision)


def _lost(known: Plan, changes: Changes) -> Iterator[str]:
    for table, (before, after) in sorted(changes.fewer.items()):
        yield (
            f"the migrations took {before - after} of {before} rows out of {table}; if "
            "that is meant, `ckan db upgrade --in-place` does not look"
        )
    announced = {f"public.{table}" for table in known.drops.tables}
    for table, rows in sorted(changes.dropped.items()):
        if rows and table not in announced:
            yield f"the table {table} with {rows} rows is gone, and no script says so"


def _fewer_extras(before: dict[str, int], after: dict[str, int]) -> Iterator[str]:
    for owner, count in before.items():
        if after[owner] != count:
            yield f"{count} extras of {owner}s became {after[owner]}"


def _unlike_models(
    options: Options, known: Plan, copies: Mapping[str, Database], warn: Warn
) -> Iterator[str]:
    """What core's own `ckan db check` finds, where there is one.

    Warns of what only the database has: a plugin's tables, an operator's index. Yields
    what the code needs and the database lacks.
    """
    from ckan.cli import db

    at_head = known.site.heads[CORE] == installed_migrations(())[CORE].heads
    if "check" not in db.db.commands or not at_head:
        return
    ckan = Isolated(options, copies)
    printed = ckan.code(_CHECK, core_plugins(options.plugins), "db", "check")
    lines = printed.splitlines()
    for what, about in zip(lines, lines[1:], strict=False):
        if about.startswith("\t") and what.startswith("remove_"):
            warn(f"only the database has this ({what}): {about.strip()}")
        elif about.startswith("\t"):
            yield f"CKAN's models and the migrated copy differ: {what} {about.strip()}"
    if not lines:
        last = " ".join(line for _, line in ckan.heard[-3:])
        yield f"`ckan db check` did not end: {last}"


#: its result is read, whatever its exit code
_CHECK = """
from ckan.cli.cli import ckan
try:
    ckan()
except SystemExit:
    pass
"""
