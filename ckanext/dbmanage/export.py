"""Export of datasets, organizations, groups and users as JSON Lines.

A line is what an anonymous visitor gets from the kind's action, in the bytes that
ckanapi writes. Processes show batches side by side, all of one snapshot of the
database. Knows CKAN, not the web.
"""

from __future__ import annotations

import contextlib
import functools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import simplejson

from .engine import Progress
from .readers import Readers, brief


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

    `hidden` are those that a visitor may not read, `failed` and `differing` sentences
    that name a record; `index_failed` says why the index was not asked any more.
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
        """In a process: shows batches of a kind, or one record for a check."""
        shows: dict[str, _Shows] = {}

        def work(asked: tuple[str, Any]) -> Any:
            kind, batch = asked
            if kind not in shows:
                shows[kind] = _Shows(kind, self._wanted, self._sysadmin)
            if isinstance(batch, str):
                return shows[kind].again(batch)
            return shows[kind].lines(batch)

        return work

    def write(
        self,
        kind: str,
        write: Callable[[bytes], Any],
        check: int = 0,
        progress: Progress = lambda *_: None,
    ) -> Exported:
        """Hands the lines of a kind to `write`, a batch at a time, in order of name.

        Shows `check` random ones again by the plain action. Raises DbmanageError when
        a process ends before its time.
        """
        exportable, done = EXPORTED[kind], Exported()
        from ckan.common import config

        statement = (
            exportable.everything if self._wanted.everything else exportable.listed
        )
        site = {"site": config.get("ckan.site_id")} if ":site" in statement else {}
        count = statement.rpartition(" ORDER BY ")[0]
        total = self.rows(f"SELECT count(*) FROM ({count}) found", **site).scalar()  # noqa: S608
        rows = self.rows(statement, **site)
        sample = _Sample(check)
        batches = iter(lambda: [_told(row) for row in rows.fetchmany(_BATCH)], [])
        asked = ((kind, batch) for batch in batches)
        for (_, batch), (lines, about) in self.each(asked):
            write(lines)
            done.rows += about["rows"]
            done.bytes += len(lines)
            done.from_index += about["from_index"]
            done.hidden += about["hidden"]
            done.failed += about["failed"]
            done.index_failed = done.index_failed or about["index_failed"]
            if check:
                shown = (batch[number] for number in about["shown"])
                for (id, name, _), line in zip(shown, lines.split(b"\n"), strict=False):
                    sample.add(id, name, line)
            progress(kind, done.rows + done.hidden + len(done.failed), total)
        for id, name, line in sample.chosen:
            again = self.ask((kind, id))
            done.checked += 1
            if again != line:
                done.differing.append(name)
        return done


class _Sample:
    """Some of many records, each as likely as any other (reservoir sampling)."""

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self.chosen: list[tuple[str, str, bytes]] = []

    def add(self, id: str, name: str, line: bytes) -> None:
        self._seen += 1
        if len(self.chosen) < self._size:
            self.chosen.append((id, name, line))
            return
        place = random.randrange(self._seen)  # noqa: S311
        if place < self._size:
            self.chosen[place] = (id, name, line)


def _told(row: Any) -> tuple[str, str, str]:
    id, name, modified = row
    return id, name, modified.isoformat() if modified else ""


# -- in a process of its own


class _Shows:
    """Shows the records of one kind."""

    def __init__(self, kind: str, wanted: Wanted, sysadmin: str) -> None:
        from . import bulk

        self._kind, self._wanted = EXPORTED[kind], wanted
        self._user = sysadmin if wanted.everything or kind == "users" else ""
        self._counts: dict[str, Any] = {}
        self._bulk: Any = None
        if kind == "datasets":
            self._bulk = bulk.Datasets(lambda: {"user": self._user}, wanted.fresh)
        elif kind == "users":
            self._bulk = bulk.Users(self._plain, sysadmin)
        else:
            self._counts = bulk.dataset_counts(self._user, wanted.fresh)

    def lines(
        self, batch: Sequence[tuple[str, str, str]]
    ) -> tuple[bytes, dict[str, Any]]:
        """The lines of (id, name, time) records, and what is to be said of them."""
        from ckan import model

        lines: list[bytes] = []
        about: dict[str, Any] = {"shown": [], "failed": [], "hidden": 0}
        from_index = 0
        with contextlib.ExitStack() as stack:
            if self._bulk is None:
                ways: Any = (
                    (False, functools.partial(self._plain, id)) for id, *_ in batch
                )
            else:
                stack.enter_context(self._bulk.swapped())
                ways = self._bulk.show([(id, modified) for id, _, modified in batch])
            for number, ((id, name, _), (from_it, show)) in enumerate(
                zip(batch, ways, strict=True)
            ):
                try:
                    lines.append(_line(show()))
                    about["shown"].append(number)
                    from_index += from_it
                except Exception as error:
                    model.Session.rollback()
                    if not self._user and _is_hidden(error):
                        about["hidden"] += 1
                    else:
                        about["failed"].append(f"{name} ({id}): {brief(error)}")
        lines.append(b"")
        about["rows"] = len(lines) - 1
        about["from_index"] = from_index
        about["index_failed"] = getattr(self._bulk, "index_failed", "")
        return b"\n".join(lines), about

    def again(self, id: str) -> bytes:
        """A record's line by the action alone; a text that is no line if it fails."""
        show = getattr(self._bulk, "plain", self._plain)
        try:
            return _line(show(id))
        except Exception as error:
            return brief(error).encode()

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
    """A record as ckanapi writes it: compact, keys sorted, UTF-8."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    # the second for SQLAlchemy's own kind of strings, the names of columns
    for more in (0, orjson.OPT_NON_STR_KEYS):
        with contextlib.suppress(TypeError):
            line = orjson.dumps(record, option=options | more)
            if _EXPONENT.search(line):
                break
            return line
    return simplejson.dumps(
        record, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _is_hidden(error: Exception) -> bool:
    from ckan.logic import NotAuthorized, NotFound

    return isinstance(error, (NotAuthorized, NotFound))
