"""Archives unpacked and handed to pg_restore, within bounds."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..disk import create_file
from ..errors import Damaged, Refused
from ..postgres.programs import Tools, finish, reading_tools, running
from ..report import Progress, name_of
from ..words import size
from .contents import CHUNK, MAGIC, Archive

#: room on the disk that is left to others, and how often it is looked at
_ROOM, _LOOK_EVERY = 1 << 30, 32 << 20


@contextmanager
def restoring(
    stream: Any, tools: Tools, arguments: list[str], **options: Any
) -> Iterator[Any]:
    """A pg_restore that reads a dump from its stdin, while it lasts.

    It must be read to its end (`programs.finish`) in the block. Raises what the stream
    raises.
    """
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


def read_to_end(stream: Any, name: str, pg_bin: str) -> None:
    """Reads a dump to its end. Raises Damaged, ToolFailed, Refused."""
    head = stream.read(7)
    if len(head) < 7 or head[:5] != MAGIC:
        raise Damaged(name, ["it is not an archive of pg_dump -Fc"])
    tools = reading_tools((head[5], head[6]), pg_bin)
    # "-l" would pass a truncated archive: only reading all of it tells
    with restoring(_Again(head, stream), tools, ["-f", "/dev/null"]) as process:
        finish(process, f"pg_restore of {name}")


class _Again:
    """A stream of which some bytes were read already, from its beginning."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._stream.read(size)


def unpack(
    archive: Archive, directory: Path, progress: Progress, most: int = 0
) -> Path:
    """The dump as a plain file of ours, which is what parallel loading needs.

    `most` as in `Archive.open`. The disk is not filled to its end. Raises Damaged,
    Refused.
    """
    plain, written = directory / "dump", 0
    with archive.open(most) as stream, create_file(plain) as out:
        while chunk := stream.read(CHUNK):
            if written % _LOOK_EVERY < CHUNK:
                refuse_full(directory, archive.name)
            written += out.write(chunk)
            progress("unpack", written, 0)
    return plain


def refuse_full(directory: Path, name: str) -> None:
    """Refuses to take the disk's last room: others write to it too."""
    disk = shutil.disk_usage(directory)
    if disk.free < min(_ROOM, disk.total // 20):
        raise Refused(
            f"there is too little room to unpack {name} in {directory}: "
            f"{size(disk.free)} are left of {size(disk.total)}. Make room there, or "
            f"set {name_of('repository')} to a directory on a larger disk"
        )
