"""The journal: what was done, by whom, and what is half-way; a line of JSON for each.

    {"time": …, "by": …, "operation": …, "event": "switch", …, "number": 7, "hmac": …}

Lines are only added. Each is signed with the site's secret, over the bytes before its
signature; what moves databases and folders (a *deed*) carries a number too, which rises
from one to the next. Whoever finishes, undoes or drops something asks for `deeds`, the
one reader that believes a line: a forged one is not believed, nor a true one that was
copied to another place. The file may have grown to any size and hold anything: it is
read line by line, each of a bounded length. Must not know what a deed means.
"""

import errno
import hmac
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..opened import open_plain
from .events import MOVES

#: the events that recovery, undo and prune act upon
DEEDS = tuple(MOVES)
#: bytes of a line; a switch names each entry of the folders that it renames
_MAX_LINE = 8 << 20
#: of a line that is only shown, and of the file's end where those are looked for
_MAX_SHOWN, _SHOWN = 1 << 16, 1 << 19
#: a file of more bytes is begun anew; the bytes of others' deeds that come along
_LARGE, _OTHERS = 16 << 20, 4 << 20
#: the lines that are not believed and are kept to be told of
_TOLD = 100
_DEED = re.compile(rb'"event"\s*:\s*"(?:%s)"' % "|".join(DEEDS).encode())
_SIGNED = re.compile(rb'(\{.*), "hmac": "([0-9a-f]{64})"\}\n', re.DOTALL)


@dataclass(frozen=True)
class Actor:
    """Who asked: `by` is the user of the system, the others are known of the web."""

    by: str = ""
    user: str = ""
    address: str = ""
    forwarded: str = ""


@dataclass(frozen=True)
class Entry:
    """A line of the journal: what happened to which operation, when, by whom.

    A text is empty where the line has none. `moment` is a stamp if nobody forged it;
    `fields` is the whole line.
    """

    operation: str = ""
    event: str = ""
    moment: str = ""
    actor: Actor = Actor()
    fields: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A field that is a text, else an empty one."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""


def parse_entry(line: bytes) -> Entry | None:
    """The entry of a line; None when it is no JSON object."""
    with suppress(ValueError, RecursionError):
        fields = json.loads(line)
        if isinstance(fields, dict):
            known = Entry(fields=fields)
            text = known.text
            actor = Actor(text("by"), text("user"), text("address"), text("forwarded"))
            return Entry(text("operation"), text("event"), text("time"), actor, fields)
    return None


@dataclass
class _Read:
    """How far a file was read; `numbers` are the last ones by key."""

    inode: int = 0
    offset: int = 0
    line: int = 0
    numbers: dict[bytes, int] = field(default_factory=dict)
    believed: list[Entry] = field(default_factory=list)
    others: deque[tuple[int, bytes]] = field(
        default_factory=lambda: deque(maxlen=_TOLD)
    )


class Journal:
    """One site's view of a journal: the first of its `keys` signs, all are believed."""

    def __init__(self, path: Path, keys: tuple[bytes, ...]) -> None:
        self._path, self._keys = path, keys
        self._read = _Read()

    def record(self, line: Mapping[str, Any]) -> None:
        """Adds a line; it is on the disk when this returns. Raises OSError.

        Who records a deed holds the repository's lock.
        """
        known = dict(line)
        if self._keys and line.get("event") in DEEDS:
            self._go_on()
            known["number"] = self._read.numbers.get(self._keys[0], 0) + 1
        text = json.dumps(known).encode()
        if self._keys:
            signature = hmac.digest(self._keys[0], text, "sha256").hex()
            text = text[:-1] + f', "hmac": "{signature}"}}'.encode()
        if len(text) >= _MAX_LINE:
            raise OSError(errno.EFBIG, "has no place for so long a line", self._path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        with open_plain(self._path, flags) as file:
            handle = file.fileno()
            os.fchmod(handle, 0o600)
            size = os.fstat(handle).st_size
            # a line cut short by a power cut must not swallow this one; nor may one
            # that lacks its end alone be whole then: its number is this one's too
            torn = size and os.pread(handle, 1, size - 1) != b"\n"
            whole = b"!\n" * bool(torn) + text + b"\n"
            if os.write(handle, whole) != len(whole):  # cut short: the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
            os.fsync(handle)

    def end(self, last: int = _SHOWN) -> list[Entry]:
        """The lines in its last bytes, the oldest first: to be shown, not believed.

        What is torn, long or no JSON is left out. Raises OSError.
        """
        with suppress(FileNotFoundError), open_plain(self._path) as file:
            if (size := os.fstat(file.fileno()).st_size) > last:
                file.seek(size - last)
                _rest_of_line(file)
            found = map(parse_entry, _lines(file, _MAX_SHOWN))
            return [entry for entry in found if entry]
        return []

    def deeds(self) -> list[Entry]:
        """The deeds of this site, in their order. Raises OSError."""
        self._go_on()
        return self._read.believed

    def others(self) -> list[tuple[int, Entry]]:
        """The last deeds that are not believed, with their lines' numbers.

        Another site's, forged, copied from another place, or signed with a secret that
        is not known any more. Raises OSError.
        """
        self._go_on()
        found = ((number, parse_entry(line)) for number, line in self._read.others)
        return [(number, entry) for number, entry in found if entry]

    def _go_on(self) -> None:
        """Reads what was added since the last time, or all of another file."""
        try:
            file = open_plain(self._path)
        except FileNotFoundError:
            self._read = _Read()
            return
        with file:
            about = os.fstat(file.fileno())
            if self._read.inode != about.st_ino or self._read.offset > about.st_size:
                self._read = _Read(about.st_ino)
            file.seek(self._read.offset)
            for line in _lines(file, _MAX_LINE):
                self._believe(line, self._read)
                self._read.offset = file.tell()

    def _believe(self, line: bytes, read: _Read) -> bool:
        """Sorts a line in; says whether it is a deed that is believed."""
        read.line += 1
        if not _DEED.search(line):
            return False
        entry = parse_entry(line) if (key := self._signer(line)) else None
        if key and entry and entry.event in DEEDS:
            number = entry.fields.get("number")
            if isinstance(number, int) and number > read.numbers.get(key, 0):
                read.numbers[key] = number
                read.believed.append(entry)
                return True
        if len(line) <= _MAX_SHOWN:
            read.others.append((read.line, line))
        return False

    def _signer(self, line: bytes) -> bytes | None:
        """The key that signed a line."""
        if not (match := _SIGNED.fullmatch(line)):
            return None
        text, given = match[1] + b"}", bytes.fromhex(match[2].decode())
        for key in self._keys:
            if hmac.compare_digest(hmac.digest(key, text, "sha256"), given):
                return key
        return None

    def renewed(self) -> bytes | None:
        """What a new file is to begin with when this one is large, else None.

        This site's deeds, those that others may have signed up to a size, and the end,
        for people. Raises OSError.
        """
        with suppress(FileNotFoundError), open_plain(self._path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _LARGE:
                return None
            read, own = _Read(), []
            foreign, others = deque[tuple[int, bytes]](), 0
            for line in _lines(file, _MAX_LINE):
                if self._believe(line, read):
                    own.append((read.line, line))
                elif _DEED.search(line) and _SIGNED.fullmatch(line):
                    foreign.append((read.line, line))
                    others += len(line)
                    while others > _OTHERS:
                        others -= len(foreign.popleft()[1])
                if file.tell() >= size - _SHOWN:
                    break
            kept = b"".join(line for _, line in sorted([*own, *foreign]))
            kept += file.read(2 * _SHOWN)
            return kept if len(kept) < size // 2 else None
        return None


def _lines(file: IO[bytes], limit: int) -> Iterator[bytes]:
    """The whole lines from here on; longer ones come as an empty one."""
    while line := file.readline(limit):
        if line.endswith(b"\n"):
            yield line
        elif len(line) < limit:  # torn, or still being written
            return
        else:
            _rest_of_line(file)
            yield b""


def _rest_of_line(file: IO[bytes]) -> None:
    while (piece := file.readline(1 << 16)) and not piece.endswith(b"\n"):
        pass
