"""What stands in the way: of a restore, an undo, or deleting a backup.

Each sentence says why, and what to do. What is cheap to see is told before somebody
types a password; the operation itself looks again at all of it.
"""

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..engine.errors import DbmanageError
from ..engine.postgres.database import closing
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..engine.words import size
from ..operations.allowed import unfit
from ..portal.config import Options
from .known import GOOD, backups


def of_a_switch(repository: Repository, status: dict[str, Any]) -> list[str]:
    """What would make any restore or undo from the web fail now.

    `status` is what is known of `redis`, `worker` and `jobs`.
    """
    if status["redis"]:
        return [status["redis"]]
    found = []
    if not status["worker"]["count"]:
        found.append(
            "no worker runs, so nobody would begin it: start one on the server, "
            f"`{status['worker']['command']}`"
        )
    if status["jobs"]:
        job = status["jobs"][0]
        found.append(f"another job is under way, {job['kind']} {job['id']}: let it end")
    elif holder := repository.holder():
        found.append(f"the repository is in use by {holder}: let it end")
    return found


def of_a_restore(
    site: Site, repository: Repository, backup: Backup, parts: Collection[str]
) -> list[str]:
    """What would make the restore of a backup fail now, of these parts or of all.

    Asks the databases' server, by one statement or two each.
    """
    # of each `ckan` command's start it would take a thirtieth
    from ..engine.restore.preflight import may_create

    found = []
    try:
        for database in site.databases.values():
            with closing(database.maintenance()) as connection:
                may_create(site, connection, database)
    except DbmanageError as error:
        found.append(str(error))
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


def newest_that_fits(repository: Repository, options: Options) -> str:
    """The id of the newest good backup that fits this site, empty when none does."""
    good = (e["id"] for e in backups(repository) if e["state"] in GOOD)
    return next((id for id in good if not unfit(options, repository.find(id))), "")


def disk_of(path: Path) -> dict[str, int] | None:
    """The disk that a path is on or will be, `{total, free}` in bytes."""
    while not path.exists() and path != path.parent:
        path = path.parent
    with suppress(OSError):
        about = shutil.disk_usage(path)
        return {"total": about.total, "free": about.free}
    return None
