"""The databases are backed up, then emptied."""

from __future__ import annotations

from .context import Portal, application, tidy
from .index import open_to_change
from .restore import Agree, let_go


def clean(portal: Portal, no_backup: bool, agree: Agree) -> list[str]:
    """Takes a backup of the database, unless there is nothing in it, and empties it.

    The search index is emptied too; that it cannot be is told, and before anything is
    asked what goes along with CKAN's tables. Returns what stays, a sentence each.
    Raises Refused, and what a backup raises.
    """
    from ckan.lib.search import clear_all

    from ..engine.backup.take import take
    from ..engine.operation import Operation
    from ..engine.postgres.database import closing
    from ..engine.postgres.emptying import emptying
    from ..engine.postgres.locks import live_lock
    from ..engine.postgres.tables import drop_tables, tables_of

    talk = portal.talk
    site, repository = open_to_change(portal)
    with repository.lock("clean"):
        tidy(site, repository, talk)
        database = site.databases["database"]
        with closing(database.connect()) as connection:
            for goes in emptying(connection).along:
                talk.warn(f"this goes too, for it needs CKAN's tables: the {goes}")
        agree(site, repository, None)
        let_go()
        with closing(database.connect()) as connection:
            tables = tables_of(connection)
            planned = emptying(connection)
            connection.rollback()
            if planned.tables and not no_backup:
                op = Operation(site, repository, talk)
                taken = take(op, parts=("database",), reason="before clean")
                talk.end()
                talk.say(f"what was there is backup {taken.id}")
            with live_lock(site.main):
                drop_tables(connection, planned.tables)
        repository.record("clean", "done", what="clean", tables=len(tables))
    try:
        with application(portal):
            clear_all()
    except Exception as error:
        talk.warn(
            "the search index still shows what was there, for it could not be emptied "
            f"({type(error).__name__}): `ckan search-index clear` does it later"
        )
    return planned.stays
