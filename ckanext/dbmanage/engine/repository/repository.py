"""The repository: a directory of backups, its lock, its journal, its signatures.

    <repository>/20261123T045500Z/               a backup; it never changes
        manifest.json                            what it holds; signed
        SHA256SUMS                               the checksums of the other files
        database.list datastore.list             the pieces of the dumps, in their order
        files.jsonl.zst                          a line for each upload
        records.jsonl.zst                        a line for each dataset, user, table, …
    <repository>/objects/ab/abcdef…              uploads and pieces, each content once
    <repository>/state/20261123T045500Z.json     what is learned of a backup later
    <repository>/state/20261123T045500Z.html     the evidence of its newest proof
    <repository>/journal.jsonl                   what was done and what is half-way
    <repository>/journal.1.jsonl                 the one before, when that grew large
    <repository>/.20261123T045500Z.partial/      a backup that is not one yet
    <repository>/.lock                           held by whoever is at work

Backups are looked up among the names that are there; no id, manifest field or file
name is ever made into a path. Knows nothing of PostgreSQL.
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from ..clock import has_come, id_stamp, now, parse_id, stamp, who
from ..disk import (
    create_directory,
    is_regular,
    lent,
    make_directories,
    own_directory,
    regular_files,
    sweep_partials,
    sync_directory,
    write_file,
)
from ..errors import Busy, DbmanageError, Refused
from ..layout import (
    ALONG,
    EXPORTS,
    ID,
    LENT,
    PARTIAL,
    PARTIAL_EXPORT,
    PARTIAL_STATE,
    PREVIEW,
)
from ..opened import open_directory, open_plain
from ..printable import one_line
from ..report import name_of
from ..signature import derived_key, dumped, read_json, sign, signed_by
from ..words import alike
from .backup import Backup
from .journal import Entry, Journal

#: how often a lock is asked for, 10 ms apart, that others only look at
_LOOKS = 200


class Repository:
    """A directory of backups. Nothing is made on the disk before it is needed.

    `actor` is what the journal notes of who asked, beside the user of the system.
    """

    def __init__(
        self,
        path: str,
        secrets: tuple[str, ...],
        actor: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path = Path(path)
        self._secrets = secrets
        self._actor = actor
        keys = tuple(derived_key(secret, "journal") for secret in secrets if secret)
        self._log = self.path / "journal.jsonl"
        self._journal = Journal(self._log, keys)

    # -- reading

    def names(self) -> list[str]:
        """The ids of the backups, the newest first.

        Last come those of the future, and what is no time: of them nobody knows.
        """
        try:
            found = regular_files(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DbmanageError(f"cannot read {self.path}: {error.strerror}") from error
        names = [
            name
            for name in found
            if ID.fullmatch(name) and found[name].is_dir(follow_symlinks=False)
        ]
        return sorted(names, key=lambda name: (has_come(name), name), reverse=True)

    def backups(self) -> list[Backup]:
        """The backups, the newest first."""
        return [self.backup(name) for name in self.names()]

    def find(self, name: str) -> Backup:
        """The backup of an id, or `latest` or `oldest`. Raises Refused."""
        names = self.names()
        if names and name in ("latest", "oldest"):
            known = list(filter(has_come, names)) or names
            return self.backup(known[0 if name == "latest" else -1])
        if name in names:
            return self.backup(name)
        known = "backups` lists what is there" if names else "backup` takes the first"
        # of a path or an address the end is what is like an id
        last = name.rstrip("/").rpartition("/")[2]
        near = alike(last, [*names, *(("latest", "oldest") if names else ())], 1)
        raise Refused(
            f"no backup {name!r} in {self.path}{self._deleted(name) or near or ':'} "
            f"`{name_of('command')} {known}"
        )

    def _deleted(self, name: str) -> str:
        """When a backup was deleted, as the end of a sentence, if the journal tells."""
        with suppress(OSError):
            for entry in reversed(self.journal() if ID.fullmatch(name) else []):
                gone = {
                    "prune": entry.fields.get("forgotten"),
                    "delete": [entry.operation],
                }.get(entry.text("what"))
                if isinstance(gone, list) and name in gone:
                    who = one_line(entry.actor.by)
                    return f". It was deleted {one_line(entry.moment)} by {who}."
        return ""

    def backup(self, name: str) -> Backup:
        """The backup of one of the `names`."""
        return Backup(
            self.path / name, self._secrets, self.path / "state" / f"{name}.json"
        )

    # -- writing

    @contextmanager
    def lock(self, operation: str) -> Iterator[None]:
        """The one right to write here; it ends with the process. Raises Busy."""
        with self._held(".lock", operation):
            self._sweep()
            self._renew()
            yield

    @contextmanager
    def sending(self, operation: str) -> Iterator[None]:
        """The one right to copy backups from here, or to take some away meanwhile.

        A copy may take days, while others are taken. What it needs beside it, in
        `ALONG`, is gone at its end, whoever ended it. Raises Busy.
        """
        with self._held(".sending", operation):
            self._take_along_away()
            try:
                yield
            finally:
                self._take_along_away()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """The one right to tell people what is not well here. Raises Busy."""
        with self._held(".telling", "notify"):
            yield

    @contextmanager
    def night(self) -> Iterator[None]:
        """The one right to do a night; its steps take the others. Raises Busy."""
        with self._held(".nightly", "nightly"):
            yield

    def _take_along_away(self) -> None:
        if (self.path / ALONG).is_dir():
            shutil.rmtree(self.path / ALONG, ignore_errors=True)

    @contextmanager
    def _held(self, name: str, operation: str) -> Iterator[None]:
        try:
            self.make()
            handle = open_plain(self.path / name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise DbmanageError(
                f"cannot write to the repository {self.path}: {error.filename}: "
                f"{error.strerror}"
            ) from error
        with handle as file:
            os.fchmod(file.fileno(), 0o600)
            try:
                _take(file)
            except BlockingIOError:
                holder = file.read(1000).decode("utf-8", "replace").strip()
                raise Busy(
                    f"the repository {self.path} is in use: "
                    f"{holder or 'somebody who has only just begun'}; wait for its end"
                ) from None
            signed = f"{operation}, process {os.getpid()} of {who()}, since {stamp()}\n"
            # a full disk takes none, and must not keep anybody from making room
            with suppress(OSError):
                os.ftruncate(file.fileno(), 0)
                os.pwrite(file.fileno(), signed.encode(), 0)
            try:
                yield
            finally:
                file.truncate(0)

    def holder(self, name: str = ".lock") -> str:
        """Who is at work here, as the lock says it; empty when nobody is."""
        with suppress(OSError), open_plain(self.path / name) as file:
            said = file.read(1000).decode("utf-8", "replace").strip()
            try:
                # only where somebody has signed: a look must be in nobody's way
                if said:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return said
        return ""

    def make(self) -> None:
        """Makes the directory where it is missing. Raises OSError."""
        if not self.path.is_dir():
            make_directories(self.path.parent)
            with suppress(FileExistsError):  # two requests may be the first
                create_directory(self.path)

    def _sweep(self) -> None:
        # what stands here half-made has no living owner, for we hold the lock
        for entry in regular_files(self.path).values():
            if PARTIAL.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
        with suppress(OSError), open_directory(self.path) as directory:
            sweep_partials(directory, LENT)
        for name, pattern in ((EXPORTS, PARTIAL_EXPORT), ("state", PARTIAL_STATE)):
            # it is not there yet, or a link that leads elsewhere
            with suppress(OSError), open_directory(self.path / name) as directory:
                for entry in regular_files(directory).values():
                    old = PREVIEW.fullmatch(entry.name) and _is_of_yesterday(entry)
                    if old or (pattern.fullmatch(entry.name) and is_regular(entry)):
                        os.unlink(entry.name, dir_fd=directory)

    def _renew(self) -> None:
        """Begins a journal anew that has grown large; the old one stands beside it."""
        with suppress(OSError):  # it may grow on
            if content := self._journal.renewed():
                before = self.path / "journal.1.jsonl"
                before.unlink(missing_ok=True)
                os.link(self._log, before)
                write_file(self._log, content)

    @contextmanager
    def partial(self, name: str) -> Iterator[Path]:
        """A directory to work in, gone at the end unless it was renamed."""
        path = create_directory(self.path / f".{name}.partial")
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def lent(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """A file to write and to read again, and its path; it is gone at the end.

        No lock is needed: nobody else touches it. Raises OSError.
        """
        self.make()
        with lent(self.path, LENT) as found:
            yield found

    def new_id(self, warn: Callable[[str], None] = lambda _: None) -> str:
        """An id of its own: the time in UTC, or a second after the newest.

        So that the newest backup stays the first though another host's clock is ahead.
        Those of the future were taken while a clock was wrong, and hinder nothing.
        """
        names, found = self.names(), id_stamp()
        newest = next(filter(has_come, names), "")
        while found <= newest or found in names:
            found = id_stamp(parse_id(max(found, newest)) + timedelta(seconds=1))
        if ahead := [name for name in names if not has_come(name)]:
            warn(
                f"backup {ahead[0]} has a date in the future: the clock was wrong when "
                f"it was taken, or is wrong now, {stamp()}"
            )
        return found

    def add(self, partial: Path, name: str) -> Backup:
        """Makes a backup out of a finished partial one, in one step."""
        sync_directory(partial)
        partial.rename(self.path / name)
        sync_directory(self.path)
        return self.backup(name)

    @contextmanager
    def exports(self) -> Iterator[Path]:
        """The directory of the exports that the sysadmin page asked for, locked."""
        with self.lock("export"):
            yield own_directory(self.path / EXPORTS)

    # -- the journal

    def record(self, operation: str, event: str, **facts: Any) -> None:
        """Adds a line to the journal; it is on the disk when this returns.

        Who records one of `journal.DEEDS` holds the lock. Raises OSError.
        """
        line = {"time": stamp(), "by": who(), "pid": os.getpid()}
        line |= {**self._actor, "operation": operation, "event": event} | facts
        self.make()
        self._journal.record(line)

    def journal(self) -> list[Entry]:
        """The journal's last entries, for people: the oldest first, not to be believed.

        Raises OSError.
        """
        return self._journal.end()

    def deeds(self) -> list[Entry]:
        """The lines that may be acted upon. Raises OSError, as `Journal.deeds`."""
        return self._journal.deeds()

    def others_deeds(self) -> list[tuple[int, Entry]]:
        """Those that may not. Raises OSError, as `Journal.others`."""
        return self._journal.others()

    # -- what is remembered, in a file of one's own

    def recall(self, name: str) -> dict[str, Any]:
        """What was remembered under a name; `{}` when that is not this site's word."""
        document = None
        with suppress(OSError):
            document = read_json(self.path / f".{name}.json")
        own = signed_by(document, self._secrets, name)
        return document if own and isinstance(document, dict) else {}

    def memorize(self, name: str, facts: Mapping[str, Any]) -> None:
        """Remembers facts under a name, in place of those before. Raises OSError."""
        signed = dumped(sign(facts, self._secrets[0], name))
        write_file(self.path / f".{name}.json", signed)

    # -- markers: one file that says "this is still to be done"

    def mark(self, name: str, wanted: bool) -> None:
        """Sets or clears a marker."""
        path = self.path / f".{name}"
        if wanted:
            write_file(path, b"")
        elif self.marked(name):
            path.unlink(missing_ok=True)

    def marked(self, name: str) -> bool:
        """Whether a marker stands; a link or a directory is none."""
        with suppress(OSError):
            return stat.S_ISREG((self.path / f".{name}").lstat().st_mode)
        return False


def _take(file: IO[bytes]) -> None:
    """Takes a lock. Raises BlockingIOError where somebody has it, not who only looks.

    A look shares it for a moment, where one who was killed has left a signature.
    """
    for _ in range(_LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(0.01)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_of_yesterday(entry: os.DirEntry[str]) -> bool:
    """Whether a file is older than a day: names of people are not kept for ever."""
    about = entry.stat(follow_symlinks=False)
    return about.st_mtime < (now() - timedelta(days=1)).timestamp()
