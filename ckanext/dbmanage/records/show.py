"""Records are shown a batch at a time, in a process of its own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from ckan import logic, model

from ..engine.errors import summary_of
from .jsonl import joined, line_of, sum_of
from .kinds import EXPORTED, SECRETS, Record, Wanted


def dataset_counts(user: str, fresh: bool) -> tuple[Record, str]:
    """What makes `organization_show` and `group_show` count without asking one by one.

    From the search index, as core does; from the database when that does not answer,
    and then why not.
    """
    failed = ""
    if not fresh:
        try:
            return {"dataset_counts": _counts_of_index(user)}, ""
        except Exception as error:  # as many as there are ways not to reach Solr
            failed = summary_of(error)
    return {"dataset_counts": _counts_of_database(user)}, failed


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

    def __init__(self, kind: str, wanted: Wanted, sysadmin: str) -> None:
        from . import datasets
        from .users import Users

        self._kind, self._wanted = EXPORTED[kind], wanted
        self._user = sysadmin if wanted.everything or kind == "users" else ""
        self._counts: dict[str, Any] = {}
        self._bulk: Any = None
        if kind == "datasets":
            self._bulk = datasets.Datasets(lambda: {"user": self._user}, wanted.fresh)
        elif kind == "users":
            self._bulk = Users(self._plain, sysadmin)

    def counts(self, _: None) -> tuple[dict[str, Any], str]:
        """How many datasets each group has, and why the index could not be asked."""

        return dataset_counts(self._user, self._wanted.fresh)

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
                    line = line_of(show())
                except Exception as error:
                    model.Session.rollback()
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
            return sum_of(line_of(show(id)))
        except Exception as error:
            return sum_of(summary_of(error).encode())

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
