"""What changes a site: under its repository's lock, with nothing left half-way."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engine.errors import Busy
from ..engine.operation import Operation
from ..engine.postgres.locks import live_lock
from ..engine.report import Listener
from ..engine.repository.repository import Repository
from ..engine.restore.recover import recover
from ..engine.site import Site
from .context import Portal
from .in_use import refuse_empty
from .index import open_to_change


@contextmanager
def locked(
    portal: Portal, operation: str, heads: bool = False
) -> Iterator[tuple[Site, Repository]]:
    """The site and its repository, for one operation alone. Raises Refused, Busy.

    What a killed command left half-way is finished or turned back first. Nobody may be
    asked anything inside: a question that is forgotten would stop every backup.
    """
    site, repository = open_to_change(portal, heads)
    refuse_empty(portal.options, site, repository)
    with repository.lock(operation):
        settle(site, repository, portal.talk)
        yield site, repository


def settle(site: Site, repository: Repository, talk: Listener) -> None:
    """Finishes or turns back what a killed command left behind.

    The caller holds the repository's lock.
    """
    try:
        with live_lock(site.main):
            recover(Operation(site, repository, talk))
    except Busy:
        pass  # its owner is alive and does it


def let_go() -> None:
    """Gives this process's own connections to the databases back."""
    from ckan import model

    model.Session.remove()
    if model.meta.engine is not None:
        model.meta.engine.dispose()
    backend: Any = sys.modules.get("ckanext.datastore.backend.postgres")
    for engine in getattr(backend, "_engines", {}).values():
        engine.dispose()
