"""What the last look at the other place saw: pages and lists wait for no network.

It stands in the repository, signed, as `.remote.json`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from ..clock import is_stamp, stamp
from ..repository.repository import Repository
from .snapshots import Snapshot

FILE = "remote"


@dataclass(frozen=True)
class Seen:
    """What was seen at `time`, a stamp, empty when nobody has looked.

    `there` are the backups' ids, the newest first; `whole` names by id the snapshot
    that was compared with the backup here; `bad` are snapshots that are not whole, and
    that the place did not let go; `repository` is the id of restic's, at the place
    `place`; `read` counts the parts of it that were read again.
    """

    time: str = ""
    place: str = ""
    repository: str = ""
    there: Sequence[str] = ()
    whole: dict[str, str] = field(default_factory=dict)
    bad: Sequence[str] = ()
    read: int = 0

    def at(self, place: str, repository: str) -> "Seen":
        """The same of a place; nothing of it when this was another one."""
        if repository == self.repository:
            return replace(self, place=place)
        return Seen(self.time, place, repository)

    def now(self, there: Sequence[Snapshot]) -> "Seen":
        """What is seen now."""
        of = {each.name: each.id for each in there if each.name not in self.bad}
        whole = {id: name for id, name in self.whole.items() if of.get(name) == id}
        bad = [each.name for each in there if each.name in self.bad]
        found = list(dict.fromkeys(of.values()))
        return replace(self, time=stamp(), there=found, whole=whole, bad=bad)

    def has_whole(self, of: Sequence[Snapshot]) -> bool:
        """Whether one of some snapshots was compared with the backup here."""
        return any(self.whole.get(each.id) == each.name for each in of)


def remembered(repository: Repository) -> Seen:
    """What the last look saw. It raises nothing."""
    document = repository.recall(FILE)
    found = {key: document[key] for key in asdict(Seen()) if key in document}
    kinds = {key: type(value) for key, value in asdict(Seen()).items()}
    for key, value in list(found.items()):
        if isinstance(value, list):
            found[key] = [each for each in value if isinstance(each, str)]
        elif not isinstance(value, kinds[key]):
            del found[key]
    seen = Seen(**found)
    return seen if is_stamp(seen.time) else Seen()


def remember(repository: Repository, seen: Seen) -> None:
    """Notes it. Raises OSError."""
    repository.memorize(FILE, asdict(seen))
