"""A file of lines: plain, gzip or zstd by its name, with its size and its sum.

The same lines give the same bytes at any time. Must not know what the lines hold.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from ..engine.disk import whole

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

    Raises as `target.whole`; what stood there before is as it was then.
    """
    with (
        whole(path, mode) as file,
        compressed(file, os.path.basename(path)) as write,
    ):
        yield write
