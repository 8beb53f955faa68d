"""Uploads of a backup, laid down beside those of the live site."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .. import words
from ..disk import create_file
from ..errors import Damaged, Refused
from ..objects import object_path, wrong_at_sight
from ..report import Progress, name_of
from . import moves
from .contents import copy_content, open_content
from .folders import Folder, folder_of, mount_points, walk
from .listing import Listing


def room(listing: Listing, objects: Path, among: list[Folder]) -> None:
    """Looks at every line, and at the room for them. Raises Refused, Damaged."""
    needed: dict[Folder, int] = {}
    for facts in listing.lines():
        if "sha256" in facts:
            folder, _ = folder_of(facts["path"], among)
            needed[folder] = needed.get(folder, 0) + facts["size"]
            if wrong := wrong_at_sight(
                object_path(objects, facts["sha256"]), facts["size"]
            ):
                raise Damaged("the backup", [f"upload {facts['path']!r}: {wrong}"])
    for folder in among:
        for mount in mount_points():
            above = mount.parents
            if folder.path in above and mount != folder.path:
                unit = folder.path / mount.relative_to(folder.path).parts[0]
                if unit.name in folder.names():
                    raise Refused(
                        f"{mount} is a mount inside {unit}, which would have to be "
                        "renamed: mount it elsewhere, or restore "
                        + name_of("without uploads")
                    )
        if not os.access(folder.path, os.W_OK | os.X_OK):
            raise Refused(
                f"{folder.path} may not be written to by this user: the uploads are "
                "laid down beside the live ones. Run this as the site's user"
            )
    devices: dict[int, tuple[Path, int]] = {}
    for folder, size in needed.items():
        device = folder.path.stat().st_dev
        devices[device] = (folder.path, devices.get(device, (folder.path, 0))[1] + size)
    for path, size in devices.values():
        free = shutil.disk_usage(path).free
        if free < size:
            raise Refused(
                f"the uploads need {words.size(size)} beside the live ones in {path}, "
                f"and {words.size(free)} are free: make room, or restore "
                + name_of("without uploads")
            )


def stage(
    listing: Listing,
    objects: Path,
    among: list[Folder],
    planned: list[moves.Move],
    progress: Progress = lambda *_: None,
    expected: int = 0,
) -> None:
    """Lays the uploads down beside the live ones, each checked as it is copied.

    With the rights and the owner of what they will replace. Raises Damaged, OSError.
    """
    scratch = {}
    for folder, move in zip(among, planned, strict=True):
        scratch[folder] = moves.make_folder(Path(move.path) / move.scratch, move.token)
        for name in folder.names():
            if (
                folder.path / name
            ).is_dir():  # the site expects it, even when it is empty
                _directory(scratch[folder] / name, folder.path / name)
    done = 0
    for facts in listing.lines():
        if "sha256" not in facts:
            continue
        folder, rest = folder_of(facts["path"], among)
        target = scratch[folder] / rest
        like = folder.path / Path(rest).parts[0]
        _parents(target.parent, scratch[folder], like if like.is_dir() else folder.path)
        _copy(objects, target, facts, _Told(progress, done, expected))
        done += facts["size"]
    progress("uploads", done, expected)
    os.sync()


class _Told:
    """Counts what is written to it, after what was written before."""

    def __init__(self, progress: Progress, done: int, expected: int) -> None:
        self._progress, self._done, self._expected = progress, done, expected

    def write(self, chunk: bytes) -> None:
        self._done += len(chunk)
        self._progress("uploads", self._done, self._expected)


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


def lay_one(
    target: Path, top: Path, like: Path, content: IO[bytes], facts: Mapping[str, Any]
) -> None:
    """Lays one file down below `top`, with the rights that one below `like` has.

    Raises Damaged when the content is not what `facts` tell; OSError.
    """
    _parents(target.parent, top, like)
    with create_file(target) as out:
        copy_content(content, facts, out)
        out.flush()
        os.fsync(out.fileno())
    _finish(target, facts)


def _copy(objects: Path, target: Path, facts: Mapping[str, Any], told: _Told) -> None:
    with open_content(objects, facts) as file, create_file(target) as out:
        copy_content(file, facts, out, told)
    _finish(target, facts)


def _finish(target: Path, facts: Mapping[str, Any]) -> None:
    """Gives a file the owner, the rights and the time that it is to have."""
    parent = target.parent.stat()
    _own(target, parent)
    target.chmod(stat.S_IMODE(parent.st_mode) & 0o666 | 0o600)
    with suppress(ValueError, OverflowError):  # a time that is none
        os.utime(target, (facts["mtime"], facts["mtime"]))


def links_replaced(listing: Listing, among: list[Folder]) -> Iterator[tuple[str, Path]]:
    """The links that a restore of the list takes away: their paths and places.

    Raises Damaged, Refused.
    """
    tops = set[tuple[Folder, str]]()
    for facts in listing.lines():
        if "sha256" in facts:
            folder, rest = folder_of(facts["path"], among)
            tops.add((folder, rest.split("/")[0]))
    for found in walk(among, {}):
        folder, rest = folder_of(found.path, among)
        place = folder.path / rest
        if place.is_symlink() and ("/" in rest or (folder, rest) in tops):
            yield found.path, place
