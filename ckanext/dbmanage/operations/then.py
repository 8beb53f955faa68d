"""One thing as it was then: read out of a backup by CKAN itself, on a copy.

Only what is needed is loaded. Nothing live is touched, and nothing that is said here is
the word of the live site: what the backup holds may be older, or another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from ..engine.operation import Operation
from ..engine.postgres.database import Database
from ..engine.restore.source import Source
from .context import Portal

if TYPE_CHECKING:
    from ..records.thing import Thing


@dataclass(frozen=True)
class Then:
    """What a backup holds of what was asked for, while it lies in a copy.

    `things` are in the order in which they can be written: what others need comes
    first. `tables` are the DataStore tables that are loaded, by the id of their
    resource, each with its rows, types, indexes, triggers, comments (the data
    dictionary), views (aliases) and rights, in the schema public of
    `copies["datastore"]`, as they were; `uploads` are those that the backup holds, by
    path, as its list tells of them: `{size, mtime, sha256, …}`; `lacking` what the
    things name and the backup does not hold, a sentence for each.
    """

    source: Source
    moment: datetime | None
    things: list[Thing]
    tables: list[str]
    uploads: Mapping[str, dict[str, Any]]
    lacking: list[str]
    copies: Mapping[str, Database]

    def open_upload(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """The content of one of the `uploads`; it raises Damaged at its end."""
        raise NotImplementedError


@contextmanager
def then(
    portal: Portal,
    op: Operation,
    source: Source,
    kind: str,
    names: tuple[str, ...],
    with_datasets: bool = False,
) -> Iterator[Then]:
    """What a source that was opened (`open_source`) holds of things of a kind.

    `kind` is `dataset`, `organization`, `group`, `user`, `table` or `upload`; `names`
    are names or ids, for a table the id of its resource, for an upload its path in the
    backup. The repository's lock is not needed. Raises Refused for a name that the
    backup does not hold, Damaged, ToolFailed.
    """
    raise NotImplementedError
    yield
