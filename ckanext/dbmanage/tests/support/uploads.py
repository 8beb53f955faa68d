"""Uploads of a portal, and the list of a backup's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import zstandard

from ckanext.dbmanage.engine.layout import LIST

from .portal import Portal

LAST = "resources/upl/oad/-5"


def listed(path: Path) -> list[dict]:
    return [json.loads(line) for line in lines_of(path / LIST)]


def lines_of(path: Path) -> list[bytes]:
    """The lines of a list of uploads, as `zstd -dc` gives them."""
    reader = zstandard.ZstdDecompressor().decompressobj()
    return reader.decompress(path.read_bytes()).splitlines(keepends=True)


def write_lines(path: Path, lines: Iterable[bytes]) -> bytes:
    """A list of these lines in a file; what is in the file."""
    path.write_bytes(content := zstandard.compress(b"".join(lines)))
    return content


def objects(portal: Portal) -> list[Path]:
    """The contents of uploads in the repository, without the pieces of dumps."""
    every = (portal.repository / "objects").rglob("?" * 64)
    return [path for path in every if path.read_bytes()[:4] != zstandard.FRAME_HEADER]


def line(path: str, **facts: object) -> dict:
    about = {"size": 1, "mtime": 1.0, "ctime_ns": 1, "inode": 1}
    return {"path": path} | about | {"sha256": "0" * 64} | facts
