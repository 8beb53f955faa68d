"""The search index: rebuilt, and brought up to date where a switch owes that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..engine.errors import DbmanageError
from ..engine.postgres.again import again
from ..engine.repository.repository import Repository
from ..engine.restore.history import half_way, switches
from ..engine.site import Site
from .context import Portal, application, find_site, refuse_root
from .journal import journalled
from .stages import staged

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.reindex import Indexed


_INDEXING = "indexing"


def open_to_change(portal: Portal, heads: bool = False) -> tuple[Site, Repository]:
    """The site and its repository, to be written to; brings the index up to date.

    `heads`: the site knows the installed migrations too. Raises Refused, for root too
    where a directory is another user's.
    """
    site, repository = find_site(portal, heads)
    refuse_root(site)
    if portal.app is not None:
        catch_up(portal, repository)
    return site, repository


@contextmanager
def owing_an_index(site: Site, repository: Repository, owed: bool) -> Iterator[None]:
    """Marks, before a switch, that the index must follow; not when there was none."""
    before = repository.marked("reindex")
    repository.mark("reindex", before or owed)
    done = len(switches(site, repository))
    try:
        yield
    except BaseException:
        with suppress(Exception):
            if len(switches(site, repository)) == done and not (
                half_way(site, repository)
            ):
                repository.mark("reindex", before)
        raise


def is_behind(portal: Portal) -> bool:
    """Whether the index differs from the database, as far as CKAN can say."""
    if portal.app is None:
        return False
    from ..records.search_index import Index

    try:
        with application(portal):
            return any(Index(portal.options).differing())
    except Exception:  # the check itself tells
        return False


def catch_up(portal: Portal, repository: Repository) -> None:
    """Brings an index up to date that is owed."""
    if repository.marked("reindex"):
        index_changed(portal, repository)


def index_changed(
    portal: Portal, repository: Repository, done_with: str = "restored", sent: int = 0
) -> None:
    """Indexes what differs; what fails is told, and stays owed.

    `done_with` says what was done with the data; `sent` are datasets that the index
    has got, without a commit.
    """
    from ..records.reindex import reindex_changed

    talk = portal.talk
    try:
        with application(portal):
            done = again(
                _INDEXING,
                lambda: reindex_changed(portal.options, talk.rows, sent),
                talk.warn,
            )
    except DbmanageError as error:
        talk.warn(
            f"{error}. The data is {done_with}; searches will show the old state until "
            "the next `ckan db` command that changes something, or `ckan db reindex`"
        )
        return
    repository.mark("reindex", False)
    talk.say(f"search index: {done.indexed} datasets indexed, {done.removed} removed")
    for dataset, why in done.failed.items():
        talk.warn(f"not indexed: dataset {dataset}: {why}")
    if not done.agrees:
        talk.warn(
            f"the index has {done.documents} datasets, the database {done.datasets}: "
            "`ckan db reindex` rebuilds it"
        )


def rebuild(portal: Portal, changed: bool, deep: bool, jobs: int | None) -> Indexed:
    """Rebuilds the index: all, what `changed` by its time, or what differs (`deep`).

    The caller tells `failed` and whether it `agrees`. Raises DbmanageError.
    """
    from ..records.reindex import reindex_all, reindex_changed

    talk, options = portal.talk, portal.options
    ahead = ["index"] if changed else ["compare", "index", "check"]
    way = "changed" if changed else "deep" if deep else "all"
    with journalled(portal, "reindex", "index") as (repository, facts):

        def work() -> Indexed:
            if changed:
                return reindex_changed(options, talk.rows)
            processes = jobs or options.jobs
            return reindex_all(portal.app, options, processes, talk.rows, deep)

        with (
            application(portal),
            staged(portal, repository, f"reindex {way}", ahead),
        ):
            talk.standing.done = (
                "The database was not changed; the search index may be partly old, "
                "partly new: `ckan db reindex`"
            )
            done = again(_INDEXING, work, talk.warn)
            talk.standing.done = "The search index is up to date"
        facts |= {"indexed": done.indexed, "removed": done.removed}
        facts |= {"failed": len(done.failed), "agrees": done.agrees}
        if repository and done.agrees and not done.failed:
            repository.mark("reindex", False)
    return done
