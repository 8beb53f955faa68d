"""A dump is cut into segments while pg_dump writes it.

A table's rows are cut from its start, every `SEGMENT` bytes: what changes in one table
moves no cut of another. The table of contents stands apart, and so do the few bytes
before each table's rows: their numbers change when any table comes or goes. Who puts
the segments together again need not know where the cuts are.
"""

from collections.abc import Iterator
from typing import Any

from .contents import CHUNK, read_contents
from .frames import SEGMENT

#: the "table" of what is no table's rows
CONTENTS = ""
#: before a table's rows: a kind of block, a sign and the number of the entry
_HEADER = 6
#: after them: the newline of the last row, and a row of no bytes. Rows of COPY hold no
#: NUL, and no row is empty, so this is found nowhere else in them
_END = b"\n\0\0\0\0\0"
_NEXT = _END + b"\1\0"


def cut(stream: Any) -> Iterator[tuple[str, int, bytes]]:
    """The segments of a dump by `pg_dump -Fc -Z0`: table, number within it, bytes.

    Their bytes, one after the other, are the dump. Raises Damaged, Refused.
    """
    kept = _Kept(stream)
    entries = read_contents(kept, "the dump").entries
    names = {e.id: f"{e.schema}.{e.name}" for e in entries if e.kind == "TABLE DATA"}
    for number, start in enumerate(range(0, len(kept.content), SEGMENT)):
        yield CONTENTS, number, bytes(kept.content[start : start + SEGMENT])
    buffer = bytearray(stream.read(CHUNK))
    while buffer:
        header = bytes(buffer[:_HEADER])
        del buffer[:_HEADER]
        yield CONTENTS, 0, header
        table = names.get(int.from_bytes(header[2:], "little"), CONTENTS)
        for number, piece in enumerate(_rows(buffer, stream)):
            yield table, number, piece


def _rows(buffer: bytearray, stream: Any) -> Iterator[bytes]:
    """The rows of one table; what follows them is left in the buffer."""
    searched, end = 0, -1
    while end < 0:
        found = buffer.find(_NEXT, searched)
        end = found + len(_END) if found >= 0 else -1
        searched = max(0, len(buffer) - len(_NEXT) + 1)
        while end < 0 and len(buffer) > SEGMENT + len(_NEXT):
            yield bytes(buffer[:SEGMENT])
            del buffer[:SEGMENT]
            searched -= SEGMENT
        if end < 0:
            chunk = stream.read(CHUNK)
            buffer += chunk
            end = -1 if chunk else len(buffer)
    for start in range(0, end, SEGMENT):
        yield bytes(buffer[start : min(start + SEGMENT, end)])
    del buffer[:end]


class _Kept:
    """A stream that keeps what is read of it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.content = stream, bytearray()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        chunk = self._stream.read(size)
        self.content += chunk
        return chunk
