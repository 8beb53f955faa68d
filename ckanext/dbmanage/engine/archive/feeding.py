"""Loads an archive that nobody signed: pg_restore writes the SQL, this sends it.

pg_restore itself sends an entry's text as it stands, and rows as SQL where an archive
says so: a COMMIT in either ends its transaction. Here all of it is one transaction that
nothing sent can end: each statement is looked at, and then run by a DO block, inside
which PostgreSQL refuses COMMIT, ROLLBACK and their like, and what cannot run in a
transaction, as DROP DATABASE. Rows go by COPY alone. Must not know what is restored.
"""

import io
import re
import secrets
from typing import IO, Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from ..errors import Refused, ToolFailed
from ..postgres.database import Connection
from ..postgres.programs import finish, running
from . import lint
from .statements import Odd, Statement, Statements

#: lines for psql alone, that newer versions write; and ours is the only transaction
_FOR_PSQL = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\n")
_OURS = ("begin", "commit")


def load(connection: Connection, arguments: list[str], name: str) -> str:
    """Loads what a pg_restore with these arguments writes to its standard output.

    All or nothing, into the database of the connection. Returns what pg_restore said
    on stderr. Raises Refused for what is odd, ToolFailed.
    """
    with running(arguments, stdin=-3, stdout=-1) as process:
        assert process.stdout is not None
        try:
            with connection:
                _feed(connection, process.stdout)
                return finish(process, f"reading {name}")
        except Odd as odd:
            raise Refused(lint.refusal(name, f"what it holds {odd}")) from None
        except psycopg2.Error as error:
            raise ToolFailed(
                f"restoring {name} into a copy failed: {str(error).strip()}"
            ) from error


def run(connection: Connection, text: str, name: str) -> None:
    """Runs the SQL of one entry of an archive in the connection's transaction.

    Nothing in it can end that. Raises Refused for what is odd, psycopg2.Error.
    """
    statements = Statements()
    try:
        for statement in (*statements.feed(text), *statements.end()):
            _send(connection, statement, io.BytesIO())
    except Odd as odd:
        raise Refused(lint.refusal(name, f"what it holds {odd}")) from None


def _feed(connection: Connection, script: IO[bytes]) -> None:
    statements = Statements()
    for line in iter(script.readline, b""):
        if statements.between and _FOR_PSQL.fullmatch(line):
            continue
        # a byte a letter: signs of SQL are the same bytes in every encoding let through
        for statement in statements.feed(line.decode("latin-1")):
            _send(connection, statement, script)
    for statement in statements.end():
        _send(connection, statement, script)


def _send(connection: Connection, statement: Statement, script: IO[bytes]) -> None:
    with connection.cursor() as cursor:
        text = statement.text.encode("latin-1")
        if lint.COPY.fullmatch(statement.text):
            rows: Any = _Rows(script)
            cursor.copy_expert(text, rows)
        elif statement.words(2) not in _OURS:
            lint.refuse_statement(statement)
            mark = b"$dbm_" + secrets.token_hex(8).encode() + b"$"
            inner = b"EXECUTE " + mark + text + mark
            outer = b"$dbm_" + secrets.token_hex(8).encode() + b"$"
            cursor.execute(b"DO " + outer + b"BEGIN " + inner + b"; END" + outer)
    if connection.info.transaction_status != TRANSACTION_STATUS_INTRANS:
        raise Odd("ended the transaction")


class _Rows:
    """The rows of one COPY in pg_restore's script, as a file to read."""

    def __init__(self, script: IO[bytes]) -> None:
        self._script, self._begun, self._ended = script, False, False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of one row, none at the end."""
        if self._ended:
            return b""
        chunk = self._script.readline(size)
        self._ended = not chunk or (chunk == b"\\.\n" and not self._begun)
        self._begun = not chunk.endswith(b"\n")
        return b"" if self._ended else chunk
