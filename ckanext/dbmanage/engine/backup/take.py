"""A backup is taken: the order of its steps."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2

from .. import layout
from ..archive import extensions
from ..clock import now, stamp
from ..disk import own_directory
from ..errors import Changed, Damaged, DbmanageError, Refused, ToolFailed, message_of
from ..layout import PARTS, SEGMENTS
from ..objects import add_objects
from ..operation import Operation
from ..postgres.again import again
from ..postgres.database import Database, closing
from ..postgres.locks import live_lock
from ..postgres.tables import rows_of
from ..report import name_of
from ..repository.backup import Backup
from ..signature import sign
from ..site import Site
from ..uploads import capture
from ..uploads.folders import folders_of
from ..uploads.listing import of
from .databases import Source, dump_all, own_oid, snapshot
from .manifest import manifest_of, segments_of, write_manifest
from .segmented import Segmented
from .verify import problems_of_new


@dataclass(frozen=True)
class Replaced:
    """What a switch put aside: databases by part, directories of uploads by prefix."""

    databases: Mapping[str, Database]
    inside: Mapping[str, str]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts there are."""
        return (*self.databases, *(("files",) if self.inside else ()))


def take(
    op: Operation,
    *,
    parts: tuple[str, ...] = (),
    note: str = "",
    reason: str = "manual",
    keep: bool = False,
) -> Backup:
    """Takes a backup of `parts` (all when none is named) and returns it, verified.

    What a restore of it will not bring back is told.
    Raises Refused, ConnectionFailed, ToolFailed, Damaged; then nothing is left behind.
    """
    chosen = _chosen(op.site, parts)
    databases = {p: d for p, d in op.site.databases.items() if p in chosen}
    about = {"reason": reason, "note": note}
    draft = _Draft(databases, about, "files" in chosen, keep=keep)
    backup = _take(op, draft)
    for sentence in _incomplete(op.site, draft):
        op.warn(sentence)
    return backup


def take_replaced(op: Operation, replaced: Replaced, reason: str) -> Backup:
    """Takes a backup of what a restore has just put aside. Raises as `take`.

    What such a backup lacks is not told: the restore has told it.
    """
    about = {"reason": reason, "note": ""}
    uploads = bool(replaced.inside)
    return _take(op, _Draft(replaced.databases, about, uploads, replaced.inside))


@dataclass
class _Draft:
    """A backup in the making: what it is to hold, and what the steps found out.

    `inside` are directories of uploads by prefix where those are not in their places.
    """

    databases: Mapping[str, Database]
    about: dict[str, str]
    uploads: bool
    inside: Mapping[str, str] = field(default_factory=dict)
    keep: bool = False
    created: datetime = field(default_factory=now)
    begun: float = field(default_factory=time.monotonic)
    sources: dict[str, Source] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=lambda: {"included": False})


def _take(op: Operation, draft: _Draft) -> Backup:
    """The steps. The databases are dumped first, then the uploads are read."""
    op = op.called(op.repository.new_id(op.warn))
    with _failure_noted(op), ExitStack() as stack:
        partial = stack.enter_context(op.repository.partial(op.id))
        staged = stack.enter_context(op.repository.partial(f"{op.id}objects"))
        segments = _take_databases(op, draft, partial, stack)
        if draft.uploads:
            _take_uploads(op, draft, partial, staged)
        _write_manifest(op, draft, partial)
        _refuse_damaged(op, partial, segments)
        with _unswitched(op.site, draft.sources):
            objects = own_directory(op.repository.path / layout.OBJECTS)
            for new in (segments, staged):
                add_objects(new, objects)
            backup = op.repository.add(partial, op.id)
            op.standing.made.append(f"backup {op.id} is there")
    verified = {"time": stamp(), "problems": []}
    backup.remember(verified=verified, keep=draft.keep)
    op.record(
        "done", what="backup", reason=draft.about["reason"],
        bytes=backup.bytes, parts=backup.parts,
    )  # fmt: skip
    return backup


@contextmanager
def _failure_noted(op: Operation) -> Iterator[None]:
    """Notes in the journal what ends a backup, and says that nothing of it is kept."""
    try:
        yield
    except BaseException as error:
        said = message_of(error)
        ended = isinstance(error, (SystemExit, KeyboardInterrupt))
        with suppress(OSError):
            if ended:
                op.record("cancelled", what="backup")
            else:
                why = said or type(error).__name__
                op.record("failed", what="backup", error=why)
        if isinstance(error, OSError):
            where = error.filename2 or error.filename
            raise DbmanageError(
                f"cannot write the backup to {op.repository.path}: "
                f"{f'{where}: ' if where else ''}{error.strerror or error}; nothing of "
                "it was kept"
            ) from error
        if isinstance(error, psycopg2.Error):
            raise ToolFailed(
                f"PostgreSQL ended the backup, and nothing of it was kept: {said}"
            ) from error
        raise


def _chosen(site: Site, parts: tuple[str, ...]) -> tuple[str, ...]:
    there = (*site.databases, *(("files",) if site.uploads else ()))
    for part in parts:
        if part not in PARTS:
            raise Refused(f"there is no part {part!r}: choose from {', '.join(PARTS)}")
        if part not in there:
            named = name_of(part)
            raise Refused(f"this site has no {named}{site.advise(f'no {part}')}")
    return tuple(part for part in there if not parts or part in parts)


def _take_databases(
    op: Operation, draft: _Draft, partial: Path, stack: ExitStack
) -> Path:
    """Dumps the databases; the directory of their new segments.

    It stays as long as the stack, and so do the snapshots.
    """

    def dump() -> tuple[Path, Any]:
        with ExitStack() as own:
            staged = own.enter_context(op.repository.partial(f"{op.id}segments"))
            into = {}
            for part, database in draft.databases.items():
                (partial / SEGMENTS[part]).unlink(missing_ok=True)
                draft.sources[part] = own.enter_context(snapshot(op.site, database))
                into[part] = _segmented(op, part, staged)
            dumped: Any = ({}, {})
            if into:
                (partial / layout.RECORDS).unlink(missing_ok=True)
                dumped = dump_all(
                    op.site, draft.sources, partial, into, op.progress, op.warn
                )
            stack.push(own.pop_all())
        return staged, dumped

    staged, dumped = again("dumping the databases", dump, op.warn)
    draft.described, draft.contents = dumped
    return staged


def _segmented(op: Operation, part: str, staged: Path) -> Segmented:
    """Where a part's dump goes, beside the newest one whose list is sound."""
    objects = op.repository.path / layout.OBJECTS
    for earlier in op.repository.backups():
        if earlier.signed and part in earlier.parts:
            with suppress(OSError, Refused, Damaged):
                return Segmented(objects, staged, segments_of(earlier, part))
    return Segmented(objects, staged, None)


def _take_uploads(op: Operation, draft: _Draft, partial: Path, staged: Path) -> None:
    site, repository = op.site, op.repository
    earlier = next((b for b in repository.backups() if _has_own_list(b)), None)
    named: Iterable[str] = ()
    if source := draft.sources.get("database"):
        # others than CKAN's own are no uploads that could be missing
        rows = rows_of(source.connection, site.named_uploads)
        named = (path for path, own in rows if own)
    taken, listed = capture.take(
        folders_of(site.uploads, repository.path),
        repository.path / layout.OBJECTS,
        partial / layout.LIST,
        staged,
        inside=draft.inside,
        previous=of(earlier) if earlier else None,
        named=named,
        progress=op.progress,
        expected=earlier.files["bytes"] if earlier else 0,
    )
    taken.not_included += site.uploads_elsewhere
    draft.files = {"included": True} | asdict(taken)
    draft.contents[layout.LIST] = {"bytes": listed.bytes, "sha256": listed.sha256}


def _has_own_list(backup: Backup) -> bool:
    """Whether its list of uploads is what a manifest of this site says it is."""
    if backup.signed:
        with suppress(OSError, Refused, Changed):
            for _ in of(backup).raw():
                pass
            return True
    return False


def _write_manifest(op: Operation, draft: _Draft, partial: Path) -> None:
    moments = [source.taken for source in draft.sources.values()] or [0.0]
    facts = {
        "created": stamp(draft.created),
        "databases": draft.described,
        "files": draft.files,
        "contents": draft.contents,
        "skew_seconds": round(max(moments) - min(moments), 6),
        "seconds": round(time.monotonic() - draft.begun, 3),
    }
    manifest = manifest_of(op.site, op.id) | draft.about | facts
    write_manifest(partial, sign(manifest, op.site.secrets[0], "manifest"))


def _refuse_damaged(op: Operation, partial: Path, staged: Path) -> None:
    written = Backup(partial, op.site.secrets)
    if problems := problems_of_new(written, op.site, op.progress, staged):
        raise Damaged(f"what was just written for backup {op.id}", problems)


@contextmanager
def _unswitched(site: Site, sources: Mapping[str, Source]) -> Iterator[None]:
    """The backup's end: no restore switches meanwhile, and none did since its start."""
    with live_lock(site.main, wait=600, foreign=True):
        for source in sources.values():
            with closing(source.database.connect()) as connection:
                if own_oid(connection) != source.oid:
                    raise Refused(
                        f"the database {source.database.name!r} was replaced by a "
                        "restore while the backup was taken: take it again"
                    )
        yield


def _incomplete(site: Site, draft: _Draft) -> Iterator[str]:
    """What a restore of the backup will not bring back, a sentence for each."""
    yield from draft.files.get("examples", ())
    yield from draft.files.get("not_included", ())
    for database in draft.databases.values():
        yield from extensions.warnings(site, database)
