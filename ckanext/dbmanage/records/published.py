"""The published dumps: what `publish` wrote and listed, and nothing else.

    <public_dir>/index.json          the list; its rename makes a whole new set appear
    <public_dir>/datasets.jsonl.gz   and the other files, as the list says
    <public_dir>/SHA256SUMS          the same sums, for `sha256sum -c`
    <public_dir>/.next/              a set in the making, or not moved up yet
    <public_dir>/.lock               held by whoever publishes

A file is handed out only under one of a few fixed names, when the list names it, and
when it is a plain file of the size and time that the list says: what was put there by
hand, linked, or overwritten is not. Between the rename of the list and the last move,
or when a kill came there, a file is found in `.next`. Must not know CKAN.
"""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Annotated, Any, TypedDict

from ..engine.clock import now, parse_stamp, stamp
from ..engine.disk import make_directories, sync_directory
from ..engine.errors import Busy
from ..engine.layout import SUMS
from ..engine.opened import open_plain
from ..engine.signature import Hashed

INDEX = "index.json"
KINDS = ("datasets", "organizations", "groups")
#: media types of their own: neither file is ever a Content-Encoding of something else
TYPES = {"gz": "application/gzip", "zst": "application/zstd"}
NAMES = tuple(f"{kind}.jsonl.{suffix}" for kind in KINDS for suffix in TYPES)
_NEXT, _LOCK = ".next", ".lock"
_MAX_INDEX = 1 << 20


@dataclass(frozen=True)
class File:
    """A published file: its rows, those that could not be shown, bytes, and time.

    `modified` is UTC in whole seconds, and exactly the file's own time.
    """

    name: str
    kind: str
    rows: int
    failed: int
    bytes: int
    uncompressed: int
    sha256: str
    modified: str

    @property
    def type(self) -> str:
        """The media type."""
        return TYPES[self.name.rpartition(".")[2]]

    @property
    def seconds(self) -> int:
        """The time since the epoch."""
        return int(parse_stamp(self.modified).timestamp())


class Listed(TypedDict):
    name: Annotated[str, "its name below `/dump/`"]
    type: Annotated[str, "its media type"]
    kind: Annotated[str, "`datasets`, `organizations` or `groups`"]
    rows: Annotated[int, "the records in it"]
    failed: Annotated[int, "the records that could not be shown, and are missing"]
    bytes: Annotated[int, "its size"]
    uncompressed: Annotated[int, "the size of its lines"]
    sha256: Annotated[str, "its checksum"]
    modified: Annotated[str, "when its content changed last, in UTC"]


class Licence(TypedDict):
    id: Annotated[str, "its id"]
    title: Annotated[str, "its title"]
    url: Annotated[str, "where it stands, or empty"]


class Index(TypedDict):
    """The list of the public dumps, at `/dump/index.json`."""

    version: Annotated[int, "the version of this format"]
    title: Annotated[str, "the site's title"]
    url: Annotated[str, "the address of the dumps"]
    snapshot: Annotated[str, "the moment that all files show, in UTC"]
    published: Annotated[str, "when the set was written, in UTC"]
    licence: Annotated[Licence | None, "the licence, where the site names one"]
    files: Annotated[list[Listed], "the files"]


@dataclass(frozen=True)
class Published:
    """A whole set: the list as it stands in `index.json`, and its files by name."""

    document: Mapping[str, Any]
    files: Mapping[str, File]

    @property
    def sums(self) -> bytes:
        """What SHA256SUMS holds."""
        return b"".join(
            f"{file.sha256}  {file.name}\n".encode() for file in self.files.values()
        )


def read(directory: Path) -> Published | None:
    """What is published in a directory; None when nothing (valid) is.

    Raises OSError when the directory cannot be read.
    """
    return read_with_bytes(directory)[0]


def read_with_bytes(directory: Path) -> tuple[Published | None, bytes]:
    """What is published in a directory, and the list as it stands there."""
    try:
        with _opened(directory, INDEX) as file:
            content = file.read(_MAX_INDEX)
    except (FileNotFoundError, NotADirectoryError):
        return None, b""
    return understood(content), content


def understood(content: bytes) -> Published | None:
    """A list from its bytes; None when it is none."""
    try:
        document = json.loads(content)
        files = [_file(entry) for entry in document["files"]]
        parse_stamp(document["snapshot"])
        parse_stamp(document["published"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Published(document, {file.name: file for file in files})


def _file(entry: Mapping[str, Any]) -> File:
    file = File(**{name: entry[name] for name in File.__dataclass_fields__})
    numbers = (file.rows, file.failed, file.bytes, file.uncompressed)
    if (
        file.name not in NAMES
        or file.kind != file.name.partition(".")[0]
        or not all(type(each) is int and 0 <= each < 1 << 60 for each in numbers)
        or not re.fullmatch("[0-9a-f]{64}", file.sha256)
        or not 0 <= file.seconds < 1 << 40
    ):
        raise ValueError(file.name)
    return file


def find(directory: Path, file: File) -> tuple[str, IO[bytes]] | None:
    """Where a listed file is below the directory, and it, open; None if it is not.

    Raises OSError when it may be there and cannot be opened.
    """
    failed: OSError | None = None
    # the first again: it may be moved up between the two looks
    for place in (file.name, f"{_NEXT}/{file.name}", file.name):
        try:
            found = _opened(directory, place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failed = error
            continue
        about = os.fstat(found.fileno())
        if (about.st_size, about.st_mtime_ns) == (file.bytes, file.seconds * 10**9):
            return place, found
        found.close()
    if failed is not None:
        raise failed
    return None


def _opened(directory: Path, name: str) -> IO[bytes]:
    """A plain file. Raises OSError; FileNotFoundError when it is something else."""
    try:
        return open_plain(directory / name)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(f"{directory / name} is no plain file") from None
        raise


# ------------------------------------------------------------------------ writing


@contextmanager
def writing(directory: Path) -> Iterator[Path]:
    """Where the next set is written to; empty, and gone at the end.

    What a killed command had left is finished first. Raises Busy and OSError.
    """
    make_directories(directory)
    with open_plain(directory / _LOCK, os.O_RDWR | os.O_CREAT) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another `ckan db publish` is at work in {directory}") from None
        _move_up(directory)
        upcoming = directory / _NEXT
        upcoming.mkdir(0o755)
        upcoming.chmod(0o755)
        try:
            yield upcoming
        finally:
            _move_up(directory)


def commit(
    directory: Path, made: list[File], about: Mapping[str, Any]
) -> tuple[Published, list[str]]:
    """Makes what stands in `.next` the published set; the set, and what is new in it.

    `made` are its files, in the order of the list, with the time they shall have. A
    file whose content is published already stays as it is, time and all.
    """
    upcoming = directory / _NEXT
    before = read(directory)
    files, new = [], []
    for file in made:
        old = before.files.get(file.name) if before else None
        place = None
        with suppress(OSError):  # what nobody can open is replaced
            place = _place(directory, old) if old else None
        if old and place and old.sha256 == file.sha256:
            # the same bytes are the same rows, but more may have failed this time
            files.append(replace(file, modified=old.modified))
            (upcoming / file.name).unlink()
            continue
        seconds = max(file.seconds, old.seconds + 1 if old else 0)
        moment = stamp(datetime.fromtimestamp(seconds, timezone.utc))
        files.append(replace(file, modified=moment))
        os.utime(upcoming / file.name, (seconds, seconds))
        new.append(file.name)
    document = dict(about) | {
        "files": [asdict(file) | {"type": file.type} for file in files]
    }
    content = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
    published = understood(content)
    assert published is not None
    for name, text in ((SUMS, published.sums), (INDEX, content)):
        (upcoming / name).write_bytes(text)
    for name in (*new, SUMS, INDEX):
        (upcoming / name).chmod(0o644)
        with open(upcoming / name, "rb") as written:
            os.fsync(written.fileno())
    sync_directory(upcoming)
    (upcoming / INDEX).replace(directory / INDEX)
    sync_directory(directory)
    return published, new


def _move_up(directory: Path) -> None:
    """Moves up the files of the published set; what else is in `.next` goes."""
    upcoming = directory / _NEXT
    if not upcoming.is_dir() or upcoming.is_symlink():
        with suppress(FileNotFoundError):
            upcoming.unlink()
        return
    published = read(directory)
    for file in published.files.values() if published else ():
        place = _place(directory, file)
        if place not in (None, file.name):
            (directory / str(place)).replace(directory / file.name)
    with suppress(OSError):
        if published and _has_sums(upcoming, published):
            (upcoming / SUMS).replace(directory / SUMS)
    sync_directory(directory)
    shutil.rmtree(upcoming)


def _place(directory: Path, file: File) -> str | None:
    """Where a listed file is below the directory. Raises as `find`."""
    found = find(directory, file)
    if found is None:
        return None
    found[1].close()
    return found[0]


def _has_sums(directory: Path, published: Published) -> bool:
    """Whether SHA256SUMS in a directory is that of the published set."""
    with suppress(OSError), _opened(directory, SUMS) as file:
        return file.read(_MAX_INDEX) == published.sums
    return False


def foreign(directory: Path) -> list[str]:
    """What is in the directory and was not published: names, in order."""
    if not directory.is_dir():
        return []
    ours = {_LOCK, _NEXT}
    if published := read(directory):
        files = published.files.values()
        ours |= {INDEX, *(f.name for f in files if _place(directory, f) == f.name)}
        if _has_sums(directory, published):
            ours.add(SUMS)
    return sorted(set(os.listdir(directory)) - ours)


def damaged(directory: Path, published: Published) -> list[str]:
    """The listed files that are not there, or whose bytes are not the listed ones."""
    bad = []
    for file in published.files.values():
        found = find(directory, file)
        if found is None:
            bad.append(file.name)
            continue
        with found[1] as content:
            changed = Hashed(content).read_rest().sha256 != file.sha256
        if changed:
            bad.append(file.name)
    return bad


def age(published: Published) -> timedelta:
    """How old the moment is that the set shows."""
    return now() - parse_stamp(published.document["snapshot"])
