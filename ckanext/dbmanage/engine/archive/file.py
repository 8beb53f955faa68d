"""A bare file of `pg_dump -Fc`, which may be compressed by zstd."""

import gzip
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from ..errors import Changed, Damaged, Refused
from ..opened import open_plain
from ..report import name_of
from ..signature import Hashed
from . import plain_sql
from .contents import MAGIC, Bounded


@dataclass(frozen=True)
class File:
    """An archive in a file; with `sha256` the file's bytes must still be those.

    `called` is what messages call one whose name says nothing.
    """

    path: Path
    sha256: str = ""
    called: str = ""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.called or self.path.name

    @property
    def size(self) -> int:
        """The file's bytes. Raises OSError."""
        return self.path.stat().st_size

    @contextmanager
    def open(self, most: int = 0) -> Iterator[Any]:
        """The dump, to `read(size)`. It raises Changed at its end, Damaged, OSError.

        Unpacked in bounded steps: a small file may hold very much. With `most` no more
        bytes than that come out of it: then Refused is raised.
        """
        with open_plain(self.path) as file:
            stream = _Dump(self, Hashed(file))
            yield Bounded(stream, self.name, most) if most else stream


class _Dump:
    """The dump in an open file."""

    def __init__(self, file: File, hashed: Hashed) -> None:
        self._file, self._hashed, self._stream = file, hashed, hashed
        if file.path.suffix == ".zst":
            unpacker = zstandard.ZstdDecompressor()
            self._stream: Any = unpacker.stream_reader(hashed, closefd=False)  # pyright: ignore

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        try:
            chunk = self._stream.read(size)
        except zstandard.ZstdError as error:
            raise Damaged(self._file.name, [str(error)]) from error
        if not chunk and self._file.sha256 not in ("", self._hashed.read_rest().sha256):
            raise Changed(self._file.name, ["it was changed since it was verified"])
        return chunk


def refuse_other_formats(file: File) -> None:
    """Refuses what is no archive of `pg_dump -Fc`, with the reason and the way to make
    one of it. Raises Refused."""
    packed = ""
    with open_plain(file.path) as raw:
        head = raw.read(512)
        if head[:2] == b"\x1f\x8b":
            raw.seek(0)
            packed = "gzip"
            with suppress(OSError, EOFError, zlib.error):
                head = gzip.GzipFile(fileobj=raw).read(512)
    if head[:4] == b"\x28\xb5\x2f\xfd":
        if file.path.suffix != ".zst":
            raise Refused(
                f"{file.name} is compressed by zstd: let its name end in .zst"
            )
        packed = "zstd"
        with suppress(Damaged), File(file.path).open() as stream:
            head = stream.read(512)
    if head[:5] == MAGIC:
        if packed != "gzip":
            return
        raise Refused(
            f"{file.name} is compressed by gzip. Unpack it first: "
            f"`gzip -dk {shlex.quote(str(file.path))}`"
        )
    if plain_sql.begins(head):
        advice = plain_sql.advice(file.path, packed)
        raise Refused(f"{file.name} is plain SQL. {advice}")
    is_tar = head[257:262] == b"ustar"
    raise Refused(
        f"{file.name} is {'a tar archive' if is_tar else 'not an archive'}. Only "
        f"archives of `pg_dump -Fc` are restored: make one with `{name_of('command')} "
        "dump FILE` or `pg_dump -Fc`"
    )
