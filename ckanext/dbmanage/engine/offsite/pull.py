"""A backup comes back from the other place: hostile until it was looked at.

It lands in an empty directory of its own, for restic writes through links. Its
signature is looked at before the rest is brought, its names and kinds of file before
anything of it is moved; each content must be what its name says. The directory of the
backup comes last into the repository: until then there is no such backup.
"""

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from .. import layout, words
from ..backup.manifest import segments_of, well_formed
from ..backup.verify import problems_of
from ..clock import has_come, stamp
from ..disk import (
    create_directory,
    own_directory,
    sync_directory,
    sync_file_system,
    write_file,
)
from ..errors import Damaged, Refused
from ..layout import OBJECTS, UNSIGNED
from ..objects import is_sound, object_path, wrong_at_sight
from ..operation import Operation
from ..printable import one_line
from ..report import Listener
from ..repository.backup import Backup
from ..uploads.listing import of
from .restic import Restic
from .snapshots import Snapshot, grouped, nodes, stray

#: contents that are asked for one by one: more of them cost restic more than all do
_FEW = 400
_TOLD = 20
#: bytes that are left free on the disk, which may be the databases' too
_SPARE = 256 << 20


def pull(op: Operation, restic: Restic, snapshot: Snapshot) -> Backup:
    """Brings a backup back into the repository, once all of it is what it should be.

    The caller holds the repository's lock. Raises Refused, Damaged, ToolFailed: then
    there is no such backup in the repository.
    """
    repository = op.repository
    with repository.partial(f"{snapshot.id}pulled") as work:
        found = head_of(op, restic, snapshot, create_directory(work / "head"))
        found.objects = own_directory(repository.path / OBJECTS)
        problems: list[str] = []
        # what looks whole is not fetched again, unless it turns out to be rotten
        for number, read in enumerate((False, True)):
            staged = create_directory(work / f"objects{number}")
            _fetch_missing(op, restic, snapshot, found, staged, read)
            problems = problems_of(found, op.site, op.progress)
            if not problems:
                break
        else:
            raise Damaged(_named(snapshot), problems[:_TOLD])
        _add(work / "head", found, repository.path)
        pulled = repository.find(snapshot.id)
        pulled.remember(verified={"time": stamp(), "problems": []})
        return pulled


def chosen(there: list[Snapshot], id: str) -> Snapshot:
    """The snapshot of an id, or of `latest` or `oldest`. Raises Refused."""
    by_id = grouped(there)
    known = [name for name in by_id if has_come(name)] or list(by_id)
    if known and id in ("latest", "oldest"):
        id = known[0 if id == "latest" else -1]
    if id not in by_id:
        raise Refused(f"there is no backup {one_line(id)!r} at the other place")
    return by_id[id][0]


def lay_out(
    restic: Restic, snapshot: Snapshot, target: Path, listener: Listener
) -> None:
    """Brings all of a snapshot into an empty directory, which is a repository then.

    With it comes what went along, in `layout.ALONG`. Nobody knows here whose signature
    is to be on the backup: who uses it must look. Raises Refused, Damaged, ToolFailed,
    OSError; then the directory holds nothing, or a part.
    """
    _restore(restic, snapshot, target, [], listener)
    _look(target, snapshot)


def head_of(op: Operation, restic: Restic, snapshot: Snapshot, head: Path) -> Backup:
    """The backup's own directory and its state, signed by this site."""
    names = [f"/{snapshot.id}", f"/state/{snapshot.id}.json"]
    needed = _size_of_head(restic, snapshot)
    _restore(restic, snapshot, head, names, op.listener, needed)
    _look(head, snapshot)
    state = head / "state" / f"{snapshot.id}.json"
    found = Backup(head / snapshot.id, op.site.secrets, state)
    if not found.signed or not well_formed(found.manifest):
        raise Refused(
            f"{_named(snapshot)} {UNSIGNED} with this site's secret: another site's, "
            f"or forged{op.site.advise('other secret', ', or ')}"
        )
    return found


def _size_of_head(restic: Restic, snapshot: Snapshot) -> int:
    """The bytes of a backup's own directory and state, as the snapshot says.

    Zeros without end cost nothing over there. Raises Damaged for what does not belong.
    """
    total, wrong = 0, list[str]()

    def look(name: str, kind: str, size: int) -> None:
        nonlocal total
        path = PurePosixPath(name)
        plain = kind in ("dir", "file")
        if not plain or stray(path, kind == "dir", snapshot.id):
            if len(wrong) < _TOLD:
                wrong.append(f"{name[:200]!r} does not belong to it")
        elif kind == "file":
            total += max(size, 0)

    nodes(restic, snapshot.name, look, f"/{snapshot.id}", "/state")
    if wrong:
        raise Damaged(_named(snapshot), wrong)
    return total


def objects_of(backup: Backup) -> Iterator[tuple[str, int | None]]:
    """The contents that a backup needs, with their bytes where its lists say them.

    Raises Damaged, OSError.
    """
    for part in backup.manifest["databases"]:
        for line in segments_of(backup, part).lines():
            yield from ((name, None) for name in line.objects)
    if layout.LIST in backup.manifest["contents"]:
        for line in of(backup).lines():
            if "sha256" in line:
                yield line["sha256"], line["size"]


def _fetch_missing(
    op: Operation,
    restic: Restic,
    snapshot: Snapshot,
    found: Backup,
    staged: Path,
    read: bool,
) -> None:
    """Adds the contents that the repository lacks, each as its name says.

    With `read` those too that are another by now. A content too many is no harm.
    """
    few: dict[str, int | None] = {}
    for digest, size in objects_of(found):
        place = object_path(found.objects, digest)
        if read and digest not in few:
            whole = is_sound(found.objects, digest)
        else:
            whole = not wrong_at_sight(place, size)
        if not whole:
            few[digest] = size
        if len(few) > _FEW:
            break
    if not few:
        return
    if len(few) > _FEW:
        _restore(restic, snapshot, staged, [f"/{OBJECTS}"], op.listener)
    else:
        names = [f"/{OBJECTS}/{digest[:2]}/{digest}" for digest in few]
        needed = _size_of(restic, snapshot, found, few)
        _restore(restic, snapshot, staged, names, op.listener, needed)
    _look(staged, snapshot)
    sync_file_system(staged)  # thousands of files: once for all of them
    seen = set[Path]()
    for digest, size in objects_of(found):
        new = object_path(staged / OBJECTS, digest)
        place = object_path(found.objects, digest)
        wanted = new.exists() and (read or wrong_at_sight(place, size))
        if wanted and is_sound(staged / OBJECTS, digest):
            own_directory(place.parent)
            new.replace(place)
            seen.add(place.parent)
    for directory in (*seen, found.objects):
        sync_directory(directory)


def _size_of(
    restic: Restic, snapshot: Snapshot, found: Backup, few: dict[str, int | None]
) -> int:
    """The bytes of some contents, as the snapshot says. Raises Damaged.

    That is for one that is not as long as the manifest promises.
    """
    total, wrong = 0, list[str]()

    def look(name: str, kind: str, size: int) -> None:
        nonlocal total
        promised = few.get(PurePosixPath(name).name, -1)
        if kind == "file" and promised != -1:
            total += max(size, 0)
            if promised is not None and size != promised and len(wrong) < _TOLD:
                wrong.append(f"{name}: has {size} bytes, not {promised}")

    folders = sorted({f"/{OBJECTS}/{digest[:2]}" for digest in few})
    nodes(restic, snapshot.name, look, *folders)
    # of the segments only all together are promised
    if not wrong and total > sum(found.sizes.values()):
        wrong.append(
            f"its contents have {words.size(total)}, more than its manifest tells"
        )
    if wrong:
        raise Damaged(_named(snapshot), wrong)
    return total


def _add(head: Path, found: Backup, repository: Path) -> None:
    """Moves the backup into the repository: what is known of it first, itself last."""
    sync_file_system(head)  # restic does not wait for the disk
    if found.state():
        state = own_directory(repository / "state") / f"{found.id}.json"
        write_file(state, (head / "state" / state.name).read_bytes())
    sync_directory(found.path)
    found.path.rename(repository / found.id)
    sync_directory(repository)


def _restore(
    restic: Restic,
    snapshot: Snapshot,
    target: Path,
    names: list[str],
    listener: Listener,
    needed: int | None = None,
) -> None:
    """Brings names of a snapshot, or all, into an empty directory, told by their bytes.

    `needed` are these, where they are known. Raises Refused where there is no room,
    ToolFailed.
    """
    free, total = shutil.disk_usage(target).free, needed or 0
    if needed is None:
        said = restic.run("stats", "--no-lock", "--mode", "restore-size", snapshot.name)
        found = [s["total_size"] for s in said if isinstance(s.get("total_size"), int)]
        total = found[0] if found else 0
    if total + _SPARE > free:
        raise Refused(
            f"there is too little room at {target.parent}: {_named(snapshot)} needs "
            f"{words.size(total)}, {words.size(free)} are free"
        )
    options = [word for name in names for word in ("--include", name)]
    command = ["restore", "--no-lock", snapshot.name, "--target", str(target)]
    # a snapshot may lie, and others write as well
    full = (
        f"there is no room left at {target.parent}, and {_named(snapshot)} is not all"
    )
    with _told(target, free, total, listener):
        restic.run(
            *command, *options,
            stop=lambda: full * (shutil.disk_usage(target).free < _SPARE // 2),
        )  # fmt: skip


@contextmanager
def _told(target: Path, free: int, total: int, listener: Listener) -> Iterator[None]:
    """Tells how many bytes have come: restic 0.14 does not."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(0.5):
            with suppress(OSError):
                came = free - shutil.disk_usage(target).free
                listener.progress("pull", min(max(came, 0), total), total)

    listener.progress("pull", 0, total)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _look(directory: Path, snapshot: Snapshot) -> None:
    """Refuses what is no plain file of a name that we expect; the rest is private then.

    Raises Damaged.
    """
    wrong: list[str] = []
    for where, names, files in os.walk(directory):
        inside = PurePosixPath(Path(where).relative_to(directory).as_posix())
        for name in [*names, *files]:
            path = inside / name
            place = directory / path
            status = place.lstat()
            folder = stat.S_ISDIR(status.st_mode)
            if folder:  # one that nobody may enter could not be taken away again
                _own(place, 0o700)
            plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if not (folder or plain) or stray(path, folder, snapshot.id):
                if len(wrong) < _TOLD:
                    wrong.append(f"{str(path)[:200]!r} does not belong to it")
                continue
            if plain:
                _own(place, 0o600)
    if wrong:
        raise Damaged(_named(snapshot), wrong[:_TOLD])


def _own(place: Path, mode: int) -> None:
    # as root restic gives files to whom the snapshot says
    if os.geteuid() == 0:
        os.lchown(place, os.geteuid(), os.getegid())
    place.chmod(mode)


def _named(snapshot: Snapshot) -> str:
    return f"backup {snapshot.id} from the other place"
