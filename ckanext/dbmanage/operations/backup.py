"""Backups are taken, verified and proven."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..engine.backup.take import take
from ..engine.backup.verify import event_of, verify_backup
from ..engine.errors import Denied
from ..engine.operation import Operation
from ..engine.repository.backup import Backup, why_partial
from ..engine.repository.repository import Repository
from ..engine.restore import proof
from ..engine.restore.copies import stages_of
from ..portal import isolated, migrate
from .allowed import wanted
from .context import Portal
from .index import open_to_change
from .locked import locked, settle
from .stages import of_backup, staged


def take_backup(
    portal: Portal, parts: tuple[str, ...] = (), note: str = "", keep: bool = False
) -> Backup:
    """Takes a backup of the parts, by default of those that the configuration says."""
    with locked(portal, "backup") as (site, repository):
        chosen = parts or portal.options.parts
        ahead = of_backup(chosen or tuple(wanted(site, portal.options)))
        with staged(portal, repository, "backup", ahead):
            taken = take(
                Operation(site, repository, portal.talk),
                parts=chosen, note=note, keep=keep,
            )  # fmt: skip
    return taken


def why_incomplete(taken: Backup) -> str:
    """Why a backup that was taken does not hold all uploads, empty when it does."""
    why = why_partial(taken.files)
    return why and f"backup {taken.id} was taken, but is not complete: {why}"


def verify_backups(
    portal: Portal, name: str | None, prove: bool
) -> Iterator[tuple[Backup, list[str]]]:
    """Reads a backup again (all without a name); each with its problems.

    With `prove` it is also restored beside the live site, read and dropped. That this
    user may not read one is its only problem, which begins with `DENIED`.
    """
    talk, options = portal.talk, portal.options
    site, repository = open_to_change(portal, heads=prove)
    chosen = repository.backups() if name is None else [repository.find(name)]
    for found in chosen:
        try:
            if prove:
                ahead = ["verify", *stages_of(found.parts), "read"]
                with (
                    repository.lock("proof"),
                    staged(portal, repository, "proof", ahead),
                ):
                    settle(site, repository, talk)
                    record = proof.prove(
                        Operation(site, repository, talk), found,
                        migrate.prepare(options, talk.warn), isolated.sample(options),
                    )  # fmt: skip
                evidence = repository.path / "state" / f"{found.id}.html"
                talk.say(f"the evidence is in {evidence}")
                problems = record["problems"]
            else:
                with staged(portal, None, "verify", ["verify"]):
                    problems = verify_backup(found, site, talk.progress)
                _note(repository, found, event_of(problems), problems=len(problems))
        except Denied as error:
            problems = [error.why]
            what = "proof" if prove else "verify"
            _note(repository, found, "failed", what, error=error.why)
        talk.end()
        yield found, problems


def _note(
    repository: Repository,
    found: Backup,
    event: str,
    what: str = "verify",
    **facts: Any,
) -> None:
    with suppress(OSError):  # a repository may be there to be read only
        repository.record(found.id, event, what=what, **facts)
