"""The rows of single tables of a dump in segments; no others are unpacked.

A row is what COPY wrote, with its line feed. Fields are compared as they stand there,
escaped: two of the same value are the same bytes. Must not know what the rows mean.
"""

import re
from collections.abc import Collection, Iterator
from functools import cached_property

from ..errors import Damaged
from .contents import CHUNK, Contents, Entry
from .segments import Line, Segments

#: before each piece of a table's rows: a sign and four bytes of its length
_HEADER = 5
#: what pg_dump writes after the last row
_END = b"\\.\n\n\n"
_NAME = r'"(?:[^"]|"")*"|[^\W\d][\w$]*'
_COLUMNS = re.compile(rf"COPY (?:{_NAME})(?:\.(?:{_NAME}))? \((.*)\) FROM stdin;\s*")
#: values that are looked for one by one, before all fields of all rows are cheaper
_FEW = 12

NULL = rb"\N"


class Rows:
    """Reads the rows of a dump's tables, called `schema.table`.

    Raises Damaged, Changed, OSError.
    """

    def __init__(self, dump: Segments, found: Contents) -> None:
        self._dump = dump
        self.entries: dict[str, Entry] = {
            f"{e.schema}.{e.name}": e for e in found.entries if e.kind == "TABLE DATA"
        }

    @cached_property
    def _lines(self) -> dict[str, list[Line]]:
        """The segments by table; all of the list is read, so that it is right."""
        found: dict[str, list[Line]] = {}
        for line in self._dump.lines():
            found.setdefault(line.table, []).append(line)
        return found

    def columns(self, table: str) -> list[str]:
        """The columns of a table, in the order of its rows."""
        entry = self.entries.get(table)
        found = _COLUMNS.fullmatch(entry.copy) if entry else None
        names = re.findall(_NAME, found[1]) if found else []
        return [
            each[1:-1].replace('""', '"') if each[0] == '"' else each for each in names
        ]

    def place(self, table: str, column: str) -> int:
        """Where a column stands in the rows of a table. Raises Damaged without one."""
        names = self.columns(table)
        if column not in names:
            raise Damaged(self._dump.name, [f"table {table} has no column {column}"])
        return names.index(column)

    def size(self, table: str) -> int:
        """The bytes of its rows, about."""
        return sum(line.bytes for line in self._lines.get(table, ()))

    def blocks(self, table: str) -> Iterator[bytes]:
        """All rows of a table, some at a time; a row may be cut between two."""
        end = bytearray()
        for block in self._unframed(table):
            end += block
            if len(end) > len(_END):
                yield bytes(end[: -len(_END)])
                del end[: -len(_END)]
        if end not in (_END, b""):
            raise Damaged(self._dump.name, [f"{table}: its rows have no end"])

    def _pieces(self, table: str) -> Iterator[bytes]:
        for segment in self._dump.pieces(self._lines.get(table, ())):
            for start in range(0, len(segment), CHUNK):
                yield segment[start : start + CHUNK]

    def _unframed(self, table: str) -> Iterator[bytes]:
        left, header = 0, b""
        for piece in self._pieces(table):
            at, found = 0, []
            while at < len(piece):
                if left:
                    found.append(piece[at : at + left])
                    at += len(found[-1])
                    left -= len(found[-1])
                    continue
                end = at + _HEADER - len(header)
                header += piece[at:end]
                at = end
                if len(header) == _HEADER:
                    left = int.from_bytes(header[1:], "little")
                    if header[0]:
                        raise Damaged(self._dump.name, [f"{table}: has no rows"])
                    header = b""
            yield b"".join(found)
        if left or header:
            raise Damaged(self._dump.name, [f"{table}: its rows end too early"])

    def _whole(self, table: str) -> Iterator[bytes]:
        """The same, no row cut."""
        rest = b""
        for block in self.blocks(table):
            end = block.rfind(b"\n") + 1
            if end:
                yield rest + block[:end]
                rest = block[end:]
            else:
                rest += block
        if rest:
            raise Damaged(self._dump.name, [f"{table}: its last row has no end"])

    def all(self, table: str) -> Iterator[list[bytes]]:
        """The fields of all rows."""
        count = len(self.columns(table))
        for block in self._whole(table):
            for row in block.splitlines():
                yield self._fields(table, row, count)

    def having(
        self, table: str, values: Collection[bytes], columns: Collection[str] = ()
    ) -> Iterator[list[bytes]]:
        """The fields of rows with one of these values, in one of these columns.

        In any column when none is named. The last field has no line feed.
        """
        names = self.columns(table)
        places = [names.index(each) for each in columns if each in names]
        if columns and not places:
            return
        wanted = frozenset(values) - {NULL, b""}
        for block in self._whole(table):
            for row in _candidates(block, wanted):
                fields = self._fields(table, row, len(names))
                looked = [fields[at] for at in places] if columns else fields
                if not wanted.isdisjoint(looked):
                    yield fields

    def _fields(self, table: str, row: bytes, count: int) -> list[bytes]:
        fields = row.split(b"\t")
        if len(fields) != count:
            what = f"table {table}: a row has {len(fields)} fields, not {count}"
            raise Damaged(self._dump.name, [what])
        return fields


def _candidates(block: bytes, values: frozenset[bytes]) -> Iterator[bytes]:
    """The rows of a block that may have one of the values, each once."""
    if len(values) > _FEW:
        yield from block.splitlines()
        return
    starts = dict[int, int]()
    for value in values:
        at = block.find(value)
        while at >= 0:
            start, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
            starts[start] = end
            at = block.find(value, end)
    for start, end in sorted(starts.items()):
        yield block[start:end]


_ESCAPED = re.compile(rb"[\\\n\t\r\b\f\v]")
_ESCAPES = {b"\b": rb"\b", b"\f": rb"\f", b"\n": rb"\n", b"\r": rb"\r", b"\t": rb"\t",
            b"\v": rb"\v", b"\\": rb"\\"}  # fmt: skip
_BACK = {each[1:]: plain for plain, each in _ESCAPES.items()}


def escaped(text: str) -> bytes:
    """A text as COPY writes it."""
    return _ESCAPED.sub(lambda m: _ESCAPES[m[0]], text.encode("utf-8", "replace"))


def plain(field: bytes) -> str:
    """The text of a field, an empty one for NULL."""
    if field == NULL:
        return ""
    text = re.sub(rb"\\(.)", lambda m: _BACK.get(m[1], m[1]), field, flags=re.DOTALL)
    return text.decode("utf-8", "replace")
