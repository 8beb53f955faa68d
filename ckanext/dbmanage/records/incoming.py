"""What lines say, before any of them is written: records, twins, parents, tags.

Knows CKAN's records, and nothing of its database.
"""

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from .kinds import Record
from .lines import Line

#: kinds whose records may be parents of others
TREES = ("organizations", "groups")


class Unfit(Exception):
    """A line cannot be imported; says why, for people."""


def understood(content: bytes) -> Record:
    """The record of a line. Raises Unfit."""
    try:
        found = json.loads(content.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise Unfit(f"is not UTF-8: see its byte {error.start + 1}") from None
    except RecursionError:
        raise Unfit("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise Unfit(f"is not JSON: {error.msg}, letter {error.pos + 1}") from None
    except ValueError as error:
        raise Unfit(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Unfit("is JSON, but no object {…}")
    for key in ("id", "name"):
        if not isinstance(found.get(key) or "", str):
            raise Unfit(f"has as its {key} what is no text")
        if not is_storable(found.get(key) or ""):
            raise Unfit(f"has no {key} that a database can hold")
    if not found.get("id") and not found.get("name"):
        raise Unfit("has neither an id nor a name")
    return found


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes a text: without NUL and halves of letters."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def name_in(record: Record) -> str:
    """What a record is called in a message."""
    return record.get("name") or record.get("id") or ""


def each_of(record: Record, key: str) -> Iterator[Record]:
    """The dictionaries of a list in a record; CKAN says what else may be wrong."""
    value = record.get(key)
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


def refuse_odd_ids(record: Record) -> None:
    """Raises Unfit for an id that is no UUID, of a record or of its resources."""
    named = {"id": record}
    for number, each in enumerate(each_of(record, "resources"), 1):
        named[f"resources {number}.id"] = each
    for what, each in named.items():
        try:
            uuid.UUID(each.get("id") or str(uuid.NAMESPACE_URL))
        except (ValueError, AttributeError):
            raise Unfit(f"{what}: Invalid: a new id is a UUID") from None


def references(record: Record) -> list[str]:
    """The groups that a record names: the id of each, or its name without one."""
    found = (each.get("id") or each.get("name") for each in each_of(record, "groups"))
    return [each for each in found if isinstance(each, str)]


#: where a dataset tells of them, and which end it is itself
SIDES = {"relationships_as_subject": "subject", "relationships_as_object": "object"}


class Relationship(NamedTuple):
    """One, by the ids or names of the datasets that it is between."""

    subject: str
    object: str
    type: str
    comment: str


def relationships_of(record: Record) -> list[Relationship]:
    """Those that a dataset tells of; both of its datasets do.

    CKAN itself shows the ids of the two in an inner part.
    """
    found = []
    for key, own in SIDES.items():
        for each in each_of(record, key):
            inner = each.get("__extras")
            told = {**each, **inner} if isinstance(inner, dict) else each
            ends = {
                side: told.get(f"{side}_package_id") or told.get(side)
                for side in SIDES.values()
            }
            ends[own] = record.get("id") or record.get("name")
            parts = [*ends.values(), told.get("type"), told.get("comment") or ""]
            if all(isinstance(part, str) and is_storable(part) for part in parts):
                found.append(Relationship._make(parts))
    return found


@dataclass
class Looked:
    """What the first look at all lines found.

    `total` lines, of which some are `refused`: why, by their number. `tags` are names
    of free ones; `relationships` those between datasets, with the numbers of the lines
    that tell of each.
    """

    total: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    relationships: dict[Relationship, list[int]] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)

    def take(self, number: int, record: Record) -> None:
        """Notes what a record has in common with others."""
        for key in ("id", "name"):
            if value := record.get(key):
                # not the text itself: there may be millions
                first = self._seen.setdefault(hash((key, value)), number)
                if first != number:
                    self.refused[number] = f"has the {key} of line {first}"
        for each in relationships_of(record):
            self.relationships.setdefault(each, []).append(number)
        for tag in each_of(record, "tags"):
            name = tag.get("name")
            if not isinstance(name, str) or tag.get("vocabulary_id"):
                continue
            if is_storable(name):  # else its dataset is refused
                self.tags.add(name)


class InOrder:
    """Lines of records that may be each other's parents, to be given parents first.

    They wait in `spool`, a file.
    """

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool, self._places = spool, dict[int, int]()
        self._numbers, self._parents = dict[str, int](), dict[int, list[str]]()

    def add(self, number: int, content: bytes, record: Record) -> None:
        """Takes a line; of an unfit one the record is empty."""
        self._places[number] = self._spool.tell()
        self._spool.write(content + b"\n")
        for name in filter(None, (record.get("id"), record.get("name"))):
            self._numbers.setdefault(name, number)
        self._parents[number] = references(record)

    def lines(self, refused: dict[int, str]) -> Iterator[Line]:
        """All lines, parents first; of a circle none is fit, which `refused` gets."""
        for number in self._sorted(refused):
            self._spool.seek(self._places[number])
            yield number, self._spool.readline().rstrip(b"\n"), False

    def _sorted(self, refused: dict[int, str]) -> list[int]:
        done = dict[int, None]()
        for start in self._places:
            # up to the first one whose parents are done, without recursion: some
            # portals have deep trees, and others' files deeper ones
            way = dict[int, None]()
            waiting = [start]
            while waiting:
                number = waiting[-1]
                above = [] if number in done else self._above(number)
                way[number] = None
                ahead = [each for each in above if each not in done]
                circle = [each for each in ahead if each in way]
                if circle:
                    self._refuse_circle(circle[0], way, refused)
                ahead = [each for each in ahead if each not in way]
                if ahead:
                    waiting.append(ahead[0])
                    continue
                done[number] = None
                way.pop(number)
                waiting.pop()
        return list(done)

    def _above(self, number: int) -> Iterable[int]:
        found = map(self._numbers.get, self._parents[number])
        return [each for each in found if each is not None]

    def _refuse_circle(
        self, first: int, way: Iterable[int], refused: dict[int, str]
    ) -> None:
        on_it = list(way)[list(way).index(first) :]
        lines = " → ".join(map(str, [*on_it, first][:20]))
        for number in on_it:
            refused.setdefault(
                number, f"is its own parent, by way of the lines {lines}"
            )
