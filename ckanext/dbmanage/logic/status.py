"""Is the portal's data safe?"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..engine.backup import downloads
from ..engine.clock import now
from ..engine.errors import DbmanageError
from ..engine.redis.arming import Arming
from ..engine.redis.maintenance import Maintenance
from ..engine.repository import backup
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..engine.restore.history import last_switch
from ..engine.site import Site
from ..jobs.queue import Jobs
from ..jobs.record import ACTIVE, FAILED, LOST, QUEUED, RUNNING
from ..operations import retain
from ..operations.restore import unfit
from ..portal.config import Options
from .known import backups, entries, grown, kept_lately

#: a backup a night, with two hours for it to end
EXPECTED = timedelta(hours=26)
_PROVEN = timedelta(days=31)
_FORM = "%Y-%m-%dT%H:%M:%SZ"


def status_of(site: Site, repository: Repository, options: Options) -> dict[str, Any]:
    """Whether the portal's data is safe, at a glance.

    As the action `dbmanage_status` documents. Only backups of all parts count: the
    portal cannot be brought back from half of them.
    """
    described = backups(repository)
    whole = having(described, wanted(site, options))
    good = [each for each in whole if each["state"] in ("verified", "proven")]
    proven = next((each for each in good if each["state"] == "proven"), None)
    journal = entries(repository)
    known: dict[str, Any] = {
        "site": options.site_title,
        "count": len(described),
        "newest": dict(good[0]) if good else None,
        "proven": dict(proven) if proven else None,
        "expected_by": _after(good[0]["created"], EXPECTED) if good else None,
        "failed": None,
        "bytes": sum(e["bytes"] - e["sizes"].get("files", 0) for e in described),
        "uploads_bytes": max(
            (e["sizes"].get("files", 0) for e in described), default=0
        ),
        "disk": _disk(repository.path),
        "undo": undo(site, repository, options.undo_days),
        "web_restore": options.web_restore,
        "half_way": repository.marked("reindex"),
        "exports": downloads.exports(repository),
        "redis": "",
        "worker": None,
        "jobs": [],
        "ended": None,
        "maintenance": None,
        "armed": None,
    }
    listed: list[dict[str, Any]] = []
    try:
        jobs = Jobs(options)
        # first what waits a second for Redis: CKAN's own client may wait for ever
        listed = jobs.list(20)
        known["worker"] = jobs.workers()
        known["jobs"] = [e for e in listed if e["state"] in ACTIVE]
        if listed and listed[0]["state"] in (FAILED, LOST):
            known["ended"] = listed[0]
        keeper = Maintenance(site.redis_url, site.databases["database"].url)
        known["maintenance"] = keeper.status()
        known["armed"] = Arming(site).armed()
    except DbmanageError as error:
        known["redis"] = str(error)
    known["failed"] = _failed(journal, listed, wanted(site, options))
    return known | {"state": _state(known)}


def wanted(site: Site, options: Options) -> set[str]:
    """The parts that a whole backup of the site has."""
    there = {*site.databases, *(["files"] if site.uploads else [])}
    return set(options.parts) or there


def having(described: list[dict[str, Any]], parts: set[str]) -> list[dict[str, Any]]:
    """Those of the backups that have all of the parts, and all of the uploads."""
    return [
        each
        for each in described
        if parts.issubset(each["parts"]) and not backup.why_partial(each["files"])
    ]


def must_stay(
    about: dict[str, Any],
    described: list[dict[str, Any]],
    whole: list[dict[str, Any]],
) -> str:
    """Why a backup may not be deleted by hand, empty when it may.

    As `retain.must_stay`, and the newest good one of the `whole` stays too.
    """
    why = retain.must_stay(about, described)
    if why or not any(each["id"] == about["id"] for each in whole):
        return why
    return retain.must_stay(about, whole)


def _state(known: dict[str, Any]) -> str:
    waiting = any(job["state"] == QUEUED for job in known["jobs"])
    worker = known["worker"]
    proven = known["proven"]
    if known["failed"]:
        return "failed"
    if known["redis"] or (waiting and not worker["count"]):
        return "offline"
    if any(job["state"] == RUNNING for job in known["jobs"]):
        return "running"
    if known["newest"] is None:
        return "empty"
    if known["expected_by"] < f"{now():{_FORM}}":
        return "overdue"
    if proven is None or _after(proven["proved"], _PROVEN) < f"{now():{_FORM}}":
        return "unproven"
    return "ok"


def _failed(
    journal: list[dict[str, Any]], jobs: list[dict[str, Any]], parts: Collection[str]
) -> dict[str, Any] | None:
    """The last backup that failed since a whole one was taken: `{time, error}`.

    That one may have been deleted since: the journal has it still. One whose worker
    was killed could write no line: the job tells of it.
    """
    done = [
        str(line.get("time"))
        for line in journal
        if (line.get("what"), line.get("event")) == ("backup", "done")
        and set(parts) <= set(line.get("parts") or parts)
    ]
    found = [
        {"time": str(line.get("time")), "error": str(line.get("error") or "")}
        for line in journal
        if (line.get("what"), line.get("event")) == ("backup", "failed")
    ] + [
        {"time": job["ended"] or job["begun"] or job["asked"], "error": job["error"]}
        for job in jobs
        if job["kind"] == "backup" and job["state"] in (FAILED, LOST)
    ]
    last = max(found, key=lambda failure: failure["time"], default=None)
    return last if last and last["time"] > max(done, default="") else None


def blockers(
    site: Site,
    repository: Repository,
    known: dict[str, Any],
    found: Backup | None,
    parts: Collection[str] = (),
) -> list[str]:
    """What would make a restore from the web (without a backup: an undo) fail now.

    What is cheap to see, a sentence each; `known` is what `status` tells, `parts` are
    those to restore, all when empty. Asks the databases' server, by one statement or
    two each.
    """
    from ..engine.postgres.database import closing
    from ..engine.restore.preflight import may_create

    if known["redis"]:
        return [known["redis"]]
    told = []
    if not known["worker"]["count"]:
        told.append(
            "no worker runs, so nobody would begin it: start one on the server, "
            f"`{known['worker']['command']}`"
        )
    if known["jobs"]:
        job = known["jobs"][0]
        told.append(f"another job is under way, {job['kind']} {job['id']}: let it end")
    elif holder := repository.holder():
        told.append(f"the repository is in use by {holder}: let it end")
    try:
        for database in site.databases.values() if found else ():
            with closing(database.maintenance()) as connection:
                may_create(connection, database)
    except DbmanageError as error:
        told.append(str(error))
    uploads = 0
    if found and (not parts or "files" in parts):
        uploads = found.manifest.get("files", {}).get("bytes", 0)
    free = _disk(Path(next(iter(site.uploads.values()), repository.path)))
    if free and uploads > free["free"]:
        told.append(
            f"the uploads need {uploads} bytes beside the live ones, and "
            f"{free['free']} are free: make room, or leave the uploads out"
        )
    return told


def restorable(repository: Repository, options: Options) -> str:
    """The id of the newest good backup that fits this site, empty when none does."""
    for each in backups(repository):
        if each["state"] in ("verified", "proven"):
            found = repository.find(each["id"])
            if not unfit(options, found):
                return each["id"]
    return ""


def undo(site: Site, repository: Repository, days: int) -> dict[str, Any] | None:
    """What `undo` would take back: `{operation, what, source, time, until, user}`."""
    seen = grown(repository), site  # a page does not read megabytes each time
    last = kept_lately(
        (repository.path, "undo"), seen, lambda: last_switch(site, repository)
    )
    if last is None:
        return None
    until = _after(last["time"], timedelta(days=days))
    return None if until < f"{now():{_FORM}}" else last | {"until": until}


def _disk(path: Path) -> dict[str, int] | None:
    while not path.exists() and path != path.parent:
        path = path.parent
    with suppress(OSError):
        about = shutil.disk_usage(path)
        return {"total": about.total, "free": about.free}
    return None


def _after(time: str, delta: timedelta) -> str:
    known = datetime.strptime(time, _FORM).replace(tzinfo=timezone.utc)
    return f"{known + delta:{_FORM}}"


def rows_now(site: Site, found: Backup) -> list[dict[str, Any]] | None:
    """The rows of each table in the backup and now, where they differ.

    `{part, table, then, now}`, the largest difference first; None when counting took
    longer than anybody waits for a page. Raises ConnectionFailed.
    """
    from psycopg2 import errors

    try:
        differing = _differing(site, found)
    except (errors.QueryCanceled, errors.LockNotAvailable):
        return None
    return sorted(differing, key=lambda e: -abs((e["then"] or 0) - (e["now"] or 0)))


def _differing(site: Site, found: Backup) -> list[dict[str, Any]]:
    from ..engine.postgres.database import closing, query
    from ..engine.postgres.tables import count_rows, tables_of

    differing = []
    for part, about in found.manifest.get("databases", {}).items():
        if part not in site.databases:
            continue
        then = about.get("rows") or {}
        with closing(site.databases[part].connect()) as connection:
            connection.autocommit = True
            limits = "SET statement_timeout = '20s'; SET lock_timeout = '3s'"
            query(connection, limits)
            names = [(schema, table) for schema, table, *_ in tables_of(connection)]
            live = count_rows(connection, names)
        for table in sorted(set(then) | set(live)):
            if then.get(table) != live.get(table):
                row = {"part": part, "table": table}
                differing.append(
                    row | {"then": then.get(table), "now": live.get(table)}
                )
    return differing


def table_sizes(site: Site) -> dict[str, Any]:
    """What fills the databases, by part: `{bytes, tables, largest}`.

    `largest` is a list of `{table, bytes, rows}`; rows are the planner's estimate.
    Raises ConnectionFailed.
    """
    from ..engine.postgres.database import closing, query

    found = {}
    for part, database in site.databases.items():
        with closing(database.connect()) as connection:
            (whole,) = query(
                connection,
                "SELECT pg_database_size(current_database()), count(*) FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE relkind IN ('r', 'p') AND nspname = 'public'",
            )
            rows = query(
                connection,
                "SELECT relname, pg_total_relation_size(c.oid),"
                " greatest(reltuples, 0)::bigint FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE relkind IN ('r', 'p') AND nspname = 'public'"
                " ORDER BY 2 DESC, 1 LIMIT 8",
            )
        names = ("table", "bytes", "rows")
        found[part] = {
            "bytes": whole[0],
            "tables": whole[1],
            "largest": [dict(zip(names, row, strict=True)) for row in rows],
        }
    return found
