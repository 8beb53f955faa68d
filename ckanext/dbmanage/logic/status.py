"""Is the portal's data safe?"""

from collections.abc import Collection
from typing import Any

from ..engine.backup import downloads
from ..engine.clock import is_older, is_stamp
from ..engine.errors import DbmanageError
from ..engine.layout import PARTS
from ..engine.redis.arming import Arming
from ..engine.redis.maintenance import Maintenance
from ..engine.repository.journal import Entry
from ..engine.repository.repository import Repository
from ..engine.restore.history import last_switch
from ..engine.site import Site
from ..jobs.queue import Jobs
from ..jobs.record import ACTIVE, FAILED, LOST, RUNNING
from ..operations.ages import BACKUP, of_copy, of_dumps
from ..operations.allowed import disk_of, having, in_time, wanted
from ..operations.in_use import why_empty
from ..operations.safety import (
    PROVEN,
    SENTENCES,
    Known,
    first_of,
    headline,
    needed,
)
from ..operations.there import remembered, summary
from ..operations.watched import failed_backup, failed_steps, is_past
from ..portal.command import on_server, pasted
from ..portal.config import Options
from . import hindrances
from .known import backups, journal_end, of_journal
from .nights import of_nights
from .retention import thinned_next

_NIGHTS = 30


def read_status(site: Site, repository: Repository, options: Options) -> dict[str, Any]:
    """Whether the portal's data is safe, at a glance.

    As the action `dbmanage_status` documents. Only backups of all parts count: the
    portal cannot be brought back from half of them.
    """
    described, parts = backups(repository), wanted(site, options)
    sized = [each for each in described if each["sizes"] and not each["future"]]
    background, listed = _background(site, options)
    journal = journal_end(repository)
    failed, whole = _failed(journal, listed, parts), having(described, parts)
    disk = disk_of(repository.path)
    worker, jobs = background["worker"], background["jobs"]
    free, whole = disk["free"] if disk else None, having(described, parts)
    of_night = of_nights(repository, options, whole, free)
    away = "" if described else why_empty(options, site, repository)
    known = Known(
        described,
        whole,
        away=bool(away),
        failed=bool(failed),
        unended=bool(of_night["night"] and not of_night["night"]["ended"]),
        free=free,
        redis=bool(background["redis"]),
        workers=worker["count"] if worker else None,
        running=any(job["state"] == RUNNING for job in jobs),
        copied=of_copy(options, remembered(repository), first_of(whole)),
        published=of_dumps(options, site.public_dir),
        steps=failed_steps(journal),
        limits=options.limits,
    )
    newest, proven, most = known.newest, known.proven, headline(known)
    status: dict[str, Any] = {
        "site": options.site_title,
        "away": pasted(away, on_server(options)),
        "count": len(described),
        "newest": newest and dict(newest),
        "proven": proven and dict(proven),
        "damaged": known.count("damaged"),
        "unreadable": known.count("unreadable"),
        "future": sum(each["future"] for each in described),
        "expected_by": newest and known.ages[BACKUP].due,
        "failed": failed,
        **_on_the_disk(described),
        "nights": [
            {key: each[key] for key in ("id", "created", "seconds", "sizes")}
            for each in reversed(sized[:_NIGHTS])
        ],
        "disk": disk,
        "needed": newest and needed(newest),
        "undo": undo(site, repository, options.undo_days),
        "undo_days": options.undo_days,
        "retention": options.retention,
        "pruned": pruned(journal),
        "thinned": thinned_next(repository, options),
        **of_night,
        "wanted": [part for part in PARTS if part in parts],
        "web_restore": options.web_restore,
        "half_way": repository.marked("reindex"),
        "remote": summary(options, repository),
        "exports": downloads.exports(repository),
        "export_sizes": downloads.sizes(repository, None),
        **background,
    }
    ckan = on_server(options)
    found = hindrances.of_a_switch(repository, status)
    status["blockers"] = [pasted(each, ckan) for each in found]
    words = {"text": most.text, "sentence": SENTENCES[most.state]}
    words |= {"colour": most.colour, "n": most.n}
    return status | {"state": most.state, "headline": words}


def _on_the_disk(described: list[dict[str, Any]]) -> dict[str, int]:
    """The bytes that backups take, nearly: each object is stored once over all.

    The oldest of a known size has all that it holds, each later one what it added.
    """
    uploads = databases = 0
    oldest = next((each for each in reversed(described) if each["sizes"]), None)
    for each in described:
        takes = each["sizes"] if each is oldest else each["added"]
        own = each["bytes"] - sum(each["sizes"].values())
        uploads += takes.get("files", 0)
        databases += own + sum(takes.values()) - takes.get("files", 0)
    one_more = 0
    for each in described[:1]:
        held, added = sum(each["sizes"].values()), sum(each["added"].values())
        one_more = each["bytes"] - held + added
    return {"bytes": databases, "uploads_bytes": uploads, "one_more": one_more}


def undo(site: Site, repository: Repository, days: int) -> dict[str, Any] | None:
    """What `undo` would take back: as `last_switch` tells, and `until` when."""
    last = of_journal(repository, "switch", lambda: last_switch(site, repository), site)
    return in_time(last, days)


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


def _failed(
    journal: list[Entry], jobs: list[dict[str, Any]], parts: Collection[str]
) -> dict[str, Any] | None:
    """The last backup that failed since a whole one was taken: `{time, error}`.

    That one may have been deleted since: the journal has it still, in its own order,
    whatever the clock said. One whose worker was killed could write no line: the job
    tells of it.
    """
    failed, done = failed_backup(journal, parts)
    lost = [
        {"time": job["ended"] or job["begun"] or job["asked"], "error": job["error"]}
        for job in jobs
        if job["kind"] == "backup" and job["state"] in (FAILED, LOST)
    ]
    found = [failed] if failed else []
    found += [each for each in lost if each["time"] > done and is_past(each["time"])]
    return max(found, key=lambda failure: failure["time"], default=None)


def pruned(journal: list[Entry]) -> str | None:
    """When retention was last applied without anybody at a terminal, within a month.

    Until then it is only what `prune` would keep.
    """
    for entry in reversed(journal):
        known = entry.text("what") == "prune" and entry.event == "done"
        timed = entry.fields.get("by_itself") is True and is_stamp(entry.moment)
        if known and timed and not is_older(entry.moment, PROVEN):
            return entry.moment
    return None
