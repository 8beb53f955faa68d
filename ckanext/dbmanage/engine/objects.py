"""The repository's objects: contents named by their sha256, each stored once.

    objects/ab/abcdef…

Uploads lie there as they are, segments of databases as frames of zstd. Must not know
what an object holds.
"""

import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .disk import create_directory, create_file, sync_file_system
from .opened import open_plain
from .signature import Hashed


def object_path(objects: Path, digest: str) -> Path:
    """Where a content lies; `digest` is 64 hex digits, the caller has looked."""
    return objects / digest[:2] / digest


def digest_of(path: Path, told: Callable[[int], None] = lambda _: None) -> str:
    """The sum of a file; `told` as `Hashed` takes it. Raises OSError."""
    with open_plain(path) as file:
        return Hashed(file, told).read_rest().sha256


def is_sound(objects: Path, digest: str) -> bool:
    """Whether the content is there, and is what its name says."""
    with suppress(OSError):
        return digest_of(object_path(objects, digest)) == digest
    return False


def stage(staged: Path, digest: str) -> Path:
    """The path to write a new content to, below a directory that was made for it."""
    kept = object_path(staged, digest)
    with suppress(FileExistsError):
        create_directory(kept.parent)
    return kept


def stage_bytes(staged: Path, digest: str, content: bytes) -> None:
    """Writes a small content; it may be there already. Raises OSError."""
    with suppress(FileExistsError), create_file(stage(staged, digest)) as file:
        file.write(content)


def add_objects(staged: Path, objects: Path) -> None:
    """Moves the new contents to the repository's objects, on the disk when it returns.

    To be done before the backup gets its name: an object too many is no harm.
    """
    if not any(staged.iterdir()):
        return
    sync_file_system(staged)
    if not objects.is_dir():
        create_directory(objects)
    for directory in staged.iterdir():
        target = objects / directory.name
        if not target.is_dir():
            create_directory(target)
        for stored in directory.iterdir():
            stored.rename(target / stored.name)
    sync_file_system(objects)


def wrong_at_sight(place: Path, size: int | None = None) -> str:
    """What is wrong with a content at first sight, without reading it.

    Raises PermissionError.
    """
    try:
        status = place.lstat()
    except PermissionError:
        raise
    except OSError as error:
        return f"its content {place.name}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"its content {place.name} is not a plain file"
    if size is not None and status.st_size != size:
        return f"its content {place.name} has {status.st_size} bytes, not {size}"
    return ""


def wrong_inside(place: Path, read: Callable[[int], None]) -> str:
    """What is wrong with a content when all of it is read; `read` hears the bytes.

    Raises PermissionError.
    """
    try:
        changed = digest_of(place, read) != place.name
    except PermissionError:
        raise
    except OSError as error:
        return f"its content {place.name}: {error.strerror}"
    return f"its content {place.name} was changed" if changed else ""
