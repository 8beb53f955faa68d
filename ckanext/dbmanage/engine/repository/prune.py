"""Prune: backups are forgotten, then the uploads that no backup names."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk import create_file, regular_files, sync_directory
from ..errors import DbmanageError
from ..layout import LIST, OBJECTS
from ..opened import open_directory, open_plain
from ..report import Progress, name_of
from ..signals import uninterrupted
from ..signature import Hashed
from .backup import Backup
from .repository import Repository
from .retention import Decision

_PREFIX = re.compile(r"[0-9a-f]{2}")
_HASH = re.compile(r"[0-9a-f]{64}")
_RAW = 32  # bytes of a hash
_MAX_LINE = 1 << 16
_STEP = 1 << 14  # hashes at a time


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

    The caller holds the repository's lock. Raises DbmanageError; what is gone by then
    is gone whole, and the next call goes on.
    """
    forgotten, size = [], 0
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
    backups = [each for each in repository.backups() if each.id not in forgotten]
    done, sizes = 0, [_list_size(backup) for backup in backups]
    try:
        with ExitStack() as stack:
            try:
                objects = stack.enter_context(open_directory(repository.path / OBJECTS))
            except FileNotFoundError:
                return Unnamed()
            except OSError:
                raise _Unknown(f"{OBJECTS} is a link, or no directory") from None
            work = stack.enter_context(repository.partial("prune"))
            prefixes = _stored(objects, work)
            for backup, size in zip(backups, sizes, strict=True):
                progress("objects", done, sum(sizes))
                _take_out(backup, work, prefixes)
                done += size
            progress("remove", 0, 0)
            return _removed(objects, work, prefixes, remove)
    except _Unknown as unknown:
        return Unnamed(problem=f"no object is removed while this is so: {unknown}")
    except OSError as error:
        raise DbmanageError(
            "the uploads that no backup names could not all be removed: "
            f"{error.filename or repository.path}: {error.strerror}; no backup misses "
            f"anything, the next `{name_of('command')} prune` goes on"
        ) from error


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
            for entry in entries:
                if (
                    _HASH.fullmatch(entry.name)
                    and entry.name.startswith(prefix)
                    and entry.is_file(follow_symlinks=False)
                ):
                    file.write(bytes.fromhex(entry.name))
            if file.tell():
                prefixes.append(prefix)
    return prefixes


def _hashes(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_RAW * _STEP):
            for start in range(0, len(chunk), _RAW):
                yield chunk[start : start + _RAW]


def _take_out(backup: Backup, work: Path, prefixes: list[str]) -> None:
    with ExitStack() as stack:
        named = {
            bytes.fromhex(prefix)[0]: stack.enter_context(
                create_file(work / f"{prefix}.named")
            )
            for prefix in prefixes
        }
        for digest in _named(backup):
            if file := named.get(digest[0]):
                file.write(digest)
    for prefix in prefixes:
        path = work / f"{prefix}.named"
        if path.stat().st_size:
            left = set(_hashes(work / prefix))
            left.difference_update(_hashes(path))
            (work / prefix).write_bytes(b"".join(left))
        path.unlink()


def _named(backup: Backup) -> Iterator[bytes]:
    """The hashes that a backup names, as often as it does. Raises _Unknown."""
    contents = backup.manifest.get("contents")
    about = contents.get(LIST) if isinstance(contents, dict) else None
    try:
        with open_plain(backup.path / LIST) as file:
            hashed = Hashed(file)
            for number in itertools.count(1):
                line = hashed.readline(_MAX_LINE)
                if not line:
                    break
                if found := _hash_in(line, f"{backup.id}: {LIST}: line {number}"):
                    yield found
    except FileNotFoundError:
        if backup.readable and about is None and not backup.files.get("included"):
            return  # it holds no uploads
        raise _Unknown(f"{backup.id}: {LIST}: is missing") from None
    except OSError as error:
        why = backup.closed or f"{LIST}: {error.strerror}"
        raise _Unknown(f"{backup.id}: {why}") from None
    # another digit in a hash would still be a hash
    if isinstance(about, dict) and about.get("sha256") != hashed.sha256:
        raise _Unknown(f"{backup.id}: {LIST}: was changed (checksum)")


def _list_size(backup: Backup) -> int:
    with suppress(OSError):
        return (backup.path / LIST).lstat().st_size
    return 0


def _hash_in(line: bytes, place: str) -> bytes | None:
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
