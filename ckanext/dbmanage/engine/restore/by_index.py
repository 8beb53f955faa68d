"""What stands in a backup and what is live, side by side, without unpacking.

The index of the backup's records and the same lines of the live database go into
temporary tables of the live database's own session, which nobody else sees.
"""

from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2 import sql

from ..backup import records
from ..backup.indexing import is_there, lines_of
from ..backup.records import Records
from ..postgres.database import Connection
from ..site import Indexed, Site
from .feed import copy_rows
from .source import Source

#: the temporary tables: what is live, and what is in the backup
NOW, THEN = "dbm_now", "dbm_then"
_COLUMNS = "kind text, id text, name text, title text, state text, modified text"
_EACH = f"json_to_record(l.line) AS r({_COLUMNS}, hash text)"


def usable(site: Site, source: Source) -> Records | None:
    """The index of a backup of this site, where it has all kinds of the main database.

    Another's index may say anything, whatever its dump holds. Raises Damaged, OSError.
    """
    if not source.signed or source.backup is None:
        return None
    index = records.of(source.backup)
    if index is None:
        return None
    kinds = {each.kind for each in site.indexed.get("database", ())}
    return index if kinds and kinds <= {*index.table()} else None


def side_by_side(
    connection: Connection, cursor: Any, index: Records, kinds: tuple[Indexed, ...]
) -> bool:
    """Fills `NOW` and `THEN`; not where the live tables are others."""
    there = [each for each in kinds if is_there(connection, each)]
    live = sql.SQL(" UNION ALL ").join(map(lines_of, there))
    if not there:
        live = sql.SQL("SELECT NULL::json AS line WHERE false")
    try:
        _make(cursor, NOW, live)
    except psycopg2.Error:
        connection.rollback()
        return False
    cursor.execute("CREATE TEMPORARY TABLE dbm_lines (line json)")
    copy_rows(cursor, "COPY pg_temp.dbm_lines FROM STDIN", _rows(index, kinds))
    _make(cursor, THEN, sql.SQL("SELECT line FROM pg_temp.dbm_lines"))
    return True


def _make(cursor: Any, name: str, lines: sql.Composable) -> None:
    form = "CREATE TEMPORARY TABLE {} AS SELECT r.* FROM ({}) l, {}"
    cursor.execute(sql.SQL(form).format(sql.Identifier(name), lines, sql.SQL(_EACH)))
    cursor.execute(sql.SQL("ANALYZE pg_temp.{}").format(sql.Identifier(name)))


def _rows(index: Records, kinds: tuple[Indexed, ...]) -> Iterator[bytes]:
    """Blocks of the index's lines, as COPY reads them."""
    table = index.table()
    blocks = [block for each in kinds for block in table[each.kind].blocks]
    for plain in index.plain(blocks):
        yield plain.replace(b"\\", b"\\\\")
