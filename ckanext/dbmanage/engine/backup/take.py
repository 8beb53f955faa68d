"""A backup is taken: the order of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg2

from .. import layout
from ..archive import extensions
from ..clock import now, stamp
from ..disk import own_directory
from ..errors import Damaged, DbmanageError, Refused, ToolFailed, message_of
from ..layout import PARTS
from ..postgres.database import Database, query
from ..postgres.locks import live_lock
from ..postgres.tables import rows_of
from ..report import Progress, Warn
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..signature import sign
from ..site import Site
from ..uploads import capture
from ..uploads.folders import folders_of
from ..uploads.listing import Changed, Listing, of
from ..uploads.objects import add_objects
from .databases import Source, dump_all, snapshot
from .manifest import manifest_of, write_manifest
from .verify import problems_of

_CHUNK = 1 << 18


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
    site: Site,
    repository: Repository,
    *,
    parts: tuple[str, ...] = (),
    replaced: Replaced | None = None,
    note: str = "",
    reason: str = "manual",
    keep: bool = False,
    progress: Progress = lambda *_: None,
    warn: Warn = lambda _: None,
) -> Backup:
    """Takes a backup of `parts` (all when none is named) and returns it, verified.

    The databases are dumped first, then the uploads are read. With `replaced` what a
    restore has just put aside. The caller holds the repository's lock.
    Raises Refused, ConnectionFailed, ToolFailed, Damaged; then nothing is left behind.
    """
    begun, created = time.monotonic(), now()
    if replaced is None:
        wanted = _chosen(site, parts)
        chosen = {p: d for p, d in site.databases.items() if p in wanted}
    else:
        wanted, chosen = replaced.parts, dict(replaced.databases)
    name = repository.new_id(warn)
    try:
        with ExitStack() as stack:
            partial = stack.enter_context(repository.partial(name))
            staged = stack.enter_context(repository.partial(f"{name}objects"))
            sources = {
                part: stack.enter_context(snapshot(database))
                for part, database in chosen.items()
            }
            described, contents = dump_all(site, sources, partial, progress)
            uploads: dict[str, Any] = {"included": False}
            if "files" in wanted:
                inside = replaced.inside if replaced else {}
                taken, listed = _take_uploads(
                    site, repository, partial, staged, sources, inside, progress
                )
                uploads = {"included": True} | asdict(taken)
                contents[layout.LIST] = {
                    "bytes": listed.bytes,
                    "sha256": listed.sha256,
                }
            moments = [source.taken for source in sources.values()] or [0.0]
            manifest = manifest_of(site, name, reason, note) | {
                "created": stamp(created),
                "databases": described,
                "files": uploads,
                "contents": contents,
                "skew_seconds": round(max(moments) - min(moments), 6),
                "seconds": round(time.monotonic() - begun, 3),
            }
            write_manifest(partial, sign(manifest, site.secrets[0], "manifest"))
            problems = problems_of(
                Backup(partial, site.secrets), site, progress, uploads=False
            )
            if problems:
                raise Damaged(f"what was just written for backup {name}", problems)
            with _unswitched(site, sources):
                if "files" in wanted:
                    objects = own_directory(repository.path / layout.OBJECTS)
                    add_objects(staged, objects)
                backup = repository.add(partial, name)
    except BaseException as error:
        with suppress(OSError):
            told = message_of(error) or type(error).__name__
            ended = isinstance(error, (SystemExit, KeyboardInterrupt))
            event = {} if ended else {"error": told}
            repository.record(
                name, "cancelled" if ended else "failed", what="backup", **event
            )
        as_told = _as_told(error, repository)
        raise as_told from (None if as_told is error else error)
    backup.remember(verified={"time": stamp(), "problems": []}, keep=keep)
    about = {"reason": reason, "bytes": backup.bytes, "parts": backup.parts}
    repository.record(name, "done", what="backup", **about)
    for sentence in (*uploads.get("examples", ()), *uploads.get("not_included", ())):
        warn(sentence)
    for database in chosen.values():
        for sentence in extensions.warned(site, database):
            warn(sentence)
    return backup


def _as_told(error: BaseException, repository: Repository) -> BaseException:
    if isinstance(error, OSError):
        return DbmanageError(
            f"cannot write the backup to {repository.path}: {error.strerror or error}; "
            "nothing of it was kept"
        )
    if isinstance(error, psycopg2.Error):
        return ToolFailed(
            "PostgreSQL ended the backup, and nothing of it was kept: "
            f"{message_of(error)}"
        )
    return error


def _chosen(site: Site, parts: tuple[str, ...]) -> tuple[str, ...]:
    there = (*site.databases, *(("files",) if site.uploads else ()))
    why = {
        "datastore": "its ckan.datastore.write_url is not set or the plugin "
        "`datastore` is not enabled",
        "files": "its ckan.storage_path is not set",
    }
    for part in parts:
        if part not in PARTS:
            raise Refused(f"there is no part {part!r}: choose from {', '.join(PARTS)}")
        if part not in there:
            raise Refused(f"this site has no {part}: {why[part]}")
    return tuple(part for part in there if not parts or part in parts)


def _take_uploads(
    site: Site,
    repository: Repository,
    partial: Path,
    staged: Path,
    sources: Mapping[str, Source],
    inside: Mapping[str, str],
    progress: Progress,
) -> tuple[capture.Taken, Listing]:
    earlier = next((b for b in repository.backups() if _has_own_list(b)), None)
    objects = repository.path / layout.OBJECTS
    named: Iterable[str] = ()
    if "database" in sources:
        # others than CKAN's own are no uploads that could be missing
        rows = rows_of(sources["database"].connection, site.named_uploads)
        named = (path for path, own in rows if own)
    taken, listed = capture.take(
        folders_of(site.uploads, repository.path),
        objects,
        partial / layout.LIST,
        staged,
        inside=inside,
        previous=of(earlier) if earlier else None,
        named=named,
        progress=progress,
        expected=earlier.files["bytes"] if earlier else 0,
    )
    taken.not_included += site.uploads_elsewhere
    return taken, listed


def _has_own_list(backup: Backup) -> bool:
    """Whether its list of uploads is what a manifest of this site says it is."""
    if backup.signed:
        with suppress(OSError, Refused, Changed):
            for _ in of(backup).raw():
                pass
            return True
    return False


@contextmanager
def _unswitched(site: Site, sources: dict[str, Source]) -> Iterator[None]:
    """The backup's end: no restore switches meanwhile, and none did since its start."""
    with live_lock(site.main, wait=600, foreign=True):
        for source in sources.values():
            connection = source.database.connect()
            try:
                (row,) = query(
                    connection,
                    "SELECT oid::bigint FROM pg_database"
                    " WHERE datname = current_database()",
                )
            finally:
                connection.close()
            if row[0] != source.oid:
                raise Refused(
                    f"the database {source.database.name!r} was replaced by a restore "
                    "while the backup was taken: take it again"
                )
        yield
