"""Export of datasets, organizations, groups and users as JSON Lines.

A line is what an anonymous visitor gets from the kind's action, in the bytes that
ckanapi writes. Processes show batches side by side, all of one snapshot of the
database. Knows CKAN, not the web.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import random
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson
import simplejson

from ..engine.report import Progress
from .processes import Readers, brief


@dataclass(frozen=True)
class Exportable:
    """A kind of records that can be exported: its action, and which there are."""

    action: str
    listed: str
    everything: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _groups(flag: str) -> tuple[str, str]:
    every = f"SELECT id, name, '' FROM \"group\" WHERE is_organization IS {flag}"  # noqa: S608
    return f"{every} AND state = 'active' ORDER BY name", f"{every} ORDER BY name"


_PACKAGE = "SELECT id, name, metadata_modified FROM package"
_USER = "SELECT id, name, '' FROM \"user\" WHERE name <> :site"
#: what ckanapi asks for
_NO_USERS = {"include_datasets": False, "include_users": False}
EXPORTED = {
    "datasets": Exportable(
        "package_show",
        f"{_PACKAGE} WHERE state = 'active' AND NOT private ORDER BY name",
        f"{_PACKAGE} ORDER BY name",
    ),
    "organizations": Exportable("organization_show", *_groups("TRUE"), _NO_USERS),
    "groups": Exportable("group_show", *_groups("FALSE"), _NO_USERS),
    "users": Exportable(
        "user_show",
        f"{_USER} AND state <> 'deleted' ORDER BY name",
        f"{_USER} ORDER BY name",
        {"include_datasets": False},
    ),
}
#: what no file of users holds without being asked for
SECRETS = ("apikey", "password_hash", "password", "reset_key", "plugin_extras")
_BATCH = 200
#: bytes of lines that a process hands over at once; one line may be more
_PIECE = 1 << 20
# a number with an exponent at its end: orjson prints it otherwise than Python
_EXPONENT = re.compile(rb"e[-+]?[0-9]+[,\]}]")


@dataclass(frozen=True)
class Wanted:
    """How records are shown.

    `everything` is what a sysadmin sees, private, draft and deleted ones too;
    otherwise what an anonymous visitor sees (of users: what `user_list` lists).
    """

    everything: bool = False
    fresh: bool = False
    secrets: bool = False


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

    def __init__(self, app: Any, wanted: Wanted, jobs: int) -> None:
        super().__init__(app, self._shown, jobs)
        self._wanted = wanted

    def __enter__(self) -> Export:
        from ckan.logic import get_action

        # it may have to be made, and the snapshot can only be read
        site_user = get_action("get_site_user")({"ignore_auth": True}, {})
        self._sysadmin = site_user["name"]
        super().__enter__()
        return self

    def _shown(self) -> Callable[[Any], Any]:
        """In a process: does what it is asked of a kind, with a method of `_Shows`."""
        shows: dict[str, _Shows] = {}

        def work(asked: tuple[str, str, Any]) -> Any:
            kind, what, value = asked
            if kind not in shows:
                shows[kind] = _Shows(kind, self._wanted, self._sysadmin)
            return getattr(shows[kind], what)(value)

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
        done = Exported()
        if EXPORTED[kind].options == _NO_USERS:
            # by one for all: they may be others a moment later
            counts, done.index_failed = self.ask((kind, "counts", None))
            self.tell((kind, "know", counts))
        total, rows = self._listed(kind)
        sample = _Sample(check)

        def take(asked: tuple[str, str, Any], piece: tuple[bytes, list[int]]) -> None:
            lines, shown = piece
            write(lines)
            done.bytes += len(lines)
            if check:
                found = (asked[2][number] for number in shown)
                for (id, name, _), line in zip(found, lines.split(b"\n"), strict=False):
                    sample.add(id, name, line)

        batches = iter(lambda: [_told(row) for row in rows.fetchmany(_BATCH)], [])
        asked = ((kind, "lines", batch) for batch in batches)
        for _, about in self.each(asked, take):
            done.rows += about["rows"]
            done.from_index += about["from_index"]
            done.hidden += about["hidden"]
            done.failed += about["failed"]
            done.index_failed = done.index_failed or about["index_failed"]
            progress(kind, done.rows + done.hidden + len(done.failed), total)
        for id, name, sum in sample.chosen:
            done.checked += 1
            if self.ask((kind, "again", id)) != sum:
                done.differing.append(name)
        return done

    def _listed(self, kind: str) -> tuple[int, Any]:
        """How many records of a kind there are to be shown, and their rows."""
        from ckan.common import config

        wanted = EXPORTED[kind]
        statement = wanted.everything if self._wanted.everything else wanted.listed
        site = {"site": config.get("ckan.site_id")} if ":site" in statement else {}
        count = statement.rpartition(" ORDER BY ")[0]
        total = self.rows(f"SELECT count(*) FROM ({count}) found", **site).scalar()  # noqa: S608
        return total, self.rows(statement, **site)

    def refused(self, kind: str, ids: Iterable[str]) -> int:
        """How many of these ids are of no record that a visitor may read."""
        left = iter(ids)
        batches = iter(lambda: list(islice(left, _BATCH)), [])
        asked = ((kind, "refused", batch) for batch in batches)
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
            self.chosen[place : place + 1] = [(id, name, _sum(line))]


def _told(row: Any) -> tuple[str, str, str]:
    id, name, modified = row
    return id, name, modified.isoformat() if modified else ""


# -- in a process of its own


class _Shows:
    """Shows the records of one kind."""

    def __init__(self, kind: str, wanted: Wanted, sysadmin: str) -> None:
        from . import datasets

        self._kind, self._wanted = EXPORTED[kind], wanted
        self._user = sysadmin if wanted.everything or kind == "users" else ""
        self._counts: dict[str, Any] = {}
        self._bulk: Any = None
        if kind == "datasets":
            self._bulk = datasets.Datasets(lambda: {"user": self._user}, wanted.fresh)
        elif kind == "users":
            self._bulk = datasets.Users(self._plain, sysadmin)

    def counts(self, _: None) -> tuple[dict[str, Any], str]:
        """How many datasets each group has, and why the index could not be asked."""
        from . import datasets

        return datasets.dataset_counts(self._user, self._wanted.fresh)

    def know(self, counts: dict[str, Any]) -> None:
        """From now on groups are shown with these counts."""
        self._counts = counts

    def lines(
        self, batch: Sequence[tuple[str, str, str]]
    ) -> Generator[tuple[bytes, list[int]], None, dict[str, Any]]:
        """Yields lines of (id, name, time) records, with the numbers of these.

        Returns what is to be said of the batch.
        """
        from ckan import model

        lines: list[bytes] = []
        shown: list[int] = []
        held = 0
        about: dict[str, Any] = {"rows": 0, "from_index": 0, "hidden": 0, "failed": []}
        with self._ways(batch) as ways:
            for number, ((id, name, _), (from_it, show)) in enumerate(
                zip(batch, ways, strict=True)
            ):
                try:
                    line = _line(show())
                except Exception as error:
                    model.Session.rollback()
                    if not self._user and self._is_hidden(error, id):
                        about["hidden"] += 1
                    else:
                        about["failed"].append(f"{name} ({id}): {brief(error)}")
                    continue
                lines.append(line)
                shown.append(number)
                about["rows"] += 1
                about["from_index"] += from_it
                held += len(line)
                if held >= _PIECE:
                    yield _joined(lines), shown
                    lines, shown, held = [], [], 0
        if lines:
            yield _joined(lines), shown
        about["index_failed"] = getattr(self._bulk, "index_failed", "")
        return about

    @contextlib.contextmanager
    def _ways(self, batch: Sequence[tuple[str, str, str]]) -> Iterator[Any]:
        """For each record whether the index has it, and what shows it."""
        if self._bulk is None:
            yield ((False, functools.partial(self._plain, id)) for id, *_ in batch)
            return
        with self._bulk.swapped():
            yield self._bulk.show([(id, modified) for id, _, modified in batch])

    def _is_hidden(self, error: Exception, id: str) -> bool:
        from ckan.logic import NotAuthorized, NotFound

        # a hook that misses something fails in the same words
        return isinstance(error, (NotAuthorized, NotFound)) and self._is_refused(id)

    def _is_refused(self, id: str) -> bool:
        """Whether CKAN's rules of access refuse a record to a visitor."""
        from ckan import logic, model

        try:
            logic.check_access(self._kind.action, {"user": ""}, {"id": id})
        except (logic.NotAuthorized, logic.NotFound):
            model.Session.rollback()
            return True
        return False

    def refused(self, ids: Sequence[str]) -> int:
        """How many of these ids are of no record that a visitor may read."""
        from ckan import model

        found = sum(map(self._is_refused, ids))
        model.Session.expunge_all()
        return found

    def again(self, id: str) -> bytes:
        """The sum of a record's line by the action alone, or of its error's words."""
        show = getattr(self._bulk, "plain", self._plain)
        try:
            return _sum(_line(show(id)))
        except Exception as error:
            return _sum(brief(error).encode())

    def _plain(self, id: str) -> dict[str, Any]:
        from ckan.logic import get_action

        context: Any = {"user": self._user, **self._counts}
        options = {"include_password_hash": self._wanted.secrets} | dict(
            self._kind.options
        )
        shown = get_action(self._kind.action)(context, {"id": id, **options})
        if self._kind.action == "user_show" and not self._wanted.secrets:
            for name in SECRETS:
                shown.pop(name, None)
        return shown


def _line(record: Mapping[str, Any]) -> bytes:
    """A record as ckanapi writes it: compact, keys sorted, UTF-8.

    Raises ValueError or TypeError for what ckanapi cannot write either.
    """
    options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    # the second for SQLAlchemy's own kind of strings, the names of columns
    for more in (0, orjson.OPT_NON_STR_KEYS) if _is_finite(record) else ():
        with contextlib.suppress(TypeError):
            line = orjson.dumps(record, option=options | more)
            if _EXPONENT.search(line):
                break
            return line
    # there and back, as ckanapi's processes do
    known = simplejson.loads(simplejson.dumps(record))
    return simplejson.dumps(
        known, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _is_finite(record: Mapping[str, Any]) -> bool:
    """Whether no number is infinite or none at all: orjson writes null for these."""
    waiting: list[Any] = [record]
    while waiting:
        one = waiting.pop()
        for value in one.values() if isinstance(one, dict) else one:
            if value.__class__ is str:
                continue
            if isinstance(value, (dict, list, tuple)):
                waiting.append(value)
            elif isinstance(value, float) and not math.isfinite(value):
                return False
    return True


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([*lines, b""])


def _sum(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()
