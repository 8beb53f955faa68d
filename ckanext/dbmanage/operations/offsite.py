"""Backups to another place, and back from it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.disk import own_directory, write_file
from ..engine.errors import Damaged, DbmanageError, Refused
from ..engine.layout import ALONG, ID
from ..engine.offsite import prune, pull, push
from ..engine.offsite.restic import Incomplete
from ..engine.offsite.snapshots import grouped, snapshots
from ..engine.operation import Operation
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..portal import signals
from ..portal.remote import place
from .context import Portal, find_site
from .in_use import why_empty
from .index import open_to_change
from .stages import staged
from .there import There, reached


@dataclass(frozen=True)
class Pushed:
    """What became of a backup that was to be copied: `bytes` were not there before.

    `error` says why it was not copied.
    """

    id: str
    bytes: int = 0
    error: str = ""


def run_push(portal: Portal, name: str | None = None) -> Iterator[Pushed]:
    """Copies a backup, or all that are missing there, the newest first; each in turn.

    What one of them lacks does not hold the others up. Raises Refused, Busy, and
    ToolFailed where the other place fails.
    """
    site, repository = open_to_change(portal)
    portal.talk.standing.made.append("what was not copied yet: `ckan db push` goes on")
    with ExitStack() as stack:
        stack.enter_context(signals.failures("push"))
        stack.enter_context(repository.sending("push"))
        try:
            at_work = reached(portal, site, repository, make=True)
            there = stack.enter_context(at_work)
            there.refuse_others()
        except DbmanageError as error:
            op = Operation(site, repository, portal.talk, "push")
            note(op, "failed", error=str(error))
            raise
        chosen = repository.backups() if name is None else [repository.find(name)]
        _lay_along(portal, repository)
        for found in chosen:
            if there.seen.has_whole(there.of(found.id)):
                if name is not None:
                    portal.talk.say(f"backup {found.id} is there already")
                continue
            if name is None and (why := _unfit(found)):
                if why != "foreign":
                    portal.talk.warn(f"backup {found.id} is not copied: it is {why}")
                continue
            done = _pushed(portal, there, found)
            if done.error:
                signals.send(signals.FAILED, "push", error=done.error)
            yield done


def _unfit(found: Backup) -> str:
    """Why a backup is not copied unless it is asked for; empty when it is."""
    if found.future:
        return "dated in the future"
    state = found.describe()["state"]
    return state if state in ("damaged", "unreadable", "foreign") else ""


def _pushed(portal: Portal, there: There, found: Backup) -> Pushed:
    op = Operation(there.site, there.repository, portal.talk, found.id)
    before = {each.name for each in there.snapshots}
    try:
        with (
            staged(portal, there.repository, "push", ["push", "compare"]),
            tempfile.TemporaryDirectory(prefix="dbmanage-") as work,
        ):
            name, added = push.push(
                op, there.restic, found, there.snapshots, Path(work), there.own()
            )
    except (DbmanageError, OSError) as error:
        portal.talk.end()
        note(op, "failed", error=str(error))
        if not isinstance(error, (Damaged, Refused, Incomplete)):
            raise
        there.look()
        # the place may let nobody delete
        left = [
            e.name for e in there.snapshots if e.id == found.id and e.name not in before
        ]
        there.note(bad=[*there.seen.bad, *left])
        return Pushed(found.id, error=str(error))
    there.snapshots = snapshots(there.restic, there.site.id)
    own = [
        e.name for e in there.snapshots if e.id == found.id and e.name.startswith(name)
    ]
    if not own:
        why = f"backup {found.id} is not there any more: somebody took it away"
        note(op, "failed", error=why)
        return Pushed(found.id, error=why)
    there.note(whole={**there.seen.whole, found.id: own[0]})
    note(op, "done", bytes=added)
    return Pushed(found.id, added)


def note(op: Operation, event: str, what: str = "push", **facts: Any) -> None:
    with suppress(OSError):
        op.record(event, what=what, **facts)


def _lay_along(portal: Portal, repository: Repository) -> None:
    """Lays down what goes along with each backup: CKAN's configuration file."""
    ini = portal.options.text("__file__")
    if not ini or not os.path.isfile(ini):
        portal.talk.warn(
            "CKAN's configuration file is not known, and does not go along: keep it, "
            "or the secrets in it, elsewhere"
        )
        return
    write_file(
        own_directory(repository.path / ALONG) / "ckan.ini", Path(ini).read_bytes()
    )


def run_pull(portal: Portal, name: str) -> Backup:
    """Brings a backup back into the repository. Raises Refused, Damaged, ToolFailed."""
    site, repository = open_to_change(portal)
    if why := why_empty(portal.options, site, repository):
        portal.talk.warn(why)  # it may be lost for good, and this the way back
    with repository.lock("pull"):
        if name in repository.names():
            portal.talk.say(f"backup {name} is here already")
            return repository.find(name)
        with reached(portal, site, repository) as there:
            found = pull.chosen(there.snapshots, name)
            if found.id in repository.names():
                return repository.find(found.id)
            op = Operation(site, repository, portal.talk, found.id)
            with staged(portal, repository, "pull", ["pull", "verify"]):
                backup = _first_whole(op, there, found.id)
            note(op, "done", "pull")
    return backup


def _first_whole(op: Operation, there: There, id: str) -> Backup:
    """The backup out of the first snapshot of it that is whole."""
    every = grouped(there.snapshots)[id]
    # what was bad may be all that there is: it is looked at as any other
    candidates = [e for e in every if e.name not in there.seen.bad] or every
    for snapshot in candidates[:-1]:
        try:
            return pull.pull(op, there.restic, snapshot)
        except (DbmanageError, OSError) as error:
            op.warn(f"{error}. There is another copy of it")
    try:
        return pull.pull(op, there.restic, candidates[-1])
    except DbmanageError as error:
        note(op, "failed", "pull", error=str(error))
        raise


def here(portal: Portal, name: str) -> str:
    """What is to be restored: pulled before, when it is only at the other place."""
    if not ID.fullmatch(name) and name not in ("latest", "oldest"):
        return name
    names = find_site(portal)[1].names()
    if name in names or (names and not ID.fullmatch(name)):
        return name
    if place(portal.options) is None:
        return name
    portal.talk.say(f"{name} is not here: it is looked for at the other place")
    return run_pull(portal, name).id


def run_prune_remote(
    portal: Portal, dry_run: bool
) -> tuple[list[prune.Decision], bool]:
    """What became of each backup that is there; False where none may be deleted.

    Raises Refused, ToolFailed.
    """
    site, repository = open_to_change(portal)
    with (
        repository.sending("prune"),
        reached(portal, site, repository) as there,
    ):
        there.refuse_others()
        known = set(repository.names())
        decisions = prune.decide(
            there.snapshots, known, portal.options.remote_retention, there.vouched()
        )
        doomed = {each.id for each in decisions if each.forget}
        if dry_run or not doomed:
            return decisions, True
        portal.talk.progress("forget", 0, 0)
        gone = prune.forget(there.restic, there.snapshots, doomed)
        there.look()
        names = sorted(doomed) if gone else []
        repository.record("prune", "done", what="prune remote", forgotten=names)
    portal.talk.finish()
    return decisions, gone
