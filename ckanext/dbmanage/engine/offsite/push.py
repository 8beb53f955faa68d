"""A backup is copied to the other place.

It counts when restic says so and what stands there has the names and sizes of the
manifest: what vanishes meanwhile restic leaves out in silence. Memory is flat: the
contents that a backup needs are looked at by their first two digits, as they come.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from ..backup.downloads import entries
from ..clock import parse_id
from ..disk import create_file
from ..errors import Damaged, Refused, ToolFailed
from ..layout import ALONG, OBJECTS
from ..objects import wrong_at_sight
from ..operation import Operation
from ..repository.backup import Backup
from .restic import Incomplete, Kept, Restic
from .snapshots import TAG, Snapshot, nodes, snapshots, stray

#: a content's name and its bytes
_RECORD = struct.Struct(">32sq")
_TOLD = 20


def push(
    op: Operation,
    restic: Restic,
    backup: Backup,
    there: list[Snapshot],
    work: Path,
    parent: str = "",
) -> tuple[str, int]:
    """Copies a backup; the snapshot's name, and the bytes that were not there before.

    `parent` is a snapshot that this site itself has made: of a file that looks the same
    restic takes the content from there and reads nothing. The caller sees to it that
    nothing of the backup vanishes meanwhile; `work` is an empty directory of its own.
    Raises Damaged, Refused, ToolFailed: then it is not there.
    """
    needed = Needed(backup.id, _whole(backup), work)
    time = parse_id(backup.id).strftime("%Y-%m-%d %H:%M:%S")
    what = [backup.id, f"state/{backup.id}.json", OBJECTS, ALONG]
    what = [name for name in what if (op.repository.path / name).exists()]
    options = ["--host", op.site.id, "--tag", TAG, "--tag", backup.id, "--time", time]
    # a hard link, or a copy of the repository, is no reason to read all again
    options += ["--ignore-inode"]
    # one that restic finds by itself somebody else may have put there
    options += ["--parent", parent] if parent else ["--force"]
    if restic.version >= (0, 16):
        # the contents are packed already
        # and who waits for a lock says so before it is taken for silent
        options += ["--retry-lock", "4m", "--no-scan", "--compression", "off"]

    def told(status: dict[str, Any]) -> None:
        done, total = status.get("bytes_done"), status.get("total_bytes")
        op.progress("push", _number(done), _number(total) or needed.bytes)

    op.progress("push", 0, needed.bytes)
    try:
        said = restic.run("backup", *what, *options, cwd=op.repository.path, told=told)
    except Incomplete:
        before = {each.name for each in there}
        for each in snapshots(restic, op.site.id):
            if each.id == backup.id and each.name not in before:
                take_back(restic, each.name)
        raise
    summary = next((s for s in said if s.get("message_type") == "summary"), {})
    name = summary.get("snapshot_id")
    if not isinstance(name, str) or not name:
        raise ToolFailed(f"restic names no snapshot of backup {backup.id}")
    op.progress("compare", 0, 0)
    if missing := needed.lacking(restic, name):
        take_back(restic, name)
        raise Damaged(f"the copy of backup {backup.id} at the other place", missing)
    return name, _number(summary.get("data_added"))


def _whole(backup: Backup) -> Iterator[tuple[str, int]]:
    """The files of a signed backup. Raises Refused, Damaged when some are not here."""
    if not backup.signed:
        raise Refused(
            f"backup {backup.id} is not signed by this site: it is not copied"
        )
    wrong: list[str] = []
    for entry in entries(backup):
        if problem := wrong_at_sight(entry.path, entry.size):
            wrong.append(f"{entry.name}: {problem}")
        yield entry.name, entry.size
    if wrong:
        raise Damaged(f"backup {backup.id}", wrong[:_TOLD])


def take_back(restic: Restic, name: str) -> None:
    """Takes away a snapshot that is not whole; where none may go it stays."""
    with suppress(Kept):
        restic.run("forget", name)


class Needed:
    """The files that a backup is made of, with their bytes where those are known."""

    def __init__(self, backup: str, files: Iterable[tuple[str, int]], work: Path):
        """`files` are names in the repository and bytes, -1 where nobody knows."""
        self._id, self._work, self.bytes = backup, work, 0
        self._own: dict[str, int] = {}
        with ExitStack() as stack:
            by_prefix: dict[str, Any] = {}
            for name, size in files:
                self.bytes += max(size, 0)
                if not name.startswith(f"{OBJECTS}/"):
                    self._own[name] = size
                    continue
                digest = name[-64:]
                if digest[:2] not in by_prefix:
                    file = create_file(work / digest[:2])
                    by_prefix[digest[:2]] = stack.enter_context(file)
                record = _RECORD.pack(bytes.fromhex(digest), size)
                by_prefix[digest[:2]].write(record)

    def lacking(self, restic: Restic, snapshot: str) -> list[str]:
        """What a snapshot lacks of it, and what it has that `pull` would refuse."""
        wrong: list[str] = []
        own, seen = dict(self._own), set[str]()
        prefix, left = "", dict[str, int]()

        def look(name: str, kind: str, size: int) -> None:
            nonlocal prefix, left
            path = PurePosixPath(name)
            directory = kind == "dir"
            if kind not in ("dir", "file") or stray(path, directory, self._id):
                if len(wrong) < _TOLD:  # there may be millions
                    wrong.append(f"{name}: does not belong there, move it away")
            elif directory:
                return
            elif path.parts[0] != OBJECTS:
                if own.get(name) in (size, -1):
                    del own[name]
            else:
                if path.parts[1] != prefix:
                    wrong.extend(map(_gone, left))
                    prefix = path.parts[1]
                    left = {} if prefix in seen else self._named(prefix)
                    seen.add(prefix)
                if left.get(path.name) in (size, -1):
                    del left[path.name]

        nodes(restic, snapshot, look)
        wrong += map(_gone, left)
        for file in sorted(self._work.iterdir()):
            if file.name not in seen:
                wrong += map(_gone, self._named(file.name))
        return [*(f"{name}: is not there as it was" for name in own), *wrong][:_TOLD]

    def _named(self, prefix: str) -> dict[str, int]:
        try:
            records = (self._work / prefix).read_bytes()
        except FileNotFoundError:
            return {}
        return {name.hex(): size for name, size in _RECORD.iter_unpack(records)}


def _gone(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}: is not there as it was"


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
