"""The search index that is owed is brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .context import Portal, application, opened, refuse_root

if TYPE_CHECKING:
    from ..engine.repository.repository import Repository
    from ..engine.site import Site


def open_to_change(portal: Portal, heads: bool = False) -> tuple[Site, Repository]:
    """The site and its repository, to be written to; brings the index up to date.

    `heads`: the site knows the installed migrations too. Raises Refused, for root too
    where a directory is another user's.
    """
    site, repository = opened(portal, heads)
    refuse_root(site)
    if portal.app is not None and repository.marked("reindex"):
        reindex(portal, repository)
    return site, repository


@contextmanager
def owing_an_index(site: Site, repository: Repository, owed: bool) -> Iterator[None]:
    """Marks, before a switch, that the index must follow; not when there was none."""
    from ..engine.restore.history import half_way, switches

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
    if portal.app is None:
        return False
    from ..records.search_index import Index

    try:
        with application(portal):
            return any(Index(portal.options).differing())
    except Exception:  # the check itself tells
        return False


def reindex(portal: Portal, repository: Repository) -> None:
    """Indexes what differs; what fails is told with the command and tried again."""
    from ..engine.errors import DbmanageError
    from ..records.reindex import reindex_changed

    talk = portal.talk
    try:
        with application(portal):
            done = reindex_changed(portal.options, talk.progress)
    except DbmanageError as error:
        talk.warn(
            f"{error}. The data is restored; searches will show the old state until "
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
