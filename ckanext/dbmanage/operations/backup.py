"""Backups are taken, verified and proven."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .context import Portal, tidy
from .index import open_to_change

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup
    from ..engine.repository.repository import Repository
    from ..engine.site import Site


def backup(
    portal: Portal, parts: tuple[str, ...] = (), note: str = "", keep: bool = False
) -> Backup:
    """Takes a backup of the parts, by default of those that the configuration says."""
    from ..engine.backup.take import take
    from ..engine.operation import Operation

    site, repository = open_to_change(portal)
    with repository.lock("backup"):
        tidy(site, repository, portal.talk)
        taken = take(
            Operation(site, repository, portal.talk),
            parts=parts or portal.options.parts, note=note, keep=keep,
        )  # fmt: skip
    portal.talk.end()
    return taken


def incomplete(taken: Backup) -> str:
    """Why a backup that was taken does not hold all uploads, empty when it does."""
    from ..engine.repository.backup import why_partial

    why = why_partial(taken.files)
    return why and f"backup {taken.id} was taken, but is not complete: {why}"


def verify(
    portal: Portal, site: Site, repository: Repository, found: Backup, prove: bool
) -> list[str]:
    """Reads a backup again, with `prove` restores it beside the live site: problems."""
    from ..engine.backup.verify import verify_backup
    from ..engine.operation import Operation
    from ..engine.restore import proof
    from ..portal import isolated, migrate

    talk = portal.talk
    if prove:
        with repository.lock("proof"):
            tidy(site, repository, talk)
            record = proof.prove(
                Operation(site, repository, talk), found,
                migrate.prepare(portal.options), isolated.sample(portal.options),
            )  # fmt: skip
        talk.say(f"the evidence is in {repository.path / 'state' / found.id}.html")
        problems = record["problems"]
    else:
        problems = verify_backup(found, site, talk.progress)
        with suppress(OSError):  # a repository may be there to be read only
            repository.record(found.id, "done", what="verify", problems=len(problems))
    talk.end()
    return problems
