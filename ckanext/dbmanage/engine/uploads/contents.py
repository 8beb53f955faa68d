"""Contents of uploads, each stored once over all backups."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import Damaged, Refused
from ..layout import LIST
from ..objects import object_path, wrong_at_sight, wrong_inside
from ..opened import open_plain
from ..signature import Hashed
from .listing import Listing

_CHUNK = 1 << 20


def problems(
    listing: Listing, objects: Path, read: Callable[[int], None] = lambda _: None
) -> Iterator[str]:
    """What is wrong with a list of uploads and their contents; every byte is read.

    Raises PermissionError for what this user may not read.
    """
    try:
        for facts in listing.lines():
            if "sha256" not in facts:
                continue
            place = object_path(objects, facts["sha256"])
            if wrong := wrong_at_sight(place, facts["size"]):
                read(facts["size"])
            else:
                wrong = wrong_inside(place, read)
            if wrong:
                yield f"upload {facts['path']!r}: {wrong}"
    except Damaged as error:
        yield from error.problems
    except PermissionError:
        raise
    except OSError as error:
        yield f"{LIST}: {error.strerror}"


def fetch(listing: Listing, objects: Path, path: str, out: IO[bytes]) -> int:
    """Writes one upload's content to a file, its checksum looked at first.

    Returns its size. Raises Refused when the list has no such path, Damaged.
    """
    found = None
    for facts in listing.lines():  # to its end: only then it is the backup's
        if facts["path"] == path and "sha256" in facts:
            found = facts
    if found is None:
        raise Refused(
            f"the backup holds no upload {path!r}: {LIST} lists what it holds"
        )
    with open_content(objects, found) as file:
        copy_content(file, found)
        file.seek(0)
        return copy_content(file, found, out)


def open_content(objects: Path, facts: Mapping[str, Any]) -> IO[bytes]:
    """The content of an upload, open. Raises OSError."""
    return open_plain(object_path(objects, facts["sha256"]))


def copy_content(file: IO[bytes], facts: Mapping[str, Any], *outs: Any) -> int:
    """Copies a content and returns its size. Raises Damaged when it is another."""
    read = Hashed(file)
    while read.bytes <= facts["size"] and (chunk := read.read(_CHUNK)):
        for out in outs:
            out.write(chunk)
    if (read.bytes, read.sha256) != (facts["size"], facts["sha256"]):
        what = f"upload {facts['path']!r}: its content {facts['sha256']} was changed"
        raise Damaged("the backup", [what])
    return read.bytes
