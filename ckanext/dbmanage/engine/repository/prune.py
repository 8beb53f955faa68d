"""Prune: backups are forgotten, then the uploads that no backup names."""

import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zstandard

from ..disk import FULL, create_file, regular_files, sync_directory
from ..errors import DbmanageError
from ..layout import LIST, MANIFEST, OBJECTS, SEGMENTS
from ..opened import open_directory, open_plain
from ..report import Progress, name_of
from ..signals import uninterrupted
from ..signature import Hashed
from .backup import Backup
from .repository import Repository
from .retention import Decision

_PREFIX = re.compile(r"[0-9a-f]{2}")
_HASH = re.compile(r"[0-9a-f]{64}")
#: the end of a line of uploads, and the begin of one of segments
_LAST = re.compile(rb', "sha256": "([0-9a-f]{64})"}\n')
_SEGMENT = re.compile(rb"([0-9a-f]{64}) (?:-|([0-9a-f]{64})) ")
_RAW = 32  # bytes of a hash
_MAX_LINE = _BLOCK = 1 << 16
_STEP = 1 << 14  # hashes at a time
_PORTION = 1 << 21  # hashes on the disk before they are taken out


@dataclass(frozen=True)
class Unnamed:
    """Objects that no backup names; `problem` says why none of them may go."""

    count: int = 0
    bytes: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Pruned:
    """What was removed: backups by id, the bytes of their own files, objects."""

    forgotten: tuple[str, ...]
    bytes: int
    objects: Unnamed


def prune_backups(
    repository: Repository,
    decisions: list[Decision],
    progress: Progress = lambda *_: None,
) -> Pruned:
    """Removes the backups that are to be forgotten, then objects that nobody names.

    The caller holds the repository's lock. Raises Busy while backups are copied from
    here, DbmanageError; what is gone by then is gone whole, and the next call goes on.
    """
    forgotten, size = [], 0
    with repository.sending("prune"):
        # the oldest first: if this is ended half-way, the newer ones are there
        for decision in sorted(decisions, key=lambda each: each.backup.id):
            if decision.forget:
                size += _forget(repository, decision)
                forgotten.append(decision.backup.id)
                progress("forget", size, 0)
        objects = _sift(repository, set(), progress, os.unlink)
    return Pruned(tuple(forgotten), size, objects)


def unnamed_objects(repository: Repository, forgotten: set[str]) -> Unnamed:
    """What `prune` would remove of the objects if these backups were forgotten.

    The caller holds the repository's lock.
    """
    return _sift(repository, forgotten, lambda *_: None, lambda *_, **__: None)


@uninterrupted()
def _forget(repository: Repository, decision: Decision) -> int:
    name = decision.backup.id
    partial = repository.path / f".{name}.partial"
    try:
        backup = repository.path / name
        own = regular_files(backup).values()
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in own)
        # whoever is killed after this has left what the next lock sweeps
        backup.rename(partial)
        # or a power cut may bring it back, and its objects are gone
        sync_directory(repository.path)
        # there is none, or a link to another in its place
        gone = suppress(FileNotFoundError, NotADirectoryError)
        for suffix in (".json", ".html"):
            with gone, open_directory(repository.path / "state") as state:
                os.unlink(f"{name}{suffix}", dir_fd=state)
        shutil.rmtree(partial)
        repository.record("prune", "forget", backup=name, reason=decision.reason)
    except OSError as error:
        raise DbmanageError(
            f"backup {name} could not be removed: {error.filename or repository.path}: "
            f"{error.strerror}; prune as the user who owns it"
        ) from error
    return size


class _Unknown(Exception):
    """What a backup names cannot be known; the text says which backup and why."""


def _sift(
    repository: Repository,
    forgotten: set[str],
    progress: Progress,
    remove: Callable[..., None],
) -> Unnamed:
    """Calls `remove` with each object that no backup but the forgotten ones names.

    A file for each two first digits holds the names that are there; those that a
    backup names are taken out of it, backup by backup. So no more is in memory than
    what one directory holds.
    """
    kept = [name for name in repository.names() if name not in forgotten]
    try:
        with ExitStack() as stack:
            try:
                objects = stack.enter_context(open_directory(repository.path / OBJECTS))
            except FileNotFoundError:
                return Unnamed()
            except OSError:
                raise _Unknown(f"{OBJECTS} is a link, or no directory") from None
            try:
                work = repository.partial("prune")
                return _sifted(repository, kept, objects, work, progress, remove)
            except OSError as error:
                if error.errno not in FULL:
                    raise
            # else a full disk could never be made free again
            work = TemporaryDirectory(prefix="dbmanage-")
            return _sifted(repository, kept, objects, work, progress, remove)
    except _Unknown as unknown:
        return Unnamed(problem=f"no object is removed while this is so: {unknown}")
    except OSError as error:
        raise DbmanageError(
            "the uploads that no backup names could not all be removed: "
            f"{error.filename or repository.path}: {error.strerror}; no backup misses "
            f"anything, the next `{name_of('command')} prune` goes on"
        ) from error


def _sifted(
    repository: Repository,
    kept: list[str],
    objects: int,
    work: AbstractContextManager[Path | str],
    progress: Progress,
    remove: Callable[..., None],
) -> Unnamed:
    with work as directory:
        path = Path(directory)
        prefixes = _stored(objects, path)
        _take_out(_all_named(repository, kept, progress), path, prefixes)
        progress("remove", 0, 0)
        return _removed(objects, path, prefixes, remove)


def _stored(objects: int, work: Path) -> list[str]:
    """Writes down the objects that are there; the two digits that some begin with."""
    prefixes = []
    with os.scandir(objects) as entries:
        names = [
            entry.name
            for entry in entries
            if _PREFIX.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    for prefix in sorted(names):
        with (
            open_directory(prefix, inside=objects) as directory,
            os.scandir(directory) as entries,
            create_file(work / prefix) as file,
        ):
            found = [
                entry.name
                for entry in entries
                if _HASH.fullmatch(entry.name)
                and entry.name.startswith(prefix)
                and entry.is_file(follow_symlinks=False)
            ]
            file.write(bytes.fromhex("".join(found)))
            if found:
                prefixes.append(prefix)
    return prefixes


def _hashes(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_RAW * _STEP):
            for start in range(0, len(chunk), _RAW):
                yield chunk[start : start + _RAW]


def _all_named(
    repository: Repository, names: list[str], progress: Progress
) -> Iterator[bytes]:
    """The hashes that the backups of these names name. Raises _Unknown."""
    known = set[str]()
    done, sizes = 0, [_list_size(repository.path / name) for name in names]
    total = sum(sizes)
    for name, size in zip(names, sizes, strict=True):
        progress("objects", done, total)
        yield from _named(repository.backup(name), known)  # one manifest at a time
        done += size


def _take_out(named: Iterator[bytes], work: Path, prefixes: list[str]) -> None:
    """Takes these hashes out of those that are there, a portion at a time."""
    while True:
        count = 0
        with ExitStack() as stack:
            files = {
                bytes.fromhex(prefix)[0]: stack.enter_context(
                    create_file(work / f"{prefix}.named")
                )
                for prefix in prefixes
            }
            for digest in itertools.islice(named, _PORTION):
                count += 1
                if file := files.get(digest[0]):
                    file.write(digest)
        for prefix in prefixes:
            path = work / f"{prefix}.named"
            if path.stat().st_size:
                left = set(_hashes(work / prefix))
                left.difference_update(_hashes(path))
                (work / prefix).write_bytes(b"".join(left))
            path.unlink()
        if count < _PORTION:
            return


def _named(backup: Backup, known: set[str]) -> Iterator[bytes]:
    """The hashes that a backup names, as often as it does. Raises _Unknown.

    Lists whose sums are `known` were read already, of another backup; the sum of each
    that is read joins them.
    """
    if not backup.readable:  # what became of its lists nobody can tell
        why = backup.closed or f"{MANIFEST}: cannot be read"
        raise _Unknown(f"{backup.id}: {why}")
    contents = backup.manifest.get("contents")
    about = contents if isinstance(contents, dict) else {}
    for name in (*SEGMENTS.values(), LIST):
        place = f"{backup.id}: {name}"
        said = about.get(name)
        sha256 = said.get("sha256") if isinstance(said, dict) else None
        if backup.signed and sha256 in known:
            continue
        try:
            with open_plain(backup.path / name) as file:
                hashed = Hashed(file)
                yield from _hashes_in(hashed, place, packed=name == LIST)
                hashed.read_rest()
        except FileNotFoundError:
            if said is None and not _should_have(backup, name):
                continue
            raise _Unknown(f"{place}: is missing") from None
        except OSError as error:
            why = backup.closed or f"{name}: {error.strerror}"
            raise _Unknown(f"{backup.id}: {why}") from None
        # another digit in a hash would still be a hash
        if sha256 is not None and sha256 != hashed.sha256:
            raise _Unknown(f"{place}: was changed (checksum)")
        known.add(hashed.sha256)


def _should_have(backup: Backup, name: str) -> bool:
    if name == LIST:
        return bool(backup.files.get("included"))
    return name in {SEGMENTS.get(part) for part in backup.parts}


def _hashes_in(file: Any, place: str, packed: bool) -> Iterator[bytes]:
    """The hashes that a list names: of uploads, which is packed, or of segments."""
    stream: Any = file
    if packed:
        unpacker = zstandard.ZstdDecompressor()
        stream = io.BufferedReader(
            unpacker.stream_reader(file, read_across_frames=True)
        )
    try:
        if packed:
            yield from _hashes_of_uploads(stream, place)
            return
        for number in itertools.count(1):
            if not (line := stream.readline(_MAX_LINE)):
                return
            if match := _SEGMENT.match(line):
                yield from (
                    bytes.fromhex(each.decode()) for each in match.groups() if each
                )
            else:
                raise _Unknown(f"{place}: line {number} names no segment")
    except zstandard.ZstdError as error:
        raise _Unknown(f"{place}: {error}") from None


def _hashes_of_uploads(stream: Any, place: str) -> Iterator[bytes]:
    number = 0
    while block := stream.read(_BLOCK):
        block += stream.readline(_MAX_LINE)
        found, lines = _LAST.findall(block), block.count(b"\n")
        # nearly all lines are ours and end so
        if len(found) == lines and block.endswith(b"\n"):
            number += lines
            hashes = bytes.fromhex(b"".join(found).decode())
            yield from (hashes[n : n + _RAW] for n in range(0, len(hashes), _RAW))
            continue
        reader = io.BytesIO(block)
        while line := reader.readline(_MAX_LINE):
            number += 1
            if digest := _hash_in(line, f"{place}: line {number}"):
                yield digest


def _list_size(backup: Path) -> int:
    size = 0
    for name in (*SEGMENTS.values(), LIST):
        with suppress(OSError):
            size += (backup / name).lstat().st_size
    return size


def _hash_in(line: bytes, place: str) -> bytes | None:
    # a million by `json` take half a minute
    if match := _LAST.search(line, max(0, len(line) - 80)):
        return bytes.fromhex(match[1].decode())
    facts: Any = None
    with suppress(ValueError, RecursionError):
        facts = json.loads(line.decode("utf-8", "surrogateescape"))
    if not isinstance(facts, dict):
        raise _Unknown(f"{place} is not a JSON object")
    if "sha256" not in facts:
        return None
    found = facts["sha256"]
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise _Unknown(f"{place} has no sha256")
    return bytes.fromhex(found)


def _removed(
    objects: int, work: Path, prefixes: list[str], remove: Callable[..., None]
) -> Unnamed:
    gone, size = 0, 0
    for prefix in prefixes:
        with open_directory(prefix, inside=objects) as directory:
            for digest in _hashes(work / prefix):
                name = digest.hex()
                with suppress(FileNotFoundError):
                    there = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    remove(name, dir_fd=directory)
                    gone, size = gone + 1, size + there.st_size
    return Unnamed(gone, size)
