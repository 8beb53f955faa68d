"""The databases are backed up, then emptied."""

from ..engine.backup.take import take
from ..engine.errors import Refused
from ..engine.operation import Operation
from ..engine.postgres.database import closing
from ..engine.postgres.emptying import Emptying, emptying
from ..engine.postgres.locks import live_lock
from ..engine.postgres.tables import drop_tables
from ..engine.repository.repository import Repository
from ..engine.signals import uninterrupted
from ..engine.site import Site
from .context import Portal, application
from .locked import let_go, locked
from .stages import of_backup, staged


def look_at_clean(portal: Portal) -> tuple[Site, Emptying]:
    """The site, and what cleaning would take from it; what goes along is told.

    The repository is free again when this returns.
    """
    with locked(portal, "clean") as (site, _):
        return site, _planned(portal, site)


def run_clean(
    portal: Portal, no_backup: bool, confirmed: Emptying | None = None
) -> list[str]:
    """Takes a backup of the database, unless there is nothing in it, and empties it.

    Nothing else may go than was `confirmed`. The search index is emptied too; that it
    cannot be is told. Returns what stays, a sentence each. Raises Refused, and what a
    backup raises.
    """
    talk = portal.talk
    with locked(portal, "clean") as (site, repository):
        planned = _planned(portal, site, tell=confirmed is None)
        if confirmed and (more := _named(planned) - _named(confirmed)):
            raise Refused(
                "what was confirmed has changed since, and nothing was touched: "
                f"{', '.join(sorted(more))} would go too. Look at it again"
            )
        let_go()
        parts = ("database",) if planned.tables and not no_backup else ()
        ahead = [*(of_backup(parts) if parts else ()), "empty", "index"]
        with staged(portal, repository, "clean", ahead):
            if parts:
                op = Operation(site, repository, talk)
                taken = take(op, parts=parts, reason="before clean")
                talk.say(f"what was there is backup {taken.id}")
            _empty(portal, site, repository, planned)
            _clear_index(portal)
    return planned.stays


def _empty(
    portal: Portal, site: Site, repository: Repository, planned: Emptying
) -> None:
    standing = portal.talk.standing
    portal.talk.progress("empty", 0, 0)
    with (
        closing(site.databases["database"].connect()) as connection,
        live_lock(site.main),
        uninterrupted(),  # its statement does not end for a signal anyway
    ):
        drop_tables(connection, planned.tables)
        standing.done = "CKAN's tables are gone; `ckan db init` creates new ones"
        standing.owed[:] = [
            "searches still show what was there: `ckan search-index clear`"
        ]
        repository.record("clean", "done", what="clean", tables=len(planned.tables))


def _clear_index(portal: Portal) -> None:
    from ckan.lib.search import clear_all

    from ..records.search_index import unanswered

    portal.talk.progress("index", 0, 0)
    try:
        with application(portal):
            clear_all()
    except Exception as error:
        portal.talk.warn(
            "the search index could not be emptied, so searches still show what was "
            f"there: {unanswered(error)}. Later run `ckan search-index clear`"
        )
    else:
        portal.talk.standing.owed.clear()


def _planned(portal: Portal, site: Site, tell: bool = True) -> Emptying:
    with closing(site.databases["database"].connect()) as connection:
        planned = emptying(connection)
    for goes in planned.along if tell else ():
        portal.talk.warn(f"this goes too, for it needs CKAN's tables: the {goes}")
    return planned


def _named(planned: Emptying) -> set[str]:
    return {*map(".".join, planned.tables), *planned.along}
