"""What `doctor --fix` does."""

from dataclasses import replace

from ..engine.restore.history import half_way
from ..operations.context import Portal
from ..operations.index import index_changed, is_behind, open_to_change
from ..operations.locked import settle
from ..portal import datastore


def mend(portal: Portal, preview: bool) -> None:
    """Repairs what can be repaired without losing anything, and says what.

    With `preview` it only says.
    """
    talk = portal.talk
    # opening brings an index up to date that is owed
    site, repository = open_to_change(replace(portal, app=None) if preview else portal)

    def to_do(sentence: str) -> bool:
        talk.say(f"{'would ' if preview else ''}{sentence}")
        return not preview

    with repository.lock("doctor"):
        if not preview:
            talk.standing.done = "Some of it may be mended: `ckan db doctor` tells"
            settle(site, repository, talk)
        elif half_way(site, repository):
            to_do("finish or turn back the switch that is half-way")
        mode = repository.path.stat().st_mode & 0o777
        if mode & 0o077 and to_do(f"close {repository.path} to others"):
            repository.path.chmod(0o700)
        store, main = site.databases.get("datastore"), site.databases["database"]
        if (
            store is not None
            and list(datastore.unset_permissions(store, main))
            and to_do("set the DataStore's permissions")
        ):
            datastore.set_permissions(store, main, talk.warn)
            if left := list(datastore.unset_permissions(store, main)):
                talk.warn(
                    "CKAN's role may not set all of the DataStore's permissions "
                    f"({'; '.join(left)}). As PostgreSQL's superuser run what "
                    "`ckan datastore set-permissions` prints"
                )
        owed = repository.marked("reindex") or is_behind(portal)
        if owed and to_do("bring the search index up to date"):
            index_changed(portal, repository)
