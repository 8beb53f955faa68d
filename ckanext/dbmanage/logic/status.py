"""Is the portal's data safe?"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from ..engine.backup import downloads
from ..engine.clock import parse_stamp, stamp
from ..engine.errors import DbmanageError
from ..engine.layout import PARTS
from ..engine.redis.arming import Arming
from ..engine.redis.maintenance import Maintenance
from ..engine.repository.journal import Entry
from ..engine.repository.repository import Repository
from ..engine.restore.history import last_switch
from ..engine.site import Site
from ..jobs.queue import Jobs
from ..jobs.record import ACTIVE, FAILED, LOST, QUEUED, RUNNING
from ..operations.allowed import having, wanted
from ..portal.config import Options
from . import hindrances
from .known import GOOD, backups, journal_end, of_journal

#: a backup a night, with two hours for it to end
EXPECTED = timedelta(hours=26)
_PROVEN = timedelta(days=31)
_NIGHTS = 30


def read_status(site: Site, repository: Repository, options: Options) -> dict[str, Any]:
    """Whether the portal's data is safe, at a glance.

    As the action `dbmanage_status` documents. Only backups of all parts count: the
    portal cannot be brought back from half of them.
    """
    described, parts = backups(repository), wanted(site, options)
    sized = [each for each in described if each["sizes"]]
    complete = having(described, parts)
    good = [each for each in complete if each["state"] in GOOD]
    newest = next(iter(good), None)
    proven = next((each for each in good if each["state"] == "proven"), None)
    uploads = [each["sizes"].get("files", 0) for each in described]
    background, listed = _background(site, options)
    status: dict[str, Any] = {
        "site": options.site_title,
        "count": len(described),
        "newest": newest and dict(newest),
        "proven": proven and dict(proven),
        "expected_by": newest and _after(newest["created"], EXPECTED),
        "failed": _failed(journal_end(repository), listed, parts),
        "bytes": sum(each["bytes"] for each in described) - sum(uploads),
        "uploads_bytes": max(uploads, default=0),
        "nights": [
            {key: each[key] for key in ("id", "created", "seconds", "sizes")}
            for each in reversed(sized[:_NIGHTS])
        ],
        "disk": hindrances.disk_of(repository.path),
        "undo": undo(site, repository, options.undo_days),
        "undo_days": options.undo_days,
        "retention": options.retention,
        "wanted": [part for part in PARTS if part in parts],
        "web_restore": options.web_restore,
        "half_way": repository.marked("reindex"),
        "exports": downloads.exports(repository),
        "export_sizes": downloads.sizes(repository, None),
        **background,
    }
    status["blockers"] = hindrances.of_a_switch(repository, status)
    return status | {"state": _state(status)}


def undo(site: Site, repository: Repository, days: int) -> dict[str, Any] | None:
    """What `undo` would take back: `{operation, what, source, time, until, user}`."""
    last = of_journal(repository, "switch", lambda: last_switch(site, repository), site)
    if last is None:
        return None
    until = _after(last["time"], timedelta(days=days))
    return None if until < stamp() else last | {"until": until}


def _background(
    site: Site, options: Options
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What Redis knows: worker, jobs, maintenance, arming; and the last jobs of all."""
    known: dict[str, Any] = {
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
        known["jobs"] = [each for each in listed if each["state"] in ACTIVE]
        if listed and listed[0]["state"] in (FAILED, LOST):
            known["ended"] = listed[0]
        keeper = Maintenance(site.redis_url, site.databases["database"].url)
        known["maintenance"] = keeper.status()
        known["armed"] = Arming(site).armed()
    except DbmanageError as error:
        known["redis"] = str(error)
    return known, listed


def _state(status: dict[str, Any]) -> str:
    waiting = any(job["state"] == QUEUED for job in status["jobs"])
    proven, moment = status["proven"], stamp()
    if status["failed"]:
        return "failed"
    if status["redis"] or (waiting and not status["worker"]["count"]):
        return "offline"
    if any(job["state"] == RUNNING for job in status["jobs"]):
        return "running"
    if status["newest"] is None:
        return "empty"
    if status["expected_by"] < moment:
        return "overdue"
    if proven is None or _after(proven["proved"], _PROVEN) < moment:
        return "unproven"
    return "ok"


def _failed(
    journal: list[Entry], jobs: list[dict[str, Any]], parts: Collection[str]
) -> dict[str, Any] | None:
    """The last backup that failed since a whole one was taken: `{time, error}`.

    That one may have been deleted since: the journal has it still. One whose worker
    was killed could write no line: the job tells of it.
    """
    done = [
        entry.moment
        for entry in journal
        if (entry.text("what"), entry.event) == ("backup", "done")
        and set(parts) <= set(entry.fields.get("parts") or parts)
    ]
    found = [
        {"time": entry.moment, "error": entry.text("error")}
        for entry in journal
        if (entry.text("what"), entry.event) == ("backup", "failed")
    ] + [
        {"time": job["ended"] or job["begun"] or job["asked"], "error": job["error"]}
        for job in jobs
        if job["kind"] == "backup" and job["state"] in (FAILED, LOST)
    ]
    last = max(found, key=lambda failure: failure["time"], default=None)
    return last if last and last["time"] > max(done, default="") else None


def _after(time: str, delta: timedelta) -> str:
    return stamp(parse_stamp(time) + delta)
