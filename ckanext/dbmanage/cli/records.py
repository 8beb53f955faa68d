"""`ckan db export`, `publish`, `reindex`.

They show records as CKAN's actions do, and so need a CKAN that runs: there is no
`python -m` for them.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from ..engine.disk import is_stream
from ..engine.words import many
from ..operations.export import Target, Write, run_export, to_file
from ..operations.index import rebuild
from ..operations.publish import Incomplete, run_publish
from ..portal.directories import public_dir
from ..records.export import Exported
from ..records.jsonl import is_written
from ..records.kinds import EXPORTED, Wanted
from .arguments import File
from .base import (
    Command,
    ask_to_replace,
    jobs_option,
    portal_of,
    quiet_option,
    yes_option,
)
from .codes import FAILED
from .output import Talk, left_out

_fresh_option = click.option(
    "--fresh",
    is_flag=True,
    help="Read from the database only, not from the search index.",
)


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(list(EXPORTED)))
@click.option(
    "-O",
    "--output",
    type=File(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Where to; standard output without it, or -.",
)
@click.option(
    "--all", "everything", is_flag=True, help="Also private, draft and deleted ones."
)
@_fresh_option
@click.option(
    "--secrets", is_flag=True, help="Users with their password hashes and API keys."
)
@click.option(
    "--check",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Compare N random ones with what CKAN's own action shows.",
)
@jobs_option
@yes_option
@quiet_option
@click.pass_context
def export(
    ctx: click.Context,
    kind: str,
    output: str | None,
    everything: bool,
    fresh: bool,
    secrets: bool,
    check: int,
    jobs: int | None,
    yes: bool,
    quiet: bool,
) -> None:
    """Write all records of a KIND as JSON Lines.

    All are of one moment, in order of name. Each line is what a visitor who is not
    signed in gets from the API, byte for byte as `ckanapi dump` writes it. FILE may end
    in .gz or .zst. An earlier export is replaced; before any other file is replaced,
    the command asks.
    """
    if secrets and kind != "users":
        raise click.UsageError("--secrets is for KIND users only")
    to_stdout = output in (None, "-")
    # on one terminal the lines of the records and of the progress would mix
    talk = Talk(quiet, still=to_stdout and sys.stdout.isatty())
    begun = time.monotonic()
    portal = portal_of(ctx, talk)
    wanted, name = Wanted(everything, fresh, secrets), ""
    target: Target = _stdout
    if not to_stdout:
        name = str(output)
        if not is_written(name):
            ask_to_replace(name, yes)
        private = everything or kind == "users"
        target = partial(to_file, portal.options, Path(name), private)
    done, moment = run_export(
        portal, kind, wanted, target, name=name or "stdout",
        whole=bool(name) and not is_stream(name), check=check, jobs=jobs,
    )  # fmt: skip
    told = ""
    if kind == "datasets":
        rest = done.rows - done.from_index
        told = f": {done.from_index} from the search index, {rest} from the database"
    talk.say(
        f"exported {_many(done.rows, kind)}{f' to {name}' if name else ''} in "
        f"{time.monotonic() - begun:.1f} s{told}{left_out(done)}, "
        f"as of {moment:%Y-%m-%d %H:%M:%S %Z}"
    )
    _complain({kind: done}, talk)
    if done.checked:
        talk.say(
            f"{done.checked} of them compared with CKAN's own action: no difference"
        )


@contextmanager
def _stdout() -> Iterator[Write]:
    try:
        yield _write_out
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # whoever read has enough; Python would complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _write_out(lines: bytes) -> None:
    # in pieces: a reader who goes away within one is not always told of
    for begin in range(0, len(lines), 1 << 16):
        sys.stdout.buffer.write(lines[begin : begin + (1 << 16)])


def _many(count: int, kind: str) -> str:
    return many(count, kind.removesuffix("s"))


def _name_failed(exported: Mapping[str, Exported], talk: Talk) -> None:
    for kind, done in exported.items():
        for sentence in done.failed:
            talk.warn(f"{kind}: {sentence}")


def _complain(exported: Mapping[str, Exported], talk: Talk) -> None:
    """Names what could not be shown or differs. Raises ClickException if any does."""
    problems = []
    _name_failed(exported, talk)
    for kind, done in exported.items():
        if done.index_failed:
            talk.warn(
                f"read from the database instead of the search index: "
                f"{done.index_failed}"
            )
        if done.failed:
            problems.append(
                f"{len(done.failed)} of {done.rows + len(done.failed)} {kind} could "
                "not be shown and are missing: see the warnings above"
            )
        if done.differing:
            problems.append(
                f"{len(done.differing)} of {done.checked} {kind} differ from what CKAN "
                f"shows: {', '.join(done.differing[:20])}"
            )
    if problems:
        raise click.ClickException("; ".join(problems))


@click.command(cls=Command)
@_fresh_option
@jobs_option
@quiet_option
@click.pass_context
def publish(ctx: click.Context, fresh: bool, jobs: int | None, quiet: bool) -> None:
    """Write the public dumps, the files at /dump/.

    They hold what everyone may read. Run it by a timer. All files appear at once or not
    at all; a file whose content did not change stays as it is.
    """
    talk, begun = Talk(quiet), time.monotonic()
    portal = portal_of(ctx, talk)
    try:
        done, changed = run_publish(portal, fresh, jobs)
    except Incomplete as error:
        _name_failed(error.exported, talk)
        raise
    rows = ", ".join(
        f"{_many(each.rows, kind)}{left_out(each)}" for kind, each in done.items()
    )
    new = f"new: {', '.join(changed)}" if changed else "nothing has changed"
    talk.say(
        f"published {rows} in {public_dir(portal.options)} in "
        f"{time.monotonic() - begun:.1f} s; {new}"
    )
    _complain(done, talk)


@click.command(cls=Command)
@click.option(
    "--changed",
    is_flag=True,
    help="Only datasets that are missing or have another time.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Compare every dataset, and send only those that differ.",
)
@jobs_option
@quiet_option
@click.pass_context
def reindex(
    ctx: click.Context, changed: bool, deep: bool, jobs: int | None, quiet: bool
) -> None:
    """Rebuild the search index while the old one serves.

    The documents are those of `ckan search-index rebuild`. A dataset that cannot be
    indexed is named; the others are indexed all the same. --deep finds what a time does
    not show, like the new title of an organization; it does not find a change of who
    may see a dataset.
    """
    if changed and deep:
        raise click.UsageError("--changed and --deep exclude each other: give one")
    talk, begun = Talk(quiet), time.monotonic()
    done = rebuild(portal_of(ctx, talk), changed, deep, jobs)
    same = f", {done.same} unchanged" if deep else ""
    talk.say(
        f"search index: {many(done.indexed, 'dataset')} indexed, {done.removed} "
        f"removed{same}, in {time.monotonic() - begun:.1f} s"
    )
    for dataset, why in done.failed.items():
        talk.warn(f"not indexed: dataset {dataset}: {why}")
    if not done.agrees:
        talk.warn(
            f"the index has {done.documents} datasets, the database {done.datasets}"
        )
    if done.failed or not done.agrees:
        sys.exit(FAILED)
