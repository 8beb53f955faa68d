"""Proof: a backup is restored beside the live site, looked at, and dropped again.

What `verify` cannot know: that this server takes the archives back, that the installed
code can migrate and read what is in them, that every upload the database names is
there. The result stands in the backup's state, with a page for people beside it. Must
not know CKAN: migrating and reading are handed in.
"""

from __future__ import annotations

import html
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg2

from ..backup.verify import verify_backup
from ..clock import now
from ..disk import write_file
from ..errors import Damaged, ToolFailed, Untrusted
from ..postgres.database import Connection, Database, closing, query
from ..report import Progress, Warn
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..site import Site
from ..uploads.listing import of
from .copies import Prepare, loaded_copies
from .preflight import preflight
from .source import Source, open_source

#: given the scratch databases by part, reads a sample of objects through CKAN:
#: `{"read": {kind: count}, "problems": [sentence]}`
Read = Callable[[Mapping[str, Database]], dict[str, Any]]
_SHOWN = 20


def prove(
    site: Site,
    repository: Repository,
    found: Backup,
    *,
    prepare: Prepare,
    read: Read,
    progress: Progress = lambda *_: None,
    warn: Warn = lambda _: None,
) -> dict[str, Any]:
    """Proves a backup and returns the record, its `problems` empty when it is proven.

    `{time, seconds, problems, told, tables, rows, migrated, read, uploads}`; `told` is
    what was told of the copy, as that something is not its owner's any more. The caller
    holds the repository's lock. Raises Untrusted, Refused, ConnectionFailed,
    ToolFailed; then nothing is known of the backup.
    """
    begun = time.monotonic()
    if not found.signed:
        raise Untrusted(
            f"backup {found.id} is not signed by this site: a proof runs the SQL in "
            "it, so only this site's own backups are proven"
        )
    record: dict[str, Any] = {"tables": 0, "rows": 0, "migrated": [], "read": {}}
    record |= {
        "uploads": None,
        "told": [],
        "problems": verify_backup(found, site, progress),
    }
    if not record["problems"]:
        source = open_source(site, repository, found.id)
        source = replace(source, uploads=None)
        preflight(site, repository, source)
        try:
            _look(site, repository, source, record, prepare, read, progress, warn)
        except Damaged as error:
            record["problems"] += error.problems
        except psycopg2.Error as error:
            raise ToolFailed(
                f"the proof was ended: {' '.join(str(error).split())}"
            ) from error
    record |= {
        "time": f"{now():%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round(time.monotonic() - begun, 3),
    }
    found.remember(proved=record)
    repository.record(
        secrets.token_hex(4), "done", what="proof", backup=found.id,
        problems=len(record["problems"]),
    )  # fmt: skip
    write_file(
        repository.path / "state" / f"{found.id}.html", _page(site, found, record)
    )
    return record


def _look(
    site: Site,
    repository: Repository,
    source: Source,
    record: dict[str, Any],
    prepare: Prepare,
    read: Read,
    progress: Progress,
    warn: Warn,
) -> None:
    def migrated(copies: Mapping[str, Database], older: list[str]) -> None:
        record["migrated"] = older
        prepare(copies, older)

    def telling(sentence: str) -> None:
        record["told"].append(sentence)
        warn(sentence)

    operation = secrets.token_hex(4)
    with loaded_copies(
        site, repository, source, operation, migrated, progress, telling
    ) as scratches:
        for part in scratches:
            rows = source.rows(part) or {}
            record["tables"] += len(rows)
            record["rows"] += sum(rows.values())
        copies = {part: scratch.database for part, scratch in scratches.items()}
        if "database" not in copies:
            return
        progress("read", 0, 0)
        try:
            seen = read(copies)
        except ToolFailed as error:
            seen = {"read": {}, "problems": [str(error)]}
        record["read"] = seen["read"]
        record["problems"] += seen["problems"]
        backed_up = source.backup
        if backed_up is not None and backed_up.files.get("included"):
            with closing(copies["database"].connect()) as connection:
                _uploads(site, backed_up, connection, record, warn)


def _uploads(
    site: Site,
    found: Backup,
    connection: Connection,
    record: dict[str, Any],
    warn: Warn,
) -> None:
    """Every upload that the database names is in the backup, or was missing before."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE held (path text, missing bool)")
        cursor.execute("CREATE TEMP TABLE named (path text, own bool)")
        lines = _Lines(_held(of(found).lines()))
        cursor.copy_expert("COPY held FROM STDIN", lines)  # type: ignore[arg-type]
        if lines.broken:
            raise lines.broken
        for table, statement in site.named_uploads.items():
            name = f'public."{table}"'
            if query(connection, "SELECT to_regclass(%s)::text", name) != [(None,)]:
                cursor.execute(f"INSERT INTO named {statement}")  # the site's own
    ((named,),) = query(
        connection,
        "SELECT count(*) FROM named WHERE own OR path IN (SELECT path FROM held)",
    )
    ((missing,),) = query(
        connection, "SELECT count(*) FROM named JOIN held USING (path) WHERE missing"
    )
    lost = query(connection, _LOST, True, _SHOWN)
    record["uploads"] = {"named": named, "missing_before": missing}
    for path, count in query(connection, _LOST, False, 1):
        warn(
            f"{count} names in the database are none that CKAN gives to an upload, such"
            f" as {path[:200]!r}: nothing is looked for by them"
        )
    record["problems"] += [
        f"upload {path!r} is named by the database and is not in the backup"
        for path, _ in lost
    ]
    if lost and lost[0][1] > _SHOWN:
        record["problems"].append(f"and {lost[0][1] - _SHOWN} uploads more")


_LOST = """
    SELECT path, count(*) OVER () FROM named
    WHERE own = %s AND NOT EXISTS (SELECT FROM held WHERE held.path = named.path)
    ORDER BY path LIMIT %s"""


def _held(listed: Iterable[dict[str, Any]]) -> Iterator[str]:
    escaped = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
    for facts in listed:
        # a name that is no text can't be named by the database
        if not any("\ud800" <= letter <= "\udfff" for letter in facts["path"]):
            if "refused" in facts:  # it was on the disk, and is not in the backup
                continue
            missing = "missing" in facts
            yield f"{facts['path'].translate(escaped)}\t{'t' if missing else 'f'}\n"


class _Lines:
    """Lines as the file that psycopg2 wants to read.

    `broken` is what ended them: psycopg2 would make a text of it.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.broken: Exception | None = None

    def read(self, _size: int = -1) -> str:
        """Some lines, nothing at the end."""
        found, length = [], 0
        try:
            for line in self._lines:
                found.append(line)
                length += len(line)
                if length > 1 << 16:
                    break
        except (Damaged, OSError) as error:
            self.broken = error
        return "".join(found)


# --------------------------------------------------------------- the evidence page


def _page(site: Site, found: Backup, record: Mapping[str, Any]) -> bytes:
    """What was proven, for people: one file that needs nothing else."""
    problems = record["problems"]
    verdict = "Not proven" if problems else "Proven"
    versions = found.manifest.get("versions", {})
    uploads = record["uploads"]
    rows = [
        ("Site", f"{site.url} ({site.id})"),
        ("Backup", f"{found.id}: {', '.join(found.parts)}"),
        ("Proven at", record["time"]),
        ("Took", f"{record['seconds']} s"),
        ("Made with", f"CKAN {versions.get('ckan')}"),
        ("Proven with", f"CKAN {site.versions.get('ckan')}"),
        ("Tables restored", record["tables"]),
        ("Rows, as many as in the manifest", record["rows"]),
        ("Migrations run on the copy", ", ".join(record["migrated"]) or "none needed"),
        (
            "Read through CKAN",
            ", ".join(f"{count} {kind}" for kind, count in record["read"].items()),
        ),
        (
            "Uploads named by the database",
            f"{uploads['named']}, of these missing on the disk before the backup: "
            f"{uploads['missing_before']}"
            if uploads
            else "not part of this backup",
        ),
    ]
    cells = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(str(value))}</td>"
        for name, value in rows
    )
    listed = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
    told = html.escape("\n\n".join(record["told"]))
    tables = "".join(
        f"<tr><td>{html.escape(part)}</td><td>{html.escape(table)}</td><td>{count}</td>"
        for part, about in sorted(found.manifest["databases"].items())
        for table, count in sorted(about["rows"].items())
    )
    return (
        "<!DOCTYPE html><html lang=en><meta charset=utf-8>"
        f"<title>{verdict}: backup {found.id}</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:46rem;margin:2rem auto}"
        "th{text-align:left;padding-right:2rem}td{padding-right:1rem}</style>"
        f"<h1>{verdict}: backup {found.id}</h1>"
        "<p>This backup was restored into scratch databases beside the live ones, "
        "migrated, counted, read through CKAN, and dropped again.</p>"
        f"<table>{cells}</table>"
        + (f"<h2>Problems</h2><ul>{listed}</ul>" if problems else "")
        + (f"<h2>What was told of the copy</h2><pre>{told}</pre>" if told else "")
        + f"<h2>Rows</h2><table>{tables}</table></html>\n"
    ).encode()
