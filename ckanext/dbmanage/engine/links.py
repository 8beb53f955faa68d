"""Downloads from the repository: links for one user, and whole backups as one file.

A link is a random token; Redis knows only its hash, whose it is, and for what, signed.
It is good for one download; whoever began it has a proof to take it up again. Names are
looked up among those that are there, nothing of a request becomes a path. Must not know
CKAN.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import Site, files
from .errors import Refused
from .maintenance import answering, connect, key_of
from .repository import (
    EXPORTS,
    MANIFEST,
    SUMS,
    Backup,
    Repository,
    is_regular,
    now,
    regular_files,
)
from .sealed import FORM, seal, unseal, use

#: the whole backup as one file, made while it is sent
ALL = "all.tar"
#: seconds until a link is no good any more: before its download, and from then on
_FRESH, RESUME = 900, 6 * 3600
_BLOCK = 512


def names(repository: Repository, found: Backup | None) -> list[str]:
    """What can be downloaded: the files of a backup, or without one the exports."""
    if found is None:
        return exports(repository)
    there = regular_files(found.path)
    own = {MANIFEST, SUMS, *(found.manifest["contents"] if found.signed else ())}
    whole = [ALL] if found.signed else []  # else nobody knows what its list names
    return whole + sorted(n for n in own if n in there and is_regular(there[n]))


def exports(repository: Repository) -> list[str]:
    """The exports that were made from the web."""
    try:
        found = regular_files(repository.path / EXPORTS)
    except FileNotFoundError:
        return []
    return sorted(
        name for name, entry in found.items() if name[0] != "." and is_regular(entry)
    )


class Links:
    """The links of one site."""

    def __init__(self, site: Site) -> None:
        self._url, self._secrets = site.databases["database"].url, site.secrets
        self._repository = Path(site.repository)
        self._redis = connect(site.redis_url)

    def _key(self, token: str) -> str:
        return key_of(self._url, f"link:{_digest(token)}")

    def make(self, user: str, backup: str, file: str) -> dict[str, str]:
        """A link for a user: `{token, name, until}`. Raises DbmanageError."""
        token = secrets.token_urlsafe(32)
        until = f"{now() + timedelta(seconds=_FRESH):{FORM}}"
        about = {"user": user, "backup": backup, "file": file, "until": until}
        with answering():
            sealed = seal(self._key(token), about, self._secrets)
            self._redis.set(self._key(token), sealed, ex=_FRESH + RESUME)
        name = file
        if backup:
            name = f"{backup}.tar" if file == ALL else f"{backup}-{file}"
        return {"token": token, "name": name, "until": until}

    def find(self, token: str, user: str) -> dict[str, str] | None:
        """What a link is for, `{backup, file, until}`; None when it is no good.

        `backup` is empty for an export.
        """
        with answering():
            found = self._redis.getrange(self._key(token), 0, 4095)
        known = unseal(self._key(token), found, self._secrets)
        if known is None or not user or known.pop("user") != user:
            return None
        ends = datetime.strptime(known["until"], FORM).replace(tzinfo=timezone.utc)
        return known if now() < ends + timedelta(seconds=RESUME) else None

    def begin(self, token: str, known: dict[str, str]) -> str:
        """The one begin of a download: what proves who began it, empty when it was.

        Whoever takes it up again shows the proof (`begun`). Raises DbmanageError, and
        OSError when it cannot be noted beside the backups.
        """
        until = known["until"]
        if until <= f"{now():{FORM}}":
            return ""
        if not use(self._repository, _digest(token)[:32], until):
            return ""
        proof = secrets.token_urlsafe(16)
        with answering():
            key = f"{self._key(token)}:begun"
            self._redis.set(key, _digest(proof), ex=_FRESH + RESUME)
        return proof

    def begun(self, token: str, proof: str) -> bool:
        """Whether a proof is the one that was handed out with the begin."""
        with answering():
            found = self._redis.getrange(f"{self._key(token)}:begun", 0, 99)
        return hmac.compare_digest(found, _digest(proof).encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# -------------------------------------------------------------------------- contents


def opened(repository: Repository, backup: str, file: str) -> tuple[Any, str, str]:
    """An open file, its path below the repository (empty for a tar), and its ETag.

    Raises Refused when it is not there any more.
    """
    found = repository.find(backup) if backup else None
    if file not in names(repository, found):
        raise Refused(f"there is no {file} of {backup or 'the exports'} any more")
    if found is not None and file == ALL:
        manifest = (found.path / MANIFEST).read_bytes()
        digest = hashlib.sha256(b"tar\n" + manifest).hexdigest()
        made = datetime.strptime(found.id, "%Y%m%dT%H%M%SZ")
        moment = int(made.replace(tzinfo=timezone.utc).timestamp())
        size = _tar_size(str(found.path), digest)
        return Tar(lambda: _entries(found), moment, size), "", digest
    directory = found.path if found else repository.path / EXPORTS
    handle = os.open(directory / file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    about = os.fstat(handle)
    words = f"{about.st_ino} {about.st_mtime_ns} {about.st_size}"
    place = f"{directory.name}/{file}"
    return (
        os.fdopen(handle, "rb"),
        place,
        hashlib.sha256(f"{place} {words}".encode()).hexdigest(),
    )


def _entries(found: Backup) -> Iterator[tuple[str, Path, int]]:
    own = regular_files(found.path)
    for name in sorted({MANIFEST, SUMS, *found.manifest["contents"]} & set(own)):
        size = own[name].stat(follow_symlinks=False).st_size
        yield f"{found.id}/{name}", found.path / name, size
    if files.LIST in own:
        for line in files.lines(found.path / files.LIST):
            if "sha256" not in line:  # named by the database, and not there
                continue
            path = files.object_path(found.objects, line["sha256"])
            yield f"objects/{path.parent.name}/{path.name}", path, line["size"]


@lru_cache(maxsize=64)
def _tar_size(directory: str, _: str) -> int:
    # the list of a million uploads takes seconds to read: once is enough
    path = Path(directory)
    found = Repository(str(path.parent), ()).backup(path.name)
    found.signed = True  # whoever asked has looked
    return sum(_BLOCK + size + -size % _BLOCK for *_, size in _entries(found)) + 1024


class Tar(io.RawIOBase):
    """A tar of files that are on the disk, made while it is read, from any position.

    `entries` gives name, path and size of each, always the same.
    """

    def __init__(
        self,
        entries: Callable[[], Iterator[tuple[str, Path, int]]],
        moment: int,
        size: int,
    ) -> None:
        self._entries, self._moment, self.size = entries, moment, size
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

    def _from(self, start: int) -> Iterator[bytes]:
        at = 0
        for name, path, size in self._entries():
            padding = -size % _BLOCK
            if at + _BLOCK + size + padding > start:
                yield from self._entry(name, path, size, padding, max(start - at, 0))
            at += _BLOCK + size + padding
        yield bytes(1024)[max(start - at, 0) :]

    def _entry(
        self, name: str, path: Path, size: int, padding: int, skip: int
    ) -> Iterator[bytes]:
        about = tarfile.TarInfo(name)
        about.size, about.mtime, about.mode = size, self._moment, 0o600
        if skip < _BLOCK:
            yield about.tobuf(tarfile.GNU_FORMAT)[skip:]
        begin = max(skip - _BLOCK, 0)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if os.fstat(handle).st_size != size:
                raise OSError(f"{path} is not as long as it was")
            file.seek(min(begin, size))
            while chunk := file.read(1 << 18):
                yield chunk
        yield bytes(padding)[max(begin - size, 0) :]
