"""A backup is previewed and restored, and that is undone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..engine.report import Listener
from ..portal.config import Options
from .backup import incomplete
from .context import Portal, tidy
from .index import open_to_change, owing_an_index, reindex

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup
    from ..engine.repository.repository import Repository
    from ..engine.restore.restore import Restored
    from ..engine.restore.source import Source
    from ..engine.site import Site


#: asked before anything is touched; raises what ends the command
Agree = Callable[["Site", "Repository", "Source | None"], None]


def preview(
    portal: Portal, name: str, only: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """What a restore would lose, gain and change, by kind."""
    from ..engine.restore.preflight import (
        changed_owners,
        differences,
        links_lost,
        refuse_strange_part,
    )
    from ..engine.restore.source import open_source

    site, repository = open_to_change(portal, heads=True)
    with repository.lock("preview"):
        source = open_source(
            site, repository, name, parts=only, trust=True,
            progress=portal.talk.progress,
        )  # fmt: skip
        refuse_strange_part(site, source)
        for sentence in differences(site, source):
            portal.talk.warn(sentence)
        for sentence in changed_owners(site, source):
            portal.talk.warn(sentence)
        for sentence in links_lost(site, repository, source):
            portal.talk.warn(sentence)
        rows = previewed(site, repository, source)
    portal.talk.end()
    return rows


def previewed(
    site: Site, repository: Repository, source: Source
) -> list[dict[str, Any]]:
    """The same, of a source that is open already."""
    from ..engine.restore import preview as engine
    from ..records.kinds import KINDS

    return engine.preview(site, repository, source, KINDS)


def restore(
    portal: Portal,
    name: str,
    only: tuple[str, ...] = (),
    *,
    trust: bool = False,
    no_backup: bool = False,
    agree: Agree | None = None,
) -> Restored:
    """Restores a backup or a file, indexes, and backs up what was replaced.

    Without `agree` there is nobody to ask, and what needs an answer is refused.
    """
    from ..engine.errors import Refused
    from ..engine.restore.preflight import (
        changed_owners,
        differences,
        links_lost,
        preflight,
    )
    from ..engine.restore.restore import restore_backup
    from ..engine.restore.source import open_source
    from ..portal import migrate

    talk = portal.talk
    site, repository = open_to_change(portal, heads=True)
    with repository.lock("restore"):
        tidy(site, repository, talk)
        source = open_source(
            site, repository, name, parts=only, trust=trust, progress=talk.progress
        )
        for sentence in differences(site, source):
            talk.warn(sentence)
        preflight(site, repository, source)
        changed = list(changed_owners(site, source))
        if changed and agree is None:
            raise Refused(
                f"{'; '.join(changed)}. Nobody can be asked here: restore it on the "
                "command line"
            )
        for sentence in changed:
            talk.warn(sentence)
        for sentence in links_lost(site, repository, source):
            talk.warn(sentence)
        if agree is not None:
            agree(site, repository, source)
        let_go()
        with owing_an_index(site, repository, "database" in source.archives):
            restored = restore_backup(
                site,
                repository,
                source,
                prepare=migrate.prepare(portal.options),
                progress=talk.progress,
                warn=talk.warn,
            )
        switched(portal, repository, restored)
        if restored.replaced.parts and not no_backup:
            _back_up_replaced(site, repository, restored, talk, source.name)
    return restored


def undo(portal: Portal, agree: Agree = lambda *_: None) -> Restored:
    """Switches back what the last restore replaced."""
    from ..engine.restore.history import undoable
    from ..engine.restore.restore import undo_switch

    talk = portal.talk
    site, repository = open_to_change(portal)
    with repository.lock("undo"):
        # what is half-way may be turned back: only then is it known which is the last
        tidy(site, repository, talk)
        undoable(site, repository)
        agree(site, repository, None)
        let_go()
        with owing_an_index(site, repository, True):
            undone = undo_switch(
                site, repository, progress=talk.progress, warn=talk.warn
            )
        switched(portal, repository, undone)
    return undone


def unfit(options: Options, found: Backup) -> str:
    """Why a backup cannot be restored here, empty when nothing is known against it."""
    from ..engine.errors import Refused
    from ..engine.restore.preflight import outdated
    from ..portal.plan import installed_migrations
    from ..portal.site import build_site

    if not found.readable:
        return "its manifest cannot be read: it is damaged"
    if not found.signed:
        return (
            "it is not signed by this site: restore it on the command line, with "
            "`--trust` if you do trust its SQL"
        )
    problems = (found.state().get("verified") or {}).get("problems")
    if problems:
        return f"it is damaged: {problems[0]}"
    known = installed_migrations(options.plugins)
    try:
        site = build_site(options, known)
        for part, about in found.manifest["databases"].items():
            if part not in site.databases:
                raise Refused("it holds the DataStore, this site has none")
            if part == "database":
                outdated(found.id, about["migrations"], site)
    except Refused as error:
        return str(error)
    return ""


def switched(portal: Portal, repository: Repository, restored: Restored) -> None:
    let_go()
    portal.talk.end()
    for table, rows in sorted(restored.written.items()):
        portal.talk.warn(
            f"{rows} rows of {table} were written while the switch was prepared: they "
            "are in what was replaced, not in what is live"
        )
    if repository.marked("reindex"):
        reindex(portal, repository)


def let_go() -> None:
    """Gives this process's own connections to the databases back."""
    from ckan import model

    model.Session.remove()
    if model.meta.engine is not None:
        model.meta.engine.dispose()
    backend: Any = sys.modules.get("ckanext.datastore.backend.postgres")
    for engine in getattr(backend, "_engines", {}).values():
        engine.dispose()


def _back_up_replaced(
    site: Site, repository: Repository, restored: Restored, talk: Listener, name: str
) -> None:
    from ..engine.backup.take import take
    from ..engine.errors import DbmanageError

    try:
        taken = take(
            site,
            repository,
            replaced=restored.replaced,
            reason=f"before restore of {name}",
            progress=talk.progress,
        )
        talk.say(f"the replaced state is backup {taken.id}")
        if why := incomplete(taken):
            talk.warn(why)
    except DbmanageError as error:
        talk.warn(f"what was replaced is kept, but was not backed up: {error}")
