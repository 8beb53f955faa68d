"""Backups are held, released, forgotten, and pruned by the rules of retention."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.errors import Refused
from ..engine.report import name_of
from ..engine.repository import prune, retention
from ..engine.repository.backup import Backup
from ..engine.repository.prune import Pruned
from ..engine.repository.repository import Repository
from ..engine.site import Site
from .allowed import having, must_stay, newest_good, wanted
from .context import Portal
from .index import open_to_change
from .stages import OF_PRUNE, staged


@dataclass(frozen=True)
class Doomed:
    """A backup that is to be forgotten: what `describe` says, and `newest`, why that
    needs words of its own, or empty."""

    about: dict[str, Any]
    newest: str


def keep(portal: Portal, name: str, kept: bool) -> Backup:
    """Holds a backup whatever retention says, or gives it back."""
    _, repository = open_to_change(portal)
    with repository.lock("keep"):
        found = repository.find(name)
        found.refuse_closed()
        found.remember(keep=kept)
        repository.record(found.id, "done", what="keep" if kept else "release")
    return found


def look_at_forget(portal: Portal, ids: Sequence[str]) -> list[Doomed]:
    """What there is to confirm before backups are forgotten.

    Raises Refused for one that `must_stay`, or is not named by its id.
    """
    site, repository = open_to_change(portal)
    return _doomed(portal, site, repository, ids)


def forget(portal: Portal, ids: Sequence[str], newest: Collection[str] = ()) -> Pruned:
    """Forgets backups and what only they named: all of them, or none.

    `newest` are those that go even as the `newest_good`, for somebody has said so of
    them. Raises Refused for one that `must_stay`.
    """
    site, repository = open_to_change(portal)
    with repository.lock("forget"):
        doomed = _doomed(portal, site, repository, ids)
        for each in doomed:
            if each.newest and each.about["id"] not in newest:
                raise Refused(
                    f"backup {each.about['id']} stays: {each.newest}, and nobody has "
                    f"said that this one goes: `{name_of('command')} forget --newest "
                    f"{each.about['id']}`"
                )
        gone = {each.about["id"] for each in doomed}
        decisions = [
            retention.Decision(each, each.id in gone, "deleted by hand")
            for each in repository.backups()
        ]
        with staged(portal, repository, "delete", OF_PRUNE):
            portal.talk.standing.made[:] = [
                "some of these backups may be gone: `ckan db backups` lists the others"
            ]
            pruned = prune.prune_backups(repository, decisions, portal.talk.progress)
            for name in pruned.forgotten:
                repository.record(name, "done", what="delete")
            portal.talk.standing.made.clear()
    if pruned.objects.problem:
        portal.talk.warn(pruned.objects.problem)
    return pruned


def _doomed(
    portal: Portal, site: Site, repository: Repository, ids: Sequence[str]
) -> list[Doomed]:
    found = {name: repository.find(name).id for name in dict.fromkeys(ids)}
    for name, id in found.items():
        if name != id:  # it is another one after each call
            raise Refused(f"name the backup by its id, {id}")
    described = [each.describe() for each in repository.backups()]
    whole = having(described, wanted(site, portal.options))
    doomed = [each for each in described if each["id"] in found]
    for about in doomed:
        if why := must_stay(about):
            raise Refused(f"backup {about['id']} stays: {why}")
    return [Doomed(about, newest_good(about, described, whole)) for about in doomed]
