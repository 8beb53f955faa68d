"""The history of one record: in which backups it stands, and as what.

Asks the index of each backup for a name, then for the ids that had it: a name that was
given to another record later leads to both. What one backup does not tell is said, and
ends nothing. Memory is flat: of an index one frame is looked at, and the places of the
frames of one kind are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .. import words
from ..errors import Damaged, Denied, Refused
from ..layout import MANIFEST, RECORDS
from ..repository.backup import Backup
from . import records
from .manifest import well_formed
from .records import Held, Line, Records

#: records that one name may lead to
MOST = 20
#: what tells that a record is not as it was
_TOLD = ("name", "title", "state", "owner", "modified", "hash")


@dataclass
class Run:
    """Backups one after the other in which a record is the same, or is not there.

    `first` and `last` are the ids of the backups, `count` how many they are; `line` is
    None where it is not there. Some between may not be known.
    """

    first: str
    last: str
    count: int
    line: Line | None


@dataclass
class Thing:
    """A record by its id, and its runs, the oldest first."""

    id: str
    runs: list[Run] = field(default_factory=list)


@dataclass
class Past:
    """What the backups tell of those that were asked for.

    `count` backups were looked at; `unknown` says of which nobody knows why; `unsigned`
    are those that this site has not signed, `damaged` those of which the last look at
    all bytes said so, `ignored` those with lines of kinds that nobody knows here.
    """

    kind: str
    things: list[Thing]
    count: int
    unknown: dict[str, str]
    unsigned: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def history(
    backups: Iterable[Backup],
    kind: str,
    asked: str,
    ids: Iterable[str] = (),
    kinds: tuple[str, ...] = (),
    part: str = "",
) -> Past:
    """The history of the records of a kind that are, or were, called so.

    `backups` the oldest first; `asked` is a name or an id, `ids` are further ones;
    `kinds` are all that there are, `part` is what holds this one. Raises Refused where
    a name leads to too many.
    """
    past = Past(kind, [], 0, {})
    found, shared = dict.fromkeys(ids), dict[str, _Looked]()
    looked: list[tuple[Backup, _Looked]] = []
    for backup in backups:
        past.count += 1
        with _told(past, backup):
            one = _look(backup, kind, asked, part, shared)
            looked.append((backup, one))
            if not backup.signed:
                past.unsigned.append(backup.id)
            elif (backup.state().get("verified") or {}).get("problems"):
                past.damaged.append(backup.id)
            if not one.kinds <= {kind, *kinds}:
                past.ignored.append(backup.id)
            found |= dict.fromkeys(one.ids)
        if len(found) > MOST:
            break
    if len(found) > MOST:
        raise Refused(f"more than {MOST} are called {asked!r}: ask for one by its id")
    past.things = [_followed(id, looked, past) for id in found]
    return past


@dataclass
class _Looked:
    """The index of a backup: where the lines of a kind are, and the ids of a name.

    `kinds` are all that it has; `lines` those that were looked up, by their ids.
    """

    index: Records
    held: Held
    kinds: set[str]
    ids: list[str] = field(default_factory=list)
    lines: dict[str, Line | None] = field(default_factory=dict)

    def line(self, id: str) -> Line | None:
        """The line of an id. Raises Damaged, OSError."""
        if id not in self.lines:
            found = self.index.find(self.held.with_id(id), "id", id)
            self.lines[id] = next(found, None)
        return self.lines[id]


def _look(
    backup: Backup, kind: str, asked: str, part: str, shared: dict[str, _Looked]
) -> _Looked:
    """Raises Damaged, Denied, OSError, and Refused where it tells nothing."""
    backup.refuse_closed()
    if not backup.readable or not well_formed(backup.manifest):
        raise Damaged(f"backup {backup.id}", [f"{MANIFEST}: is not a manifest"])
    index = records.of(backup)
    databases = backup.manifest["databases"]
    only = f"it holds only {words.parts(backup.parts)}"
    if index is None:
        raise Refused("it has no index of records" if databases else only)
    if backup.signed and (same := shared.get(index.sha256)):
        return same
    table = index.table()
    if kind not in table:
        # one that could not be read was left out
        raise Refused("it has no index of records" if part in databases else only)
    found = _Looked(index, table[kind], {*table})
    for line in index.find(index.with_name(found.held, asked), "name", asked):
        found.ids.append(line["id"])
        if len(found.ids) > MOST:
            break
        found.lines[line["id"]] = line
    if not found.ids and found.line(asked):
        found.ids.append(asked)
    return shared.setdefault(index.sha256, found) if backup.signed else found


def _followed(id: str, looked: list[tuple[Backup, _Looked]], past: Past) -> Thing:
    thing = Thing(id)
    for backup, one in looked:
        with _told(past, backup):
            line = one.line(id)
            last = thing.runs[-1] if thing.runs else None
            if last and _same(last.line, line):
                last.last, last.count = backup.id, last.count + 1
            else:
                thing.runs.append(Run(backup.id, backup.id, 1, line))
    return thing


def _same(one: Line | None, other: Line | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(one[name] == other[name] for name in _TOLD)


@contextmanager
def _told(past: Past, backup: Backup) -> Iterator[None]:
    """Notes why a backup tells nothing."""
    try:
        yield
    except Damaged as error:
        past.unknown[backup.id] = f"it is damaged: {error.problems[0]}"
    except Denied as error:
        past.unknown[backup.id] = error.why
    except Refused as error:
        past.unknown[backup.id] = str(error)
    except OSError as error:
        past.unknown[backup.id] = f"{RECORDS}: {error.strerror}"
