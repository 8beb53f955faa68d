"""Backups are held, released, deleted, and pruned by the rules of retention."""

from ..engine.errors import Refused
from ..engine.repository import prune, retention
from ..engine.repository.backup import Backup
from .allowed import having, must_stay, wanted
from .context import Portal
from .index import open_to_change


def keep(portal: Portal, name: str, kept: bool) -> Backup:
    """Holds a backup whatever retention says, or gives it back."""
    _, repository = open_to_change(portal)
    with repository.lock("keep"):
        found = repository.find(name)
        found.remember(keep=kept)
        repository.record(found.id, "done", what="keep" if kept else "release")
    return found


def delete(portal: Portal, name: str) -> Backup:
    """Forgets one backup, and what only it named. Raises Refused for one that
    `must_stay`."""
    site, repository = open_to_change(portal)
    with repository.lock("delete"):
        found, there = repository.find(name), repository.backups()
        described = [each.describe() for each in there]
        about = next(each for each in described if each["id"] == found.id)
        whole = having(described, wanted(site, portal.options))
        if why := must_stay(about, described, whole):
            raise Refused(f"backup {found.id} stays: {why}")
        decisions = [
            retention.Decision(each, each.id == found.id, "deleted by hand")
            for each in there
        ]
        prune.prune_backups(repository, decisions, portal.talk.progress)
        repository.record(found.id, "done", what="delete")
    return found
