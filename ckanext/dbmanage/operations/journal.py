"""The journal's line of an operation that needs no repository."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg2 import Error as DatabaseError
from sqlalchemy.exc import SQLAlchemyError

from ..engine import owner
from ..engine.errors import DbmanageError, Refused, explanation_of
from ..engine.report import Warn
from ..engine.repository.repository import Repository
from .context import Portal, find_site
from .in_use import why_empty

#: errors whose text is for people; others may say anything
TOLD = (DbmanageError, DatabaseError, SQLAlchemyError, OSError)


def reason(failure: BaseException) -> str:
    """Why something failed, for people; of an error that nobody foresaw its name."""
    if isinstance(failure, TOLD):
        return explanation_of(failure)
    return type(failure).__name__


@contextmanager
def journalled(
    portal: Portal, what: str, of: str, **facts: Any
) -> Iterator[tuple[Repository | None, dict[str, Any]]]:
    """Notes how an operation ends, who asked, and the `facts` that the block adds.

    An export or a publication needs no repository, so it works without one: then the
    block gets None. That the line cannot be written is a warning.
    """
    repository, event = writable(portal, portal.talk.warn), "done"
    try:
        yield repository, facts
    except BaseException as failure:
        event = "failed" if isinstance(failure, Exception) else "cancelled"
        if event == "failed":
            facts["error"] = reason(failure)
        raise
    finally:
        if repository:
            try:
                repository.record(of, event, what=what, **facts)
            except OSError as error:
                portal.talk.warn(f"not noted in the journal: {explanation_of(error)}")


def writable(portal: Portal, warn: Warn = lambda _: None) -> Repository | None:
    """The repository, where a line of this user's in its journal does no harm.

    None where there is none, or where it is another user's, which is told.
    """
    try:
        site, repository = find_site(portal)
    except Refused:  # there is no place for one
        return None
    found = None
    with suppress(OSError):  # then no line can be written, which is told
        found = owner.foreign([site.repository]) if os.geteuid() == 0 else None
    if found:  # a journal that is root's would lock CKAN's user out
        directory, user = found
        warn(
            f"not noted in the journal: this runs as root, and {directory} belongs to "
            f"the user {user}"
        )
        return None
    way = (repository.path, *repository.path.parents)
    place = next(path for path in way if os.path.exists(path))
    if os.geteuid() not in (0, place.stat().st_uid):  # it would be made another's
        warn(
            f"not noted in the journal: {place} belongs to another user than this "
            "command runs as"
        )
        return None
    if why := why_empty(portal.options, site, repository):
        warn(f"not noted in the journal: {why}")
        return None
    return repository
