"""Lines of a file that others wrote: plain, gzip or zstd, as its first bytes say.

Nothing is held but one line, and of a line that is too long not even that. Must not
know what the lines hold.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from ..engine.errors import DbmanageError
from ..engine.opened import open_plain

#: bytes of the longest line that is read: a hundred times the longest dataset known
LONGEST = 16 << 20

_CHUNK = 1 << 16
#: a byte of zstd may be 32 kB of what it packs
_CHUNK_OF_ZSTD = 256

#: number, content, and whether that is a piece of a line that is too long
Line = tuple[int, bytes, bool]


class Source:
    """A file to be read more than once, from its begin; `name` is for messages."""

    def __init__(self, path: Path | None, stream: IO[bytes] | None, name: str) -> None:
        self._path, self._stream, self.name = path, stream, name

    def lines(self) -> Iterator[Line]:
        """Each line with its number, without its end; those that are blank left out.

        A line that is too long comes in pieces. Raises DbmanageError where the file is
        not whole, and OSError.
        """
        number = 1
        try:
            for number, content, is_piece in _split(self._chunks()):
                if is_piece or content.strip():
                    yield number, content, is_piece
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise DbmanageError(
                f"{self.name} is damaged after line {number}: {error}; export it anew, "
                "or copy it anew"
            ) from error

    def _chunks(self) -> Iterator[bytes]:
        if self._stream is not None:
            self._stream.seek(0)
            yield from _unpacked(self._stream)
            return
        with open_plain(str(self._path)) as file:
            yield from _unpacked(file)


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    begin = file.read(4)
    file.seek(0)
    if begin.startswith(b"\x1f\x8b"):
        reader: Any = gzip.GzipFile("", "rb", fileobj=file)
        yield from iter(lambda: reader.read(_CHUNK), b"")
    elif begin == b"\x28\xb5\x2f\xfd":
        yield from _unpacked_zstd(file)
    else:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _unpacked_zstd(file: IO[bytes]) -> Iterator[bytes]:
    """Frame by frame: the library's own reader takes a file that is cut for whole."""
    unpacker, begun = zstandard.ZstdDecompressor().decompressobj(), False
    while packed := file.read(_CHUNK_OF_ZSTD):
        while packed:
            begun = True
            yield unpacker.decompress(packed)
            packed = b""
            if unpacker.eof:
                packed = unpacker.unused_data
                unpacker, begun = zstandard.ZstdDecompressor().decompressobj(), False
    if begun:
        raise EOFError("it ends in the middle")


def _split(chunks: Iterator[bytes]) -> Iterator[Line]:
    number, held, size = 1, list[bytes](), 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            if size + len(piece) > LONGEST:
                yield from ((number, each, True) for each in held)
                yield number, piece + b"\n", True
            else:
                yield number, b"".join([*held, piece]), False
            number, held, size = number + 1, [], 0
        held.append(rest)
        size += len(rest)
        if size > LONGEST:
            yield from ((number, each, True) for each in held)
            held = []
    if size > LONGEST:
        yield number, b"\n", True
    elif size:
        yield number, b"".join(held), False
