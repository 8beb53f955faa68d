"""Backups: taken, and verified byte by byte.

A backup dumps the databases side by side, each out of an exported snapshot from which
the manifest's row counts are taken too, compresses and checksums in the same pass, is
verified from the disk, and only then gets its name. Knows databases and the
repository; must not know how a backup is brought back.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg2
import zstandard

from .. import layout
from ..archive import extensions
from ..archive.contents import read_contents
from ..archive.unpack import limit, read_to_end
from ..clock import now
from ..disk import create_file, is_regular, own_directory, regular_files
from ..errors import Damaged, DbmanageError, Refused, ToolFailed
from ..layout import FORMAT, MANIFEST, PARTS, SUFFIXES, SUMS, UNSIGNED
from ..opened import open_plain
from ..postgres.database import Connection, Database, query, server_major, unlimited
from ..postgres.locks import live_lock
from ..postgres.programs import dump_tools, end_programs, finish, running
from ..postgres.tables import (
    count_rows,
    migration_heads,
    refuse_unreadable,
    rows_of,
    tables_of,
)
from ..report import Progress, Warn
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..signature import Tally, dumped, read_own, sign
from ..site import Site
from ..uploads import capture, objects
from ..uploads.folders import folders_of
from ..uploads.listing import Changed, Listing, of
from ..uploads.objects import add_objects
from .dump import refuse_unrestorable

_CHUNK = 1 << 18


@dataclass
class _Source:
    """One database while it is dumped: the transaction that holds its snapshot open."""

    database: Database
    connection: Connection
    snapshot: str
    taken: float
    oid: int
    tables: list[tuple[str, str, str, int]]

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.tables)


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
                part: stack.enter_context(_snapshot(database))
                for part, database in chosen.items()
            }
            described, contents = _dump_all(site, sources, partial, progress)
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
            manifest = _manifest(site, name, reason, note) | {
                "created": f"{created:%Y-%m-%dT%H:%M:%SZ}",
                "databases": described,
                "files": uploads,
                "contents": contents,
                "skew_seconds": round(max(moments) - min(moments), 6),
                "seconds": round(time.monotonic() - begun, 3),
            }
            _write_manifest(partial, sign(manifest, site.secrets[0], "manifest"))
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
            told = " ".join(str(error).split()) or type(error).__name__
            ended = isinstance(error, (SystemExit, KeyboardInterrupt))
            event = {} if ended else {"error": told}
            repository.record(
                name, "cancelled" if ended else "failed", what="backup", **event
            )
        as_told = _as_told(error, repository)
        raise as_told from (None if as_told is error else error)
    backup.remember(
        verified={"time": f"{now():%Y-%m-%dT%H:%M:%SZ}", "problems": []}, keep=keep
    )
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
            f"{' '.join(str(error).split())}"
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
    sources: Mapping[str, _Source],
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
def _snapshot(database: Database) -> Iterator[_Source]:
    """Holds a snapshot of the database that other connections can see by its name."""
    connection = database.connect()
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        (row,) = query(
            connection,
            "SELECT pg_export_snapshot(), oid::bigint FROM pg_database"
            " WHERE datname = current_database()",
        )
        taken = time.monotonic()
        tables = tables_of(connection)
        refuse_unrestorable(database, tables)
        refuse_unreadable(connection, database.name)
        yield _Source(database, connection, row[0], taken, row[1], tables)
    finally:
        connection.close()


class _Ended(DbmanageError):
    """Ended because something beside it failed."""


class _Together:
    """Work side by side, its bytes counted together; a failure ends the rest."""

    def __init__(self, phase: str, total: int, progress: Progress) -> None:
        self._phase, self._total, self._progress = phase, total, progress
        self._done, self._guard, self._stop = 0, threading.Lock(), threading.Event()

    def count(self, size: int) -> None:
        """To be told of bytes as they go by. Raises when the work is to end."""
        if self._stop.is_set():
            raise _Ended("ended because what ran beside it failed")
        with self._guard:
            self._done += size
            self._progress(self._phase, self._done, self._total)

    def run(self, tasks: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The tasks' results by their names. Raises what the first to fail raised."""
        self.count(0)  # a program may wait for a lock before its first byte
        with ThreadPoolExecutor(max(1, len(tasks))) as pool:
            futures = {name: pool.submit(task) for name, task in tasks.items()}
            try:
                for future in as_completed(futures.values()):
                    future.result()
            except BaseException:
                self._stop.set()
                end_programs()
                raise
        return {name: future.result() for name, future in futures.items()}


def _dump_all(
    site: Site, sources: dict[str, _Source], partial: Path, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    work = _Together("dump", sum(s.bytes for s in sources.values()), progress)
    tasks: dict[str, Callable[[], Any]] = {}
    for part, source in sources.items():
        file = partial / f"{part}.dump.zst"
        tasks[part] = functools.partial(_dump, site, source, file, work.count)
        tasks[f"rows of {part}"] = functools.partial(_count, source)
    done = work.run(tasks)
    described = {p: done[p][0] | {"rows": done[f"rows of {p}"]} for p in sources}
    contents = {f"{part}.dump.zst": done[part][1] for part in sources}
    return described, contents


def _count(source: _Source) -> dict[str, int]:
    connection = source.database.connect()
    connection.autocommit = True
    try:
        names = [(schema, table) for schema, table, *_ in source.tables]
        return count_rows(connection, names, source.snapshot)
    finally:
        connection.close()


def _dump(
    site: Site, source: _Source, path: Path, wrote: Callable[[int], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    major = server_major(source.connection)
    tools = dump_tools(major, site.pg_bin)
    limits = unlimited(source.connection)
    connection, environment = source.database.program(limits)
    # compressed here and not by pg_dump: four times faster and smaller than its gzip
    arguments = [tools.path("pg_dump"), "-Fc", "-Z0", "--no-password"]
    arguments += [f"--snapshot={source.snapshot}", *connection]
    name = source.database.name
    with (
        create_file(path) as file,
        running(arguments, environment, stdin=-3, stdout=-1) as process,
    ):
        digest, size = _compress(process.stdout, file, wrote)
        finish(process, f"pg_dump of {name!r}")
        file.flush()
        os.fsync(file.fileno())
    (settings,) = query(
        source.connection,
        "SELECT to_jsonb(d) FROM pg_database d WHERE datname = current_database()",
    )
    described = {
        "name": name,
        "server_version": source.connection.server_version,
        "pg_dump": tools.major,
        "bytes": source.bytes,
        "locale": {
            key: value for key, value in settings[0].items() if key in _LOCALE_COLUMNS
        },
        "migrations": migration_heads(source.connection),
    }
    return described, {"bytes": size, "sha256": digest}


_LOCALE_COLUMNS = {
    "encoding", "datcollate", "datctype", "datlocprovider", "daticulocale",
    "datlocale", "daticurules",
}  # fmt: skip


def _compress(read: Any, file: Any, wrote: Callable[[int], None]) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    frame = zstandard.ZstdCompressor(
        level=3, threads=min(2, os.cpu_count() or 1), write_checksum=True
    ).compressobj()
    while True:
        chunk = read.read(_CHUNK)
        packed = frame.compress(chunk) if chunk else frame.flush()
        digest.update(packed)
        size += file.write(packed)
        wrote(len(chunk))
        if not chunk:
            return digest.hexdigest(), size


def _manifest(site: Site, name: str, reason: str, note: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": name,
        "reason": reason,
        "note": note,
        "site": {"id": site.id, "url": site.url},
        "versions": dict(site.versions),
        "secrets": {"api_tokens": fingerprint(site.token_secret)},
    }


def fingerprint(secret: str) -> str:
    """What tells one secret from another without telling the secret."""
    # slow on purpose: a short secret must not be guessed from its fingerprint
    salt = b"ckanext-dbmanage fingerprint"
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 100_000).hex()[:32]


def _write_manifest(partial: Path, manifest: dict[str, Any]) -> None:
    for name, content in (
        (MANIFEST, dumped(manifest)),
        (SUMS, sums_of(manifest, dumped(manifest))),
    ):
        with create_file(partial / name) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def sums_of(manifest: dict[str, Any], written: bytes) -> bytes:
    """The content of SHA256SUMS; `written` is the manifest as it stands on the disk."""
    sums = {name: about["sha256"] for name, about in manifest["contents"].items()}
    sums[MANIFEST] = hashlib.sha256(written).hexdigest()
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()


@contextmanager
def _unswitched(site: Site, sources: dict[str, _Source]) -> Iterator[None]:
    """The backup's end: no restore switches meanwhile, and none did since its start."""
    with live_lock(site, wait=600, foreign=True):
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


def verify(
    backup: Backup, site: Site, progress: Progress = lambda *_: None
) -> list[str]:
    """What is wrong with a backup, a sentence for each; the result is remembered."""
    problems = problems_of(backup, site, progress)
    with suppress(OSError):
        backup.remember(
            verified={"time": f"{now():%Y-%m-%dT%H:%M:%SZ}", "problems": problems}
        )
    return problems


def problems_of(
    backup: Backup,
    site: Site,
    progress: Progress = lambda *_: None,
    *,
    foreign: bool = False,
    structure: bool = True,
    uploads: bool = True,
) -> list[str]:
    """Reads every byte of a backup and names each file that is not what it was.

    Files against the manifest's sizes and checksums, the manifest against its
    signature (not with `foreign`), each archive to its end, its tables against the
    manifest (neither without `structure`), the content of each upload against its
    checksum (not without `uploads`).
    """
    try:
        there = regular_files(backup.path)
        written = read_own(backup.path / MANIFEST)
    except OSError as error:
        return [f"{Path(error.filename).name}: {error.strerror}"]
    manifest = backup.manifest
    sums = b""
    with suppress(OSError):
        sums = read_own(backup.path / SUMS)
    if not _well_formed(manifest) or dumped(manifest) != written:
        return [f"{MANIFEST}: was changed or is not a manifest"]
    if not backup.signed:
        line = f"{hashlib.sha256(written).hexdigest()}  {MANIFEST}\n".encode()
        if line not in sums:
            return [f"{MANIFEST}: was changed (its checksum is not the one in {SUMS})"]
    contents = manifest["contents"]
    expected = {MANIFEST, SUMS, *contents}
    problems = []
    if not backup.signed and not foreign:
        problems.append(
            f"{MANIFEST}: {UNSIGNED} with this site's secret: another site's, or "
            "forged, or a copy under another name, or SECRET_KEY was changed (then add "
            "the old one to SECRET_KEY_FALLBACKS)"
        )
    problems += [f"{n!r}: does not belong here" for n in sorted(set(there) - expected)]
    problems += [f"{name}: is missing" for name in sorted(expected - set(there))]
    for name in sorted(expected & set(there)):
        if not is_regular(there[name]):
            problems.append(f"{name}: is not a plain file")
    if SUMS in there and sums != sums_of(manifest, written):
        problems.append(f"{SUMS}: was changed (it does not agree with the manifest)")
    readable = [n for n in contents if n in there and is_regular(there[n])]
    total = sum(contents[n]["bytes"] for n in readable)
    total += backup.files.get("bytes", 0) if uploads else 0
    work = _Together("verify", total, progress)
    found = work.run(
        {
            name: functools.partial(
                _check, backup, name, site.pg_bin, structure, work.count
            )
            for name in readable
        }
    )
    problems += [problem for name in readable for problem in found[name]]
    if uploads and layout.LIST in readable and not found[layout.LIST]:
        problems += objects.problems(of(backup), backup.objects, work.count)
    return problems


def _well_formed(manifest: dict[str, Any]) -> bool:
    """Whether every field that is read later has its shape."""
    try:
        archives = {
            f"{part}{suffix}"
            for part in ("database", "datastore")
            for suffix in SUFFIXES
        }
        contents, databases = manifest["contents"], manifest["databases"]
        uploads = manifest["files"]
        held = set(contents) & archives
        return (
            set(contents) - archives
            == ({layout.LIST} if uploads["included"] else set())
            and {name.split(".")[0] for name in held} == set(databases)
            and (not uploads["included"] or isinstance(uploads["bytes"], int))
            and all(
                isinstance(about["bytes"], int) and isinstance(about["sha256"], str)
                for about in contents.values()
            )
            and all(
                isinstance(rows, int)
                for about in databases.values()
                for rows in about["rows"].values()
            )
            and all(
                isinstance(revision, str)
                for about in databases.values()
                for revisions in about["migrations"].values()
                for revision in revisions
            )
        )
    except (KeyError, TypeError, AttributeError):
        return False


def content_file(backup: Backup, part: str) -> Path:
    """The archive of a part. Raises Refused when the backup has none."""
    names = [
        f"{part}{s}" for s in SUFFIXES if f"{part}{s}" in backup.manifest["contents"]
    ]
    if not names:
        raise Refused(
            f"backup {backup.id} holds no {part}: only {', '.join(backup.parts)}"
        )
    return backup.path / names[0]


def _check(
    backup: Backup, name: str, pg_bin: str, structure: bool, read: Callable[[int], None]
) -> list[str]:
    about = backup.manifest["contents"][name]
    problem = ""
    try:
        with open_plain(backup.path / name) as file:
            tally = Tally(file, read)
            if structure and name != layout.LIST:
                try:
                    most = 0 if backup.signed else limit(about["bytes"])
                    read_to_end(tally, name, pg_bin, most)
                except _Ended:
                    raise
                except (DbmanageError, zstandard.ZstdError) as error:
                    problem = f"{name}: the archive cannot be read to its end: {error}"
            while tally.read(_CHUNK):
                pass
    except OSError as error:
        return [f"{name}: {error.strerror}"]
    if tally.size != about["bytes"]:
        return [f"{name}: has {tally.size} bytes, not {about['bytes']}"]
    if tally.digest.hexdigest() != about["sha256"]:
        return [f"{name}: was changed (checksum)"]
    if problem or not structure or name == layout.LIST:
        return [problem] if problem else []
    return _missing_tables(backup, name.split(".")[0], name)


def _missing_tables(backup: Backup, part: str, name: str) -> list[str]:
    with open_plain(backup.path / name) as file:
        contents = read_contents(file, name)
    held = {f"{e.schema}.{e.name}" for e in contents.entries if e.kind == "TABLE DATA"}
    return [
        f"{name}: holds no rows of table {table}, which the manifest counts"
        for table in sorted(set(backup.manifest["databases"][part]["rows"]) - held)
    ]
