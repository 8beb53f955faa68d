"""Folders of uploads: where they are, walked without following links."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import Refused
from ..report import NAMES, name_of

TOKEN = ".dbmanage"  # noqa: S105
_MAX_DEPTH = 64


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
                if entry.name not in self.skip | {TOKEN}
                and not OURS.fullmatch(entry.name)
                and not entry.is_symlink()
                and (entry.is_dir() or entry.is_file())
            )


def folders_of(uploads: Mapping[str, str], repository: Path) -> list[Folder]:
    """The folders of a site's uploads (`Site.uploads`), links and mounts followed."""
    found: list[Folder] = []
    mounts = set(mount_points())
    roots = [Path(root) for root in uploads.values()]
    for prefix, root in uploads.items():
        path = Path(root)
        if not path.is_dir():
            continue
        skip = not_uploads() if not prefix else {"lost+found"}
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


def folder_of(path: str, among: list[Folder]) -> tuple[Folder, str]:
    """The folder that a path belongs to, and the rest of the path. Raises Refused."""
    fitting = [f for f in among if path.startswith(f"{f.prefix}/" if f.prefix else "")]
    if path.startswith("@"):
        fitting = [folder for folder in fitting if folder.prefix]
    if not fitting:
        raise Refused(
            f"there is no place for {path!r}: the storage {path.split('/')[0]!r} "
            f"(without a name: {name_of('storage_path')}) is not configured here"
        )
    best = max(fitting, key=lambda folder: len(folder.prefix))
    return best, path[len(best.prefix) :].lstrip("/")


@dataclass(frozen=True)
class Found:
    """An entry of the disk: not opened yet, so it may be gone or another by now."""

    path: str
    directory: int
    name: str


def paths(among: list[Folder]) -> Iterator[str]:
    """The paths of all that is on the disk, names that are no text left out."""
    for found in walk(among, {}):
        if not any("\ud800" <= letter <= "\udfff" for letter in found.path):
            yield found.path


def walk(among: list[Folder], inside: Mapping[str, str]) -> Iterator[Found]:
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
                if name in folder.skip | {TOKEN} or OURS.fullmatch(name):
                    continue
                units.append((folder.joined(name).split("/"), folder, name))
        for parts, folder, name in sorted(units, key=lambda unit: unit[0]):
            yield from _below(handles[folder], name, "/".join(parts), 0)
    finally:
        for handle in handles.values():
            os.close(handle)


def _below(directory: int, name: str, path: str, depth: int) -> Iterator[Found]:
    # never through a link: what was a directory a moment ago may be one now
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise Refused(
                f"the directory {path!r} of the uploads may not be read by this user: "
                "run this as the site's user, or give it back to that user"
            ) from error
        if error.errno not in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
            raise
        yield Found(path, directory, name)
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
                yield Found(f"{path}/{child}", handle, child)
    finally:
        os.close(handle)


def mount_points() -> list[Path]:
    found = []
    with suppress(OSError), open("/proc/self/mountinfo") as file:
        for line in file:
            octal = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
            found.append(Path(octal))
    return found


def not_uploads() -> set[str]:
    """No uploads, though in the storage: ours, a disk's, what the site makes anew."""
    return {"dbmanage", "lost+found", *NAMES.get("not uploads", "").split()}


#: directories of a switch
OURS = re.compile(r"\.dbm_[0-9a-f]{8}_(scratch|undo)")
