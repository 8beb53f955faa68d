"""A file of lines: plain, gzip or zstd by its name, with its size and its sum.

The same lines give the same bytes at any time. Must not know what the lines hold.
"""

import contextlib
import gzip
import hashlib
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import simplejson
import zstandard

from ..engine.disk import whole
from ..engine.opened import open_plain

#: the size of zstd is near its best here, at the speed of gzip's usual level
_ZSTD_LEVEL, _GZIP_LEVEL = 9, 6


@contextmanager
def compressed(target: Any, name: str) -> Iterator[Callable[[bytes], Any]]:
    """What takes lines and writes them to the target, packed as the name's suffix says.

    The target stays open.
    """
    if name.endswith(".gz"):
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, target, mtime=0) as file:
            yield file.write
    elif name.endswith(".zst"):
        packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        with packer.stream_writer(target, closefd=False) as file:
            yield file.write
    else:
        yield target.write


@contextmanager
def new_file(path: str | Path, mode: int) -> Iterator[Callable[[bytes], Any]]:
    """Writes lines to a file, packed by its name, whole or not at all.

    Raises as `disk.whole`; what stood there before is as it was then.
    """
    with (
        whole(path, mode) as file,
        compressed(file, os.path.basename(path)) as write,
    ):
        yield write


def is_written(path: str | Path) -> bool:
    """Whether a file begins as one that was written here does, or is empty.

    False for one that is not there, or that nobody can read as its name says.
    """
    try:
        with open_plain(os.path.realpath(path)) as file:
            if os.fstat(file.fileno()).st_size == 0:
                return True
            name, lines = os.path.basename(path), file
            if name.endswith(".gz"):
                lines = gzip.GzipFile("", "rb", fileobj=file)
            elif name.endswith(".zst"):
                lines = zstandard.ZstdDecompressor().stream_reader(file)
            return lines.read(2) == b'{"'
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return False


# a number with an exponent at its end: orjson prints it otherwise than Python
_EXPONENT = re.compile(rb"e[-+]?[0-9]+[,\]}]")


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as ckanapi writes it: compact, keys sorted, UTF-8.

    Raises ValueError or TypeError for what ckanapi cannot write either.
    """
    options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    # the second for SQLAlchemy's own kind of strings, the names of columns
    for more in (0, orjson.OPT_NON_STR_KEYS) if _is_finite(record) else ():
        with contextlib.suppress(TypeError):
            line = orjson.dumps(record, option=options | more)
            if _EXPONENT.search(line):
                break
            return line
    # there and back, as ckanapi's processes do
    known = simplejson.loads(simplejson.dumps(record))
    return simplejson.dumps(
        known, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _is_finite(record: Mapping[str, Any]) -> bool:
    """Whether no number is infinite or none at all: orjson writes null for these."""
    waiting: list[Any] = [record]
    while waiting:
        one = waiting.pop()
        for value in one.values() if isinstance(one, dict) else one:
            if value.__class__ is str:
                continue
            if isinstance(value, (dict, list, tuple)):
                waiting.append(value)
            elif isinstance(value, float) and not math.isfinite(value):
                return False
    return True


def joined(lines: Sequence[bytes]) -> bytes:
    """Lines as they stand in a file."""
    return b"\n".join([*lines, b""])


def checksum(line: bytes) -> bytes:
    """The SHA-256 of a line."""
    return hashlib.sha256(line).digest()
