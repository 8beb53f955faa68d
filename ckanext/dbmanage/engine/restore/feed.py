"""Rows are fed into a table as they come, in flat memory."""

from collections.abc import Iterator
from typing import Any

import psycopg2

#: bytes that the server is handed at once
_PORTION = 1 << 16


def copy_rows(cursor: Any, statement: Any, rows: Iterator[bytes]) -> None:
    """Runs a `COPY … FROM STDIN` with these rows, each as COPY reads it.

    Raises what ends the rows, as it is, and psycopg2.Error.
    """
    feed = _Feed(rows)
    try:
        cursor.copy_expert(statement, feed)
    except psycopg2.Error:
        if feed.broken is not None:  # psycopg2 keeps its words alone
            raise feed.broken from None
        raise


class _Feed:
    """Rows as a file to read; `broken` is what ended them."""

    def __init__(self, rows: Iterator[bytes]) -> None:
        self._rows = rows
        self.broken: Exception | None = None

    def read(self, _size: int = -1) -> bytes:
        """Some rows, nothing at the end."""
        portion = bytearray()
        try:
            while len(portion) < _PORTION and (row := next(self._rows, None)):
                portion += row
        except Exception as error:
            self.broken = error
            raise
        return bytes(portion)
