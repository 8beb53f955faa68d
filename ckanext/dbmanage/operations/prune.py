"""Retention applied: backups, uploads that none names, what undo would bring back."""

from dataclasses import dataclass

from ..engine.operation import Operation
from ..engine.postgres.locks import live_lock
from ..engine.repository.prune import Unnamed, prune_backups, unnamed_objects
from ..engine.repository.retention import Decision, decide, spared
from ..engine.restore.exchange import drop_kept
from ..engine.restore.history import outlived
from ..engine.restore.recover import recover
from ..engine.restore.scratch import drop_replaced, replaced
from ..portal import signals
from .context import Portal
from .index import open_to_change
from .stages import OF_PRUNE, staged


@dataclass(frozen=True)
class Pruned:
    """What was decided of each backup, and what else is gone (or would be).

    `dropped` are the databases and folders that a restore had replaced.
    """

    decisions: list[Decision]
    objects: Unnamed
    dropped: list[str]


@signals.failures("prune")
def run_prune(
    portal: Portal, dry_run: bool, by_itself: bool = False, sparing: str = ""
) -> Pruned:
    """Forgets backups by the rules of retention, and what is too old to undo.

    With `dry_run` it only says what would go. The journal notes whether it ran
    `by_itself`: nobody sat at a terminal, so a timer has begun it. `sparing` is why no
    verified backup goes this time, if that is so. Raises Refused, Busy, DbmanageError.
    """
    talk, options = portal.talk, portal.options
    site, repository = open_to_change(portal)
    op = Operation(site, repository, talk)
    with repository.lock("prune"):
        days = options.undo_days
        decisions = decide(repository.backups(), options.retention, days)
        decisions = spared(decisions, sparing) if sparing else decisions
        forgotten = [each.backup.id for each in decisions if each.forget]
        if dry_run:
            objects = unnamed_objects(repository, set(forgotten))
            with live_lock(site.main):
                dropped = replaced(op, outlived(site, repository, days))
                dropped += drop_kept(op, days, dry=True)
        else:
            with staged(portal, repository, "prune", [*OF_PRUNE, "drop"]):
                talk.standing.made.append(
                    "some of what is to go may be gone: `ckan db prune` goes on"
                )
                objects = prune_backups(repository, decisions, talk.progress).objects
                talk.progress("drop", 0, 0)
                with live_lock(site.main):
                    recover(op)
                    dropped = drop_replaced(op, outlived(site, repository, days))
                    dropped += drop_kept(op, days)
                repository.record(
                    "prune", "done", what="prune", dropped=dropped,
                    forgotten=forgotten, by_itself=by_itself,
                )  # fmt: skip
                talk.standing.made.clear()
    if objects.problem:
        talk.warn(objects.problem)
    return Pruned(decisions, objects, dropped)
