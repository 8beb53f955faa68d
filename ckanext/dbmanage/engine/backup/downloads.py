"""The files of a backup for a download, and all of them as one tar file."""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import layout
from ..clock import parse_id
from ..disk import is_regular, regular_files
from ..errors import DbmanageError, Refused
from ..layout import EXPORTS, MANIFEST, SUMS
from ..objects import object_path
from ..opened import open_directory, open_plain, read_plain
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..signature import Hashed, dumped
from ..site import Site
from ..uploads.listing import of
from .manifest import segments_of, sums_of

#: the whole backup as one file, made while it is sent
ALL = "all.tar"
_BLOCK = 512
#: bytes of a page of evidence: a line for each table
_MOST_EVIDENCE = 64 << 20


def names(repository: Repository, found: Backup | None) -> list[str]:
    """What can be downloaded: the files of a backup, or without one the exports."""
    if found is None:
        return exports(repository)
    there = regular_files(found.path)
    own = {MANIFEST, SUMS, *(found.manifest["contents"] if found.signed else ())}
    whole = [ALL, *_dumps(found)] if found.signed else []  # else nobody knows of more
    return whole + sorted(n for n in own if n in there and is_regular(there[n]))


def sizes(repository: Repository, found: Backup | None) -> dict[str, int]:
    """The bytes of what can be downloaded, by name, without what cannot be read.

    Of a tar they are what it will have, to the byte.
    """
    known = {}
    for name in names(repository, found):
        with suppress(DbmanageError, OSError):
            if found is not None and name == ALL:
                known[name] = _tar_size(_whole(found))
            elif found is not None and name in _dumps(found):
                known[name] = _dump_size(found, name)
            else:
                directory = found.path if found else repository.path / EXPORTS
                known[name] = os.lstat(directory / name).st_size
    return known


def _dumps(found: Backup) -> dict[str, str]:
    """The dumps that pg_restore reads, made while they are sent, and their parts."""
    return {f"{part}.dump": part for part in sorted(found.manifest["databases"])}


def _dump_size(found: Backup, name: str) -> int:
    return found.manifest["databases"][_dumps(found)[name]]["dump"]["bytes"]


def evidence(site: Site, id: str) -> bytes:
    """The page that the newest proof of a backup wrote. Raises OSError without one."""
    with open_directory(Path(site.repository) / "state") as inside:
        return read_plain(f"{id}.html", _MOST_EVIDENCE, inside=inside)


def saved_as(backup: str, file: str) -> str:
    """The name of a download on the reader's disk; `backup` is empty for an export."""
    if not backup:
        return file
    return f"{backup}.tar" if file == ALL else f"{backup}-{file}"


def exports(repository: Repository) -> list[str]:
    """The exports that were made from the web."""
    try:
        with open_directory(repository.path / EXPORTS) as directory:
            found = regular_files(directory)
            plain = [name for name, entry in found.items() if is_regular(entry)]
    except (FileNotFoundError, NotADirectoryError):  # a link leads elsewhere
        return []
    return sorted(name for name in plain if name[0] != ".")


def open_download(
    repository: Repository, backup: str, file: str
) -> tuple[Any, str, str]:
    """An open file, its path below the repository (empty for a tar), and its ETag.

    Raises Refused when it is not there any more.
    """
    found = repository.find(backup) if backup else None
    if file not in names(repository, found):
        raise Refused(f"there is no {file} of {backup or 'the exports'} any more")
    if found is not None and file == ALL:
        whole, moment = _whole(found), int(parse_id(found.id).timestamp())
        tar = Tar(lambda: entries(found), moment, _tar_size(whole))
        return tar, "", whole.digest
    if found is not None and file in _dumps(found):
        dump = segments_of(found, _dumps(found)[file])
        digest = hashlib.sha256(f"dump\n{dump.sha256}".encode()).hexdigest()
        return Made(dump.plain, _dump_size(found, file)), "", digest
    directory = found.path if found else repository.path / EXPORTS
    with open_directory(directory) as inside:
        content = open_plain(file, inside=inside)
    about = os.fstat(content.fileno())
    words = f"{about.st_ino} {about.st_mtime_ns} {about.st_size}"
    place = f"{directory.name}/{file}"
    return content, place, hashlib.sha256(f"{place} {words}".encode()).hexdigest()


def opened_of(site: Site, backup: str, file: str) -> tuple[Any, str, str]:
    """As `open_download`, of the repository of a site."""
    return open_download(Repository(site.repository, site.secrets), backup, file)


@dataclass(frozen=True)
class Entry:
    """A file of a tar: what the manifest, or the list of uploads, says of it."""

    name: str
    path: Path
    size: int
    sha256: str


def entries(found: Backup) -> Iterator[Entry]:
    """What a signed backup is made of. Raises Damaged at the end, OSError."""
    written = dumped(found.manifest)
    contents = dict(found.manifest["contents"])
    for name, content in (
        (MANIFEST, written),
        (SUMS, sums_of(found.manifest, written)),
    ):
        sha256 = hashlib.sha256(content).hexdigest()
        contents[name] = {"bytes": len(content), "sha256": sha256}
    for name, about in sorted(contents.items()):
        path = found.path / name
        yield Entry(f"{found.id}/{name}", path, about["bytes"], about["sha256"])
    seen = set[str]()
    for part in found.manifest["databases"]:
        dump = segments_of(found, part)
        for digest, size in dump.object_sizes().items():
            if digest not in seen:
                seen.add(digest)
                yield _object(dump.place(digest), size)
    if layout.LIST in contents:
        for line in of(found).lines():
            if "sha256" in line:  # else named by the database, and not there
                path = object_path(found.objects, line["sha256"])
                yield _object(path, line["size"])


def _object(path: Path, size: int) -> Entry:
    return Entry(f"objects/{path.parent.name}/{path.name}", path, size, path.name)


@dataclass(frozen=True)
class _Whole:
    """A backup whose tar is asked for; its digest tells it from others."""

    path: str
    digest: str
    found: Backup = field(compare=False)


def _whole(found: Backup) -> _Whole:
    digest = hashlib.sha256(b"tar\n" + dumped(found.manifest)).hexdigest()
    return _Whole(str(found.path), digest, found)


@lru_cache(maxsize=64)
def _tar_size(whole: _Whole) -> int:
    # the list of a million uploads takes seconds to read: once is enough
    sizes = (each.size for each in entries(whole.found))
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes) + 1024


class Made(io.RawIOBase):
    """A file of `size` bytes that is made while it is read, from any position.

    `pieces` gives its bytes from a position on.
    """

    def __init__(self, pieces: Callable[[int], Iterator[bytes]], size: int) -> None:
        self._from, self.size = pieces, size
        self._at = 0
        self._pieces: Iterator[bytes] | None = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a position."""
        base = {0: 0, 1: self._at, 2: self.size}[whence]
        self._at = max(base + offset, 0)
        self._pieces, self._rest = None, b""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`, none at the end."""
        if self._pieces is None:
            self._pieces = self._from(self._at)
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        self._at += len(taken)
        return taken


class Tar(Made):
    """A tar of files that are on the disk.

    `entries` gives what it holds, always the same. It breaks off at a file that is not
    what its entry says.
    """

    def __init__(
        self, entries: Callable[[], Iterator[Entry]], moment: int, size: int
    ) -> None:
        self._entries, self._moment = entries, moment
        super().__init__(self._tar, size)

    def _tar(self, start: int) -> Iterator[bytes]:
        at = 0
        for entry in self._entries():
            padding = -entry.size % _BLOCK
            if at + _BLOCK + entry.size + padding > start:
                yield from self._entry(entry, padding, max(start - at, 0))
            at += _BLOCK + entry.size + padding
        yield bytes(1024)[max(start - at, 0) :]

    def _entry(self, entry: Entry, padding: int, skip: int) -> Iterator[bytes]:
        about = tarfile.TarInfo(entry.name)
        about.size, about.mtime, about.mode = entry.size, self._moment, 0o600
        if skip < _BLOCK:
            yield about.tobuf(tarfile.GNU_FORMAT)[skip:]
        begin = max(skip - _BLOCK, 0)
        at = min(begin, entry.size)
        with open_plain(entry.path) as file:
            file.seek(at)
            hashed = Hashed(file)
            while chunk := hashed.read(min(1 << 18, entry.size - at)):
                at += len(chunk)
                yield chunk
            # of one that is resumed within only the length is known
            changed = not begin and hashed.sha256 != entry.sha256
            if changed or at != entry.size or file.read(1):
                raise OSError(f"{entry.path} is not what it was")
        yield bytes(padding)[max(begin - entry.size, 0) :]
