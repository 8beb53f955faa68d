"""What stands at the other place is looked at again."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ..disk import create_directory
from ..layout import MANIFEST, OBJECTS, SUMS
from ..objects import digest_of, object_path
from ..operation import Operation
from ..repository.backup import Backup
from .pull import head_of, objects_of
from .push import Needed
from .restic import Broken, Restic
from .snapshots import Snapshot


def check(restic: Restic, part: str = "") -> list[str]:
    """What restic's own check finds, a sentence each; with `part` data is read again.

    That is `n/m`, the n-th of m parts. Raises Refused, Locked, ToolFailed where nobody
    knows.
    """
    # what is kept here would hide what is damaged there
    options = ["--no-cache", *([f"--read-data-subset={part}"] if part else [])]
    try:
        restic.run("check", *options)
    except Broken as error:
        return [str(error)]
    return []


def problems_there(
    op: Operation, restic: Restic, snapshot: Snapshot, work: Path
) -> list[str]:
    """What is wrong with a snapshot, as its own signed manifest tells of it.

    Its signature, its own files, and the names and sizes of all that it needs; `work`
    is an empty directory. Raises Refused, ToolFailed.
    """
    found = head_of(op, restic, snapshot, create_directory(work / "head"))
    contents, wrong = found.manifest["contents"], []
    for name, about in contents.items():
        path = found.path / name
        if not path.exists():  # as is told below
            continue
        if digest_of(path) != about["sha256"]:
            wrong.append(f"{name}: was changed (checksum)")
    if wrong:
        return wrong
    own = {name: about["bytes"] for name, about in contents.items()}
    own |= {MANIFEST: -1, SUMS: -1}
    files = [(f"{found.id}/{name}", size) for name, size in own.items()]
    names = create_directory(work / "names")
    needed = Needed(found.id, chain(files, _objects(found)), names)
    return needed.lacking(restic, snapshot.name)


def _objects(found: Backup) -> Iterator[tuple[str, int]]:
    for digest, size in objects_of(found):
        name = object_path(Path(OBJECTS), digest)
        yield str(name), -1 if size is None else size
