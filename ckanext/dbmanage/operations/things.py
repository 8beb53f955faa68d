"""One thing of a backup comes back, while the rest of the portal stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from ..engine.postgres.database import Database
from .context import Portal

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.thing import Thing


@dataclass(frozen=True)
class Selection:
    """What is to come back: things of one kind, by their names or ids.

    `kind` is dataset, organization, group, user, table (names are ids of resources) or
    upload (names are paths, as in a backup's list). `as_name` is another name for it.
    """

    kind: str
    names: tuple[str, ...]
    with_datasets: bool = False
    as_name: str = ""


class Then(Protocol):
    """What there was of a selection, as it was read out of a backup.

    `things` in the order in which they are to be written; `source` is what messages
    call the backup. `store` is a database whose schema `public` has the DataStore
    tables of the things, and their aliases: a copy, which whoever writes them may
    change; None without tables. `uploads` are facts by name, as in `files.jsonl`, of
    those that the backup holds.
    """

    source: str
    things: list[Thing]
    store: Database | None
    uploads: Mapping[str, Mapping[str, Any]]

    def open_upload(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """The content of one of `uploads`. Raises Damaged, OSError."""
        ...


@dataclass(frozen=True)
class Brought:
    """What was done: (kind, id, name, "created" | "changed") of each thing.

    `what` is "thing", or "undo" or "redo" of one.
    """

    operation: str
    source: str
    what: str
    things: list[tuple[str, str, str, str]]


def bring_back(
    portal: Portal, id: str, selection: Selection, *, trust: bool = False
) -> Brought:
    """Brings things of a backup back, all or nothing; `undo` takes that back.

    Raises Refused, Busy, Damaged, ConnectionFailed, ToolFailed.
    """
    raise NotImplementedError


def undo_thing(portal: Portal, operation: str) -> Brought:
    """Takes back what `operation` brought, the last of all. Raises as `bring_back`."""
    raise NotImplementedError
