"""Backups as snapshots of restic's: one backup is one snapshot, found by its tags.

    /20261123T045500Z/…   /state/20261123T045500Z.json   /objects/ab/…   /site/ckan.ini

It is made inside the repository, with relative names, so that a restore into an empty
directory gives the repository's own layout. Its own id changes when restic repairs it.
Who may write to the place may have made any of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..clock import has_come, parse_id, stamp
from ..layout import ALONG, ID, OBJECTS
from ..uploads.listing import HASH
from .restic import Restic

TAG = "dbmanage"


@dataclass(frozen=True)
class Snapshot:
    """A backup that stands elsewhere; `id` is the backup's, `name` restic's own."""

    id: str
    name: str
    host: str


def snapshots(restic: Restic, host: str = "") -> list[Snapshot]:
    """The backups that are there, of a site or of all; the newest first.

    There may be several of one id, in no order. Those of the future come last: nobody
    knows when they were made. What bears no id of ours, or another time than it, is
    somebody's own, and left out. Raises as `Restic.run`.
    """
    of = ["--host", host] if host else []
    said = restic.run("snapshots", "--no-lock", "--tag", TAG, *of)
    found = [each for each in map(_snapshot, said) if each]
    found = [each for each in found if host in ("", each.host)]
    return sorted(found, key=lambda each: (has_come(each.id), each.id), reverse=True)


def _snapshot(facts: Mapping[str, Any]) -> Snapshot | None:
    tags, name, host = facts.get("tags"), facts.get("id"), facts.get("hostname")
    if not (isinstance(tags, list) and isinstance(name, str) and isinstance(host, str)):
        return None
    ids = [tag for tag in tags if isinstance(tag, str) and ID.fullmatch(tag)]
    if TAG not in tags or len(ids) != 1 or not HASH.fullmatch(name):
        return None
    try:
        moment = stamp(parse_id(ids[0]))
    except ValueError:
        return None
    same = str(facts.get("time")) in (moment, moment.replace("Z", "+00:00"))
    return Snapshot(ids[0], name, host) if same else None


def nodes(
    restic: Restic, snapshot: str, take: Callable[[str, str, int], None], *inside: str
) -> None:
    """Hands `take` each name in a snapshot, its kind and its bytes. As `Restic.run`.

    Of directories `inside`, where some are given, only what is right in them.
    """

    def each(node: dict[str, Any]) -> None:
        path, kind, size = node.get("path"), node.get("type"), node.get("size", 0)
        if isinstance(path, str) and isinstance(kind, str):
            take(path.lstrip("/"), kind, size if isinstance(size, int) else -1)

    restic.run("ls", "--no-lock", snapshot, *inside, each=each)


def stray(path: PurePosixPath, is_directory: bool, backup: str) -> bool:
    """Whether a name does not belong to the snapshot of a backup."""
    first, *rest = path.parts
    if first == OBJECTS:
        if is_directory:
            return len(rest) > 1 or any(len(part) != 2 for part in rest)
        whole = len(rest) == 2 and HASH.fullmatch(rest[1]) and rest[1][:2] == rest[0]
        return not whole
    if is_directory:
        return bool(rest) or first not in (backup, "state", ALONG)
    if first == "state":
        return rest != [f"{backup}.json"]
    return len(rest) != 1 or first not in (backup, ALONG)


def grouped(there: list[Snapshot]) -> dict[str, list[Snapshot]]:
    """Snapshots by the id of their backup, in their order."""
    found: dict[str, list[Snapshot]] = {}
    for each in there:
        found.setdefault(each.id, []).append(each)
    return found
