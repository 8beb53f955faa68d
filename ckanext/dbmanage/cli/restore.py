"""The commands: `ckan db …`, and the same as `python -m ckanext.dbmanage`.

The result on stdout, talk and progress on stderr; exit 0 done, 1 failed, 2 usage. Calls
the engine directly, for it must work while CKAN's actions cannot. What is heavy is
imported where it is used: every `ckan` command loads this module.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from ..doctor.mend import mend
from ..engine import errors, signals
from ..engine.printable import one_line, sentence
from ..operations import retain
from ..operations.backup import backup as backup_
from ..operations.backup import incomplete
from ..operations.backup import verify as verify_
from ..operations.clean import clean
from ..operations.context import Portal, open_site
from ..operations.restore import preview as preview_
from ..operations.restore import previewed
from ..operations.restore import restore as restore_
from ..operations.restore import undo as undo_
from ..operations.upgrade import upgrade
from ..portal.uploads import named_uploads
from .output import Talk, echo, size

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup
    from ..engine.repository.repository import Repository
    from ..engine.restore.source import Source
    from ..engine.site import Site

_PARTS = ("database", "datastore", "files")


class Command(click.Command):
    """A command whose failures are one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from psycopg2 import Error as DatabaseError
        from sqlalchemy.exc import SQLAlchemyError

        from ..engine.errors import DbmanageError

        try:
            with signals.ended_by_signals():
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = sentence(error.message)  # type: ignore[misc]
            raise
        except (DbmanageError, DatabaseError, SQLAlchemyError, OSError) as error:
            raise click.ClickException(sentence(errors.told(error))) from error


# ------------------------------------------------------------------ shared options

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="Only results and warnings.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_only = click.option(
    "--only",
    type=click.Choice(_PARTS),
    multiple=True,
    metavar="PART",
    help="Only this part: database, datastore or files; may be repeated.",
)
_one = click.option(
    "--only",
    type=click.Choice(_PARTS[:2]),
    default="database",
    metavar="PART",
    help="Which database: database (the default) or datastore.",
)
_no_backup = click.option(
    "--no-backup",
    is_flag=True,
    help="Do not back up what was replaced afterwards.",
)


def settings_of(ctx: click.Context) -> Any:
    """CKAN's configuration, or what `python -m` has read of it."""
    given = getattr(ctx.find_root().obj, "config", None)
    if given is None:
        from ckan.common import config as given
    return given


def _portal(ctx: click.Context, talk: Talk) -> Portal:
    return Portal(settings_of(ctx), talk, ctx.meta.get("flask_app"))


def _open(
    ctx: click.Context, talk: Talk, writes: bool = True
) -> tuple[Site, Repository]:
    return open_site(_portal(ctx, talk), writes=writes)


def _may_go_on(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask (no terminal): say --yes")
    click.confirm(one_line(question), abort=True, err=True)


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
    talk = Talk(quiet or as_json)
    taken = backup_(_portal(ctx, talk), only, note, keep)
    about = taken.describe()
    if as_json:
        wanted = ("id", "path", "parts", "bytes", "seconds")
        echo(json.dumps({key: about[key] for key in wanted}))
    else:
        talk.say(
            f"backed up {' and '.join(about['parts'])}: {size(about['bytes'])} "
            f"in {about['seconds']:.1f} s, verified, in {about['path']}"
        )
        echo(taken.id)
    if why := incomplete(taken):
        raise click.ClickException(why)


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option("--fetch", metavar="PATH", help="Write this upload of the backup.")
@click.option(
    "-O", "--output", type=click.Path(), help="Where to; standard output without it."
)
@_json
@click.pass_context
def backups(
    ctx: click.Context,
    id: str | None,
    fetch: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """List the backups, or show one: an ID, latest or oldest.

    With --fetch one upload comes out of it, by its path as files.jsonl has it.
    """
    _, repository = _open(ctx, Talk(quiet=as_json or fetch is not None), writes=False)
    if fetch is not None:
        if id is None:
            raise click.UsageError("--fetch needs the ID of a backup")
        _fetch(repository.find(id), fetch, output)
        return
    found = repository.backups() if id is None else [repository.find(id)]
    described = [one.describe() for one in found]
    if as_json:
        echo(json.dumps(described))
    elif id:
        echo(_shown(found[0], described[0]))
    elif not described:
        echo(f"No backups in {repository.path}: `ckan db backup` takes one", err=True)
    else:
        echo(_table(described))


def _fetch(found: Backup, path: str, output: str | None) -> None:
    from ..engine.disk import whole
    from ..engine.errors import Untrusted
    from ..engine.layout import UNSIGNED
    from ..engine.uploads import objects
    from ..engine.uploads.listing import of

    if not found.signed:
        raise Untrusted(
            f"backup {found.id} {UNSIGNED} with this site's secret: nobody vouches for "
            f"its list of uploads. Its uploads come back with `ckan db restore "
            f"{found.id} --only files --trust`"
        )
    listed = of(found)
    if output is None:
        if sys.stdout.isatty():
            raise click.UsageError(
                "an upload is not for a terminal: give -O, or a pipe"
            )
        objects.fetch(listed, found.objects, path, sys.stdout.buffer)
        return
    with whole(output, 0o600) as file:
        objects.fetch(listed, found.objects, path, file)


def _table(described: list[dict[str, Any]]) -> str:
    rows = [("ID", "STATE", "SIZE", "PARTS", "NOTE")]
    for one in described:
        note = one_line(one["note"])
        if one["reason"] not in (None, "manual"):
            note = " ".join(filter(None, [f"({one_line(one['reason'])})", note]))
        when = (one["proved"] if one["state"] == "proven" else one["verified"]) or ""
        state = " ".join(filter(None, [one["state"], when[:16].replace("T", " ")]))
        state += ", kept" if one["keep"] else ""
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
        "parts": one_line(", ".join(about["parts"])),
        "note": one_line(about["note"]),
        "reason": one_line(about["reason"]),
        "created": one_line(about["created"]),
        "seconds": one_line(about["seconds"]),
        "problems": "\n          ".join(map(one_line, about["problems"])),
        "keep": "yes" if about["keep"] else "",
        "versions": "",
        "files": "",
    }
    if one.signed:  # else nobody knows what these fields hold
        plain["files"] = _uploads(about["files"])
        plain["versions"] = ", ".join(
            one_line(f"{name} {' '.join(v) if isinstance(v, list) else v}")
            for name, v in (about["versions"] or {}).items()
        )
    lines = [f"{key:9} {value}" for key, value in plain.items() if value]
    databases = one.manifest["databases"] if one.signed else {}
    for part, database in databases.items():
        rows = database.get("rows") or {}
        lines.append(f"{part}: {len(rows)} tables, {sum(rows.values())} rows")
        lines += [
            f"  {count:>10}  {one_line(table)}"
            for table, count in sorted(rows.items())
            if count
        ]
    return "\n".join(lines)


def _uploads(about: dict[str, Any]) -> str:
    if not about.get("included"):
        return ""
    said = f"{about['count']} uploads, {size(about['bytes'])}"
    for what in ("missing", "refused"):
        said += f", {about[what]} {what}" if about[what] else ""
    if about.get("folders"):
        said += f", {about['folders']} folders left out"
    names = ("left_out", "examples", "not_included")
    lines = [line for name in names for line in about.get(name) or ()]
    return "\n          ".join([said, *map(one_line, lines)])


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option("--all", "every", is_flag=True, help="Every backup.")
@click.option(
    "--prove", is_flag=True, help="Also restore it beside the live site, and look."
)
@_json
@_quiet
@click.pass_context
def verify(
    ctx: click.Context,
    id: str | None,
    every: bool,
    prove: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read every byte of a backup (the latest without ID) and name what was changed.

    With --prove it is restored into scratch databases, migrated to the installed CKAN,
    counted, read through CKAN, and dropped; an evidence page tells what was seen.
    """
    if id is not None and every:
        raise click.UsageError("give an ID or --all")
    talk = Talk(quiet or as_json)
    portal = _portal(ctx, talk)
    site, repository = open_site(portal, heads=prove)
    chosen = "latest" if id is None else id
    found = repository.backups() if every else [repository.find(chosen)]
    results = []
    for one in found:
        problems = verify_(portal, site, repository, one, prove)
        results.append({"id": one.id, "ok": not problems, "problems": problems})
        if not as_json:
            echo(f"{one.id}  {_verdict(problems, prove)}")
            for problem in problems:
                echo(f"  {one_line(problem)}")
    if as_json:
        echo(json.dumps(results))
    verdicts = {r["id"]: _verdict(r["problems"], prove) for r in results}
    unproven = [name for name, verdict in verdicts.items() if verdict == "not proven"]
    if unproven:
        raise click.ClickException(
            f"not proven: {', '.join(unproven)}; the problems stand above and in "
            f"{repository.path / 'state'}"
        )
    broken = [name for name, verdict in verdicts.items() if verdict == "damaged"]
    if broken:
        raise click.ClickException(
            f"damaged: {', '.join(broken)}; take a new backup with `ckan db backup`"
        )
    if not all(result["ok"] for result in results):
        raise click.ClickException("not all are this site's own; their bytes are whole")


def _verdict(problems: list[str], prove: bool) -> str:
    from ..engine.layout import UNSIGNED

    if prove:
        return "not proven" if problems else "proven"
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

    A directory or a file is written with a slash, as in ./portal.dump. It goes into a
    copy beside what is live, is checked there, and is switched in at once; what was
    replaced is kept for `ckan db undo`, and backed up.
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
    portal = _portal(ctx, talk)
    if preview:
        echo(_compared(preview_(portal, name, only)))
        return
    if not (yes or sys.stdin.isatty()):
        _may_go_on("", yes)

    def agree(site: Site, repository: Repository, source: Source | None) -> None:
        assert source is not None
        if not yes:
            rows = previewed(site, repository, source)
            talk.end()
            echo(_compared(rows), err=True)
        _may_go_on(
            f"Replace the live {' and '.join(source.parts)} by {source.name}?", yes
        )

    restored = restore_(
        portal, name, only, trust=trust, no_backup=no_backup, agree=agree
    )
    source = one_line(restored.source)
    echo(f"restored {' and '.join(restored.parts)} from {source}")
    if restored.replaced.parts:
        talk.say(
            f"what it replaced is kept: {_kept(restored)}; `ckan db undo` goes back"
        )


def _kept(restored: Any) -> str:
    names = [database.name for database in restored.replaced.databases.values()]
    return " and ".join([*names, *sorted(set(restored.replaced.inside.values()))])


@click.command(cls=Command)
@_yes
@_quiet
@click.pass_context
def undo(ctx: click.Context, yes: bool, quiet: bool) -> None:
    """Switch back what the last restore replaced; a second undo takes that back."""
    if not (yes or sys.stdin.isatty()):
        _may_go_on("", yes)
    talk = Talk(quiet)

    def agree(site: Site, repository: Repository, _: Source | None) -> None:
        from ..engine.restore.history import last_switch

        last = last_switch(site, repository) or {}
        known = "{what} of {time} ({source})".format_map(last) if last else "restore"
        _may_go_on(f"Switch back to the state before the last {known}?", yes)

    undone = undo_(_portal(ctx, talk), agree)
    echo(f"undone: {' and '.join(undone.parts)} as before")
    talk.say(f"what it replaced is kept: {_kept(undone)}; a second undo goes back")


def _compared(rows: list[dict[str, Any]]) -> str:
    columns = ("kind", "now", "then", "lost", "gained", "changed")
    shown = [("", *columns[1:])]
    shown += [tuple(one_line(row[c]) for c in columns) for row in rows]
    width = max(len(row[0]) for row in shown)
    return "\n".join(
        row[0].ljust(width) + "".join(cell.rjust(10) for cell in row[1:])
        for row in shown
    )


@click.command(cls=Command)
@click.argument("file", type=click.Path(allow_dash=True))
@_one
@_quiet
@click.pass_context
def dump(ctx: click.Context, file: str, only: str, quiet: bool) -> None:
    """Write one database to FILE (- is stdout) as pg_restore reads it."""
    from ..engine.backup import dump as engine

    if file == "-" and sys.stdout.isatty():
        raise click.UsageError("a dump is not for a terminal: name a file, or a pipe")
    talk = Talk(quiet)
    site, _ = _open(ctx, talk, writes=False)
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
    path = os.path.join(os.curdir, file)  # never an id
    _restore(ctx, Talk(quiet), path, (only,), False, True, no_backup, yes)


@click.command(cls=Command)
@click.argument("id")
@click.option("--release", is_flag=True, help="Give it back to retention.")
@click.pass_context
def keep(ctx: click.Context, id: str, release: bool) -> None:
    """Hold a backup, whatever retention says."""
    found = retain.keep(_portal(ctx, Talk(quiet=False)), id, not release)
    echo(f"{found.id}  {'released' if release else 'kept'}")


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@_json
@_quiet
@click.pass_context
def prune(ctx: click.Context, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Forget backups by the rules of retention, with the reason for each.

    Then what no backup names any more, and what a restore replaced and `undo` would
    bring back, once it is older than `ckanext.dbmanage.undo_days`.
    """
    from ..engine.postgres.locks import live_lock
    from ..engine.repository import retention
    from ..engine.repository.prune import prune_backups, unnamed_objects
    from ..engine.restore import history
    from ..engine.restore.recover import recover
    from ..engine.restore.scratch import drop_replaced
    from ..portal import config

    talk = Talk(quiet or as_json)
    site, repository = _open(ctx, talk)
    settings = settings_of(ctx)
    with repository.lock("prune"):
        days = config.undo_days(settings)
        rules = config.retention(settings)
        decisions = retention.decide(repository.backups(), rules, days)
        if dry_run:
            forgotten = {d.backup.id for d in decisions if d.forget}
            objects = unnamed_objects(repository, forgotten)
        else:
            objects = prune_backups(repository, decisions, talk.progress).objects
        with live_lock(site):
            if not dry_run:
                recover(site, repository, talk.warn)
            outlived = history.outlived(site, repository, days)
            dropped = drop_replaced(site, repository, outlived, talk.warn, dry_run)
        if not dry_run:
            repository.record(
                "prune", "done", what="prune", dropped=dropped,
                forgotten=[d.backup.id for d in decisions if d.forget],
            )  # fmt: skip
    talk.end()
    if objects.problem:
        talk.warn(objects.problem)
    if as_json:
        document = {
            "backups": [
                {"id": d.backup.id, "forget": d.forget, "reason": d.reason}
                for d in decisions
            ],
            "objects": objects.count,
            "bytes": objects.bytes,
            "dropped": dropped,
        }
        echo(json.dumps(document))
        return
    for decision in decisions:
        verb = "forget" if decision.forget else "keep"
        echo(f"{decision.backup.id}  {verb:6}  {one_line(decision.reason)}")
    for name in dropped:
        echo(f"{name}  {'would be ' if dry_run else ''}dropped: too old to undo")
    echo(
        f"{'would free' if dry_run else 'freed'} {objects.count} contents of uploads, "
        f"{size(objects.bytes)}"
    )


_DURATION = {"s": 1, "m": 60, "h": 3600}


def _seconds(_: click.Context, __: click.Parameter, value: str) -> int:
    unit = _DURATION.get(value[-1:])
    if unit is None or not value[:-1].isdecimal() or int(value[:-1]) == 0:
        raise click.BadParameter("a time such as 90s, 30m or 2h")
    return int(value[:-1]) * unit


@click.command(cls=Command)
@click.argument("what", type=click.Choice(["on", "off", "status"]))
@click.option("--read-only", is_flag=True, help="Let reading go on; only saving waits.")
@click.option(
    "--for",
    "seconds",
    default="30m",
    callback=_seconds,
    metavar="TIME",
    help="It ends by itself after this time, 30m when none is given.",
)
@_json
@click.pass_context
def maintenance(
    ctx: click.Context, what: str, read_only: bool, seconds: int, as_json: bool
) -> None:
    """Take the site away for visitors (503 and a calm page), or end it, or ask."""
    from ..engine.redis.maintenance import AWAY, READ_ONLY, Maintenance

    site, repository = _open(ctx, Talk(quiet=as_json), writes=what != "status")
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    if what == "on":
        level = READ_ONLY if read_only else AWAY
        keeper.by_hand(level, seconds)
        what = f"maintenance {level}"
    elif what == "off" and keeper.off():
        what = "maintenance off"
    if " " in what:
        with suppress(OSError):  # it is done, whether or not it can be written down
            repository.record("maintenance", "done", what=what)
    status = keeper.status()
    if as_json:
        echo(json.dumps(status or {"level": "off"}))
    elif status is None:
        echo("off: the site is open")
    else:
        echo(
            f"{status['level']}: {status['reason']}, by {status['owner']} since "
            f"{status['since']}, ends by itself in {status['seconds_left']:.0f} s"
        )


@click.command(cls=Command)
@click.argument("id", metavar="ID|undo")
@click.option(
    "--to",
    type=click.Choice(["restore", "delete", "release", "download"]),
    default="restore",
    help="What the page may do with it; restore when nothing is said.",
)
@click.option(
    "--for",
    "seconds",
    default="30m",
    callback=_seconds,
    metavar="TIME",
    help="It ends by itself after this time, 30m when none is given.",
)
@_quiet
@click.pass_context
def arm(ctx: click.Context, id: str, to: str, seconds: int, quiet: bool) -> None:
    """Let the sysadmin page do one thing with this backup, once, for some minutes.

    It may restore it, or with --to delete it, release it (hold it no more), or download
    one file of it, which may be all.tar. With undo in place of an ID it may take the
    last restore back. What was armed before is armed no more.
    """
    from ..engine.clock import who
    from ..engine.errors import Refused
    from ..engine.redis.arming import UNDO, Arming
    from ..portal import config

    if id == UNDO and to != "restore":
        raise click.UsageError("undo takes no --to")
    if config.web_restore(settings_of(ctx)) == "never":
        raise Refused(
            "ckanext.dbmanage.web_restore is `never`: the page restores, deletes and "
            f"downloads nothing; `ckan db restore {id}` restores it here"
        )
    talk = Talk(quiet)
    site, repository = _open(ctx, talk)
    name = id if id == UNDO else repository.find(id).id
    armed = Arming(site).arm(name, seconds, who(), to)
    repository.record(name, "done", what="arm", to=to, until=armed["until"])
    echo(f"{name}  armed to {UNDO if id == UNDO else to} until {armed['until']}")
    talk.say(f"good for one {to} from the sysadmin page")


@click.command(cls=Command)
@click.option("--fix", is_flag=True, help="Repair what can be repaired safely.")
@click.option("--preview", is_flag=True, help="With --fix: only say what it would do.")
@_json
@click.option("--nagios", is_flag=True, help="One line, and exit codes of a monitor.")
@click.pass_context
def doctor(
    ctx: click.Context, fix: bool, preview: bool, as_json: bool, nagios: bool
) -> None:
    """Check everything that the portal's data needs; each problem with what mends it.

    --fix ends what was left half-way, brings the search index up to date, sets the
    DataStore's permissions and closes the repository to others.
    """
    from psycopg2 import Error as DatabaseError

    from ..doctor import portal_checks
    from ..doctor.checks import examine
    from ..doctor.finding import HINT, PROBLEM, Finding
    from ..engine.errors import DbmanageError
    from ..engine.repository.repository import Repository
    from ..portal.site import build_site
    from ..portal.uploads import upload_bases

    talk = Talk(quiet=as_json or nagios)
    settings = settings_of(ctx)
    portal = _portal(ctx, talk)
    more = portal_checks.checks(settings, portal.app)
    try:
        if fix:
            mend(portal, preview)
        site = build_site(settings)
        named = named_uploads(*upload_bases(settings))
        site = replace(site, named_uploads=named)
        found = examine(site, Repository(site.repository, site.secrets), more)
    except (DbmanageError, DatabaseError, OSError) as error:
        what = "repair" if fix else "configuration"
        said = errors.told(error)
        found = [Finding(what, PROBLEM, said)]
    problems = [each for each in found if each.state == PROBLEM]
    hints = [each for each in found if each.state == HINT]
    if nagios:
        state = "CRITICAL" if problems else "WARNING" if hints else "OK"
        said = "; ".join(f"{each.name}: {each.text}" for each in problems or hints)
        # what comes after a bar would be taken for figures
        said = one_line(said or f"{len(found)} checks").replace("|", "/")
        echo(f"DBMANAGE {state} - {said}")
        sys.exit({"CRITICAL": 2, "WARNING": 1, "OK": 0}[state])
    if as_json:
        echo(json.dumps([asdict(each) for each in found]))
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            echo(f"{each.state:8} {each.name:{width}}  {one_line(each.text)}")
    if problems:
        sys.exit(1)


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


def of_core() -> list[click.Command]:
    """Core's own `init`, `upgrade` and `clean`, made safe."""
    from ckan.cli import db as core

    there = [core.db.commands[name] for name in ("init", "upgrade", "clean")]
    if isinstance(there[0], Command):  # that was done before
        return there
    return [*map(upgrading, there[:2]), _clean(there[2])]


_UPGRADE = """Migrate the database: a copy of it first, then switch that in.

What would make the migrations fail is named before; the state before is backed up, and
`ckan db undo` goes back to it. An empty database is made ready by CKAN itself.
"""


def upgrading(core: click.Command, bare: bool = False) -> click.Command:
    """Core's `upgrade` or `init` with all its options, made safe.

    `bare`: without CKAN, which an empty database needs.
    """

    @click.command(cls=Command, name=core.name, help=_UPGRADE)
    @click.option("--rehearse", is_flag=True, help="Do all but the switch, and report.")
    @click.option(
        "--in-place",
        is_flag=True,
        help="Migrate the live database itself: needs no right to make a copy.",
    )
    @click.option("--no-backup", is_flag=True, help="Do not keep the backup before it.")
    @_quiet
    @click.pass_context
    def run(
        ctx: click.Context,
        /,
        rehearse: bool,
        in_place: bool,
        no_backup: bool,
        quiet: bool,
        **options: Any,
    ) -> None:
        from ..engine.errors import Refused
        from ..portal.migrate import Report
        from ..portal.plan import Plan, Wanted

        if rehearse and in_place:
            raise click.UsageError("--rehearse and --in-place are two ways: give one")
        talk, report, known = Talk(quiet), Report(), list[Plan]()

        def planned(plan: Plan) -> None:
            known.append(plan)
            if plan.steps:
                talk.say(f"{len(plan.steps)} migrations are pending")
            for loss in plan.losses:
                talk.warn(loss)
            if plan.steps and in_place:
                talk.warn(_IN_PLACE)

        wanted = Wanted(**{k: v for k, v in options.items() if v})
        try:
            switched = upgrade(
                _portal(ctx, talk), wanted, report, rehearse=rehearse,
                in_place=in_place, no_backup=no_backup, planned=planned,
            )  # fmt: skip
        finally:
            talk.end()
            if report.phases:
                echo(_reported(report))
        (plan,) = known
        if plan.empty and bare:
            raise Refused("the database is empty: `ckan db init` makes its tables")
        if plan.empty:
            ctx.invoke(core, **options)
        elif not plan.steps:
            echo("Nothing is pending: the database is at the installed code")
        elif rehearse:
            echo(f"rehearsed: the upgrade would work. {_cost(report)}")
        else:
            echo(f"upgraded by {len(plan.steps)} migrations")
            talk.say("restart CKAN's web and worker processes now: they run old code")
        if switched:
            talk.say(
                f"the old state is kept: {_kept(switched)}; `ckan db undo` goes back"
            )

    run.params = [*core.params, *run.params]
    return run


_IN_PLACE = (
    "the live database itself is migrated: its tables are locked meanwhile, so that "
    "visitors wait or see errors, nothing is looked at before it counts, and not "
    "`ckan db undo` goes back, but a restore of the backup"
)


def _reported(report: Any) -> str:
    """The report of an upgrade, for people."""
    lines = [
        f"{'not ended' if seconds is None else f'{seconds:7.2f} s'}  "
        + one_line(f"{owner} {revision}")
        + f"  {one_line(about)}"
        for owner, revision, about, seconds in report.steps
    ]
    changes = report.changes
    for what, names in (
        ("locked against readers", changes.locked),
        ("rewritten", changes.rewritten),
        ("dropped", [f"{t} ({rows} rows)" for t, rows in changes.dropped.items()]),
    ):
        if names:
            lines.append(one_line(f"{what}: {', '.join(sorted(names))}"))
    lines.append(
        ", ".join(
            f"{phase} {seconds:.1f} s" for phase, seconds in report.phases.items()
        )
    )
    return "\n".join(lines)


def _cost(report: Any) -> str:
    seconds = sum(report.phases.values())
    return (
        f"Visitors could read, but not save, for about {seconds:.0f} s, and would wait "
        "about a second at the switch"
    )


_CLEAN = """Remove everything from the database and the search index.

A backup is taken first, unless there is nothing.
"""


def _clean(core: click.Command) -> click.Command:
    """Core's `clean`, after a backup; it needs neither Solr nor PostGIS's owner."""

    @click.command(cls=Command, name=core.name, help=_CLEAN)
    @click.option("--no-backup", is_flag=True, help="Do not take a backup before.")
    @_yes
    @_quiet
    @click.pass_context
    def run(ctx: click.Context, no_backup: bool, yes: bool, quiet: bool) -> None:
        talk = Talk(quiet)

        def agree(site: Site, *_: Any) -> None:
            if yes:
                return
            if not sys.stdin.isatty():
                _may_go_on("", yes)
            name = str(settings_of(ctx).get("ckan.site_title") or site.id)
            echo(one_line(f"This removes all of {name}: {site.url}"), err=True)
            if click.prompt("Type its name to go on", err=True).strip() != name:
                raise click.Abort

        stays = clean(_portal(ctx, talk), no_backup, agree)
        for each in stays:
            talk.warn(f"left where it is: {each}")
        echo(
            "CKAN's tables are gone; what stays is named above"
            if stays
            else "The database is empty"
        )
        talk.say(
            "Next: `ckan db init` makes its tables, `ckan db load FILE` or `ckan db "
            "restore ID` brings data back"
        )

    return run
