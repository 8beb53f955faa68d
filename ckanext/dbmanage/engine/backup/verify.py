"""A backup is read again, byte by byte."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .. import layout, owner
from ..archive.contents import contents_of, limit
from ..archive.segments import Segments
from ..archive.unpack import read_to_end
from ..clock import stamp
from ..disk import is_regular, regular_files
from ..errors import Damaged, DbmanageError, Denied
from ..layout import MANIFEST, SEGMENTS, SUMS, UNSIGNED
from ..opened import open_plain
from ..report import Progress
from ..repository.backup import Backup
from ..signature import Hashed, dumped, read_own
from ..site import Site
from ..uploads import contents
from ..uploads.listing import of
from . import records
from .manifest import segments_of, sums_of, well_formed
from .together import Ended, Together


def verify_backup(
    backup: Backup, site: Site, progress: Progress = lambda *_: None
) -> list[str]:
    """What is wrong with a backup, a sentence for each; the result is remembered.

    Raises Denied for one that this user may not read: nothing is known of it then.
    """
    problems = problems_of(backup, site, progress)
    with suppress(OSError):
        backup.remember(verified={"time": stamp(), "problems": problems})
    return problems


def event_of(problems: list[str]) -> str:
    """What the journal says of a verification: damage that was found is not "done"."""
    if not problems:
        return "done"
    own = [problem for problem in problems if UNSIGNED not in problem]
    return "found damage" if own else "not signed"


def problems_of(
    backup: Backup, site: Site, progress: Progress = lambda *_: None
) -> list[str]:
    """Reads every byte of a backup and names each file that is not what it was.

    The manifest against its signature, files against the manifest's sizes and
    checksums, each archive to its end, its tables against the manifest, the content of
    each upload against its checksum.
    """
    look = (_Reading.unsigned, _Reading.misplaced, _Reading.broken, _Reading.uploads)
    return _Reading(backup, site, progress).problems(*look)


def problems_of_foreign(backup: Backup, site: Site, progress: Progress) -> list[str]:
    """The same but for the signature: the backup need not be this site's."""
    look = (_Reading.misplaced, _Reading.broken, _Reading.uploads)
    return _Reading(backup, site, progress).problems(*look)


def problems_of_new(
    backup: Backup, site: Site, progress: Progress, staged: Path
) -> list[str]:
    """The same but for the uploads: the backup was written a moment ago.

    Its new objects are still `staged`.
    """
    look = (_Reading.unsigned, _Reading.misplaced, _Reading.broken)
    return _Reading(backup, site, progress, staged).problems(*look)


def changed_files(backup: Backup, site: Site, progress: Progress) -> list[str]:
    """What is not as it was signed; neither archives nor uploads are looked into."""
    look = (_Reading.unsigned, _Reading.misplaced, _Reading.changed)
    return _Reading(backup, site, progress).problems(*look)


def changed_lists(backup: Backup, site: Site, progress: Progress) -> list[str]:
    """The same of its own files; each object is to be looked at where it is read."""
    look = (_Reading.unsigned, _Reading.misplaced, _Reading.listed)
    return _Reading(backup, site, progress).problems(*look)


class _Reading:
    """A backup's directory while it is read."""

    def __init__(
        self, backup: Backup, site: Site, progress: Progress, *staged: Path
    ) -> None:
        self._backup, self._site, self._progress = backup, site, progress
        self._staged = staged
        self._sums, self._found = b"", dict[str, list[str]]()

    def problems(self, *looks: Callable[[_Reading], Iterable[str]]) -> list[str]:
        """What these find, one after the other; one that reads uploads is the last.

        Raises Denied.
        """
        self._backup.refuse_closed()
        try:
            return self._problems(looks)
        except PermissionError as error:
            path, backup = Path(error.filename or self._backup.path), self._backup
            why = owner.why_closed(owner.closed([path]) or path, backup.path.parent)
            raise Denied(f"backup {backup.id}", why) from error

    def _problems(
        self, looks: tuple[Callable[[_Reading], Iterable[str]], ...]
    ) -> list[str]:
        if why := self._unreadable():
            return why
        self._contents = self._backup.manifest["contents"]
        self._plain = [
            name
            for name in self._contents
            if name in self._there and is_regular(self._there[name])
        ]
        self._dumps = {
            SEGMENTS[part]: segments_of(self._backup, part, *self._staged)
            for part in self._backup.manifest["databases"]
        }
        total = sum(self._contents[name]["bytes"] for name in self._plain)
        unpacked = "bytes" if _Reading.broken in looks else "stored"
        for about in self._backup.manifest["databases"].values():
            total += about["dump"][unpacked]
        total += self._backup.files.get("bytes", 0) * (_Reading.uploads in looks)
        self._work = Together("verify", total, self._progress)
        return [problem for look in looks for problem in look(self)]

    def _unreadable(self) -> list[str]:
        """Why nothing that the manifest says can be looked at."""
        try:
            self._there = regular_files(self._backup.path)
            written = read_own(self._backup.path / MANIFEST)
        except OSError as error:
            return [f"{Path(error.filename).name}: {error.strerror}"]
        with suppress(OSError):
            self._sums = read_own(self._backup.path / SUMS)
        manifest = self._backup.manifest
        if not well_formed(manifest) or dumped(manifest) != written:
            return [f"{MANIFEST}: was changed or is not a manifest"]
        line = f"{hashlib.sha256(written).hexdigest()}  {MANIFEST}\n".encode()
        if not self._backup.signed and line not in self._sums:
            return [f"{MANIFEST}: was changed (its checksum is not the one in {SUMS})"]
        return []

    def unsigned(self) -> Iterator[str]:
        """That this site has not signed the manifest."""
        if not self._backup.signed:
            yield (
                f"{MANIFEST}: {UNSIGNED} with this site's secret: another site's, or "
                "forged, or a copy under another name"
                f"{self._site.advise('other secret', ', or ')}"
            )

    def misplaced(self) -> Iterator[str]:
        """What is in the directory and should not, and the reverse."""
        there, expected = self._there, {MANIFEST, SUMS, *self._contents}
        for name in sorted(set(there) - expected):
            yield f"{name!r}: does not belong here"
        for name in sorted(expected - set(there)):
            yield f"{name}: is missing"
        for name in sorted(expected & set(there)):
            if not is_regular(there[name]):
                yield f"{name}: is not a plain file"
        manifest = self._backup.manifest
        if SUMS in there and self._sums != sums_of(manifest, dumped(manifest)):
            yield f"{SUMS}: was changed (it does not agree with the manifest)"

    def listed(self) -> list[str]:
        """What is wrong with its own files, the objects left aside."""
        return self._each(self._other)

    def changed(self) -> list[str]:
        """What is wrong with the files' sizes and checksums."""
        return self._each(self._changed)

    def broken(self) -> list[str]:
        """The same, and what is wrong inside the archives."""
        return self._each(self._broken)

    def _each(self, look: Callable[[str], list[str]]) -> list[str]:
        self._found = self._work.run(
            {name: functools.partial(look, name) for name in self._plain}
        )
        return [problem for name in self._plain for problem in self._found[name]]

    def _changed(self, name: str) -> list[str]:
        """What is wrong with a file, and with the objects that it is the list of."""
        if wrong := self._other(name):
            return wrong
        dump = self._dumps.get(name)
        return list(dump.problems(self._work.count)) if dump else []

    def _other(self, name: str) -> list[str]:
        about = self._contents[name]
        try:
            with open_plain(self._backup.path / name) as file:
                hashed = Hashed(file, self._work.count).read_rest()
        except PermissionError:
            raise
        except OSError as error:
            return [f"{name}: {error.strerror}"]
        if hashed.bytes != about["bytes"]:
            return [f"{name}: has {hashed.bytes} bytes, not {about['bytes']}"]
        if hashed.sha256 != about["sha256"]:
            return [f"{name}: was changed (checksum)"]
        return []

    def _broken(self, name: str) -> list[str]:
        if name == layout.RECORDS and (found := records.of(self._backup)):
            return self._other(name) or found.problems()
        if name not in self._dumps:
            return self._changed(name)
        return self._other(name) or self._inside(name, self._dumps[name])

    def _inside(self, name: str, dump: Segments) -> list[str]:
        try:
            most = 0 if self._backup.signed else limit(dump.size)
            with dump.open(most, self._work.count) as stream:
                read_to_end(stream, name, self._site.pg_bin)
            held = contents_of(dump).table_data()
        except (Ended, PermissionError):
            raise
        except Damaged as error:
            # it names the first alone
            return list(dump.problems()) or error.problems
        except (DbmanageError, OSError) as error:
            return [f"{name}: the archive cannot be read to its end: {error}"]
        counted = self._backup.manifest["databases"][name.split(".")[0]]["rows"]
        return [
            f"{name}: holds no rows of table {table}, which the manifest counts"
            for table in sorted(set(counted) - held)
        ]

    def uploads(self) -> Iterator[str]:
        """What is wrong with the uploads, once their list is what it was."""
        if self._found.get(layout.LIST) == []:
            listed = of(self._backup)
            held = self._backup.objects
            yield from contents.problems(listed, held, self._work.count)
