"""Backups are taken, verified and proven."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..engine.backup.take import take
from ..engine.backup.verify import event_of, verify_backup
from ..engine.errors import Denied
from ..engine.operation import Operation
from ..engine.report import Listener
from ..engine.repository.backup import Backup, why_partial
from ..engine.repository.repository import Repository
from ..engine.restore import proof
from ..engine.restore.copies import stages_of
from ..portal import isolated, migrate, signals
from .allowed import wanted
from .context import Portal
from .in_use import remember
from .index import open_to_change
from .locked import locked, settle
from .stages import of_backup, staged


@signals.failures("backup")
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
        remember(portal.options, site, repository)
    signals.send(signals.BACKUP, taken.id, parts=taken.parts, bytes=taken.bytes)
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
    what, ahead, read = "proof" if prove else "verify", ["verify"], _Read(talk, chosen)
    if prove:
        ahead = [stage for found in chosen for stage in _of_proof(found.parts)]
    with signals.failures(what), staged(portal, repository, what, ahead):
        for found in chosen:
            try:
                if prove:
                    with repository.lock("proof"):
                        settle(site, repository, talk)
                        record = proof.prove(
                            Operation(site, repository, talk), found,
                            migrate.prepare(options, talk.warn),
                            isolated.sample(options),
                        )  # fmt: skip
                    evidence = repository.path / "state" / f"{found.id}.html"
                    talk.say(f"the evidence is in {evidence}")
                    problems = record["problems"]
                    talk.end()  # the next one begins with the same stage
                else:
                    problems = verify_backup(found, site, read.progress)
                    event = event_of(problems)
                    _note(repository, found, event, problems=len(problems))
            except Denied as error:
                problems = [error.why]
                _note(repository, found, "failed", what, error=error.why)
            read.next()
            if problems:
                signals.send(signals.FAILED, what, error=f"{found.id}: {problems[0]}")
            yield found, problems


def _of_proof(parts: Sequence[str]) -> list[str]:
    read = ["read"] if "database" in parts else []
    return ["verify", *stages_of(parts), *read]


class _Read:
    """Tells of the bytes of all backups that are verified, one after the other."""

    def __init__(self, talk: Listener, backups: Sequence[Backup]) -> None:
        self._talk, self._done = talk, 0
        self._sizes = [_size(each) for each in backups]
        self._all = sum(self._sizes)

    def progress(self, phase: str, done: int, total: int) -> None:
        self._talk.progress(phase, self._done + done, max(self._all, total))

    def next(self) -> None:
        self._done += self._sizes.pop(0)


def _size(backup: Backup) -> int:
    with suppress(OSError):  # nobody may read it
        return backup.bytes
    return 0


def _note(
    repository: Repository,
    found: Backup,
    event: str,
    what: str = "verify",
    **facts: Any,
) -> None:
    with suppress(OSError):  # a repository may be there to be read only
        repository.record(found.id, event, what=what, **facts)
