"""What stands in the way: of a restore, an undo, or deleting a backup.

Each sentence says why, and what to do. What is cheap to see is told before somebody
types a password; the operation itself looks again at all of it.
"""

from typing import Any

from ..engine.repository.repository import Repository
from ..operations.allowed import unfit
from ..operations.safety import GOOD
from ..portal.config import Options
from .known import backups


def of_a_switch(repository: Repository, status: dict[str, Any]) -> list[str]:
    """What would make any restore or undo from the web fail now.

    `status` is what is known of `redis`, `worker` and `jobs`.
    """
    if status["redis"]:
        return [status["redis"]]
    found = []
    worker = status["worker"]
    if not worker["count"]:
        found.append(
            f"no worker runs that takes these jobs ({worker['others']} of this site "
            "take others only), so nobody would begin it: start one on the server, "
            f"`{worker['command']}`"
            if worker["others"]
            else "no worker runs, so nobody would begin it: start one on the server, "
            f"`{worker['command']}`"
        )
    if status["jobs"]:
        job = status["jobs"][0]
        found.append(f"another job is under way, {job['kind']} {job['id']}: let it end")
    elif holder := repository.holder():
        found.append(f"the repository is in use by {holder}: let it end")
    return found


def newest_that_fits(repository: Repository, options: Options) -> str:
    """The id of the newest good backup that fits this site, empty when none does."""
    good = (e["id"] for e in backups(repository) if e["state"] in GOOD)
    return next((id for id in good if not unfit(options, repository.find(id))), "")
