"""What stands at the other place is verified, or proven by a restore."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ..engine.disk import create_directory
from ..engine.errors import Damaged, ToolFailed
from ..engine.layout import MANIFEST
from ..engine.offsite import pull
from ..engine.offsite.snapshots import Snapshot
from ..engine.offsite.verify import check, problems_there
from ..engine.operation import Operation
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..engine.restore import proof
from ..engine.restore.copies import stages_of
from ..engine.site import Site
from ..portal import isolated, migrate
from .context import Portal
from .index import open_to_change
from .locked import locked
from .offsite import note
from .stages import staged
from .there import There, reached


def run_verify_remote(
    portal: Portal, name: str, sample: int = 0, prove: bool = False
) -> tuple[str, list[str]]:
    """Looks at what is there; the backup's id, and what is wrong.

    restic's own check, and the names and sizes of one backup. `sample` percent of the
    data is read again too, the next part each time. With `prove` all of the backup is
    brought here, restored beside the live site, read and dropped. Raises Refused,
    ToolFailed.
    """
    if prove:
        with locked(portal, "proof", heads=True) as (site, repository):
            return _verified(portal, site, repository, name, _proven_there)
    site, repository = open_to_change(portal)
    with repository.sending("verify"):

        def look(
            portal: Portal, op: Operation, there: There, found: Snapshot
        ) -> list[str]:
            with staged(portal, repository, "verify remote", ["inspect", "compare"]):
                return _verified_there(op, there, found, sample)

        return _verified(portal, site, repository, name, look, "verify")


def _verified(
    portal: Portal,
    site: Site,
    repository: Repository,
    name: str,
    look: Callable[[Portal, Operation, There, Snapshot], list[str]],
    what: str = "proof",
) -> tuple[str, list[str]]:
    with reached(portal, site, repository) as there:
        found = pull.chosen(there.snapshots, name)
        op = Operation(site, repository, portal.talk, found.id)
        problems = look(portal, op, there, found)
        event = "found damage" if problems else "done"
        note(op, event, what, place="remote", problems=len(problems))
    return found.id, problems


def _verified_there(
    op: Operation, there: There, found: Snapshot, sample: int
) -> list[str]:
    part = ""
    if sample:
        parts = max(round(100 / sample), 1)
        part = f"{there.seen.read % parts + 1}/{parts}"
    op.progress("inspect")
    problems = check(there.restic, part)
    if sample and not problems:
        there.note(read=there.seen.read + 1)
    op.progress("compare")
    with tempfile.TemporaryDirectory(prefix="dbmanage-") as work:
        try:
            problems += problems_there(op, there.restic, found, Path(work))
        except Damaged as error:
            problems += error.problems
        except ToolFailed:  # what is missing there is what hinders it
            if not problems:
                raise
    return problems


def _proven_there(
    portal: Portal, op: Operation, there: There, found: Snapshot
) -> list[str]:
    """Proves a backup by the bytes that are there, none of those here."""
    site, talk = op.site, portal.talk
    with op.repository.partial(f"{found.id}proof") as work:
        aside = create_directory(work / "repository")
        with staged(portal, op.repository, "pull", ["pull"]):
            try:
                pull.lay_out(there.restic, found, aside, talk)
            except Damaged as error:
                return error.problems
        brought = Backup(aside / found.id, site.secrets)
        # another backup of ours under this id would be signed as well
        if not brought.signed or brought.manifest.get("id") != found.id:
            return [f"{MANIFEST}: is not signed with this site's secret for this id"]
        ahead = ["verify", *stages_of(brought.parts), "read"]
        with staged(portal, op.repository, "proof", ahead):
            record = proof.prove(
                Operation(site, op.repository, talk), brought,
                migrate.prepare(portal.options, talk.warn),
                isolated.sample(portal.options),
            )  # fmt: skip
    return record["problems"]
