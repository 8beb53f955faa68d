"""The one way to open a file that others may have put there: a plain file, or nothing.

Whoever can write to a repository can put a link, a pipe or a device in a file's place.
A link would lead elsewhere, a pipe would never answer, a device would never end. So no
link is followed, no open waits, and what is read has a bound. Must not know what the
files hold.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .words import size

_MODES = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}


def open_plain(
    path: str | Path,
    flags: int = os.O_RDONLY,
    *,
    inside: int | None = None,
    limit: int | None = None,
) -> IO[bytes]:
    """A plain file, open; what `O_CREAT` makes has mode 0600.

    `inside` is the handle of the directory that a relative path begins at; `limit` the
    bytes that the file may have. Raises OSError for a link, a pipe, a device, a
    directory, and for a file over the limit. What was looked at is what was opened:
    callers read, hash and use this handle, never the path again.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600, dir_fd=inside)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        what = "is a link" if error.errno == errno.ELOOP else "is a socket or a pipe"
        raise OSError(error.errno, f"{what}, not a plain file", str(path)) from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "is not a plain file", str(path))
        if limit is not None and about.st_size > limit:
            raise OSError(errno.EFBIG, f"is larger than {size(limit)}", str(path))
        return os.fdopen(handle, _MODES[flags & os.O_ACCMODE])
    except BaseException:
        os.close(handle)
        raise


def read_plain(path: str | Path, limit: int, *, inside: int | None = None) -> bytes:
    """All of a plain file of at most `limit` bytes. Raises OSError as `open_plain`."""
    with open_plain(path, inside=inside, limit=limit) as file:
        content = file.read(limit + 1)  # it may have grown since
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"is larger than {size(limit)}", str(path))
    return content


@contextmanager
def open_directory(path: str | Path, *, inside: int | None = None) -> Iterator[int]:
    """A directory by its handle; a link to one is none. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, dir_fd=inside)
    try:
        yield handle
    finally:
        os.close(handle)
