"""Export: the records of one moment, written and checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..engine.report import Progress
from ..portal.config import Options
from .jsonl import checksum
from .kinds import EXPORTED, NO_USERS, Wanted
from .processes import Readers
from .search_index import batched
from .show import Shows

_BATCH = 200


@dataclass
class Exported:
    """What was written: rows, and how many of them came from the search index.

    `hidden` are those that a visitor may not read by CKAN's rules of access, `failed`
    and `differing` sentences that name a record; `index_failed` says why the index was
    not asked any more.
    """

    rows: int = 0
    from_index: int = 0
    hidden: int = 0
    bytes: int = 0
    failed: list[str] = field(default_factory=list)
    checked: int = 0
    differing: list[str] = field(default_factory=list)
    index_failed: str = ""


class Export(Readers):
    """Exports of one moment, shown by several processes."""

    def __init__(self, app: Any, options: Options, wanted: Wanted, jobs: int) -> None:
        super().__init__(app, self._prepare_shows, jobs)
        self._options, self._wanted = options, wanted

    def __enter__(self) -> Export:
        from ckan.logic import get_action

        # it may have to be made, and the snapshot can only be read
        site_user = get_action("get_site_user")({"ignore_auth": True}, {})
        self._sysadmin = site_user["name"]
        super().__enter__()
        return self

    def _prepare_shows(self) -> Callable[[Any], Any]:
        """In a process: what calls, for a kind, a method of its `Shows`."""
        shows: dict[str, Shows] = {}

        def work(asked: tuple[str, str, Any]) -> Any:
            kind, method, value = asked
            if kind not in shows:
                shows[kind] = Shows(kind, self._options, self._wanted, self._sysadmin)
            return getattr(shows[kind], method)(value)

        return work

    def write(
        self,
        kind: str,
        write: Callable[[bytes], Any],
        check: int = 0,
        progress: Progress = lambda *_: None,
    ) -> Exported:
        """Hands the lines of a kind to `write`, some at a time, in order of name.

        Shows `check` random ones again by the plain action. Raises DbmanageError when
        a process ends before its time.
        """
        done, exported = Exported(), EXPORTED[kind]
        if exported.options == NO_USERS:
            # by one for all: they may be others a moment later
            counts, done.index_failed = self.ask((kind, "counts", None))
            self.tell((kind, "know", counts))
        total, batches = self.listed(
            exported.select(self._wanted.everything),
            "name",
            _BATCH,
            site=self._options.site_id,
        )
        sample = _Sample(check)
        progress(kind, 0, total)

        def take(asked: tuple[str, str, Any], piece: tuple[bytes, list[int]]) -> None:
            lines, shown = piece
            write(lines)
            done.bytes += len(lines)
            if check:
                found = (asked[2][number] for number in shown)
                for (id, name, _), line in zip(found, lines.split(b"\n"), strict=False):
                    sample.add(id, name, line)

        asked = ((kind, "lines", batch) for batch in batches)
        for _, about in self.each(asked, take):
            done.rows += about["rows"]
            done.from_index += about["from_index"]
            done.hidden += about["hidden"]
            done.failed += about["failed"]
            done.index_failed = done.index_failed or about["index_failed"]
            progress(kind, done.rows + done.hidden + len(done.failed), total)
        for id, name, sum in sample.chosen:
            progress("check", done.checked, len(sample.chosen))
            done.checked += 1
            if self.ask((kind, "again", id)) != sum:
                done.differing.append(name)
        return done

    def refused(self, kind: str, ids: Iterable[str]) -> int:
        """How many of these ids are of no record that a visitor may read."""
        asked = ((kind, "refused", batch) for batch in batched(ids, _BATCH))
        return sum(found for _, found in self.each(asked))


class _Sample:
    """Some of many records, each as likely as any other (reservoir sampling).

    `chosen` are their ids, their names, and the sums of their lines.
    """

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self.chosen: list[tuple[str, str, bytes]] = []

    def add(self, id: str, name: str, line: bytes) -> None:
        self._seen += 1
        place = len(self.chosen)
        if place == self._size:
            place = random.randrange(self._seen)  # noqa: S311
        if place < self._size:
            self.chosen[place : place + 1] = [(id, name, checksum(line))]
