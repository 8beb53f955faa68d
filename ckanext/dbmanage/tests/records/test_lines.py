"""Lines of a file that others wrote: packed or not, whole or not, however long."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ckanext.dbmanage.engine.errors import DbmanageError
from ckanext.dbmanage.records.lines import LONGEST, Source

LINES = b'{"a": 1}\n\n  \n{"b": 2}\r\nlast'
FOUND = [(1, b'{"a": 1}', False), (4, b'{"b": 2}\r', False), (5, b"last", False)]


def source(content: bytes) -> Source:
    return Source(None, io.BytesIO(content), "x.jsonl")


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"]
)
def test_lines_keep_their_numbers_however_packed(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    packed = pack(LINES[:9]) + pack(LINES[9:])
    assert list(source(packed).lines()) == FOUND
    file = tmp_path / "x"
    file.write_bytes(packed)
    read = Source(file, None, "x")
    assert list(read.lines()) == list(read.lines()) == FOUND


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"]
)
def test_a_file_that_is_cut_or_damaged_is_told(
    pack: Callable[[bytes], bytes],
) -> None:
    packed = pack(b'{"a": 1}\n' * 100_000)
    middle = len(packed) // 2
    broken = packed[:middle] + b"\xff" * 8 + packed[middle + 8 :]
    for content in (packed[:-3], packed[: len(packed) // 2], broken):
        with pytest.raises(DbmanageError, match=r"x\.jsonl is damaged after line"):
            list(source(content).lines())


def test_a_line_of_100_mb_is_read_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "x.gz"
    with gzip.open(file, "wb", 1) as out:
        out.write(b"first\n")
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(b"\nlast\n" + b"y" * (LONGEST + 1))
    tracemalloc.start()
    long, whole = {2: 0, 4: 0}, []
    for number, content, is_piece in Source(file, None, "x").lines():
        if is_piece:
            long[number] += len(content)
        else:
            whole.append((number, content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole == [(1, b"first"), (3, b"last")]
    assert long == {2: 100_000_001, 4: LONGEST + 2}  # each with its end
    assert peak < 3 * LONGEST
