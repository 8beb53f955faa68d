"""The way in: a site is opened for one operation."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.report import Listener
from ..portal.config import Options

if TYPE_CHECKING:
    from ..engine.repository.repository import Repository
    from ..engine.site import Site


@dataclass(frozen=True)
class Portal:
    """A CKAN site, as an operation works on it.

    `app` is CKAN's Flask application, None where CKAN was not started; `actor` what
    the journal notes of who asked: `{user, address}`.
    """

    options: Options
    talk: Listener
    app: Any = None
    actor: Mapping[str, str] = field(default_factory=dict)


def open_site(portal: Portal, heads: bool = False) -> tuple[Site, Repository]:
    """The site and its repository, to be read; tells that the index is owed.

    `heads`: the site knows the installed migrations too. Raises Refused.
    """
    site, repository = opened(portal, heads)
    if portal.app is not None and repository.marked("reindex"):
        portal.talk.say(
            "searches still show an old state: `ckan db reindex --changed` brings "
            "the search index up to date"
        )
    return site, repository


def opened(portal: Portal, heads: bool) -> tuple[Site, Repository]:
    """The site and its repository; nothing is told and nothing is written."""
    from ..engine.repository.repository import Repository
    from ..portal.site import build_site

    site = build_site(portal.options, migrations=heads)
    return site, Repository(site.repository, site.secrets, portal.actor)


def refuse_root(site: Site) -> None:
    """Refuses to write as root where a directory is another user's. Raises Refused."""
    from ..engine import owner
    from ..engine.uploads.folders import folders_of

    among = folders_of(site.uploads, Path(site.repository))
    places = [site.repository, site.public_dir, *site.uploads.values()]
    words = [sys.executable, *sys.orig_argv[1:]]
    if ini := os.environ.get("CKAN_INI"):  # sudo takes the environment away
        words = ["env", f"CKAN_INI={ini}", *words]
    places += [str(folder.path) for folder in among]
    owner.refuse_root(filter(None, places), shlex.join(words))


def tidy(site: Site, repository: Repository, talk: Listener) -> None:
    """Finishes or turns back what a killed command left behind."""
    from ..engine.errors import Busy
    from ..engine.operation import Operation
    from ..engine.postgres.locks import live_lock
    from ..engine.restore.recover import recover

    try:
        with live_lock(site.main):
            recover(Operation(site, repository, talk))
    except Busy:
        pass  # its owner is alive and does it


@contextmanager
def application(portal: Portal) -> Iterator[None]:
    """CKAN's application context, its application made where that was not done yet."""
    from ..engine.errors import DbmanageError, message_of

    app = portal.app
    if app is None:
        from ckan.config.middleware import make_app

        try:
            made: Any = make_app(dict(portal.options.settings))  # type: ignore[arg-type]
            app = made._wsgi_app
        except Exception as error:
            raise DbmanageError(
                f"CKAN could not be started: {message_of(error)}"
            ) from error
    with app.test_request_context():
        yield
