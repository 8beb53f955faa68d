"""The way in: a site is opened for one operation."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..engine import owner
from ..engine.errors import DbmanageError, message_of
from ..engine.report import Listener
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..engine.uploads.folders import folders_of
from ..portal.config import Options
from ..portal.site import build_site


@dataclass(frozen=True)
class Portal:
    """A CKAN site, as an operation works on it.

    `app` is CKAN's Flask application, None where CKAN was not started; `actor` what
    the journal notes of who asked, and why: `{user, address, note}`.
    """

    options: Options
    talk: Listener
    app: Any = None
    actor: Mapping[str, str] = field(default_factory=dict)


def open_site(portal: Portal) -> tuple[Site, Repository]:
    """The site and its repository, to be read; tells that the index is owed.

    Raises Refused.
    """
    site, repository = find_site(portal)
    if portal.app is not None and repository.marked("reindex"):
        portal.talk.say(
            "searches still show an old state: `ckan db reindex --changed` brings "
            "the search index up to date"
        )
    return site, repository


def find_site(portal: Portal, heads: bool = False) -> tuple[Site, Repository]:
    """The site and its repository; nothing is told and nothing is written.

    `heads`: the site knows the installed migrations too. Raises Refused.
    """
    site = build_site(portal.options, migrations=heads)
    return site, Repository(site.repository, site.secrets, portal.actor)


def refuse_root(site: Site) -> None:
    """Refuses to write as root where a directory is another user's. Raises Refused."""
    among = folders_of(site.uploads, Path(site.repository))
    places = [site.repository, site.public_dir, *site.uploads.values()]
    words = [sys.executable, *sys.orig_argv[1:]]
    if ini := os.environ.get("CKAN_INI"):  # sudo takes the environment away
        words = ["env", f"CKAN_INI={ini}", *words]
    places += [str(folder.path) for folder in among]
    owner.refuse_root(filter(None, places), shlex.join(words))


def started(portal: Portal) -> Portal:
    """The portal with CKAN's application, which is made where there is none yet.

    Raises DbmanageError.
    """
    if portal.app is not None:
        return portal
    from ckan.config.middleware import make_app

    try:
        made: Any = make_app(dict(portal.options.settings))  # type: ignore[arg-type]
    except Exception as error:
        raise DbmanageError(
            f"CKAN could not be started: {message_of(error)}"
        ) from error
    return replace(portal, app=made._wsgi_app)


@contextmanager
def application(portal: Portal) -> Iterator[None]:
    """CKAN's application context; the application is made where there is none yet."""
    with started(portal).app.test_request_context():
        yield
