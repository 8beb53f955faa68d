"""Uploads into a backup: each content once, read until it holds still."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..disk import create_file
from ..errors import Damaged, Refused
from ..layout import LIST
from ..objects import digest_of, is_sound, stage
from ..report import Progress
from ..signature import Hashed
from . import left_out
from .folders import Folder, Found, folder_of, walk
from .listing import (
    HASH,
    Changed,
    Listing,
    Writer,
    facts_of_file,
    format_line,
    parse_line,
    safe,
)

_CHUNK = 1 << 20
_ATTEMPTS = 5
#: two changes within this many ns may bear the same time
_TICK = 20_000_000


@dataclass
class Taken:
    """What became of the uploads; the manifest's `files` holds it.

    `read` counts the files that were not the same as in the backup before, `added` the
    bytes of contents that no backup had; `examples` are sentences about a few of the
    missing and refused ones. `folders` are left out with the `behind` files in them,
    `left_out` says why; `linked` uploads that the database names are links.
    """

    count: int = 0
    bytes: int = 0
    read: int = 0
    added: int = 0
    missing: int = 0
    refused: int = 0
    folders: int = 0
    behind: int = 0
    linked: int = 0
    left_out: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    not_included: list[str] = field(default_factory=list)

    def without(self, files: int, why: str) -> None:
        """Notes a folder that is left out, a few of them by name."""
        self.folders += 1
        self.behind += files
        if len(self.left_out) < 10:
            self.left_out.append(why)

    def odd(self, path: str, why: str) -> None:
        """Notes something to be told, a few of them by name."""
        if len(self.examples) < 10:
            self.examples.append(f"{path!r} {why}")


def take(
    among: list[Folder],
    objects: Path,
    listed: Path,
    staged: Path,
    *,
    inside: Mapping[str, str] | None = None,
    previous: Listing | None = None,
    named: Iterable[str] = (),
    progress: Progress = lambda *_: None,
    expected: int = 0,
) -> tuple[Taken, Listing]:
    """Writes the list of uploads, and the contents that are new to `staged`.

    What has the path, size, times and inode of a line of `previous`, whose manifest is
    this site's, is not read again. The sum in what is returned is of what was written,
    whatever is on the disk by now. `inside` are the folders' directories that hold the
    uploads where they are not the live ones; `named` the paths that the database knows.
    `add_objects` makes the new contents the repository's. Raises OSError, Damaged.
    """
    inside = inside or {}
    expected = expected or _size(among, inside)
    with create_file(listed) as file:
        write = partial(_write, among, objects, staged, inside, progress, expected)
        try:
            taken, out, links = write(file, previous)
        except Changed:  # another list took its place: nothing of it counts
            file.seek(0)
            file.truncate()
            taken, out, links = write(file, None)
        for path in named:
            if not safe(path):
                continue
            # what is there but not in the backup is not missing: a proof has to fail
            if links and _is_behind(path, links):
                continue
            mode = _mode(path, among, inside)
            taken.linked += mode is not None and stat.S_ISLNK(mode)
            if mode is None:
                taken.missing += 1
                taken.odd(path, "is named by the database, but the disk lacks it")
                out.write(format_line({"path": path, "missing": True}))
        written = out.finish(listed)
        file.flush()
        os.fsync(file.fileno())
    taken.added = _reread(staged, progress)
    return taken, written


def _write(
    among: list[Folder],
    objects: Path,
    staged: Path,
    inside: Mapping[str, str],
    progress: Progress,
    expected: int,
    file: IO[bytes],
    previous: Listing | None,
) -> tuple[Taken, Writer, set[str]]:
    """Writes the lines of what is on the disk; the paths of links to directories.

    Raises Changed, OSError.
    """
    taken, out, earlier = Taken(), Writer(file), _Previous(previous)
    links: set[str] = set()

    def told(read: int) -> None:
        progress("uploads", taken.bytes + read, expected)

    for found in walk(among, inside):
        if not safe(found.path):
            taken.refused += 1
            taken.odd(f"{found.path[:80]}…", "is too long a path: not included")
            continue
        line = earlier.unchanged(found, objects)
        if line is None:
            try:
                facts = _read(found, objects, staged, told)
            except FileNotFoundError:
                continue  # deleted meanwhile; missing if the database names it
            line = format_line(facts)
            if "refused" in facts:
                taken.refused += 1
                taken.odd(found.path, f"is {facts['refused']}: not included")
                if _is_linked_directory(found):
                    links.add(found.path)
                    folder, rest = folder_of(found.path, among)
                    place = folder.path / inside.get(folder.prefix, "") / rest
                    files = left_out.count(place, objects.parent)
                    taken.without(files, left_out.sentence(found.path, place, files))
                out.write(line)
                continue
            taken.read += 1
            taken.bytes += facts["size"]
        else:
            taken.bytes += earlier.size
        taken.count += 1
        out.write(line)
        if not taken.count % 100:
            told(0)
    earlier.finish()
    for folder in among:
        for name in sorted(folder.above):
            if files := left_out.count(folder.path / name, objects.parent):
                path = folder.joined(name)
                links.add(path)
                taken.without(files, left_out.above(path, files))
    return taken, out, links


def _size(among: list[Folder], inside: Mapping[str, str]) -> int:
    """The bytes of all uploads, as far as they can be seen without opening any."""
    size = 0
    for found in walk(among, inside):
        with suppress(OSError):
            size += os.stat(
                found.name, dir_fd=found.directory, follow_symlinks=False
            ).st_size
    return size


def _is_linked_directory(found: Found) -> bool:
    try:
        return stat.S_ISDIR(os.stat(found.name, dir_fd=found.directory).st_mode)
    except OSError:  # a link to nothing
        return False


def _is_behind(path: str, links: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:end]) in links for end in range(1, len(parts) + 1))


class _Previous:
    """The lines of an earlier list, met in the order of the paths."""

    def __init__(self, listing: Listing | None) -> None:
        self._rest = listing.raw() if listing else iter(())
        self._line, self.size = b"", 0
        self._path: list[str] | None = None
        self._next()

    def _next(self) -> None:
        try:
            self._line = next(self._rest, b"")
        except OSError as error:
            raise Changed(LIST, [f"{LIST}: {error.strerror}"]) from error
        self._path = None

    def finish(self) -> None:
        """Reads it to its end. Raises Changed: what was said of it is void."""
        for _ in self._rest:
            pass

    def _parts(self) -> list[str]:
        # read only where it does not begin as expected: that saves most of the time
        if self._path is not None:
            return self._path
        try:
            facts = parse_line(self._line)
            parts = [] if "missing" in facts else facts["path"].split("/")
        except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
            raise Changed(LIST, [f"{LIST}: a line is not JSON"]) from None
        self._path = parts
        return parts

    def unchanged(self, found: Found, objects: Path) -> bytes | None:
        """The earlier line of a file that is the same, and whose content is there."""
        if not self._line:
            return None
        try:
            now = os.stat(found.name, dir_fd=found.directory, follow_symlinks=False)
        except OSError:
            return None
        head = format_line(facts_of_file(found.path, now))[:-2] + b', "sha256": "'
        if not self._line.startswith(head):
            wanted = found.path.split("/")
            while self._line and self._parts() < wanted:
                self._next()
            if not self._line.startswith(head):
                return None
        line = self._line
        digest = line[len(head) : len(head) + 64].decode("ascii", "replace")
        with suppress(OSError):
            if (
                stat.S_ISREG(now.st_mode)
                and HASH.fullmatch(digest)
                and os.stat(f"{objects}/{digest[:2]}/{digest}").st_size == now.st_size
            ):
                self.size = now.st_size
                self._next()
                return line
        return None


def _read(
    found: Found, objects: Path, staged: Path, told: Callable[[int], None]
) -> dict[str, Any]:
    """Reads a file until it holds still; stores its content where it is new.

    `told` is called with the bytes that are read of it so far.
    """
    for attempt in range(_ATTEMPTS):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(found.name, flags, dir_fd=found.directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                kind = "a link" if error.errno == errno.ELOOP else "a socket"
                return {"path": found.path, "refused": kind}
            if isinstance(error, PermissionError):
                raise Refused(
                    f"the upload {found.path!r} may not be read by this user: run this "
                    "as the site's user, or give it back to that user"
                ) from error
            raise
        with os.fdopen(handle, "rb", buffering=0) as file:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                return {"path": found.path, "refused": "no plain file"}
            if time.time_ns() - before.st_ctime_ns < _TICK:
                time.sleep(_TICK / 1e9)
            digest = _store(file, objects, staged, told)
            after = os.fstat(handle)
        facts = facts_of_file(found.path, after)
        if digest[1] == after.st_size and facts_of_file(found.path, before) == facts:
            return facts | {"sha256": digest[0]}
        time.sleep(0.05 * attempt)
    return {"path": found.path, "refused": "changed whenever it was read"}


def _store(
    file: IO[bytes], objects: Path, staged: Path, told: Callable[[int], None]
) -> tuple[str, int]:
    partial = staged / "partial"
    partial.unlink(missing_ok=True)
    read = Hashed(file)
    with create_file(partial) as out:
        while chunk := read.read(_CHUNK):
            out.write(chunk)
            told(read.bytes)
    name = read.sha256
    # one that was changed on the disk is written anew
    if not is_sound(objects, name) and not is_sound(staged, name):
        partial.rename(stage(staged, name))
    return name, read.bytes


def _mode(path: str, among: list[Folder], inside: Mapping[str, str]) -> int | None:
    """The kind of a file, of a link itself; None where there is no upload."""
    try:
        folder, rest = folder_of(path, among)
        place = folder.path / inside.get(folder.prefix, "") / rest
        mode = place.lstat().st_mode
        return mode if stat.S_ISREG(mode) or place.is_file() else None
    except (OSError, Refused):
        return None


def _reread(staged: Path, progress: Progress) -> int:
    """The bytes of what was just stored, which is read back. Raises Damaged."""
    (staged / "partial").unlink(missing_ok=True)
    total = sum(stored.stat().st_size for stored in staged.glob("??/*"))
    done = 0

    def told(read: int) -> None:
        nonlocal done
        done += read
        progress("verify files", done, total)

    for stored in staged.glob("??/*"):
        if digest_of(stored, told) != stored.name:
            raise Damaged("what was just written", [f"upload {stored.name}"])
    return total
