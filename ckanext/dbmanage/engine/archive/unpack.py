"""Archives unpacked and handed to pg_restore, within bounds."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import zstandard

from ..disk import create_file
from ..errors import Damaged, Refused
from ..opened import open_plain
from ..postgres.programs import Tools, finish, reading_tools, running
from ..report import Progress
from .contents import AT_LEAST, CHUNK, MAGIC, TIMES

#: room on the disk that is left to others, and how often it is looked at
_ROOM, _LOOK_EVERY = 1 << 30, 32 << 20


#: of one text in the table of contents; a view of a million characters is none of ours
MAX_TEXT = 64 << 20


def limit(packed: int) -> int:
    """How many bytes may come out of `packed` ones that nobody vouches for."""
    return AT_LEAST + packed * TIMES


def unpacked(file: Any, name: str, most: int = 0) -> Any:
    """The archive inside a file, to `read(size)`: decompressed when it ends in `.zst`.

    In bounded steps: a small file may unpack to very much. With `most` no more bytes
    than that are read: then Refused is raised.
    """
    if not name.endswith(".zst"):
        return file
    stream = zstandard.ZstdDecompressor().stream_reader(file, closefd=False)
    return Bounded(stream, name, most) if most else stream


class Bounded:
    """A stream that ends with Refused when more than `most` bytes come out of it."""

    def __init__(self, stream: Any, name: str, most: int) -> None:
        self._stream, self._name, self._left = stream, name, most

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        return self._counted(self._stream.read(size))

    def readline(self, size: int) -> bytes:
        """A line, or the first `size` bytes of it."""
        return self._counted(self._stream.readline(size))

    def _counted(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0:
            raise Refused(
                f"{self._name} grows to more than {TIMES} times its size when it is "
                "unpacked, and carries no signature of this site: if you know what it "
                f"is, unpack it yourself (`zstd -d {shlex.quote(self._name)}`)"
            )
        return chunk


@contextmanager
def restoring(
    file: Any,
    name: str,
    tools: Tools,
    arguments: list[str],
    most: int = 0,
    **options: Any,
) -> Iterator[Any]:
    """A pg_restore that reads the archive in `file` from its stdin, while it lasts.

    It must be read to its end (`postgres.finish`) in the block. Raises Damaged,
    Refused, ZstdError: what was wrong with the file.
    """
    stream = unpacked(file, name, most)
    broken: list[Exception] = []

    def feed(out: IO[bytes]) -> None:
        try:
            with suppress(BrokenPipeError), out:
                while chunk := stream.read(CHUNK):
                    out.write(chunk)
        except Exception as error:  # it belongs into the other thread
            broken.append(error)

    command = [tools.path("pg_restore"), *arguments]
    with running(command, stdin=-1, **options) as process:
        assert process.stdin is not None
        feeder = threading.Thread(target=feed, args=(process.stdin,))
        feeder.start()
        try:
            yield process
        finally:
            process.kill()
            feeder.join()
            if broken:
                raise broken[0]


def read_to_end(file: Any, name: str, pg_bin: str, most: int = 0) -> None:
    """Reads an archive to its end; `most` as in `unpacked`.

    Raises Damaged, ToolFailed, Refused, ZstdError.
    """
    stream = unpacked(file, name, most)
    head = stream.read(7)
    if len(head) < 7 or head[:5] != MAGIC:
        raise Damaged(name, ["it is not an archive of pg_dump -Fc"])
    tools = reading_tools((head[5], head[6]), pg_bin)
    # "-l" would pass a truncated archive: only reading all of it tells
    whole = _Again(head, stream)
    with restoring(whole, "", tools, ["-f", "/dev/null"]) as process:
        finish(process, f"pg_restore of {name}")


class _Again:
    """A stream of which some bytes were read already, from its beginning."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._stream.read(size)


def unpack(
    path: Path, directory: Path, sha256: str, progress: Progress, most: int = 0
) -> Path:
    """The archive as a plain file, which is what parallel loading needs.

    With `sha256` the file's bytes are compared once more on the way, and the plain file
    is one of ours even when nothing is packed; `most` as in `unpacked`. The disk is not
    filled to its end. Raises Damaged, Refused.
    """
    size, done, written = path.stat().st_size, 0, 0
    digest = hashlib.sha256()

    class Hashed:
        def read(self, count: int = -1) -> bytes:
            nonlocal done
            chunk = file.read(count)
            digest.update(chunk)
            done += len(chunk)
            progress("unpack", done, size)
            return chunk

    if not sha256 and not path.name.endswith(".zst"):
        return path
    plain = directory / path.name.removesuffix(".zst")
    with open_plain(path) as file, create_file(plain) as out:
        hashed = Hashed()
        stream = unpacked(hashed, path.name, most)
        try:
            while chunk := stream.read(CHUNK):
                if written % _LOOK_EVERY < CHUNK:
                    _refuse_full(directory, path.name)
                written += out.write(chunk)
            while hashed.read(CHUNK):
                pass
        except zstandard.ZstdError as error:
            raise Damaged(path.name, [str(error)]) from error
    if sha256 and digest.hexdigest() != sha256:
        raise Damaged(path.name, ["it was changed while it was being restored"])
    return plain


def _refuse_full(directory: Path, name: str) -> None:
    """Refuses to take the disk's last room: others write to it too."""
    disk = shutil.disk_usage(directory)
    if disk.free < min(_ROOM, disk.total // 20):
        raise Refused(
            f"there is too little room to unpack {name} in {directory}: "
            f"{disk.free >> 20} MB are left of {disk.total >> 20}. Make room there, "
            "or set ckanext.dbmanage.repository to a directory on a larger disk"
        )
