"""How many datasets there are, and how many changed since: asked of CKAN's tables.

For a question that is asked, or a page that is shown: it is quick, or gives up, and
raises nothing.
"""

from contextlib import suppress
from datetime import datetime, timezone

from psycopg2 import Error as DatabaseError

from ..engine.errors import DbmanageError
from ..engine.postgres.database import closing, query
from ..engine.site import Site

_LIMITS = "SET statement_timeout = '3s'; SET lock_timeout = '1s'"
#: moments in CKAN's tables are UTC, and have no zone
_CHANGED = (
    "SELECT id FROM public.package"
    " WHERE metadata_modified > %(since)s OR metadata_created > %(since)s"
)
#: what was deleted has the time of its last change still
_DELETED = (
    "SELECT object_id FROM public.activity"
    " WHERE timestamp > %(since)s AND activity_type = 'deleted package'"
)


def datasets(site: Site, since: datetime | None = None) -> int | None:
    """The datasets that are there, or those changed, made or deleted since a moment.

    None where nobody knows.
    """
    with (
        suppress(DatabaseError, DbmanageError),
        closing(site.main.connect(connect_timeout=3)) as connection,
    ):
        connection.autocommit = True
        query(connection, _LIMITS)
        if since is None:
            there = "SELECT count(*) FROM public.package WHERE state = 'active'"
            return query(connection, there)[0][0]
        statement = _CHANGED
        known = "SELECT to_regclass('public.activity') IS NOT NULL"
        if query(connection, known) == [(True,)]:
            statement += f" UNION {_DELETED}"
        moment = since.astimezone(timezone.utc).replace(tzinfo=None)
        counted = f"SELECT count(*) FROM ({statement}) changed"  # noqa: S608
        return query(connection, counted, {"since": moment})[0][0]
    return None
