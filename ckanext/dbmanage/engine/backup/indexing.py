"""The index of records, out of the snapshots that are dumped; and of what is live."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import psycopg2
from psycopg2 import sql

from ..errors import message_of
from ..postgres.database import Connection, query
from ..site import Indexed
from .records import LETTERS, Writer

_SHORT = ("id", "name", "title", "state", "owner", "hash")


def lines_of(kind: Indexed) -> sql.Composable:
    """SQL for the id, the name and the `line` of each record of a kind."""
    short = {name: f"left({name}::text, {LETTERS}) AS {name}" for name in _SHORT}
    fields = [short[name] for name in ("id", "name", "title", "state", "owner")]
    fields += ["modified", short["hash"]]
    # all of it is handed in by our own code, nothing that a user says
    return sql.SQL(
        "SELECT id, name, row_to_json(r) AS line FROM (SELECT {}::text AS kind, {}"
        " FROM ({}) s) r"
    ).format(sql.Literal(kind.kind), sql.SQL(", ".join(fields)), sql.SQL(kind.select))


def index(
    connection: Connection,
    snapshot: str,
    kinds: Iterable[Indexed],
    writer: Writer,
    hashes: Mapping[str, str],
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Adds the lines of some kinds, as an exported snapshot has them.

    Each of `hashes` goes to the line of its id. A kind that cannot be read whole, as
    one whose table has other columns, is left out, which is told: nobody knows of it
    then, and the backup is taken all the same.
    """
    for kind in kinds:
        with suppress(psycopg2.Error):  # of a connection that is gone
            query(connection, "ROLLBACK")
        try:
            query(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            query(connection, "SET TRANSACTION SNAPSHOT %s", snapshot)
            if kind.table and not is_there(connection, kind):
                continue
            copy = sql.SQL('COPY ({} ORDER BY id COLLATE "C") TO STDOUT')
            lines = writer.add(kind.kind)
            lines.hashes = hashes
            try:
                with connection.cursor() as cursor:
                    cursor.copy_expert(copy.format(lines_of(kind)), lines)
            except psycopg2.Error:
                writer.leave_out()
                raise
            lines.close()
        except psycopg2.Error as error:
            said = message_of(error).partition(" LINE ")[0]
            warn(f"the index of records has no line of any {kind.kind}: {said}")


def is_there(connection: Connection, kind: Indexed) -> bool:
    """Whether the table of a kind is there."""
    name = f'public."{kind.table}"'
    return query(connection, "SELECT to_regclass(%s)::text", name) != [(None,)]
