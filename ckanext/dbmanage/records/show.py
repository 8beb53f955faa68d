"""Records are shown a batch at a time, in a process of its own."""

import contextlib
import functools
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from ckan import logic, model

from ..engine.errors import summary_of
from ..engine.postgres.again import passes
from ..portal.config import Options
from .datasets import Datasets
from .jsonl import checksum, joined, json_line
from .kinds import EXPORTED, SECRETS, Record, Wanted
from .search_index import Index
from .users import Users


def _counts_of_index(user: str) -> Record:
    counts = {}
    for field, private in (("owner_org", bool(user)), ("groups", False)):
        asked = {"rows": 0, "facet.field": [field], "facet.limit": -1}
        asked["include_private"] = private
        found = logic.get_action("package_search")({"user": user}, asked)
        counts[field] = found["facets"][field]
    return counts


def _counts_of_database(user: str) -> Record:
    package, member = model.package_table.c, model.member_table.c
    group, visible = model.group_table.c, package.state == "active"
    public = visible & package.private.is_(False)
    by_owner = sa.select(package.owner_org, sa.func.count()).where(
        visible if user else public
    )
    by_group = (
        sa.select(group.name, sa.func.count())
        .where(public, member.table_id == package.id, member.group_id == group.id)
        .where(member.state == "active", member.table_name == "package")
    )
    return {
        field: dict(list(map(tuple, model.Session.execute(query.group_by(column)))))
        for field, query, column in (
            ("owner_org", by_owner, package.owner_org),
            ("groups", by_group, group.name),
        )
    }


#: bytes of lines that a process hands over at once; one line may be more
_PIECE = 1 << 20


# -- in a process of its own


class Shows:
    """Shows the records of one kind."""

    def __init__(
        self, kind: str, options: Options, wanted: Wanted, sysadmin: str
    ) -> None:
        self._kind, self._wanted = EXPORTED[kind], wanted
        self._user = sysadmin if wanted.everything or kind == "users" else ""
        self._counts: dict[str, Any] = {}
        self._bulk: Any = None
        if kind == "datasets":
            index = None if wanted.fresh else Index(options)
            self._bulk = Datasets(lambda: {"user": self._user}, index)
        elif kind == "users":
            self._bulk = Users(self._plain, sysadmin)

    def counts(self, _: None) -> tuple[Record, str]:
        """How many datasets each group has, so that groups do not ask one by one.

        From the search index, as core does; from the database when that does not
        answer, and then why not.
        """
        failed = ""
        if not self._wanted.fresh:
            try:
                return {"dataset_counts": _counts_of_index(self._user)}, ""
            except Exception as error:  # as many as there are ways not to reach Solr
                failed = summary_of(error)
        return {"dataset_counts": _counts_of_database(self._user)}, failed

    def know(self, counts: dict[str, Any]) -> None:
        """From now on groups are shown with these counts."""
        self._counts = counts

    def lines(
        self, batch: Sequence[tuple[str, str, str]]
    ) -> Generator[tuple[bytes, list[int]], None, dict[str, Any]]:
        """Yields lines of (id, name, time) records, with the numbers of these.

        Returns counts of the batch, and what failed in it.
        """
        lines: list[bytes] = []
        shown: list[int] = []
        held = 0
        about: dict[str, Any] = {"rows": 0, "from_index": 0, "hidden": 0, "failed": []}
        with self._shown(batch) as all_shown:
            for number, ((id, name, _), (from_it, show)) in enumerate(
                zip(batch, all_shown, strict=True)
            ):
                try:
                    line = json_line(show())
                except Exception as error:
                    model.Session.rollback()
                    if passes(error):  # no fault of the record's
                        raise
                    if not self._user and self._is_hidden(error, id):
                        about["hidden"] += 1
                    else:
                        about["failed"].append(f"{name} ({id}): {summary_of(error)}")
                    continue
                lines.append(line)
                shown.append(number)
                about["rows"] += 1
                about["from_index"] += from_it
                held += len(line)
                if held >= _PIECE:
                    yield joined(lines), shown
                    lines, shown, held = [], [], 0
        if lines:
            yield joined(lines), shown
        about["index_failed"] = getattr(self._bulk, "index_failed", "")
        return about

    @contextlib.contextmanager
    def _shown(self, batch: Sequence[tuple[str, str, str]]) -> Iterator[Any]:
        """For each record whether the index has it, and what shows it."""
        if self._bulk is None:
            yield ((False, functools.partial(self._plain, id)) for id, *_ in batch)
            return
        with self._bulk.swapped():
            yield self._bulk.show([(id, modified) for id, _, modified in batch])

    def _is_hidden(self, error: Exception, id: str) -> bool:
        # a hook that misses something fails in the same words
        return isinstance(
            error, (logic.NotAuthorized, logic.NotFound)
        ) and self._is_refused(id)

    def _is_refused(self, id: str) -> bool:
        """Whether CKAN's rules of access refuse a record to a visitor."""
        try:
            logic.check_access(self._kind.action, {"user": ""}, {"id": id})
        except (logic.NotAuthorized, logic.NotFound):
            model.Session.rollback()
            return True
        return False

    def refused(self, ids: Sequence[str]) -> int:
        """How many of these ids are of no record that a visitor may read."""
        found = sum(map(self._is_refused, ids))
        model.Session.expunge_all()
        return found

    def again(self, id: str) -> bytes:
        """The sum of a record's line by the action alone, or of its error's words."""
        show = getattr(self._bulk, "plain", self._plain)
        try:
            return checksum(json_line(show(id)))
        except Exception as error:
            return checksum(summary_of(error).encode())

    def _plain(self, id: str) -> dict[str, Any]:
        context: Any = {"user": self._user, **self._counts}
        options = {"include_password_hash": self._wanted.secrets} | dict(
            self._kind.options
        )
        shown = logic.get_action(self._kind.action)(context, {"id": id, **options})
        if self._kind.action == "user_show" and not self._wanted.secrets:
            for name in SECRETS:
                shown.pop(name, None)
        return shown
