"""Proof: a backup is restored beside the live site, looked at, and dropped again.

What `verify` cannot know: that this server takes the archives back, that the installed
code can migrate and read what is in them, that every upload the database names is
there. The result stands in the backup's state, with a page for people beside it. Must
not know CKAN: migrating and reading are handed in.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import words
from ..backup.verify import event_of, verify_backup
from ..clock import parse_stamp, stamp
from ..course import Course
from ..disk import write_file
from ..errors import Damaged, ToolFailed, Untrusted, message_of
from ..operation import Operation
from ..postgres.again import again, passes
from ..postgres.database import Connection, Database, closing, query
from ..report import Listener, Silent, Standing, Warn
from ..repository.backup import Backup
from ..site import Site
from ..uploads.listing import of
from .copies import Prepare, loaded_copies
from .feed import copy_rows
from .preflight import preflight
from .source import Source, open_source

#: given the scratch databases by part, reads a sample of objects through CKAN:
#: `{"read": {kind: count}, "problems": [sentence]}`
Read = Callable[[Mapping[str, Database]], dict[str, Any]]
_SHOWN = 20
_READING = "reading the copy"


def prove(op: Operation, found: Backup, prepare: Prepare, read: Read) -> dict[str, Any]:
    """Proves a backup and returns the record, its `problems` empty when it is proven.

    `{time, seconds, problems, told, tables, rows, migrated, read, uploads}`; `told` is
    what was told of the copy, as that something is not its owner's any more. Raises
    Untrusted, Refused, Denied, ConnectionFailed, ToolFailed; then nothing is known of
    the backup.
    """
    begun = time.monotonic()
    found.refuse_closed()
    # else it was brought here to be proven, and only the journal tells of it
    ours = found.path.parent == op.repository.path
    if not found.signed:
        raise Untrusted(
            f"backup {found.id} is not signed by this site: a proof runs the SQL in "
            "it, so only this site's own backups are proven"
        )
    record: dict[str, Any] = {
        "tables": 0, "rows": 0, "migrated": [], "read": {}, "uploads": None, "told": [],
        "problems": verify_backup(found, op.site, op.progress),
    }  # fmt: skip
    event = event_of(record["problems"])
    if not record["problems"]:
        name = found.id if ours else str(found.path)
        source = replace(open_source(op.site, op.repository, name), uploads=None)
        preflight(op.site, op.repository, source)
        try:
            _look(op, source, record, prepare, read)
        except Damaged as error:
            record["problems"] += error.problems
        except psycopg2.Error as error:
            raise ToolFailed(f"the proof was ended: {message_of(error)}") from error
        event = "not proven" if record["problems"] else event
    record |= {
        "time": stamp(),
        "seconds": round(time.monotonic() - begun, 3),
    }
    found.remember(proved=record)
    problems = len(record["problems"])
    op.record(event, what="proof", backup=found.id, problems=problems)
    if ours:
        path = op.repository.path / "state" / f"{found.id}.html"
        write_file(path, evidence(op.site, found, record))
    return record


@dataclass
class _Noting(Silent):
    """Hands on what it is told, and notes the warnings."""

    listener: Listener
    noted: list[str]

    @property
    def standing(self) -> Standing:  # type: ignore[override]
        return self.listener.standing

    @property
    def course(self) -> Course:  # type: ignore[override]
        return self.listener.course

    def warn(self, sentence: str) -> None:
        self.noted.append(sentence)
        self.listener.warn(sentence)

    def progress(self, phase: str, done: int, total: int) -> None:
        self.listener.progress(phase, done, total)


def _look(
    op: Operation, source: Source, record: dict[str, Any], prepare: Prepare, read: Read
) -> None:
    """Makes copies of the source, and notes in the record what is seen in them."""

    def migrated(copies: Mapping[str, Database], older: list[str]) -> None:
        record["migrated"] = older
        prepare(copies, older)

    noting = replace(op, listener=_Noting(op.listener, record["told"]))
    with loaded_copies(noting, source, migrated) as scratches:
        for part in scratches:
            rows = source.rows(part) or {}
            record["tables"] += len(rows)
            record["rows"] += sum(rows.values())
        copies = {part: scratch.database for part, scratch in scratches.items()}
        if "database" not in copies:
            return
        op.progress("read")
        seen = again(_READING, lambda: _seen(read, copies), op.warn)
        record["read"] = seen["read"]
        record["problems"] += seen["problems"]
        backed_up = source.backup
        if backed_up is not None and backed_up.files.get("included"):

            def look() -> None:
                with closing(copies["database"].connect()) as connection:
                    _uploads(op.site, backed_up, connection, record, op.warn)

            again(_READING, look, op.warn)


def _seen(read: Read, copies: Mapping[str, Database]) -> dict[str, Any]:
    try:
        return read(copies)
    except ToolFailed as error:
        if passes(error):  # that says nothing of the backup
            raise
        return {"read": {}, "problems": [str(error)]}


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
        copy_rows(cursor, "COPY held FROM STDIN", _held(of(found).lines()))
        for table, statement in site.named_uploads.items():
            name = f'public."{table}"'
            if query(connection, "SELECT to_regclass(%s)::text", name) != [(None,)]:
                cursor.execute(f"INSERT INTO named {statement}")  # handed in, no user's
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


def _held(listed: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The uploads that a backup holds or noted as missing, as rows of `held`."""
    escaped = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
    for facts in listed:
        if "refused" in facts:  # it was on the disk, and is not in the backup
            continue
        missing = "t" if "missing" in facts else "f"
        # a name that is no text can't be named by the database
        with suppress(UnicodeEncodeError):
            yield f"{facts['path'].translate(escaped)}\t{missing}\n".encode()


# -- the evidence page

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)


def evidence(site: Site, found: Backup, record: Mapping[str, Any]) -> bytes:
    """What was proven, for people: one file that needs nothing else."""
    versions = found.manifest.get("versions", {})
    kinds = (f"{count} {kind}" for kind, count in record["read"].items())
    uploads = "not part of this backup"
    if seen := record["uploads"]:
        uploads = (
            f"{seen['named']}; missing on the disk before the backup: "
            f"{seen['missing_before']}"
        )
    facts = {
        "Site": f"{site.url} ({site.id})",
        "Backup": f"{found.id}: {words.parts(found.parts)}",
        "Proven at": f"{parse_stamp(record['time']):%d %B %Y, %H:%M UTC}",
        "Took": f"{record['seconds']} s",
        "Made with": f"CKAN {versions.get('ckan')}",
        "Proven with": f"CKAN {site.versions.get('ckan')}",
        "Tables restored": record["tables"],
        "Rows, as many as in the manifest": record["rows"],
        "Migrations run on the copy": ", ".join(record["migrated"]) or "none needed",
        "Read through CKAN": ", ".join(kinds),
        "Uploads named by the database": uploads,
    }
    page = _ENVIRONMENT.get_template("proof.html").render(
        verdict="Not proven" if record["problems"] else "Proven",
        backup=found,
        facts=facts.items(),
        problems=record["problems"],
        told=record["told"],
    )
    return page.encode()
