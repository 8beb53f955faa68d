"""How records are written, and what became of them. Starts without CKAN."""

from dataclasses import dataclass, field
from enum import Enum

#: number, content, and why it is refused, empty where nothing is known against it
Given = tuple[int, bytes, str]


class There(Enum):
    """What becomes of a line whose record is there already."""

    REFUSED = "refused"
    CHANGED = "changed"
    LEFT = "left"
    RESUMED = "resumed"  # left where id and name are the same, else refused


@dataclass(frozen=True)
class How:
    """How records are imported; `dry` writes nothing.

    `odd_ids` lets new ones have ids that are no UUIDs, as older CKANs did.
    """

    there: There = There.REFUSED
    dry: bool = False
    odd_ids: bool = False


@dataclass
class Written:
    """What became of lines; of those `refused` the number, the name, and why.

    `sysadmins` are names; `relationships` how many were made; `ids` are those of
    datasets to be indexed, and `indexed` how many were sent to the index.
    """

    created: int = 0
    changed: int = 0
    left: int = 0
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    sysadmins: list[str] = field(default_factory=list)
    relationships: int = 0
    ids: list[str] = field(default_factory=list)
    indexed: int = 0

    def add(self, other: "Written") -> None:
        """Counts these too; the refused are told one by one, and not held."""
        self.created += other.created
        self.changed += other.changed
        self.left += other.left
        self.sysadmins += other.sysadmins
        self.relationships += other.relationships
        self.ids += other.ids
        self.indexed += other.indexed
