"""The index of a backup: a line for each record in its databases, `records.jsonl.zst`.

    {"kind":…,"id":…,"name":…,"title":…,"state":…,"owner":…,"modified":…,"hash":…}

Frames of zstd, each of so many lines of one kind, ordered by their ids. Behind them, in
a frame that zstd skips, stands a table of the frames: kind, first id, place, sum, and
of each line two bytes that its name gives. So one record of a hundred thousand is found
by a look at the table and at one frame, and the manifest vouches for both: it has the
sum of the table, the table those of the frames. Hostile until these are right, and
bounded even then. Must not know what the kinds are.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from ..errors import Changed, Damaged
from ..layout import RECORDS
from ..opened import open_plain
from ..repository.backup import Backup
from ..signature import Hashed

#: lines of a frame, and bytes of one in a frame that is ours
_LINES, _MAX_LINE = 1000, 1 << 16
#: bytes that a frame, and the table, may unpack to: 1000 of our lines have 2 MB
_MOST, _MOST_TABLE = 16 << 20, 64 << 20
#: before the table: the mark of a frame to be skipped, and its length
_SKIPPED = struct.Struct("<II")
_MARK = 0x184D2A50
#: letters of each field; whoever wrote more is told apart by the others
LETTERS = 200
FIELDS = ("kind", "id", "name", "title", "state", "owner", "modified", "hash")


class Block(NamedTuple):
    """A frame of lines of one kind, and the two bytes of each of their names."""

    kind: str
    first: str
    at: int
    bytes: int
    sha256: str
    names: str

    def may_name(self, mark: bytes) -> bool:
        """Whether a line of it may have the name with this mark."""
        try:
            marks = base64.b64decode(self.names)
        except ValueError:  # one that is none of ours may have any
            return True
        at = marks.find(mark)
        while at > 0 and at % 2:  # amid two others
            at = marks.find(mark, at + 1)
        return at >= 0


@dataclass(frozen=True)
class Table:
    """What an index holds: its kinds, those of no record too, and its blocks."""

    kinds: tuple[str, ...]
    blocks: tuple[Block, ...]

    def with_id(self, kind: str, id: str) -> list[Block]:
        """The block that an id of a kind would be in, or none."""
        blocks = [each for each in self.blocks if each.kind == kind]
        at = bisect_right([each.first for each in blocks], id)
        return blocks[at - 1 : at] if at else []

    def with_name(self, kind: str, name: str) -> list[Block]:
        """The blocks that a name of a kind may be in."""
        mark = _mark(name.encode("utf-8", "replace"))
        blocks = (each for each in self.blocks if each.kind == kind)
        return [each for each in blocks if each.may_name(mark)]


def _mark(name: bytes) -> bytes:
    return (zlib.crc32(name) & 0xFFFF).to_bytes(2, "little")


# ------------------------------------------------------------------ written


class Writer:
    """An index in the making, written to `file`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._out = Hashed(file)
        self._packer = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._kinds: list[str] = []
        self._blocks: list[dict[str, Any]] = []

    def add(self, kind: str) -> Lines:
        """Where the lines of a kind go, which then is one of those that it holds."""
        self._kinds.append(kind)
        return Lines(self, kind)

    def leave_out(self, kind: str) -> None:
        """Takes a kind back that no line was written of."""
        self._kinds.remove(kind)

    def frame(self, kind: str, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        """Writes a frame: ids, names and lines, in order."""
        packed = self._packer.compress(b"".join([line for *_, line in rows]))
        marks = b"".join([_mark(name) for _, name, _ in rows])
        block = {
            "kind": kind,
            "first": rows[0][0].decode("utf-8", "replace"),
            "at": self._out.bytes,
            "bytes": len(packed),
            "sha256": sha256(packed).hexdigest(),
            "names": base64.b64encode(marks).decode(),
        }
        self._out.write(packed)
        self._blocks.append(block)

    def finish(self) -> dict[str, Any]:
        """Writes the table; what the manifest says of the file."""
        document = {"kinds": self._kinds, "blocks": self._blocks}
        packed = self._packer.compress(json.dumps(document).encode())
        table = _SKIPPED.pack(_MARK, len(packed)) + packed
        self._out.write(table)
        return {
            "bytes": self._out.bytes,
            "sha256": self._out.sha256,
            "table": {"bytes": len(table), "sha256": sha256(table).hexdigest()},
        }


class Lines:
    """Takes rows as COPY writes them: id, name, line; to be closed.

    Each line of an id in `hashes` gets that as its hash.
    """

    def __init__(self, writer: Writer, kind: str) -> None:
        self._writer, self._kind = writer, kind
        self._rows: list[tuple[bytes, bytes, bytes]] = []
        self.hashes: Mapping[str, str] = {}

    def write(self, row: bytes) -> int:
        """Takes one row, as psycopg2 hands it over."""
        id, name, line = row.split(b"\t", 2)
        if b"\\" in row:
            id, name, line = map(_unescaped, (id, name, line))
        if self.hashes:
            known = json.loads(line)
            line = format_line(known | {"hash": self.hashes.get(known["id"])})
        self._rows.append((id, name, line))
        if len(self._rows) == _LINES:
            self.close()
        return len(row)

    def close(self) -> None:
        """Writes what is left."""
        if self._rows:
            self._writer.frame(self._kind, self._rows)
            self._rows = []


_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
            b"v": b"\v", b"N": b""}  # fmt: skip


def _unescaped(text: bytes) -> bytes:
    """What COPY wrote."""
    return re.sub(rb"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text)


def format_line(facts: Mapping[str, Any]) -> bytes:
    """The line that tells these facts, as PostgreSQL's `row_to_json` writes it."""
    return _json(facts) + b"\n"


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


# ------------------------------------------------------------------ read


@dataclass(frozen=True)
class Records:
    """The index of a backup, and what the manifest says of it.

    All that reads raises Damaged, Changed for what is not as it was, and OSError.
    """

    path: Path
    bytes: int
    sha256: str
    table_bytes: int = field(repr=False, default=0)
    table_sha256: str = field(repr=False, default="")

    def table(self) -> Table:
        """What it holds, in order; the blocks are all of the file before the table."""
        with open_plain(self.path) as file:
            return self._table(file)

    def _table(self, file: IO[bytes]) -> Table:
        start = self.bytes - self.table_bytes
        content = self._read(file, start, self.table_bytes, self.table_sha256)
        try:
            document = json.loads(_unpacked(content[_SKIPPED.size :], _MOST_TABLE))
            kinds, blocks = document["kinds"], document["blocks"]
            table = Table(
                tuple(kind for kind in kinds if isinstance(kind, str)),
                tuple(
                    Block(*map(block.__getitem__, Block._fields)) for block in blocks
                ),
            )
            end, sound = 0, len(table.kinds) == len(kinds)
            for each in table.blocks:
                numbers = type(each.at) is int and type(each.bytes) is int
                texts = (each.kind, each.first, each.sha256, each.names)
                sound &= numbers and all(isinstance(text, str) for text in texts)
                sound = sound and each.at == end and each.bytes > 0
                end = end + each.bytes if sound else -1
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError,
                zstandard.ZstdError) as error:  # fmt: skip
            raise self._damaged("has no table of what it holds") from error
        if end != start:
            raise self._damaged("has a table that is not of its lines")
        return table

    def lines(self, blocks: Iterable[Block]) -> Iterator[bytes]:
        """The lines of some blocks, as they are, each ending in a line feed."""
        for plain in self.plain(blocks):
            yield from plain.splitlines(keepends=True)

    def plain(self, blocks: Iterable[Block]) -> Iterator[bytes]:
        """Blocks of lines."""
        with open_plain(self.path) as file:
            for each in blocks:
                packed = self._read(file, each.at, each.bytes, each.sha256)
                try:
                    plain = _unpacked(packed, _MOST)
                except zstandard.ZstdError as error:
                    raise self._damaged(f"cannot be unpacked: {error}") from error
                if not plain.endswith(b"\n"):
                    raise self._damaged("has a line without an end")
                yield plain

    def find(self, blocks: Iterable[Block], key: str, value: str) -> Iterator[Line]:
        """The lines of some blocks whose `key`, id or name, is this."""
        wanted = _json(key) + b":" + _json(value)
        for plain in self.plain(blocks):
            at = plain.find(wanted)
            while at >= 0:
                start, end = plain.rfind(b"\n", 0, at) + 1, plain.find(b"\n", at)
                facts = parse_line(plain[start:end])
                if facts and facts.get(key) == value:
                    yield facts
                at = plain.find(wanted, end)

    def problems(self) -> list[str]:
        """What is wrong inside, once its sum is right; a sentence for each.

        Raises PermissionError.
        """
        try:
            for line in self.lines(self.table().blocks):
                if len(line) > _MAX_LINE or not line.startswith(b'{"kind":"'):
                    return [f"{RECORDS}: has a line that names no record"]
        except Damaged as error:
            return error.problems
        except PermissionError:
            raise
        except OSError as error:
            return [f"{RECORDS}: {error.strerror}"]
        return []

    def _read(self, file: IO[bytes], start: int, size: int, sum: str) -> bytes:
        if not _SKIPPED.size < size <= _MOST_TABLE or start < 0:
            raise self._damaged("has a table that is not of its lines")
        file.seek(start)
        content = file.read(size)
        if sha256(content).hexdigest() != sum:
            raise Changed(RECORDS, [f"{RECORDS}: was changed (checksum)"])
        return content

    def _damaged(self, what: str) -> Damaged:
        return Damaged(RECORDS, [f"{RECORDS}: {what}"])


#: a line's facts; each is a text or None
Line = dict[str, Any]


def parse_line(line: bytes) -> Line | None:
    """The facts of a line, which may be hostile; None where it tells of no record."""
    if len(line) > _MAX_LINE:
        return None
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or not isinstance(facts.get("id"), str):
        return None
    found = {name: facts.get(name) for name in FIELDS}
    texts = all(value is None or isinstance(value, str) for value in found.values())
    return found if texts else None


def _unpacked(frame: bytes, most: int) -> bytes:
    size = zstandard.get_frame_parameters(frame).content_size
    if size > most:  # not said, it is as large as can be
        raise zstandard.ZstdError("a frame is larger than any of ours")
    return zstandard.ZstdDecompressor().decompress(frame, max_output_size=most)


def of(backup: Backup) -> Records | None:
    """The index of a backup whose manifest is well-formed; None where it has none."""
    about = backup.manifest["contents"].get(RECORDS)
    if about is None:
        return None
    table = about["table"]
    return Records(
        backup.path / RECORDS, about["bytes"], about["sha256"], *map(table.get, _TABLE)
    )


_TABLE = ("bytes", "sha256")


def well_formed(about: Any) -> bool:
    """Whether what a manifest says of an index has its shape."""
    table = about["table"]
    return (
        type(table["bytes"]) is int
        and 0 < table["bytes"] <= about["bytes"]
        and isinstance(table["sha256"], str)
    )
