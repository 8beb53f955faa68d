"""Single uploads change their places: in, and back; the rest stays as it is.

As a `Move` of whole folders, but its names are paths in the folder. Each directory on
the way is opened below the one before it, never through a link.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import Refused
from .folders import OURS, Folder
from .listing import safe
from .moves import Move, discard, make_folder
from .staging import lay_one

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sound(move: Move, among: Mapping[str, Folder]) -> bool:
    """Whether a move of the journal is in one of these folders, by plain paths only."""
    return (
        move.path in among
        and bool(OURS.fullmatch(move.scratch) and OURS.fullmatch(move.undo))
        and all(isinstance(name, str) and safe(name) for name in move.old + move.new)
    )


def lay_down(
    move: Move, path: str, facts: Mapping[str, Any], content: IO[bytes]
) -> None:
    """Lays a file down in the scratch folder, as one that `move.new` is to name."""
    scratch = make_folder(Path(move.path) / move.scratch, move.token)
    like = Path(move.path) / path.split("/")[0]
    lay_one(
        scratch / path, scratch, like if like.is_dir() else Path(move.path),
        content, facts,
    )  # fmt: skip


def is_there(move: Move, path: str) -> bool:
    """Whether the live folder has such a file. Raises Refused for a link on the way."""
    with _directory(Path(move.path), path, False) as (handle, name):
        return handle >= 0 and _exists(handle, name)


def forward(move: Move) -> None:
    """Puts the new files in the old ones' place; what is done already stays done."""
    live = Path(move.path)
    scratch, undo = live / move.scratch, live / move.undo
    make_folder(undo, move.token)
    new = set(move.new)
    for path in move.old:
        if not _has(undo, path) and (path not in new or _has(scratch, path)):
            _rename(live, undo, path)
    for path in move.new:
        _rename(scratch, live, path)
    if scratch.exists():
        discard(scratch, move.token)


def back(move: Move) -> None:
    """The reverse of `forward`, from wherever it had come to."""
    live = Path(move.path)
    scratch, undo = live / move.scratch, live / move.undo
    if not undo.exists():  # nothing was done
        return
    make_folder(scratch, move.token)
    for path in move.new:
        if not _has(scratch, path):
            _rename(live, scratch, path)
    for path in move.old:
        _rename(undo, live, path)
    discard(undo, move.token)


def _has(root: Path, path: str) -> bool:
    with _directory(root, path, False) as (handle, name):
        return handle >= 0 and _exists(handle, name)


def _rename(start: Path, end: Path, path: str) -> None:
    """Renames a file from below one directory to below another, where there is one."""
    with (
        _directory(start, path, False) as (source, name),
        _directory(end, path, source >= 0 and _exists(source, name)) as (target, _),
    ):
        if source < 0 or target < 0 or not _exists(source, name):
            return
        number, aside = 0, name
        while _exists(target, aside):  # the site has made it anew after a kill
            number += 1
            aside = f"{name}.aside-{number}"
        if number:
            os.rename(name, aside, src_dir_fd=target, dst_dir_fd=target)
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        os.fsync(target)
        os.fsync(source)


def _exists(directory: int, name: str) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"the upload {name!r} is no file: move it away first")
    return True


@contextmanager
def _directory(root: Path, path: str, make: bool) -> Iterator[tuple[int, str]]:
    """The directory of a path below a root, opened, and the file's name.

    -1 where there is none, unless it is to be made.
    """
    *above, name = path.split("/")
    try:
        handle = _opened(root, above, make)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise Refused(
            f"a directory of the upload {path!r} below {root} is a link or no "
            "directory: it is not followed"
        ) from error
    try:
        yield handle, name
    finally:
        if handle >= 0:
            os.close(handle)


def _opened(root: Path, above: list[str], make: bool) -> int:
    try:
        handle = os.open(root, _FLAGS)
    except FileNotFoundError:
        return -1
    for part in above:
        before = handle
        try:
            handle = os.open(part, _FLAGS, dir_fd=before)
        except FileNotFoundError:
            if not make:
                return -1
            handle = _made(before, part)
        finally:
            os.close(before)
    return handle


def _made(directory: int, name: str) -> int:
    """A new directory in another, with its rights."""
    os.mkdir(name, 0o700, dir_fd=directory)
    handle = os.open(name, _FLAGS, dir_fd=directory)
    about = os.fstat(directory)
    os.fchmod(handle, stat.S_IMODE(about.st_mode) | stat.S_IRWXU)
    if os.geteuid() == 0:
        os.fchown(handle, about.st_uid, about.st_gid)
    os.fsync(directory)
    return handle
