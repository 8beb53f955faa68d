"""What may be done with a backup, by what is known of it: restored here, deleted.

The sysadmin page asks this of each backup that it shows.
"""

import shutil
from collections.abc import Collection, Mapping, Set
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..engine.clock import parse_stamp, stamp
from ..engine.errors import DbmanageError, Refused
from ..engine.redis.arming import DELETE, RELEASE, RESTORE, UNDO
from ..engine.repository.backup import Backup, why_partial
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..engine.words import size
from ..portal.config import Options
from ..portal.site import build_site

Described = dict[str, Any]


def unfit(options: Options, found: Backup) -> str:
    """Why a backup cannot be restored here, empty when nothing is known against it."""
    # what reads archives and migrations: no `ckan` command needs it to start
    from ..engine.restore.preflight import outdated

    if why := closed(found):
        return why
    problems = (found.state().get("verified") or {}).get("problems")
    if problems:
        return f"it is damaged: {problems[0]}"
    try:
        site = build_site(options, migrations=True)
        for part, about in found.manifest["databases"].items():
            if part not in site.databases:
                raise Refused("it holds the DataStore, this site has none")
            if part == "database":
                outdated(found.id, about["migrations"], site)
    except Refused as error:
        return str(error)
    return ""


def closed(found: Backup) -> str:
    """Why nothing of a backup comes back here, empty when nothing is known against it.

    Of a damaged one something may come back still.
    """
    if why := found.closed:
        return f"it {why}"
    if not found.readable:
        return "its manifest cannot be read: it is damaged"
    if not found.signed:
        return (
            "it is not signed by this site: restore it on the command line, with "
            "`--trust` if you do trust its SQL"
        )
    return ""


def of_a_restore(
    site: Site, repository: Repository, backup: Backup, parts: Collection[str]
) -> list[str]:
    """What would make the restore of a backup fail now, of these parts or of all.

    Asks the databases' server, by one statement or two each.
    """
    found = lacking_rights(site)
    uploads = 0
    if not parts or "files" in parts:
        uploads = backup.manifest.get("files", {}).get("bytes", 0)
    disk = disk_of(Path(next(iter(site.uploads.values()), repository.path)))
    if disk and uploads > disk["free"]:
        found.append(
            f"the uploads need {size(uploads)} beside the live ones, and "
            f"{size(disk['free'])} are free: make room, or leave the uploads out"
        )
    return found


def lacking_rights(site: Site) -> list[str]:
    """Why CKAN's role could not switch the databases, of a restore or an undo."""
    # of each `ckan` command's start it would take a thirtieth
    from ..engine.restore.preflight import may_switch

    try:
        may_switch(site, site.databases)
    except DbmanageError as error:
        return [str(error)]
    return []


def in_time(last: Mapping[str, str] | None, days: int) -> dict[str, str] | None:
    """What `undo` would take back, and `until` when; None when that is over."""
    if last is None:
        return None
    until = stamp(parse_stamp(last["time"]) + timedelta(days=days))
    return None if until < stamp() else {**last, "until": until}


def disk_of(path: Path) -> dict[str, int] | None:
    """The disk that a path is on or will be, `{total, free}` in bytes."""
    while not path.exists() and path != path.parent:
        path = path.parent
    with suppress(OSError):
        about = shutil.disk_usage(path)
        return {"total": about.total, "free": about.free}
    return None


def refused_on_the_web(
    site: Site, repository: Repository, options: Options, name: str, to: str
) -> str:
    """Why the sysadmin page would refuse one of the `DEEDS`; empty when it would not.

    `name` is a backup's id or `UNDO`. What passes by itself, such as another job or a
    missing worker, does not count. Raises Refused, OSError.
    """
    from ..engine.restore.history import last_switch, undoable

    if options.web_restore == "never":
        return (
            "ckanext.dbmanage.web_restore is `never`; do it here, on the command line"
        )
    if name == UNDO:
        undoable(site, repository)
        if in_time(last_switch(site, repository), options.undo_days) is None:
            return "there is nothing to undo, or it is too long ago"
        return "; ".join(lacking_rights(site))
    found = repository.find(name)
    if to == RESTORE:
        # who has no room for the uploads leaves them out
        parts = [part for part in found.parts if part != "files"] or found.parts
        return unfit(options, found) or "; ".join(
            of_a_restore(site, repository, found, parts)
        )
    about = found.describe()
    if to == DELETE:
        return must_stay(about)
    if to == RELEASE and not about["keep"]:
        return "it is not held"
    return ""


def wanted(site: Site, options: Options) -> set[str]:
    """The parts that a whole backup of the site has."""
    there = {*site.databases, *(["files"] if site.uploads else [])}
    return set(options.parts) or there


def having(described: list[Described], parts: Set[str]) -> list[Described]:
    """Those of the backups that have all of the parts, and all of the uploads."""
    return [
        each
        for each in described
        if parts <= set(each["parts"]) and not why_partial(each["files"])
    ]


def must_stay(about: Described) -> str:
    """Why a backup may not be deleted by hand whatever is said, empty when it may."""
    if about["state"] == "unreadable":
        return f"it {about['problems'][0]}"
    return "it is held: stop holding it first" if about["keep"] else ""


def newest_good(
    about: Described, described: list[Described], whole: list[Described]
) -> str:
    """Why a backup is deleted only if its name is said with the words for that.

    It is the newest proven one (without any proven one: the newest verified) of those
    `described`, or of those that are `whole`; empty for any other. Both are sorted, the
    newest first, as `Repository.names` does.
    """
    for among in (described, whole):
        for state in ("proven", "verified"):
            newest = next((each for each in among if each["state"] == state), None)
            if newest is not None:
                if newest["id"] == about["id"]:
                    return f"it is the newest {state} one"
                break
    return ""
