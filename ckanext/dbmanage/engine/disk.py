"""Files and directories of ours: private, on the disk, whole or not at all.

Must not know what is written.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import DbmanageError, Refused
from .opened import open_directory, open_plain

#: bytes of a name that its partial name keeps: all that file systems allow are 255
_KEPT = 200
#: errors of a disk, or of a share of it, that has no room
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Has an error tell of this file, where the block finds no room to write it.

    What fails to write does not say to which file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL and not error.filename:
            error.filename = str(path)
        raise


@contextmanager
def whole(
    name: str | Path, mode: int, check: Callable[[IO[bytes]], Any] = lambda _: None
) -> Iterator[IO[bytes]]:
    """What is written goes to a partial name, to the disk, and then to this one.

    `check` is handed what was written, to be read, before it gets its name. A link is
    followed; a pipe or a device is written to as it is. What stood there before stays
    when this fails, and what a killed command left of the same file is removed. Raises
    Refused and OSError.
    """
    if is_stream(name):
        with open(name, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(name))
    if not path.parent.is_dir():
        raise Refused(f"{path}: there is no directory {path.parent}")
    with (
        named(path),
        open_directory(path.parent) as directory,
        _new_or_none(directory, path.name, mode, check) as file,
    ):
        yield file


def is_stream(name: str | Path) -> bool:
    """Whether `whole` writes to it as it is: a pipe, a device. Raises OSError."""
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except FileNotFoundError:
        return False


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, 0600, on the disk when this returns.

    The directory that it is in is no link. Raises OSError.
    """
    try:
        with (
            open_directory(path.parent) as directory,
            _new_or_none(directory, path.name, 0o600) as file,
        ):
            file.write(content)
    except OSError as error:
        # what is written to does not say its name, as on a full disk
        if error.filename in (None, path.name):
            error.filename = str(path)
        raise


@contextmanager
def _new_or_none(
    directory: int,
    name: str,
    mode: int,
    check: Callable[[IO[bytes]], Any] = lambda _: None,
) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name in a directory when the block ends well."""
    partial, file = _partial(directory, name, mode)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            with open_plain(partial, inside=directory) as written:
                check(written)
            os.replace(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=directory)
        raise


@contextmanager
def lent(directory: Path, name: str) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file to write and to read again, and its path; it is gone at the end.

    What a killed command left of this name goes with the next one, or by
    `sweep_partials`. Raises OSError.
    """
    with open_directory(directory) as inside:
        partial, file = _partial(inside, name, 0o600)
        try:
            with file:
                yield directory / partial, file
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=inside)


def sweep_partials(directory: int, name: str) -> None:
    """Removes what killed commands left of this name, and nobody writes any more."""
    for left in os.listdir(directory):
        if is_partial(left, name):
            _sweep(directory, left)


def _partial(directory: int, name: str, mode: int) -> tuple[str, IO[bytes]]:
    """A new file beside the one of this name, locked as long as it is open."""
    kept = os.fsdecode(os.fsencode(name)[:_KEPT])
    sweep_partials(directory, name)
    while True:
        partial = f".{kept}.{secrets.token_hex(4)}.partial"
        try:
            file = create_file(partial, directory, mode)
        except OSError as error:
            error.filename = name  # the one that the reader knows
            raise
        with suppress(OSError):  # without locks here nobody sweeps it away either
            fcntl.flock(file, fcntl.LOCK_EX)
        # another command may have swept it away before it was locked
        if os.fstat(file.fileno()).st_nlink:
            return partial, file
        file.close()


def is_partial(left: str, name: str) -> bool:
    """Whether a file is what a killed command may have left of this name.

    Of our own form to the last letter: a `X.partial` is somebody's.
    """
    kept = os.fsdecode(os.fsencode(name)[:_KEPT])
    return bool(re.fullmatch(rf"\.{re.escape(kept)}\.[0-9a-f]{{8}}\.partial", left))


def _sweep(directory: int, partial: str) -> None:
    """Removes a partial file that nobody writes any more."""
    # what is somebody else's is theirs to remove
    with suppress(OSError), open_plain(partial, inside=directory) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(partial, dir_fd=directory)


def create_file(
    path: str | Path, inside: int | None = None, mode: int = 0o600
) -> IO[bytes]:
    """A new file, with these rights from its first byte whatever the umask.

    `inside` is the handle of the directory that a relative path begins at. Raises
    OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(path, flags, mode, dir_fd=inside)
    os.fchmod(handle, mode)  # a umask may only have taken rights away
    return os.fdopen(handle, "wb")


def create_directory(path: Path) -> Path:
    """A new directory, 0700 whatever the umask. Raises FileExistsError."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)
    return path


def make_directories(path: Path) -> None:
    """Makes a directory and those above it that are missing.

    Nobody but their owner may write to them whatever the umask, which can only take
    rights of reading away.
    """
    for missing in (path, *path.parents)[::-1]:
        with suppress(FileExistsError):  # somebody else may make the same one
            if not missing.exists():
                missing.mkdir(mode=0o755)


def own_directory(path: Path) -> Path:
    """A directory of the repository, made when it is missing.

    Raises DbmanageError for a link or anything else in its place.
    """
    with suppress(FileExistsError):
        create_directory(path)
    try:
        with open_directory(path):
            pass
    except OSError as error:
        raise DbmanageError(
            f"{path} cannot be used, {error.strerror}: it must be a directory of the "
            "repository itself, no link to another; see what it is, and move it away"
        ) from error
    return path


def sync_directory(path: Path) -> None:
    """Makes the names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file_system(path: Path) -> None:
    """Has all that was written to a path's file system on the disk.

    Once for many files; what could not be written raises OSError.
    """
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    with open_directory(path) as handle:
        if syncfs(handle):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))


def regular_files(directory: Path | int) -> dict[str, os.DirEntry[str]]:
    """What is in a directory, or in that of a handle, by name, links not followed."""
    with os.scandir(directory) as entries:
        return {entry.name: entry for entry in entries}


def is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a plain file: no link, no directory, no pipe."""
    return stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
