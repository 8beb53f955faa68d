"""The list of a backup's uploads, `files.jsonl.zst`: hostile until its sum is right.

Whoever can write to the repository can put another list in its place, or write into
it, between two looks. So no look is trusted later: each pass over a list opens it once,
hashes what it reads, and ends with Changed unless every byte is what the manifest says.
What cannot be taken back waits for the end of the pass. Knows no contents of uploads.
"""

from __future__ import annotations

import heapq
import io
import itertools
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import zstandard

from .. import words
from ..errors import Changed, Damaged, Refused
from ..layout import LIST
from ..opened import open_plain
from ..repository.backup import Backup
from ..signature import Hashed
from .folders import OURS, Folder, not_uploads, walk

HASH = re.compile(r"[0-9a-f]{64}")
_MAX_LINE = 1 << 16


class Writer:
    """A list in the making: lines go in, a frame of zstd goes to the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._out = Hashed(file)
        self._packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()

    def write(self, line: bytes) -> None:
        """Adds a line."""
        self._out.write(self._packer.compress(line))

    def finish(self, path: Path) -> Listing:
        """Ends the list, of which the file at `path` holds all then."""
        self._out.write(self._packer.flush())
        return Listing(path, self._out.bytes, self._out.sha256)


@dataclass(frozen=True)
class Listing:
    """A list of uploads, and what the manifest says of it: `bytes` and `sha256`."""

    path: Path
    bytes: int
    sha256: str

    def raw(self) -> Iterator[bytes]:
        """Its lines as they are. Raises Changed at the end; OSError."""
        unpacker = zstandard.ZstdDecompressor()
        with open_plain(self.path) as file:
            read: Any = Hashed(file)
            stream: Any = unpacker.stream_reader(read, read_across_frames=True)
            lines = io.BufferedReader(stream)
            try:
                while read.bytes <= self.bytes and (line := lines.readline(_MAX_LINE)):
                    yield line
            except zstandard.ZstdError as error:
                raise Changed(LIST, [f"{LIST}: {error}"]) from error
        if (read.bytes, read.sha256) != (self.bytes, self.sha256):
            raise Changed(LIST, [f"{LIST}: was changed (checksum)"])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its lines, each `checked`. Raises Damaged, Changed at the end; OSError."""
        return checked(self.raw())

    def find(self, paths: Collection[str]) -> dict[str, dict[str, Any]]:
        """What it tells of some uploads, by path; what it does not hold is not there.

        Raises as `lines`.
        """
        wanted = {json.dumps(path, ensure_ascii=False) for path in paths}
        raw = {each.encode("utf-8", "surrogateescape") for each in wanted}
        lines = [line for line in self.raw() if _path(line) in raw]
        return {each["path"]: each for each in checked(lines) if "sha256" in each}

    def paths(self) -> Iterator[str]:
        """The paths of what it holds, as they are."""
        return (each["path"] for each in self.lines() if "sha256" in each)


_PATH = re.compile(rb'"path": ("(?:[^"\\]|\\.)*")')


def _path(line: bytes) -> bytes:
    """A line's path as it stands there."""
    found = _PATH.search(line)
    return found[1] if found else b""


def of(backup: Backup) -> Listing:
    """The list of a backup whose manifest is well-formed. Raises Refused without one.

    The manifest vouches for it; only `backup.signed` says whose word that is.
    """
    about = backup.manifest["contents"].get(LIST)
    if about is None:
        raise Refused(
            f"backup {backup.id} holds no uploads, only {words.parts(backup.parts)}"
        )
    return Listing(backup.path / LIST, about["bytes"], about["sha256"])


def checked(raw: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of a list, which may be hostile, each looked at. Raises Damaged.

    Paths are relative, without `..` and in strictly ascending order, so that none
    comes twice.
    """
    before: list[str] = []
    for number, line in enumerate(raw, 1):
        facts: dict[str, Any] = {}
        try:
            facts = parse_line(line) if line.endswith(b"\n") else {}
            problem = _problem(facts)
        except (ValueError, RecursionError):
            problem = "is not JSON"
        if not problem and ("sha256" in facts or "refused" in facts):
            parts = facts["path"].split("/")
            if parts <= before or parts[: len(before)] == before != []:
                problem = "is not after the path before it"
            before = parts
        if problem:
            raise Damaged(LIST, [f"{LIST}: line {number} {problem}"])
        yield facts


def format_line(facts: Mapping[str, Any]) -> bytes:
    """The line that tells these facts."""
    # names byte by byte as on the disk, so that `sed` and `cp` can do with them
    text = json.dumps(facts, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def parse_line(line: bytes) -> Any:
    """What a line tells, not looked at. Raises ValueError, RecursionError."""
    return json.loads(line.decode("utf-8", "surrogateescape"))


def _problem(facts: Any) -> str:
    if not isinstance(facts, dict) or not isinstance(facts.get("path"), str):
        return "names no path"
    path: str = facts["path"]
    parts = path.split("/")
    if not safe(path) or (parts[0] in not_uploads()):
        return f"names {path[:200]!r}, which is no path of an upload"
    if "sha256" not in facts and ("missing" in facts or "refused" in facts):
        return ""
    for key in ("size", "ctime_ns", "inode"):
        if type(facts.get(key)) is not int or facts["size"] < 0:
            return f"has no {key}"
    if not isinstance(facts.get("mtime"), (int, float)):
        return "has no mtime"
    found = facts.get("sha256")
    if not isinstance(found, str) or not HASH.fullmatch(found):
        return "has no sha256"
    return ""


def safe(path: str) -> bool:
    """Whether it is a relative path of plain names."""
    parts = path.split("/")
    return (
        0 < len(os.fsencode(path)) < 4000
        and "\0" not in path
        and not any(
            part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts
        )
        and not OURS.fullmatch(parts[0])
    )


def facts_of_file(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "size": status.st_size,
        "mtime": status.st_mtime,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def compare(among: list[Folder], listing: Listing) -> dict[str, int]:
    """`{now, then, lost, gained, changed}`: the uploads on the disk and in a list.

    Raises Damaged, Changed, Refused, OSError.
    """
    counts = {"now": 0, "then": 0, "lost": 0, "gained": 0, "changed": 0}
    # both come in the order of the paths
    both = heapq.merge(_on_the_disk(among), _in_the_list(listing))
    for _, same in itertools.groupby(both, key=itemgetter(0)):
        known = {side: facts for _, side, facts in same}
        counts["now"] += "now" in known
        counts["then"] += "then" in known
        counts["lost"] += "then" not in known
        counts["gained"] += "now" not in known
        counts["changed"] += len(known) == 2 and known["now"] != known["then"]
    return counts


_Upload = tuple[list[str], str, tuple[int, float]]


def _on_the_disk(among: list[Folder]) -> Iterator[_Upload]:
    for found in walk(among, {}):
        with suppress(FileNotFoundError):
            there = os.stat(found.name, dir_fd=found.directory, follow_symlinks=False)
            if stat.S_ISREG(there.st_mode):
                facts = (there.st_size, there.st_mtime)
                yield found.path.split("/"), "now", facts


def _in_the_list(listing: Listing) -> Iterator[_Upload]:
    for facts in listing.lines():
        if "sha256" in facts:
            yield facts["path"].split("/"), "then", (facts["size"], facts["mtime"])
