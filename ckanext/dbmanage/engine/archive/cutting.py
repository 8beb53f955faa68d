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

#: the "tables" of what is no table's rows
CONTENTS, LARGE = "", "large objects"
#: before a table's rows: a kind of block, a sign and the number of the entry
_HEADER = 6
#: the kind of a table's rows
_ROWS = 1
#: after them: a row of no bytes, which is a sign and a length of zero. Rows of COPY
#: hold no NUL, and none of them is empty, so this is found nowhere else in them
_END = b"\0\0\0\0\0"


def cut(stream: Any) -> Iterator[tuple[str, int, bytes]]:
    """The segments of a dump by `pg_dump -Fc -Z0`: table, number within it, bytes.

    Their bytes, one after the other, are the dump. Raises Damaged, Refused.
    """
    kept = _Kept(stream)
    entries = read_contents(kept, "the dump").entries
    names = {e.id: f"{e.schema}.{e.name}" for e in entries if e.kind == "TABLE DATA"}
    for number, start in enumerate(range(0, len(kept.content), SEGMENT)):
        yield CONTENTS, number, bytes(kept.content[start : start + SEGMENT])
    buffer = bytearray()
    while header := _header(buffer, stream):
        yield CONTENTS, 0, header
        # large objects come last, and hold any bytes: no end is looked for
        rows = header[0] == _ROWS
        number = int.from_bytes(header[2:], "little")
        table = names.get(number, CONTENTS) if rows else LARGE
        for place, piece in enumerate(_until(_END if rows else b"", buffer, stream)):
            yield table, place, piece


def _header(buffer: bytearray, stream: Any) -> bytes:
    while len(buffer) < _HEADER and (chunk := stream.read(CHUNK)):
        buffer += chunk
    header = bytes(buffer[:_HEADER])
    del buffer[:_HEADER]
    return header


def _until(mark: bytes, buffer: bytearray, stream: Any) -> Iterator[bytes]:
    """What comes up to the mark and with it; what follows is left in the buffer."""
    searched, end = 0, -1
    while end < 0:
        found = buffer.find(mark, searched) if mark else -1
        end = found + len(mark) if found >= 0 else -1
        searched = max(0, len(buffer) - len(mark) + 1)
        while end < 0 and len(buffer) > SEGMENT + len(mark):
            yield _first(buffer, SEGMENT)
            del buffer[:SEGMENT]
            searched -= SEGMENT
        if end < 0:
            chunk = stream.read(CHUNK)
            buffer += chunk
            end = -1 if chunk else len(buffer)
    while end > 0:
        size = min(SEGMENT, end)
        yield _first(buffer, size)
        del buffer[:size]
        end -= size


def _first(buffer: bytearray, size: int) -> bytes:
    with memoryview(buffer) as view:  # a slice of it would be copied twice
        return bytes(view[:size])


class _Kept:
    """A stream that keeps what is read of it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.content = stream, bytearray()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        chunk = self._stream.read(size)
        self.content += chunk
        return chunk
