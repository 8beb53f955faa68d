"""Backups are kept and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import Portal
from .index import open_to_change

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup


def keep(portal: Portal, name: str, kept: bool) -> Backup:
    """Holds a backup whatever retention says, or gives it back."""
    _, repository = open_to_change(portal)
    with repository.lock("keep"):
        found = repository.find(name)
        found.remember(keep=kept)
        repository.record(found.id, "done", what="keep" if kept else "release")
    return found


def delete(portal: Portal, name: str) -> Backup:
    """Forgets one backup, and what only it named. Raises Refused for one that is held,
    and for the newest one that is proven (or, without any, verified)."""
    from ..engine.errors import Refused
    from ..engine.repository import prune, retention

    _, repository = open_to_change(portal)
    with repository.lock("delete"):
        found, there = repository.find(name), repository.backups()
        described = [each.describe() for each in there]
        about = next(each for each in described if each["id"] == found.id)
        if why := must_stay(about, described):
            raise Refused(f"backup {found.id} stays: {why}")
        decisions = [
            retention.Decision(each, each.id == found.id, "deleted by hand")
            for each in there
        ]
        prune.prune_backups(repository, decisions, portal.talk.progress)
        repository.record(found.id, "done", what="delete")
    return found


def must_stay(about: dict[str, Any], described: list[dict[str, Any]]) -> str:
    """Why a backup may not be deleted by hand, empty when it may.

    `described` are all of them, the newest first, as `Backup.describe` tells.
    """
    if about["keep"]:
        return "it is held; release it first"
    for state in ("proven", "verified"):
        newest = next((each for each in described if each["state"] == state), None)
        if newest is not None:
            own = newest["id"] == about["id"]
            return f"it is the newest {state} one" if own else ""
    return ""
