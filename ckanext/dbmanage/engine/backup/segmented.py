"""A dump into segments: what the backup before has is used again, the rest is packed.

A segment that stands in the backup before costs a line. A changed one is packed against
the whole that stands about there, and kept so when that saves much: never against one
that was itself packed so, so that two objects give each segment.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..archive.cutting import CONTENTS, cut
from ..archive.frames import MOST_PACKED, features, pack, pack_against, unpack_frame
from ..archive.segments import ALONE, Line, Segments
from ..objects import is_sound, object_path, stage_bytes
from ..opened import read_plain

_THREADS = 2
#: bytes after which one tells of them: a table of contents is read a few at a time
_TELL = 4096
#: segments in memory, waiting or at work
_AHEAD = 5
#: wholes before and after a segment's place that it may be like, and how many are kept
_AROUND, _KEPT = 2, 8
#: what differs is kept when it is so much smaller than the segment by itself
_WORTH = 3
#: … which is not packed by itself to know that: what differs is this small a part of it
_CLEARLY = 30
#: a whole is written anew after so many seconds: who loses one loses no more than that
_OLD = 30 * 86400


class Segmented:
    """A dump that is written into `staged`; `earlier` is that of the backup before.

    `bytes` are the dump's own, `stored` those of all objects that it needs, `added`
    those of the new ones. Raises Damaged, OSError: what is wrong with `earlier`.
    """

    def __init__(self, objects: Path, staged: Path, earlier: Segments | None) -> None:
        self._objects, self._staged = objects, staged
        self._guard = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}
        self._places: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}  # of objects; 0: not sound
        self._needed = set[str]()
        self.bytes = self.added = 0
        self._whole = lru_cache(_KEPT)(self._read_whole)
        for line in earlier.lines() if earlier else ():
            self._known[line.sha256] = line.object, line.whole
            if line.table != CONTENTS:
                whole = line.object if line.whole == ALONE else line.whole
                self._places.setdefault(line.table, []).append(whole)

    @property
    def stored(self) -> int:
        """The bytes of the objects that it needs."""
        return sum(self._sizes[name] for name in self._needed)

    def lines(self, stream: Any, wrote: Callable[[int], None]) -> Iterator[Line]:
        """The lines of the dump that is read from a stream, in its order.

        `wrote` hears its bytes as they come. Raises Damaged, Refused, OSError.
        """
        waiting: deque[Future[Line]] = deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            for table, number, plain in cut(_Told(stream, wrote)):
                self.bytes += len(plain)
                waiting.append(pool.submit(self._line, table, number, plain))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _line(self, table: str, number: int, plain: bytes) -> Line:
        sha256 = hashlib.sha256(plain).hexdigest()
        found = self._known.get(sha256)
        if not found or not all(map(self._size, _objects(*found))):
            found = self._known[sha256] = self._add(table, number, plain)
        self._needed.update(_objects(*found))
        return Line(*found, sha256, len(plain), table)

    def _add(self, table: str, number: int, plain: bytes) -> tuple[str, str]:
        """Packs a segment the shorter way; its object, and the whole that it needs."""
        near = self._nearest(table, number, plain)
        frame, root = pack_against(plain, self._whole(near)[0]) if near else b"", near
        if not near or len(frame) * _CLEARLY > len(plain):
            alone = pack(plain)
            if not near or len(frame) * _WORTH > len(alone):
                frame, root = alone, ALONE
        name = hashlib.sha256(frame).hexdigest()
        if not self._size(name):
            with self._guard:  # two threads may have the same segment
                if not self._sizes[name]:
                    stage_bytes(self._staged, name, frame)
                    self.added += len(frame)
                    self._sizes[name] = len(frame)
        return name, root

    def _nearest(self, table: str, number: int, plain: bytes) -> str:
        """The whole that is most like a segment, of those about its place; or none."""
        there = self._places.get(table, [])
        about = there[max(0, number - _AROUND) : number + _AROUND + 1] or there[-1:]
        usable = [name for name in dict.fromkeys(about) if self._young(name)]
        if len(usable) < 2:
            return "".join(usable)
        own = features(plain)
        return max(usable, key=lambda name: len(own & self._whole(name)[1]))

    def _young(self, name: str) -> bool:
        if not self._size(name):
            return False
        try:
            written = object_path(self._objects, name).lstat().st_mtime
        except FileNotFoundError:  # it was gone, and this backup has it anew
            return False
        return time.time() - written < _OLD

    def _size(self, name: str) -> int:
        """The bytes of an object; 0 when it is missing or rotten: rot must not last."""
        if name not in self._sizes:
            place = object_path(self._objects, name)
            sound = is_sound(self._objects, name)
            self._sizes.setdefault(name, place.lstat().st_size if sound else 0)
        return self._sizes[name]

    def _read_whole(self, name: str) -> tuple[bytes, frozenset[int]]:
        plain = unpack_frame(
            read_plain(object_path(self._objects, name), MOST_PACKED), name
        )
        return plain, features(plain)


class _Told:
    """A stream that tells how many bytes were read of it, some kB at a time."""

    def __init__(self, stream: Any, told: Callable[[int], None]) -> None:
        self._stream, self._tell, self._untold = stream, told, 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        chunk = self._stream.read(size)
        self._untold += len(chunk)
        if self._untold >= _TELL or not chunk:
            self._tell(self._untold)
            self._untold = 0
        return chunk


def _objects(name: str, whole: str) -> tuple[str, ...]:
    return (name,) if whole == ALONE else (name, whole)
