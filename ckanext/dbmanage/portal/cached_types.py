"""A process forgets what it cached of a database that was replaced.

After a switch the live name stands for another database, with other OIDs; CKAN's
DataStore keeps type OIDs for the life of the process, and `datastore_search` would
answer 500 for ever. Web processes, workers and the command line alike see the new OID
on their next new connection. Needs no Redis and no restart.
"""

import sys
import threading
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

_seen: dict[str, int] = {}
_guard = threading.Lock()


def listen() -> None:
    """Starts to look at each new connection; a second call changes nothing."""
    if not event.contains(Pool, "connect", _on_connect):
        event.listen(Pool, "connect", _on_connect)


def _on_connect(connection: Any, _record: object) -> None:
    if not type(connection).__module__.startswith("psycopg2"):
        return  # another extension's SQLite
    with connection.cursor() as cursor:
        cursor.execute(
            # a connection of CKAN's: anybody may have put names before these
            "SELECT datname, oid::pg_catalog.int8 FROM pg_catalog.pg_database"
            " WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
        )
        name, oid = cursor.fetchone()
    connection.rollback()
    key = f"{connection.info.host}:{connection.info.port}/{name}"
    # nobody gets a connection to the new database before the old one is forgotten
    with _guard:
        if _seen.setdefault(key, oid) != oid:
            backend: Any = sys.modules.get("ckanext.datastore.backend.postgres")
            if backend is not None:
                backend._pg_types.clear()
                backend._type_names.clear()
            _seen[key] = oid
