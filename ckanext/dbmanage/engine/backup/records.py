"""The index of a backup: a line for each record in its databases, `records.jsonl.zst`.

    {"kind":…,"id":…,"name":…,"title":…,"state":…,"owner":…,"modified":…,"hash":…}

Frames of zstd, each of so many lines of one kind, ordered by their ids. After those of
a kind stand, in a frame that zstd skips, two bytes of each line that its name gives; at
the end in such a frame a table of all frames: first id, place and sum. So one record of
a hundred thousand is found by a look at the table and at one frame, and the manifest
vouches for both: it has the sum of the table, the table those of the frames. Hostile
until these are right, and bounded even then. Must not know what the kinds are.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from ..errors import Changed, Damaged
from ..layout import RECORDS
from ..opened import open_plain
from ..repository.backup import Backup

#: lines of a frame, and bytes of one in a frame that is ours
_LINES, _MAX_LINE = 1000, 1 << 16
#: bytes that a frame, and the table, may unpack to: 1000 of our lines have 2 MB
_MOST, _MOST_TABLE = 16 << 20, 64 << 20
#: before what zstd skips: the mark of a frame to be skipped, and its length
_SKIPPED = struct.Struct("<II")
_MARK = 0x184D2A50
#: letters of each field; whoever wrote more is told apart by the others
LETTERS = 200
FIELDS = ("kind", "id", "name", "title", "state", "owner", "modified", "hash")


class Block(NamedTuple):
    """A frame of lines of one kind: its first id, how many, its place and sum."""

    first: str
    lines: int
    at: int
    bytes: int
    sha256: str


class Marks(NamedTuple):
    """The place and the sum of the marks of a kind's names, two bytes a line."""

    at: int
    bytes: int
    sha256: str


_BLOCK, _MARKS = itemgetter(*Block._fields), itemgetter(*Marks._fields)


class Held(NamedTuple):
    """What an index holds of a kind."""

    blocks: tuple[Block, ...]
    names: Marks

    def with_id(self, id: str) -> list[Block]:
        """The block that an id would be in, or none."""
        at = bisect_right([each.first for each in self.blocks], id)
        return [*self.blocks[at - 1 : at]] if at else []


def _mark(name: bytes) -> bytes:
    return (zlib.crc32(name) & 0xFFFF).to_bytes(2, "little")


# ------------------------------------------------------------------ written


class Writer:
    """An index in the making, written to `file`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._bytes, self._digest = file, 0, sha256()
        self._before = 0, self._digest
        # a lower level is as good where most is ids, of which no two are alike
        self._packer = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self._kinds: list[dict[str, Any]] = []

    def add(self, kind: str) -> Lines:
        """Where the lines of a kind go, which then is one of those that it holds."""
        self._kinds.append({"kind": kind, "blocks": []})
        self._before = self._bytes, self._digest.copy()
        return Lines(self)

    def leave_out(self) -> None:
        """Takes the kind back that was added last, with the lines written of it."""
        self._kinds.pop()
        self._bytes, self._digest = self._before
        self._file.seek(self._bytes)
        self._file.truncate()

    def frame(self, rows: list[tuple[bytes, bytes, bytes]]) -> bytes:
        """Writes a frame of ids, names and lines, in order; the marks of the names."""
        packed = self._packer.compress(b"".join([line for *_, line in rows]))
        first = rows[0][0].decode("utf-8", "replace")
        block = {"first": first, "lines": len(rows)} | self._put(packed)
        self._kinds[-1]["blocks"].append(block)
        return b"".join([_mark(name) for _, name, _ in rows])

    def end(self, marks: bytes) -> None:
        """Writes the marks of a kind's names, after its frames."""
        self._kinds[-1]["names"] = self._put_skipped(marks)

    def finish(self) -> dict[str, Any]:
        """Writes the table; what the manifest says of the file."""
        table = self._put_skipped(json.dumps(self._kinds).encode())
        del table["at"]
        about = {"bytes": self._bytes, "sha256": self._digest.hexdigest()}
        return about | {"table": table}

    def _put_skipped(self, content: bytes) -> dict[str, Any]:
        packed = self._packer.compress(content)
        return self._put(_SKIPPED.pack(_MARK, len(packed)) + packed)

    def _put(self, frame: bytes) -> dict[str, Any]:
        at = self._bytes
        self._file.write(frame)
        self._digest.update(frame)
        self._bytes += len(frame)
        return {"at": at, "bytes": len(frame), "sha256": sha256(frame).hexdigest()}


class Lines:
    """Takes rows as COPY writes them: id, name, line; to be closed.

    Where there are `hashes` each line gets that of its id.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer, self._marks = writer, bytearray()
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
            self._frame()
        return len(row)

    def _frame(self) -> None:
        if self._rows:
            self._marks += self._writer.frame(self._rows)
            self._rows = []

    def close(self) -> None:
        """Writes what is left."""
        self._frame()
        self._writer.end(bytes(self._marks))


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

    def table(self) -> dict[str, Held]:
        """What it holds by kind, of no record too. All of the file belongs to it."""
        start = self.bytes - self.table_bytes
        with open_plain(self.path) as file:
            place = Marks(start, self.table_bytes, self.table_sha256)
            content = self._skipped(file, place, _MOST_TABLE)
        try:
            table = {
                kind["kind"]: Held(
                    tuple([Block._make(_BLOCK(block)) for block in kind["blocks"]]),
                    Marks._make(_MARKS(kind["names"])),
                )
                for kind in json.loads(content)
            }
            places = [
                (place.at, place.bytes)
                for held in table.values()
                for place in (*held.blocks, held.names)
            ]
            blocks = [each for held in table.values() for each in held.blocks]
            numbers = [n for place in places for n in place]
            # sets of kinds: there are some thirty thousand in a year's nights
            sound = (
                {*map(type, numbers), *[type(each.lines) for each in blocks]} <= {int}
                and min(numbers, default=0) >= 0
                and {type(each.first) for each in blocks} <= {str}
                and {*map(type, table)} <= {str}
            )
            ends = [sum(place) for place in places] if sound else []
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            raise self._damaged("has no table of what it holds") from error
        if [at for at, _ in places] + [start] != [0, *ends]:
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
                plain = self._unpacked(self._read(file, each, _MOST), _MOST)
                if not plain.endswith(b"\n"):
                    raise self._damaged("has a line without an end")
                yield plain

    def with_name(self, held: Held, name: str) -> list[Block]:
        """The blocks that a name may be in, of those of a kind."""
        with open_plain(self.path) as file:
            marks = self._skipped(file, held.names, _MOST)
        found, start = [], 0
        mark = _mark(name.encode("utf-8", "replace"))
        for block in held.blocks:
            end = start + 2 * block.lines
            at = marks.find(mark, start, end)
            while at >= 0 and (at - start) % 2:  # amid two others
                at = marks.find(mark, at + 1, end)
            if at >= 0:
                found.append(block)
            start = end
        return found

    def find(self, blocks: Iterable[Block], key: str, value: str) -> Iterator[Line]:
        """The lines of some blocks whose `key`, id or name, is this.

        Or is cut off, and begins so.
        """
        value = value[:LETTERS]
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
            blocks = [each for held in self.table().values() for each in held.blocks]
            for line in self.lines(blocks):
                if len(line) > _MAX_LINE or not line.startswith(b'{"kind":"'):
                    return [f"{RECORDS}: has a line that names no record"]
        except Damaged as error:
            return error.problems
        except PermissionError:
            raise
        except OSError as error:
            return [f"{RECORDS}: {error.strerror}"]
        return []

    def _read(self, file: IO[bytes], place: Block | Marks, most: int) -> bytes:
        if not 0 <= place.bytes <= most or place.at < 0:
            raise self._damaged("has a frame larger than any of ours")
        file.seek(place.at)
        content = file.read(place.bytes)
        if sha256(content).hexdigest() != place.sha256:
            raise Changed(RECORDS, [f"{RECORDS}: was changed (checksum)"])
        return content

    def _skipped(self, file: IO[bytes], place: Marks, most: int) -> bytes:
        """What stands in a frame that zstd skips."""
        return self._unpacked(self._read(file, place, most)[_SKIPPED.size :], most)

    def _unpacked(self, frame: bytes, most: int) -> bytes:
        try:
            if zstandard.get_frame_parameters(frame).content_size > most:
                raise self._damaged("has a frame larger than any of ours")
            return zstandard.ZstdDecompressor().decompress(frame, max_output_size=most)
        except zstandard.ZstdError as error:
            raise self._damaged(f"cannot be unpacked: {error}") from error

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
