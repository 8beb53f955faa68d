"""The other place while somebody is at work with it, and what was seen of it last."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from ..engine.clock import has_come
from ..engine.errors import DbmanageError, Refused
from ..engine.layout import MANIFEST
from ..engine.offsite.look import Seen, remember, remembered
from ..engine.offsite.restic import NoRepository, Place, Restic, at
from ..engine.offsite.snapshots import Snapshot, grouped, snapshots
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from ..engine.signature import signed_by
from ..engine.site import Site
from ..portal.config import PREFIX, Options
from ..portal.remote import is_set, place
from .context import Portal
from .index import open_to_change

#: of an id, snapshots that are looked at for this site's signature
_LOOKED_AT = 5


@dataclass
class There:
    """The other place while somebody is at work with it."""

    site: Site
    repository: Repository
    restic: Restic
    seen: Seen
    snapshots: list[Snapshot]

    def of(self, id: str) -> list[Snapshot]:
        """The snapshots of a backup."""
        return [each for each in self.snapshots if each.id == id]

    def vouched(self) -> set[str]:
        """The ids of backups that this site has compared there, or signed."""
        return {
            id
            for id, of in grouped(self.snapshots).items()
            if self.seen.has_whole(of)
            or any(_is_own(self.restic, each, self.site) for each in of[:_LOOKED_AT])
        }

    def own(self) -> str:
        """The newest snapshot that was made from here, or all came from; or empty."""
        own = (e.name for e in self.snapshots if self.seen.has_whole([e]))
        return next(own, "")

    def look(self) -> None:
        """Looks what is there, and remembers it."""
        self.snapshots = snapshots(self.restic, self.site.id)
        self.note()

    def note(self, **changes: Any) -> None:
        self.seen = replace(self.seen, **changes).now(self.snapshots)
        with suppress(OSError):  # a repository may be there to be read only
            remember(self.repository, self.seen)

    def refuse_others(self) -> None:
        """Refuses a place that holds another site's backups under our name.

        Many sites have the same id. Who may add to the place may have put some there
        that are nobody's, so one of ours is enough.
        """
        if self.own():
            return
        for each in self.snapshots[:_LOOKED_AT]:
            if _is_own(self.restic, each, self.site):
                return
        if self.snapshots:
            secret = self.site.advise("other secret", ", or ")
            raise Refused(
                f"the backups of {self.site.id!r} at {self.restic.place.shown} are not "
                "signed by this site: they are another's with the same ckan.site_id"
                f"{secret}. Give each site a repository of its own"
            )


def _is_own(restic: Restic, snapshot: Snapshot, site: Site) -> bool:
    try:
        document = orjson.loads(restic.read(snapshot.name, f"{snapshot.id}/{MANIFEST}"))
    except (DbmanageError, ValueError):
        return False
    # another backup of ours under this id would be signed as well
    own = isinstance(document, dict) and document.get("id") == snapshot.id
    return own and signed_by(document, site.secrets, "manifest")


def place_of(portal: Portal) -> Place:
    """Where backups are copied to. Raises Refused where nobody has set that up."""
    found = place(portal.options)
    if found is None:
        raise Refused(
            f"no other place is set: {PREFIX}remote.repository and "
            f"{PREFIX}remote.password_file name one"
        )
    return found


@contextmanager
def reached(
    portal: Portal, site: Site, repository: Repository, make: bool = False
) -> Iterator[There]:
    """The other place, once it has answered; with `make` a new one is made there.

    Raises Refused, ToolFailed.
    """
    where = place_of(portal)
    repository.make()  # on a new machine there is none yet
    with at(where, repository.path / ".restic") as restic:
        seen = remembered(repository)
        try:
            opened = restic.opened()
        except NoRepository as error:
            if not make:
                raise Refused(f"{error}: `ckan db push` makes it") from error
            if seen.repository and seen.place == where.shown:
                raise Refused(
                    f"{error}, and there was one on {seen.time}. Is its disk there? "
                    "If it is lost, make a new one and push again: "
                    f"`{where.by_hand('init')}`"
                ) from error
            portal.talk.warn(_to_write_down(where))
            restic.run("init")
            opened = restic.opened()
        found = There(site, repository, restic, seen.at(where.shown, opened), [])
        found.look()
        yield found


def _to_write_down(where: Place) -> str:
    """What must not be lost with this machine, before the first copy is made."""
    password = f"in {where.password_file}" if where.password_file else "restic's own"
    return (
        f"there is no repository at {where.shown} yet, and one is made now. Write "
        f"down, and keep elsewhere than on this machine: the address {where.shown} "
        f"and the password ({password}). Without the password nobody can read these "
        "backups, ever; who has it can read them, and CKAN's configuration file, which "
        "goes along"
    )


def run_look(portal: Portal) -> Seen:
    """Looks what is at the other place. Raises Refused, ToolFailed."""
    site, repository = open_to_change(portal)
    with reached(portal, site, repository) as there:
        return there.seen


def listed(
    repository: Repository, described: list[dict[str, Any]], every: bool = True
) -> tuple[list[dict[str, Any]], Seen]:
    """Backups with `where` each is, and the last look at the other place.

    `where` is a list of `here` and `there`. With `every` come those that are only
    there, of which no more is known than the id.
    """
    seen = remembered(repository)
    local, there = set(repository.names()), set(seen.there)
    found = [
        each | {"where": ["here", *(["there"] if each["id"] in there else [])]}
        for each in described
    ]
    others = [id for id in seen.there if every and id not in local]
    return found + [only_there(id) for id in others], seen


def summary(options: Options, repository: Repository) -> dict[str, Any] | None:
    """What is known of the other place, None where there is none; nobody is asked.

    `{place, time, count, newest, only}`: as seen at `time`, empty when nobody has
    looked, so many backups are there, `newest` an id, or empty; those in `only` are not
    here.
    """
    seen = remembered(repository)
    if not seen.time and not is_set(options):
        return None
    local = set(repository.names())
    only = [id for id in seen.there if id not in local]
    about = {"place": one_line(seen.place), "time": seen.time}
    newest = next(filter(has_come, seen.there), "")
    return about | {"count": len(seen.there), "newest": newest, "only": only}


def only_there(id: str) -> dict[str, Any]:
    """What is known of a backup that is not here."""
    nothing = dict.fromkeys(
        ("path", "verified", "proved", "created", "seconds", "reason", "note",
         "versions")
    )  # fmt: skip
    return nothing | {
        "id": id, "state": "remote", "future": False, "parts": [], "bytes": 0,
        "sizes": {}, "added": {}, "keep": False, "problems": [], "files": {},
        "where": ["there"],
    }  # fmt: skip
