"""The commands: `ckan db …`, and the same as `python -m ckanext.dbmanage`.

The result on stdout, talk and progress on stderr; exit 0 done, 1 failed, 2 usage. Calls
the engine directly, for it must work while CKAN's actions cannot. What is heavy is
imported where it is used: every `ckan` command loads this module.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .talk import Talk, size

if TYPE_CHECKING:
    from .engine import Site
    from .engine.repository import Backup, Repository

#: uploads are not part of a backup yet
_PARTS = ("database", "datastore")


class Command(click.Command):
    """A command whose failures are one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from psycopg2 import Error as DatabaseError

        from .engine.errors import DbmanageError

        try:
            with _ended_by_signals():
                return super().invoke(ctx)
        except DbmanageError as error:
            raise click.ClickException(str(error)) from error
        except DatabaseError as error:
            raise click.ClickException(
                f"PostgreSQL: {' '.join(str(error).split())}"
            ) from error
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{what}{error.strerror or error}") from error


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    # so that what is half-done is cleaned up, as for Ctrl-C
    def end(number: int, _: Any) -> NoReturn:
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    try:
        before = [signal.signal(number, end) for number in numbers]
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# ------------------------------------------------------------------ shared options

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="Only results and warnings.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_only = click.option(
    "--only",
    type=click.Choice(_PARTS),
    multiple=True,
    metavar="PART",
    help="Only this part: database or datastore; may be repeated.",
)
_one = click.option(
    "--only",
    type=click.Choice(_PARTS),
    default="database",
    metavar="PART",
    help="Which database: database (the default) or datastore.",
)
_no_backup = click.option(
    "--no-backup",
    is_flag=True,
    help="Do not back up the replaced databases afterwards.",
)


def _settings(ctx: click.Context) -> Any:
    given = getattr(ctx.find_root().obj, "config", None)
    if given is None:
        from ckan.common import config as given
    return given


def _open(
    ctx: click.Context, talk: Talk, heads: bool = False
) -> tuple[Site, Repository]:
    """The site and its repository; brings the index up to date where that is owed."""
    from . import config, upgrade
    from .engine.repository import Repository

    settings = _settings(ctx)
    plugins = config.plugins(settings)
    site = config.site(settings, upgrade.installed_heads(plugins) if heads else None)
    repository = Repository(site.repository, site.secrets)
    if "flask_app" in ctx.meta and repository.marked("reindex"):
        _reindex(ctx, repository, talk)
    return site, repository


def _tidy(site: Site, repository: Repository, talk: Talk) -> None:
    """Finishes or turns back what a killed command left behind."""
    from .engine import backup, switch
    from .engine.errors import Busy

    try:
        with backup.live_lock(site):
            switch.recover(site, repository, talk.warn)
    except Busy:
        pass  # its owner is alive and does it


def _may_go_on(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask (no terminal): say --yes")
    click.confirm(question, abort=True, err=True)


# ------------------------------------------------------------------------ commands


@click.command(cls=Command)
@click.option("--note", default="", help="A note to keep with the backup.")
@_only
@click.option("--keep", is_flag=True, help="Hold this backup, whatever retention says.")
@_json
@_quiet
@click.pass_context
def backup(
    ctx: click.Context,
    note: str,
    only: tuple[str, ...],
    keep: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take a backup, check it, and print its id."""
    from . import config
    from .engine import backup as engine

    talk = Talk(quiet or as_json)
    site, repository = _open(ctx, talk)
    parts = only or config.parts(_settings(ctx))
    with repository.lock("backup"):
        _tidy(site, repository, talk)
        taken = engine.take(
            site, repository, parts=parts, note=note, keep=keep, progress=talk.progress
        )
    talk.end()
    about = taken.describe()
    if as_json:
        wanted = ("id", "path", "parts", "bytes", "seconds")
        click.echo(json.dumps({key: about[key] for key in wanted}))
        return
    talk.say(
        f"backed up {' and '.join(about['parts'])}: {size(about['bytes'])} "
        f"in {about['seconds']:.1f} s, verified, in {about['path']}"
    )
    click.echo(taken.id)


@click.command(cls=Command)
@click.argument("id", required=False)
@_json
@click.pass_context
def backups(ctx: click.Context, id: str | None, as_json: bool) -> None:
    """List the backups, or show one: an ID, latest or oldest."""
    _, repository = _open(ctx, Talk(quiet=as_json))
    found = repository.backups() if id is None else [repository.find(id)]
    described = [one.describe() for one in found]
    if as_json:
        click.echo(json.dumps(described))
    elif id:
        click.echo(_shown(found[0], described[0]))
    elif not described:
        click.echo(
            f"No backups in {repository.path}: `ckan db backup` takes one", err=True
        )
    else:
        click.echo(_table(described))


def _table(described: list[dict[str, Any]]) -> str:
    rows = [("ID", "STATE", "SIZE", "PARTS", "NOTE")]
    for one in described:
        note = " ".join(str(one["note"] or "").split())
        if one["reason"] not in (None, "manual"):
            note = " ".join(filter(None, [f"({one['reason']})", note]))
        state = one["state"] + (" kept" if one["keep"] else "")
        rows.append(
            (one["id"], state, size(one["bytes"]), ",".join(one["parts"]), note)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(
            [
                *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                row[4],
            ]
        ).rstrip()
        for row in rows
    )


def _shown(one: Backup, about: dict[str, Any]) -> str:
    plain = about | {
        "bytes": size(about["bytes"]),
        "parts": ", ".join(about["parts"]),
        "versions": ", ".join(
            f"{name} {' '.join(v) if isinstance(v, list) else v}"
            for name, v in (about["versions"] or {}).items()
        ),
        "problems": "\n          ".join(about["problems"]),
        "keep": "yes" if about["keep"] else "",
    }
    lines = [f"{key:9} {value}" for key, value in plain.items() if value]
    databases = one.manifest.get("databases") or {}
    for part, database in databases.items():
        rows = database.get("rows") or {}
        lines.append(f"{part}: {len(rows)} tables, {sum(rows.values())} rows")
        lines += [
            f"  {count:>10}  {table}" for table, count in sorted(rows.items()) if count
        ]
    return "\n".join(lines)


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option("--all", "every", is_flag=True, help="Every backup.")
@_json
@_quiet
@click.pass_context
def verify(
    ctx: click.Context, id: str | None, every: bool, as_json: bool, quiet: bool
) -> None:
    """Read every byte of a backup (the latest without ID) and name what was changed."""
    from .engine import backup as engine

    if id is not None and every:
        raise click.UsageError("give an ID or --all")
    talk = Talk(quiet or as_json)
    site, repository = _open(ctx, talk)
    chosen = "latest" if id is None else id
    found = repository.backups() if every else [repository.find(chosen)]
    results = []
    for one in found:
        problems = engine.verify(one, site, talk.progress)
        talk.end()
        results.append({"id": one.id, "ok": not problems, "problems": problems})
        if not as_json:
            click.echo(f"{one.id}  {_verdict(problems)}")
            for problem in problems:
                click.echo(f"  {problem}")
    if as_json:
        click.echo(json.dumps(results))
    broken = [r["id"] for r in results if _verdict(r["problems"]) == "damaged"]
    if broken:
        raise click.ClickException(
            f"damaged: {', '.join(broken)}; take a new backup with `ckan db backup`"
        )
    if not all(result["ok"] for result in results):
        raise click.ClickException("not all are this site's own; their bytes are whole")


def _verdict(problems: list[str]) -> str:
    from .engine.repository import UNSIGNED

    if not problems:
        return "whole"
    own = [problem for problem in problems if UNSIGNED not in problem]
    return "damaged" if own else "foreign"


@click.command(cls=Command)
@click.argument("source", metavar="ID|DIR|FILE")
@_only
@click.option(
    "--preview", is_flag=True, help="Only show what would be lost and gained."
)
@click.option(
    "--trust", is_flag=True, help="Run the SQL of a backup not signed by this site."
)
@_no_backup
@_yes
@_quiet
@click.pass_context
def restore(
    ctx: click.Context,
    source: str,
    only: tuple[str, ...],
    preview: bool,
    trust: bool,
    no_backup: bool,
    yes: bool,
    quiet: bool,
) -> None:
    """Restore a backup (ID, latest, oldest, its directory) or a file of pg_dump -Fc.

    It goes into a copy beside the live databases, is checked there, and is switched in
    at once; the replaced databases are kept and backed up.
    """
    talk = Talk(quiet)
    _restore(ctx, talk, source, only, preview, trust, no_backup, yes)


def _restore(
    ctx: click.Context,
    talk: Talk,
    name: str,
    only: tuple[str, ...],
    preview: bool,
    trust: bool,
    no_backup: bool,
    yes: bool,
) -> None:
    from . import records, upgrade
    from .engine import restore as engine
    from .engine.preview import preview as preview_of

    if not (preview or yes or sys.stdin.isatty()):
        _may_go_on("", yes)
    site, repository = _open(ctx, talk, heads=True)
    with repository.lock("restore"):
        if not preview:
            _tidy(site, repository, talk)
        source = engine.open_source(
            site,
            repository,
            name,
            parts=only,
            trust=trust or preview,
            progress=talk.progress,
        )
        if preview or not yes:
            talk.end()
            rows = preview_of(site, repository, source, records.KINDS)
            click.echo(_compared(rows), err=not preview)
            if preview:
                return
        engine.preflight(site, source)
        _may_go_on(
            f"Replace the live {' and '.join(source.archives)} by {source.name}?", yes
        )
        _let_go()
        if "database" in source.archives:
            repository.mark("reindex", True)
        restored = engine.restore(
            site,
            repository,
            source,
            prepare=upgrade.prepare(_settings(ctx)),
            progress=talk.progress,
            warn=talk.warn,
        )
        _let_go()
        talk.end()
        if repository.marked("reindex"):
            _reindex(ctx, repository, talk)
        if restored.replaced and not no_backup:
            _back_up_replaced(site, repository, restored, talk, source.name)
    click.echo(f"restored {' and '.join(restored.parts)} from {source.name}")
    for part, database in restored.replaced.items():
        talk.say(f"the replaced {part} is kept as the database {database.name}")


def _compared(rows: list[dict[str, Any]]) -> str:
    columns = ("kind", "now", "then", "lost", "gained", "changed")
    shown = [("", *columns[1:])]
    shown += [
        tuple("" if row[c] is None else str(row[c]) for c in columns) for row in rows
    ]
    width = max(len(row[0]) for row in shown)
    return "\n".join(
        row[0].ljust(width) + "".join(cell.rjust(10) for cell in row[1:])
        for row in shown
    )


def _let_go() -> None:
    """Gives this process's own connections to the databases back."""
    from ckan import model

    model.Session.remove()
    if model.meta.engine is not None:
        model.meta.engine.dispose()
    backend: Any = sys.modules.get("ckanext.datastore.backend.postgres")
    for engine in getattr(backend, "_engines", {}).values():
        engine.dispose()


def _back_up_replaced(
    site: Site, repository: Repository, restored: Any, talk: Talk, name: str
) -> None:
    from .engine import backup as engine
    from .engine.errors import DbmanageError

    try:
        taken = engine.take(
            site,
            repository,
            databases=restored.replaced,
            reason=f"before restore of {name}",
            progress=talk.progress,
        )
        talk.say(f"the replaced state is backup {taken.id}")
    except DbmanageError as error:
        talk.warn(f"the replaced databases are kept, but were not backed up: {error}")


def _reindex(ctx: click.Context, repository: Repository, talk: Talk) -> None:
    """Indexes what differs; what fails is told with the command and tried again."""
    from .engine.errors import DbmanageError

    try:
        with _application(ctx):
            from . import reindex

            done = reindex.changed(talk.progress)
    except DbmanageError as error:
        talk.warn(
            f"{error}. The data is restored; searches will show the old state until "
            "the next `ckan db` command of these or `ckan search-index rebuild`"
        )
        return
    repository.mark("reindex", False)
    talk.say(f"search index: {done.indexed} datasets indexed, {done.removed} removed")
    for failed in done.failed:
        talk.warn(f"not indexed: dataset {failed}")


@contextmanager
def _application(ctx: click.Context) -> Iterator[None]:
    """CKAN's application context, its application made where that was not done yet."""
    from .engine.errors import DbmanageError

    flask_app = ctx.meta.get("flask_app")
    if flask_app is None:
        from ckan.config.middleware import make_app

        try:
            made: Any = make_app(_settings(ctx))
            flask_app = made._wsgi_app
        except Exception as error:
            raise DbmanageError(f"CKAN could not be started: {error}") from error
    with flask_app.test_request_context():
        yield


@click.command(cls=Command)
@click.argument("file", type=click.Path(allow_dash=True))
@_one
@_quiet
@click.pass_context
def dump(ctx: click.Context, file: str, only: str, quiet: bool) -> None:
    """Write one database to FILE (- is stdout) as pg_restore reads it."""
    from .engine import dump as engine

    if file == "-" and sys.stdout.isatty():
        raise click.UsageError("a dump is not for a terminal: name a file, or a pipe")
    talk = Talk(quiet)
    site, _ = _open(ctx, talk)
    if file == "-":
        engine.to_stream(site, only, sys.stdout.buffer, talk.progress)
    else:
        engine.to_file(site, only, file, talk.progress)
        talk.end()
        talk.say(f"dumped the {only} {site.databases[only].name!r} to {file}")


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@_one
@_no_backup
@_yes
@_quiet
@click.pass_context
def load(
    ctx: click.Context, file: str, only: str, no_backup: bool, yes: bool, quiet: bool
) -> None:
    """Load one database from FILE, as `restore` does: copy, checks, switch.

    This runs the SQL in FILE as CKAN's database role: load only what you trust.
    """
    _restore(ctx, Talk(quiet), file, (only,), False, True, no_backup, yes)


COMMANDS = (backup, backups, verify, restore, dump, load)


def extend_core() -> None:
    """Puts the commands into core's own group; a second call changes nothing."""
    from ckan.cli import db as core

    for command in COMMANDS:
        core.db.add_command(command)
    core.db.add_command(_with_next_step(core.clean))


def _with_next_step(clean: click.Command) -> click.Command:
    """Core's `clean`, which then says how to get out of an empty database."""

    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        ctx.invoke(clean, **options)
        click.echo(
            "The database is empty. Next: `ckan db init` makes its tables, "
            "`ckan db load FILE` or `ckan db restore ID` brings data back",
            err=True,
        )

    return click.Command(clean.name, callback=run, params=clean.params, help=clean.help)
