"""A database's part of a backup: a list of segments, and the dump that they make.

    <object> <the whole it was packed against, or -> <sha256> <bytes> <table>

A line a segment, in the order of the dump; the first two name objects, the sum and the
bytes are the segment's own, the table is a JSON string. The list is hostile until its
sum is right, and each pass over it looks again, as with the list of uploads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Changed, Damaged
from ..objects import object_path, wrong_at_sight, wrong_inside
from ..opened import open_plain, read_plain
from ..signature import Hashed
from .contents import Bounded
from .cutting import LARGE
from .frames import MOST_PACKED, unpack_frame

#: in the place of a whole, where there is none
ALONE = "-"
_LINE = re.compile(
    rb"([0-9a-f]{64}) (-|[0-9a-f]{64}) ([0-9a-f]{64}) (\d{1,7}) (\"[ -~]*\")\n"
)
#: a name of PostgreSQL has 63 bytes, of JSON six letters each at most
_MAX_LINE = 1 << 12
#: wholes that are kept unpacked: those of one table stand together
_KEPT = 3

Told = Callable[[int], None]


class Line(NamedTuple):
    """A segment: its object, the whole that it needs or `ALONE`, sum, bytes, table."""

    object: str
    whole: str
    sha256: str
    bytes: int
    table: str

    @property
    def objects(self) -> tuple[str, ...]:
        """The names of the objects that it needs."""
        return (self.object,) if self.whole == ALONE else (self.object, self.whole)

    def format(self) -> bytes:
        """The line as it stands in the list."""
        return " ".join([*map(str, self[:4]), json.dumps(self.table)]).encode() + b"\n"


@dataclass(frozen=True)
class Segments:
    """A dump in segments; `bytes` and `sha256` are of its list, as the manifest has it.

    `places` are the directories of objects, the first that has one counts.
    """

    path: Path
    bytes: int
    sha256: str
    places: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The name of the list."""
        return self.path.name

    @property
    def size(self) -> int:
        """The bytes on the disk that it is made of. Raises as `lines`, OSError."""
        return self.bytes + sum(self.object_sizes().values())

    def object_sizes(self) -> dict[str, int]:
        """The objects that it needs, in the order of the dump, with their bytes.

        Raises as `lines`, and Damaged for what is missing.
        """
        found: dict[str, int] = {}
        for line in self.lines():
            for name in line.objects:
                if name in found:
                    continue
                if wrong := wrong_at_sight(self.place(name)):
                    raise Damaged(self.name, [f"{self.name}: {wrong}"])
                found[name] = self.place(name).lstat().st_size
        return found

    def lines(self) -> Iterator[Line]:
        """Its lines. Raises Damaged, Changed at the end; OSError."""
        with open_plain(self.path) as file:
            read = Hashed(file)
            number = 0
            while read.bytes <= self.bytes and (raw := read.readline(_MAX_LINE)):
                number += 1
                if not (found := _LINE.fullmatch(raw)):
                    what = f"{self.name}: line {number} names no segment"
                    raise Damaged(self.name, [what])
                name, whole, sha256, size, table = map(bytes.decode, found.groups())
                yield Line(name, whole, sha256, int(size), _table(table))
        if (read.bytes, read.sha256) != (self.bytes, self.sha256):
            raise Changed(self.name, [f"{self.name}: was changed (checksum)"])

    @contextmanager
    def open(self, most: int = 0, told: Told = lambda _: None) -> Iterator[Any]:
        """The dump, to `read(size)`. It raises Changed, Damaged, OSError.

        With `most` no more bytes than that come out of it: then Refused is raised.
        `told` hears the bytes of each segment.
        """
        stream = _Stream(self.plain(0, told))
        yield Bounded(stream, self.name, most) if most else stream

    def plain(self, start: int = 0, told: Told = lambda _: None) -> Iterator[bytes]:
        """The dump from a byte on, each segment looked at.

        Raises Changed, Damaged, OSError.
        """
        lines = self.lines()
        for line in lines:
            start -= line.bytes
            if start < 0:
                first = next(self.pieces([line]))
                told(len(first))
                yield first[start:]
                break
        for piece in self.pieces(lines):
            told(len(piece))
            yield piece

    def pieces(self, lines: Iterable[Line]) -> Iterator[bytes]:
        """The segments of some lines, each looked at. Raises Damaged, OSError."""
        wholes = lru_cache(_KEPT)(lambda name: unpack_frame(self._frame(name), name))

        def piece(line: Line) -> bytes:
            if line.whole == ALONE:
                plain = wholes(line.object)
            else:
                frame = self._frame(line.object)
                plain = unpack_frame(frame, line.object, wholes(line.whole))
            own = hashlib.sha256(plain).hexdigest()
            if (len(plain), own) != (line.bytes, line.sha256):
                what = f"{_named(line.table)}: its content {line.object} is another"
                raise Damaged(self.name, [f"{self.name}: {what}"])
            return plain

        with ThreadPoolExecutor(1) as pool:
            waiting: Future[bytes] | None = None
            for line in lines:  # one is unpacked while the one before is used
                begun = pool.submit(piece, line)
                if waiting:
                    yield waiting.result()
                waiting = begun
            if waiting:
                yield waiting.result()

    def problems(self, told: Told = lambda _: None) -> Iterator[str]:
        """What is wrong with the list and with each object that it needs.

        Every byte is read, none is unpacked; `told` hears of them. Raises
        PermissionError.
        """
        try:
            seen = set[str]()
            for line in self.lines():
                for name in line.objects:
                    if name in seen:
                        continue
                    seen.add(name)
                    place = self.place(name)
                    if wrong := wrong_at_sight(place) or wrong_inside(place, told):
                        yield f"{self.name}: {_named(line.table)}: {wrong}"
        except Damaged as error:
            yield from error.problems
        except PermissionError:
            raise
        except OSError as error:
            yield f"{self.name}: {error.strerror}"

    def place(self, name: str) -> Path:
        """Where an object lies, or should."""
        *first, last = (object_path(place, name) for place in self.places)
        return next((path for path in first if path.exists()), last)

    def _frame(self, name: str) -> bytes:
        place = self.place(name)
        try:
            frame = read_plain(place, MOST_PACKED)
        except PermissionError:
            raise
        except OSError as error:
            what = f"its content {name}: {error.strerror}"
            raise Damaged(self.name, [f"{self.name}: {what}"]) from error
        if hashlib.sha256(frame).hexdigest() != name:
            what = f"its content {name} was changed"
            raise Damaged(self.name, [f"{self.name}: {what}"])
        return frame


def _table(text: str) -> str:
    with suppress(ValueError):
        if isinstance(found := json.loads(text), str):
            return found
    return text


def _named(table: str) -> str:
    if table == LARGE:
        return table
    return f"table {table}" if table else "the table of contents"


class _Stream:
    """Pieces as a file to read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        chunk = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(chunk) :]
        return bytes(chunk)
