"""Uploads: the part `files` of a backup, and the folders that a switch renames.

    <backup>/files.jsonl       a line for each upload, in the order of its path:
                               {"path", "size", "mtime", "ctime_ns", "inode", "sha256"};
                               {"path", "refused": why} for what is no plain file;
                               last, {"path", "missing": true} for what the database
                               names and the disk lacked
    <repository>/objects/ab/abcdef…   each content once, over all backups

A path begins with nothing for what is below `ckan.storage_path`, with `@NAME` for
another storage. Restored uploads are laid down in `.dbm_<8 hex>_scratch` beside the
live folders and change places with them by renames; the old ones stay in
`.dbm_<8 hex>_undo`. Knows directories and the repository; neither PostgreSQL nor CKAN.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..disk import create_directory, create_file, sync_directory, write_file
from ..errors import Damaged, Refused
from ..layout import LIST
from ..opened import open_plain
from ..report import Progress
from ..signature import Written
from . import left_out
from .listing import HASH, NOT_UPLOADS, OURS, Changed, Listing, facts_of, line_of, safe

_TOKEN = ".dbmanage"  # noqa: S105


_CHUNK = 1 << 20


_MAX_DEPTH = 64


_ATTEMPTS = 5


#: two changes within this many ns may bear the same time
_TICK = 20_000_000


@dataclass(frozen=True)
class Folder:
    """A directory whose entries a switch renames; `prefix` begins their paths.

    A storage's own directory, and each link or mount in it, whose entries are renamed
    where they are: neither a mount nor the target of a link can change its place.
    Entries in `skip` are none of it, those in `above` because the repository is there.
    """

    prefix: str
    path: Path
    skip: frozenset[str] = frozenset()
    above: frozenset[str] = frozenset()

    def joined(self, name: str) -> str:
        """The path of one of its entries."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def names(self) -> list[str]:
        """The names of its entries that are uploads: plain files and directories."""
        with os.scandir(self.path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name not in self.skip | {_TOKEN}
                and not OURS.fullmatch(entry.name)
                and not entry.is_symlink()
                and (entry.is_dir() or entry.is_file())
            )


def folders(uploads: Mapping[str, str], repository: Path) -> list[Folder]:
    """The folders of a site's uploads (`Site.uploads`), links and mounts followed."""
    found: list[Folder] = []
    mounts = set(_mounts())
    roots = [Path(root) for root in uploads.values()]
    for prefix, root in uploads.items():
        path = Path(root)
        if not path.is_dir():
            continue
        skip = set(NOT_UPLOADS) if not prefix else {"lost+found"}
        below, above = [], set[str]()
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.name in skip or OURS.fullmatch(entry.name):
                    continue
                real = Path(entry.path).resolve()
                # `@NAME/…` is the path of another storage's upload
                taken = entry.name[0] == "@" and not prefix
                if taken or real == repository or real in repository.parents:
                    skip.add(entry.name)
                    if real in repository.parents:
                        above.add(entry.name)
                elif entry.is_symlink():
                    others = [*roots, repository, *(f.path for f in found)]
                    others += [target for _, target in below]
                    if _may_follow(Path(entry.path), real, path, others):
                        below.append((entry.name, real))
                elif Path(entry.path) in mounts:
                    below.append((entry.name, real))
        skip |= {name for name, _ in below}
        top = Folder(prefix, path, frozenset(skip), frozenset(above))
        own = frozenset({"lost+found"})
        found += [top, *(Folder(top.joined(name), real, own) for name, real in below)]
    return found


def _may_follow(link: Path, target: Path, storage: Path, others: list[Path]) -> bool:
    """Whether a link in a storage leads to more of it, apart from all the rest.

    Whoever may make links there must not make root rename what belongs to others, and
    nothing may be renamed as a part of two folders.
    """
    if not target.is_dir() or link.lstat().st_uid not in (0, os.geteuid()):
        return False
    if any(
        target == other or target in other.parents or other in target.parents
        for other in others
    ):
        return False
    return target.stat().st_uid == storage.stat().st_uid


def _folder_of(path: str, among: list[Folder]) -> tuple[Folder, str]:
    """The folder that a path belongs to, and the rest of the path. Raises Refused."""
    fitting = [f for f in among if path.startswith(f"{f.prefix}/" if f.prefix else "")]
    if path.startswith("@"):
        fitting = [folder for folder in fitting if folder.prefix]
    if not fitting:
        raise Refused(
            f"there is no place for {path!r}: the storage {path.split('/')[0]!r} "
            "(without a name: ckan.storage_path) is not configured here"
        )
    best = max(fitting, key=lambda folder: len(folder.prefix))
    return best, path[len(best.prefix) :].lstrip("/")


@dataclass(frozen=True)
class _Found:
    """An entry of the disk: not opened yet, so it may be gone or another by now."""

    path: str
    directory: int
    name: str


def paths(among: list[Folder]) -> Iterator[str]:
    """The paths of all that is on the disk, names that are no text left out."""
    for found in _walk(among, {}):
        if not any("\ud800" <= letter <= "\udfff" for letter in found.path):
            yield found.path


def _walk(among: list[Folder], inside: Mapping[str, str]) -> Iterator[_Found]:
    """All that is below the folders and no directory, in the order of the paths.

    `inside` names the directories in the folders that are meant instead, by prefix.
    """
    handles = {}
    try:
        units = []
        for folder in among:
            base = folder.path / inside.get(folder.prefix, "")
            if not base.is_dir():
                continue
            handles[folder] = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for name in os.listdir(base):
                if name in folder.skip | {_TOKEN} or OURS.fullmatch(name):
                    continue
                units.append((folder.joined(name).split("/"), folder, name))
        for parts, folder, name in sorted(units, key=lambda unit: unit[0]):
            yield from _below(handles[folder], name, "/".join(parts), 0)
    finally:
        for handle in handles.values():
            os.close(handle)


def _below(directory: int, name: str, path: str, depth: int) -> Iterator[_Found]:
    # never through a link: what was a directory a moment ago may be one now
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise Refused(
                f"the directory {path!r} of the uploads may not be read by this user: "
                "run this as CKAN's user, or give it back to that user"
            ) from error
        if error.errno not in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
            raise
        yield _Found(path, directory, name)
        return
    if depth > _MAX_DEPTH:
        os.close(handle)
        raise Refused(f"the uploads lie deeper than {_MAX_DEPTH} directories: {path}")
    try:
        with os.scandir(handle) as entries:
            # saves an attempt to open each; `_below` and `_read` look again
            children = sorted(
                (e.name, e.is_dir(follow_symlinks=False)) for e in entries
            )
        for child, is_directory in children:
            if is_directory:
                yield from _below(handle, child, f"{path}/{child}", depth + 1)
            else:
                yield _Found(f"{path}/{child}", handle, child)
    finally:
        os.close(handle)


def _facts(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "size": status.st_size,
        "mtime": status.st_mtime,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def object_path(objects: Path, digest: str) -> Path:
    """Where a content lies; `digest` is 64 hex digits, `lines` has looked."""
    return objects / digest[:2] / digest


@dataclass
class Taken:
    """What became of the uploads; the manifest's `files` holds it.

    `read` counts the files that were not the same as in the backup before; `examples`
    are sentences about a few of the missing and refused ones. `folders` are left out
    with the `behind` files in them, `left_out` says why; `linked` uploads that the
    database names are links.
    """

    count: int = 0
    bytes: int = 0
    read: int = 0
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
                out.write(line_of({"path": path, "missing": True}))
        file.flush()
        os.fsync(file.fileno())
    _reread(staged)
    return taken, Listing(listed, out.bytes, out.sha256)


def _write(
    among: list[Folder],
    objects: Path,
    staged: Path,
    inside: Mapping[str, str],
    progress: Progress,
    expected: int,
    file: IO[bytes],
    previous: Listing | None,
) -> tuple[Taken, Written, set[str]]:
    """Writes the lines of what is on the disk; the paths of links to directories.

    Raises Changed, OSError.
    """
    taken, out, earlier = Taken(), Written(file), _Previous(previous)
    links: set[str] = set()
    for found in _walk(among, inside):
        if not safe(found.path):
            taken.refused += 1
            taken.odd(f"{found.path[:80]}…", "is too long a path: not included")
            continue
        line = earlier.unchanged(found, objects)
        if line is None:
            try:
                facts = _read(found, objects, staged)
            except FileNotFoundError:
                continue  # deleted meanwhile; missing if the database names it
            line = line_of(facts)
            if "refused" in facts:
                taken.refused += 1
                taken.odd(found.path, f"is {facts['refused']}: not included")
                if _is_linked_directory(found):
                    links.add(found.path)
                    folder, rest = _folder_of(found.path, among)
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
            progress("uploads", taken.bytes, expected)
    earlier.finish()
    for folder in among:
        for name in sorted(folder.above):
            if files := left_out.count(folder.path / name, objects.parent):
                path = folder.joined(name)
                links.add(path)
                taken.without(files, left_out.above(path, files))
    return taken, out, links


def _is_linked_directory(found: _Found) -> bool:
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
            facts = facts_of(self._line)
            parts = [] if "missing" in facts else facts["path"].split("/")
        except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
            raise Changed(LIST, [f"{LIST}: a line is not JSON"]) from None
        self._path = parts
        return parts

    def unchanged(self, found: _Found, objects: Path) -> bytes | None:
        """The earlier line of a file that is the same, and whose content is there."""
        if not self._line:
            return None
        try:
            now = os.stat(found.name, dir_fd=found.directory, follow_symlinks=False)
        except OSError:
            return None
        head = line_of(_facts(found.path, now))[:-2] + b', "sha256": "'
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


def _read(found: _Found, objects: Path, staged: Path) -> dict[str, Any]:
    """Reads a file until it holds still; stores its content where it is new."""
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
                    "as CKAN's user, or give it back to that user"
                ) from error
            raise
        with os.fdopen(handle, "rb", buffering=0) as file:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                return {"path": found.path, "refused": "no plain file"}
            if time.time_ns() - before.st_ctime_ns < _TICK:
                time.sleep(_TICK / 1e9)
            digest = _store(file, objects, staged)
            after = os.fstat(handle)
        facts = _facts(found.path, after)
        if digest[1] == after.st_size and _facts(found.path, before) == facts:
            return facts | {"sha256": digest[0]}
        time.sleep(0.05 * attempt)
    return {"path": found.path, "refused": "changed whenever it was read"}


def _store(file: IO[bytes], objects: Path, staged: Path) -> tuple[str, int]:
    partial = staged / "partial"
    partial.unlink(missing_ok=True)
    digest, size = hashlib.sha256(), 0
    chunk = file.read(_CHUNK)
    with create_file(partial) as out:
        while chunk:
            digest.update(chunk)
            size += out.write(chunk)
            chunk = file.read(_CHUNK)
    name = digest.hexdigest()
    for place in (objects, staged):
        with suppress(OSError):
            # one that was changed on the disk is written anew
            if _digest(object_path(place, name)) == name:
                return name, size
    kept = object_path(staged, name)
    if not kept.parent.is_dir():
        create_directory(kept.parent)
    partial.rename(kept)
    return name, size


def _mode(path: str, among: list[Folder], inside: Mapping[str, str]) -> int | None:
    """The kind of a file, of a link itself; None where there is no upload."""
    try:
        folder, rest = _folder_of(path, among)
        place = folder.path / inside.get(folder.prefix, "") / rest
        mode = place.lstat().st_mode
        return mode if stat.S_ISREG(mode) or place.is_file() else None
    except (OSError, Refused):
        return None


def _reread(staged: Path) -> None:
    """What was just stored is read back from the disk. Raises Damaged."""
    (staged / "partial").unlink(missing_ok=True)
    os.sync()  # thousands of files: once for all of them
    for directory in staged.iterdir():
        for stored in directory.iterdir():
            if _digest(stored) != stored.name:
                raise Damaged("what was just written", [f"upload {stored.name}"])


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def add_objects(staged: Path, objects: Path) -> None:
    """Moves the new contents to the repository's objects.

    To be done before the backup gets its name: an object too many is no harm.
    """
    if not objects.is_dir():
        create_directory(objects)
    for directory in staged.iterdir():
        target = objects / directory.name
        if not target.is_dir():
            create_directory(target)
        for stored in directory.iterdir():
            stored.rename(target / stored.name)
        sync_directory(target)
    sync_directory(objects)


def problems(
    listing: Listing, objects: Path, read: Callable[[int], None] = lambda _: None
) -> Iterator[str]:
    """What is wrong with a list of uploads and their contents; every byte is read."""
    try:
        for facts in listing.lines():
            if "sha256" not in facts:
                continue
            place = object_path(objects, facts["sha256"])
            if not (wrong := _wrong(place, facts["size"])):
                with suppress(OSError):
                    changed = _digest(place) != place.name
                    wrong = f"its content {place.name} was changed" if changed else ""
            read(facts["size"])
            if wrong:
                yield f"upload {facts['path']!r}: {wrong}"
    except Damaged as error:
        yield from error.problems
    except OSError as error:
        yield f"{LIST}: {error.strerror}"


def _wrong(place: Path, size: int) -> str:
    """What is wrong with a content at first sight, without reading it."""
    try:
        status = place.lstat()
    except OSError as error:
        return f"its content {place.name}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"its content {place.name} is not a plain file"
    if status.st_size != size:
        return f"its content {place.name} has {status.st_size} bytes, not {size}"
    return ""


def compare(among: list[Folder], listing: Listing) -> dict[str, int]:
    """`{now, then, lost, gained, changed}`: the uploads on the disk and in a list."""
    counts = {"now": 0, "then": 0, "lost": 0, "gained": 0, "changed": 0}
    then = (facts for facts in listing.lines() if "sha256" in facts)
    other = next(then, None)
    for found in _walk(among, {}):
        try:
            now = os.stat(found.name, dir_fd=found.directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(now.st_mode):
            continue
        counts["now"] += 1
        here = found.path.split("/")
        while other and other["path"].split("/") < here:
            counts["then"] += 1
            counts["gained"] += 1
            other = next(then, None)
        if other and other["path"] == found.path:
            counts["then"] += 1
            same = (now.st_size, now.st_mtime) == (other["size"], other["mtime"])
            counts["changed"] += not same
            other = next(then, None)
        else:
            counts["lost"] += 1
    while other:
        counts["then"] += 1
        counts["gained"] += 1
        other = next(then, None)
    return counts


def fetch(listing: Listing, objects: Path, path: str, out: IO[bytes]) -> int:
    """Writes one upload's content to a file, its checksum looked at first.

    Returns its size. Raises Refused when the list has no such path, Damaged.
    """
    found = None
    for facts in listing.lines():  # to its end: only then it is the backup's
        if facts["path"] == path and "sha256" in facts:
            found = facts
    if found is None:
        raise Refused(
            f"the backup holds no upload {path!r}: {LIST} lists what it holds"
        )
    with _content(objects, found) as file:
        _copied(file, found)
        file.seek(0)
        return _copied(file, found, out)


def _content(objects: Path, facts: Mapping[str, Any]) -> IO[bytes]:
    """The content of an upload, open. Raises OSError."""
    return open_plain(object_path(objects, facts["sha256"]))


def _copied(file: IO[bytes], facts: Mapping[str, Any], *outs: Any) -> int:
    """Copies a content and returns its size. Raises Damaged when it is another."""
    digest, size = hashlib.sha256(), 0
    while size <= facts["size"] and (chunk := file.read(_CHUNK)):
        digest.update(chunk)
        size += len(chunk)
        for out in outs:
            out.write(chunk)
    if digest.hexdigest() != facts["sha256"] or size != facts["size"]:
        what = f"upload {facts['path']!r}: its content {facts['sha256']} was changed"
        raise Damaged("the backup", [what])
    return size


@dataclass(frozen=True)
class Move:
    """One folder's change of place: `old` entries go away, `new` ones come.

    `scratch` and `undo` are names of directories in `path`, which carry the token of
    the journal while they are there.
    """

    path: str
    prefix: str
    scratch: str
    undo: str
    token: str
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


def sound(move: Move, among: Mapping[str, Folder]) -> bool:
    """Whether a move of the journal is one of these folders, by plain names only."""
    return (
        move.path in among
        and bool(OURS.fullmatch(move.scratch) and OURS.fullmatch(move.undo))
        and all(safe(name) and "/" not in name for name in (*move.old, *move.new))
    )


def moves(among: list[Folder], name: str, token: str) -> list[Move]:
    """What a restore makes in each folder; `name` is the operation's 8 hex digits."""
    names = f".dbm_{name}_scratch", f".dbm_{name}_undo"
    return [Move(str(f.path), f.prefix, *names, token) for f in among]


def links(listing: Listing, among: list[Folder]) -> Iterator[tuple[str, Path]]:
    """The links that a restore of the list takes away: their paths and places.

    Raises Damaged, Refused.
    """
    tops = set[tuple[Folder, str]]()
    for facts in listing.lines():
        if "sha256" in facts:
            folder, rest = _folder_of(facts["path"], among)
            tops.add((folder, rest.split("/")[0]))
    for found in _walk(among, {}):
        folder, rest = _folder_of(found.path, among)
        place = folder.path / rest
        if place.is_symlink() and ("/" in rest or (folder, rest) in tops):
            yield found.path, place


def room(listing: Listing, objects: Path, among: list[Folder]) -> None:
    """Looks at every line, and at the room for them. Raises Refused, Damaged."""
    needed: dict[Folder, int] = {}
    for facts in listing.lines():
        if "sha256" in facts:
            folder, _ = _folder_of(facts["path"], among)
            needed[folder] = needed.get(folder, 0) + facts["size"]
            if wrong := _wrong(object_path(objects, facts["sha256"]), facts["size"]):
                raise Damaged("the backup", [f"upload {facts['path']!r}: {wrong}"])
    for folder in among:
        for mount in _mounts():
            above = mount.parents
            if folder.path in above and mount != folder.path:
                unit = folder.path / mount.relative_to(folder.path).parts[0]
                if unit.name in folder.names():
                    raise Refused(
                        f"{mount} is a mount inside {unit}, which would have to be "
                        "renamed: mount it elsewhere, or restore with --only database"
                    )
        if not os.access(folder.path, os.W_OK | os.X_OK):
            raise Refused(
                f"{folder.path} may not be written to by this user: the uploads are "
                "laid down beside the live ones. Run this as CKAN's user"
            )
    devices: dict[int, tuple[Path, int]] = {}
    for folder, size in needed.items():
        device = folder.path.stat().st_dev
        devices[device] = (folder.path, devices.get(device, (folder.path, 0))[1] + size)
    for path, size in devices.values():
        free = shutil.disk_usage(path).free
        if free < size:
            raise Refused(
                f"the uploads need {size} bytes beside the live ones in {path}, and "
                f"{free} are free: make room, or restore with --only database"
            )


def _mounts() -> list[Path]:
    found = []
    with suppress(OSError), open("/proc/self/mountinfo") as file:
        for line in file:
            octal = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
            found.append(Path(octal))
    return found


def stage(
    listing: Listing,
    objects: Path,
    among: list[Folder],
    planned: list[Move],
    progress: Progress = lambda *_: None,
    expected: int = 0,
) -> None:
    """Lays the uploads down beside the live ones, each checked as it is copied.

    With the rights and the owner of what they will replace. Raises Damaged, OSError.
    """
    scratch = {}
    for folder, move in zip(among, planned, strict=True):
        scratch[folder] = _make(Path(move.path) / move.scratch, move.token)
        for name in folder.names():
            if (folder.path / name).is_dir():  # CKAN expects it, even when it is empty
                _directory(scratch[folder] / name, folder.path / name)
    done = 0
    for facts in listing.lines():
        if "sha256" not in facts:
            continue
        folder, rest = _folder_of(facts["path"], among)
        target = scratch[folder] / rest
        like = folder.path / Path(rest).parts[0]
        _parents(target.parent, scratch[folder], like if like.is_dir() else folder.path)
        _copy(objects, target, facts)
        done += facts["size"]
        progress("uploads", done, expected)
    os.sync()


def _parents(directory: Path, top: Path, like: Path) -> None:
    if directory == top or directory.is_dir():
        return
    _parents(directory.parent, top, like)
    _directory(directory, like)


def _directory(path: Path, like: Path) -> None:
    path.mkdir(mode=0o700)
    status = like.stat()
    _own(path, status)
    path.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _own(path: Path, like: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, like.st_uid, like.st_gid)


def _copy(objects: Path, target: Path, facts: Mapping[str, Any]) -> None:
    with _content(objects, facts) as file, create_file(target) as out:
        _copied(file, facts, out)
    parent = target.parent.stat()
    _own(target, parent)
    target.chmod(stat.S_IMODE(parent.st_mode) & 0o666 | 0o600)
    with suppress(ValueError, OverflowError):  # a time that is none
        os.utime(target, (facts["mtime"], facts["mtime"]))


def _make(path: Path, token: str) -> Path:
    """A directory of ours, which carries the token. Raises Refused."""
    with suppress(FileExistsError):
        create_directory(path)
    # one that a kill left without its token is empty
    if not path.is_symlink() and not set(os.listdir(path)) - {_TOKEN}:
        write_file(path / _TOKEN, token.encode())
    if not is_ours(path, token):
        raise Refused(f"{path} is not ours: somebody else has made it; remove it")
    return path


def is_ours(path: Path, token: str) -> bool:
    """Whether a directory was made by us and carries the journal's token."""
    if not OURS.fullmatch(path.name) or path.is_symlink():
        return False
    with suppress(OSError):
        return (path / _TOKEN).read_text() == token
    return False


def discard(path: Path, token: str) -> bool:
    """Removes a directory that is provably ours; says whether it is gone.

    The token goes last, so that a removal that was cut short can go on.
    """
    if not path.exists():
        return True
    if not is_ours(path, token):
        # what a kill left before its token was written
        with suppress(OSError):
            if OURS.fullmatch(path.name) and not path.is_symlink():
                path.rmdir()
                return True
        return False
    for entry in path.iterdir():
        if entry.name != _TOKEN:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    (path / _TOKEN).unlink()
    path.rmdir()
    return True


def planned(move: Move, folder: Folder) -> Move:
    """The move with the names that are there now."""
    live = Path(move.path)
    new = [n for n in os.listdir(live / move.scratch) if n != _TOKEN]
    # a link that is in the way goes with the rest, for an undo to bring it back
    links = [name for name in new if (live / name).is_symlink()]
    return replace(move, old=sorted([*folder.names(), *links]), new=sorted(new))


def began(move: Move) -> bool:
    """Whether anything of the move was done."""
    return (Path(move.path) / move.undo).exists()


def forward(move: Move) -> None:
    """Puts the new entries in the old ones' place; what is done already stays done."""
    live = Path(move.path)
    scratch = live / move.scratch
    undo = _make(live / move.undo, move.token)
    new = set(move.new)
    for name in move.old:
        if not _exists(undo / name) and (name not in new or _exists(scratch / name)):
            (live / name).rename(undo / name)
    for name in move.new:
        if _exists(scratch / name):
            _aside(live / name)
            (scratch / name).rename(live / name)
    _synced(live, scratch, undo)
    discard(scratch, move.token)


def back(move: Move) -> None:
    """The reverse of `forward`, from wherever it had come to."""
    live = Path(move.path)
    scratch = _make(live / move.scratch, move.token)
    undo = live / move.undo
    for name in move.new:
        if not _exists(scratch / name) and _exists(live / name):
            (live / name).rename(scratch / name)
    for name in move.old:
        if _exists(undo / name):
            _aside(live / name)
            (undo / name).rename(live / name)
    _synced(live, scratch, undo)
    if undo.exists():
        discard(undo, move.token)


def _aside(path: Path) -> None:
    """Makes room for a rename, where CKAN has made an entry anew after a kill."""
    number = 1
    while _exists(path):
        other = path.with_name(f"{path.name}.aside-{number}")
        if not _exists(other):
            path.rename(other)
        number += 1


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _synced(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            sync_directory(path)
