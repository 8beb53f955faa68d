"""The commands of the catalogue: `ckan db export` and `ckan db publish`.

They show records as CKAN's actions do, and so need a CKAN that runs: there is no
`python -m` for them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .base import Command, options_of
from .output import Talk

if TYPE_CHECKING:
    from ..records.export import Exported

_jobs = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="How many processes read; ckanext.dbmanage.jobs without it.",
)
_fresh = click.option(
    "--fresh",
    is_flag=True,
    help="Read the database only, nothing from the search index.",
)
_quiet = click.option("--quiet", "-q", is_flag=True, help="Only results and warnings.")


@click.command(cls=Command)
@click.argument(
    "kind", type=click.Choice(["datasets", "organizations", "groups", "users"])
)
@click.option(
    "-O",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Where to; standard output without it, or -.",
)
@click.option("--all", "everything", is_flag=True, help="Private, draft, deleted too.")
@_fresh
@click.option("--secrets", is_flag=True, help="Of users: password hashes, API keys.")
@click.option(
    "--check",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Show N random ones again by CKAN's own action, and compare.",
)
@_jobs
@_quiet
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
    quiet: bool,
) -> None:
    """Write all records of a KIND as JSON Lines, as of one moment, in order of name.

    Each line is what a visitor who is not signed in gets from the API, in the bytes of
    `ckanapi dump`. FILE may end in .gz or .zst.
    """
    from ..portal.directories import refuse_public
    from ..records.export import Export
    from ..records.kinds import Wanted

    if secrets and kind != "users":
        raise click.UsageError("--secrets is for users only")
    talk, options = Talk(quiet), options_of(ctx)
    path = None if output in (None, "-") else Path(str(output))
    private = everything or kind == "users"
    if path is not None:
        refuse_public(options, path, private)
    wanted = Wanted(everything, fresh, secrets)
    begun = time.monotonic()
    app = ctx.meta["flask_app"]
    with (
        Export(app, options, wanted, jobs or options.jobs) as moment,
        _opened(path, private) as write,
    ):
        done = moment.write(kind, write, check, talk.rows)
    talk.end()
    where = f" to {path}" if path else ""
    talk.say(
        f"exported {done.rows} {kind}{where} in {time.monotonic() - begun:.1f} s"
        f"{_sources(kind, done)}, as of {moment.moment:%Y-%m-%d %H:%M:%S %Z}"
    )
    if done.index_failed:
        talk.warn(f"the search index did not answer: {done.index_failed}")
    complain({kind: done}, talk)
    if done.checked and not done.differing:
        talk.say(f"{done.checked} of them shown again by CKAN's own action: equal")


def _sources(kind: str, done: Exported) -> str:
    told = ""
    if kind == "datasets":
        rest = done.rows - done.from_index
        told = f": {done.from_index} from the search index, {rest} from the database"
    return told + _left_out(done)


def _left_out(done: Exported) -> str:
    if not done.hidden:
        return ""
    return f" ({done.hidden} that a visitor may not read left out)"


def name_failed(exported: Mapping[str, Exported], talk: Talk) -> None:
    """Names what could not be shown."""
    for kind, done in exported.items():
        for sentence in done.failed:
            talk.warn(f"{kind}: {sentence}")


def complain(exported: Mapping[str, Exported], talk: Talk) -> None:
    """Names what could not be shown or differs. Raises ClickException if any does."""
    problems = []
    name_failed(exported, talk)
    for kind, done in exported.items():
        if done.failed:
            problems.append(
                f"{len(done.failed)} of {done.rows + len(done.failed)} {kind} could "
                "not be shown and are missing, see above"
            )
        if done.differing:
            problems.append(
                f"{len(done.differing)} of {done.checked} {kind} differ from what CKAN "
                f"shows: {', '.join(done.differing[:20])}"
            )
    if problems:
        raise click.ClickException("; ".join(problems))


@contextlib.contextmanager
def _opened(path: Path | None, private: bool) -> Iterator[Callable[[bytes], Any]]:
    from ..records.jsonl import new_file

    if path is None:
        try:
            yield _write_out
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # whoever read has enough; Python would complain when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        return
    umask = os.umask(0)
    os.umask(umask)
    with new_file(path, 0o600 if private else 0o666 & ~umask) as write:
        yield write


@click.command(cls=Command)
@_fresh
@_jobs
@_quiet
@click.pass_context
def publish(ctx: click.Context, fresh: bool, jobs: int | None, quiet: bool) -> None:
    """Write the public dumps: what everyone may read, as files at /dump/.

    For a timer. Everything appears at once or not at all; a file whose content did not
    change stays as it is.
    """
    from ..operations import publish as engine
    from ..operations.context import refuse_root
    from ..portal.directories import public_dir
    from ..portal.site import build_site

    talk, options = Talk(quiet), options_of(ctx)
    refuse_root(build_site(options, stored=False))
    begun = time.monotonic()
    number = jobs or options.jobs
    try:
        done, changed = engine.publish(
            ctx.meta["flask_app"], options, fresh, number, talk.rows
        )
    except engine.Incomplete as error:
        name_failed(error.exported, talk)
        raise
    talk.end()
    rows = ", ".join(
        f"{each.rows} {kind}{_left_out(each)}" for kind, each in done.items()
    )
    new = f"new: {', '.join(changed)}" if changed else "nothing has changed"
    talk.say(
        f"published {rows} in {public_dir(options)} in "
        f"{time.monotonic() - begun:.1f} s; {new}"
    )
    for each in done.values():
        if each.index_failed:
            talk.warn(f"the search index did not answer: {each.index_failed}")
    complain(done, talk)


@click.command(cls=Command)
@click.option(
    "--changed", is_flag=True, help="Only what differs by its time, or is missing."
)
@click.option(
    "--deep", is_flag=True, help="Look at every dataset, send only what differs."
)
@_jobs
@_quiet
@click.pass_context
def reindex(
    ctx: click.Context, changed: bool, deep: bool, jobs: int | None, quiet: bool
) -> None:
    """Rebuild the search index in bulk; search serves the old one until the end.

    The documents are those of `ckan search-index rebuild`. A dataset that cannot be
    indexed is named, the others are indexed all the same. --deep finds what a time does
    not show, like an organization's new title; not a change of who may see a dataset.
    """
    from ..engine.errors import Refused
    from ..engine.repository.repository import Repository
    from ..operations.context import refuse_root
    from ..portal.site import build_site
    from ..records.reindex import reindex_all, reindex_changed

    if changed and deep:
        raise click.UsageError("--changed and --deep are two ways: give one")
    talk, options = Talk(quiet), options_of(ctx)
    app, begun = ctx.meta["flask_app"], time.monotonic()
    with app.test_request_context():
        if changed:
            done = reindex_changed(options, talk.rows)
        else:
            number = jobs or options.jobs
            done = reindex_all(app, options, number, talk.rows, deep)
    talk.end()
    same = f", {done.same} as they should be" if deep else ""
    talk.say(
        f"search index: {done.indexed} datasets indexed, {done.removed} removed{same}, "
        f"in {time.monotonic() - begun:.1f} s"
    )
    for dataset, why in done.failed.items():
        talk.warn(f"not indexed: dataset {dataset}: {why}")
    if not done.agrees:
        talk.warn(
            f"the index has {done.documents} datasets, the database {done.datasets}"
        )
    if done.failed or not done.agrees:
        sys.exit(1)
    with contextlib.suppress(Refused):  # without a repository nothing is owed
        site = build_site(options)
        refuse_root(site)  # what is owed stays: CKAN's user does it again
        Repository(site.repository, ()).mark("reindex", False)


def _write_out(lines: bytes) -> None:
    # in pieces: a reader who goes away within one is not always told of
    for begin in range(0, len(lines), 1 << 16):
        sys.stdout.buffer.write(lines[begin : begin + (1 << 16)])


COMMANDS = (export, publish, reindex)
