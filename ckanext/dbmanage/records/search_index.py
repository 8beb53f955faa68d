"""Documents of the search index: made, written, compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, TypeVar

import ckan.lib.search.index as core
import ckan.model as model
import pysolr
import simplejson
import sqlalchemy as sa
from ckan import logic
from ckan.common import config
from ckan.lib import search
from ckan.lib.search.common import make_connection

from . import datasets

_BATCH = 1000
T = TypeVar("T")


# -- in a process of its own


class _Buffer:
    """Stands in for core's connection to Solr, and keeps the documents."""

    def __init__(self, solr: Any) -> None:
        self._solr = solr
        self.documents: list[dict[str, Any]] = []

    def add(self, docs: list[dict[str, Any]], commit: bool | None = None) -> None:
        self.documents += docs

    def delete(self, **what: Any) -> Any:
        return self._solr.delete(**what | {"commit": False})


class Writer:
    """Makes the documents of a batch, and sends those that are to be sent."""

    def __init__(self, deep: bool) -> None:
        self._solr = make_connection(decode_dates=False)
        self._fields = _Fields(self._solr) if deep else None
        self._bulk = datasets.Datasets(lambda: {"ignore_auth": True}, fresh=True)
        self._index = search.index_for("Package")

    def __call__(self, batch: Sequence[tuple[str, str]]) -> tuple[int, int, list[str]]:
        """How many of (id, time) were sent, were the same, and the ids that failed."""
        documents, failed = self._made(batch)
        same = 0
        if self._fields is not None:
            there = _documents(self._solr, [each["id"] for each in documents], "*")
            made = len(documents)
            documents = [
                e for e in documents if self._fields.differ(e, there.get(e["id"]))
            ]
            same = made - len(documents)
        failed += self._send(documents)
        return len(batch) - same - len(failed), same, failed

    def _made(
        self, batch: Sequence[tuple[str, str]]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """The documents of a batch, and the ids that failed."""
        buffer, failed = _Buffer(self._solr), []
        with self._bulk.swapped(), _connection(buffer):
            ways = self._bulk.show(batch, entities=True)
            for (dataset, _), _ in zip(batch, ways, strict=True):
                before = len(buffer.documents)
                try:
                    self._write(dataset)
                except Exception:
                    model.Session.rollback()
                    del buffer.documents[before:]
                    failed.append(dataset)
        return buffer.documents, failed

    def _write(self, dataset: str) -> None:
        if hasattr(logic, "index_update_package_dicts"):
            both = self._bulk.both(dataset)
            if both is not None:
                logic.index_update_package_dicts(both, True)
            else:
                logic.index_update_package({"ignore_auth": True}, dataset, True)
            return
        # CKAN 2.10, as its `rebuild` does
        context: Any = {"model": model, "ignore_auth": True, "validate": False}
        context["use_cache"] = False
        shown = logic.get_action("package_show")(context, {"id": dataset})
        self._index.update_dict(shown, True)

    def _send(self, documents: list[dict[str, Any]]) -> list[str]:
        if not documents:
            return []
        try:
            self._solr.add(docs=documents, commit=False)
            return []
        except pysolr.SolrError:
            self._solr.ping()
        failed = []
        for document in documents:  # which of them is it
            try:
                self._solr.add(docs=[document], commit=False)
            except pysolr.SolrError:
                failed.append(document["id"])
        return failed


class _Fields:
    """The fields of the index that it gives back: permission labels are not among them.

    Not what Solr fills by itself: copies, times of writing, versions.
    """

    def __init__(self, solr: Any) -> None:
        # as core does when it looks at the schema's version
        answer = solr._send_request("get", "schema?wt=json")
        schema = simplejson.loads(answer)["schema"]
        made = {each["dest"] for each in schema["copyFields"]} | {"_version_"}
        made |= {each["name"] for each in schema["fields"] if "default" in each}
        self._own = {
            each["name"]: each.get("stored", True) and each["name"] not in made
            for each in schema["fields"]
        }
        # the longest pattern that fits is the one that counts
        patterns = {e["name"]: e.get("stored", True) for e in schema["dynamicFields"]}
        self._patterns = sorted(patterns.items(), key=lambda each: -len(each[0]))

    def _is_stored(self, name: str) -> bool:
        if name not in self._own:
            fits = (kept for p, kept in self._patterns if fnmatchcase(name, p))
            self._own[name] = next(fits, False)
        return self._own[name]

    def differ(self, document: dict[str, Any], stored: dict[str, Any] | None) -> bool:
        """Whether what is stored of a document is not what it says now."""
        if stored is None:
            return True
        for name in filter(self._is_stored, document.keys() | stored.keys()):
            ours, theirs = document.get(name), stored.get(name)
            if ours == theirs:
                continue
            if name.endswith("data_dict") and ours and theirs:
                # the order of keys is another in each process of core's own
                if simplejson.loads(ours) != simplejson.loads(theirs):
                    return True
            elif _plain(ours) != _plain(theirs):
                return True
        return False


def _plain(value: Any) -> list[str]:
    """A field's values as Solr gives them back, which may leave out empty ones."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [
        _time(text) if text.endswith("Z") and text[4:5] == "-" else text
        for each in values
        if each is not None
        for text in [str(each).lower() if isinstance(each, bool) else str(each)]
        if text
    ]


@contextmanager
def _connection(buffer: _Buffer) -> Iterator[None]:
    before = core.make_connection
    core.make_connection = lambda *_, **__: buffer  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        core.make_connection = before


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many, the last one of fewer."""
    left = iter(rows)
    return iter(lambda: list(islice(left, size)), [])


def hides_deleted() -> bool:
    return bool(config.get("ckan.search.remove_deleted_packages"))


# -- what is there and what should be


def differing() -> tuple[list[str], list[str]]:
    """Datasets missing or old in the index, and ids in it that the database lacks.

    Each is looked at twice: what is saved between the looks at the one and at the
    other differs for a moment only.
    """
    found: tuple[list[str], list[str]] = [], []
    solr = make_connection(decode_dates=False)
    for batch in batched(_differences(solr), _BATCH):
        there = _documents(solr, batch, "id,metadata_modified")
        rows = model.Session.execute(
            sa.text(f"{_STORED} AND id = ANY(:ids)"),
            {"ids": batch, "hidden": hides_deleted()},
        )
        stored = {row[0]: row[1] or "" for row in rows}
        for dataset in batch:
            document = there.get(dataset)
            indexed = document and _time(document.get("metadata_modified") or "")
            if stored.get(dataset) != indexed:
                found[0 if dataset in stored else 1].append(dataset)
    return found


def _differences(solr: Any) -> Iterator[str]:
    """Ids of datasets that are not in the index as they are in the database."""
    ours, theirs = _stored(), _indexed(solr)
    mine, other = next(ours, None), next(theirs, None)
    while mine or other:
        if other is None or (mine is not None and mine[0] < other[0]):
            assert mine is not None
            yield mine[0]
            mine = next(ours, None)
        elif mine is None or other[0] < mine[0]:
            yield other[0]
            other = next(theirs, None)
        else:
            if mine != other:
                yield mine[0]
            mine, other = next(ours, None), next(theirs, None)


#: id and time, as Solr prints it, of the datasets that belong into the index
_STORED = """SELECT id, to_char(date_trunc('milliseconds', metadata_modified),
    'YYYY-MM-DD"T"HH24:MI:SS.MS') FROM package WHERE (state <> 'deleted' OR NOT :hidden)
"""


def _stored() -> Iterator[tuple[str, str]]:
    """Id and time of the datasets that belong into the index, in order of id."""
    # "C" is the order of Solr's strings
    query = sa.text(
        f'{_STORED} AND id COLLATE "C" > :after ORDER BY id COLLATE "C" LIMIT :size'
    )
    hidden = hides_deleted()
    after = ""
    while True:
        rows = model.Session.execute(
            query, {"after": after, "size": _BATCH, "hidden": hidden}
        ).fetchall()
        if not rows:
            return
        yield from ((row[0], row[1] or "") for row in rows)
        after = rows[-1][0]


def _indexed(solr: Any) -> Iterator[tuple[str, str]]:
    """Id and time of the datasets in the index, in order of id."""
    site = config.get("ckan.site_id")
    after = "*"
    # by range and not by cursor: a cursor's pages would move with our own changes
    while True:
        start = "* TO *" if after == "*" else f'"{escaped(after)}" TO *'
        found = solr.search(
            "*:*",
            fq=[f'+site_id:"{site}"', "+entity_type:package",
                f"id:{'[' if after == '*' else '{'}{start}]"],
            fl="id,metadata_modified", sort="id asc", rows=_BATCH,
        ).docs  # fmt: skip
        if not found:
            return
        for document in found:
            yield document["id"], _time(document.get("metadata_modified") or "")
        after = found[-1]["id"]


def _documents(solr: Any, ids: Sequence[str], fields: str) -> dict[str, dict[str, Any]]:
    """These fields of these documents, by id; of what is there."""
    if not ids:
        return {}
    site = config.get("ckan.site_id")
    found = solr.search(
        "*:*",
        fq=[f'+site_id:"{site}"', "+entity_type:package",
            "{!terms f=id}" + ",".join(ids)],
        fl=fields, rows=len(ids),
    ).docs  # fmt: skip
    return {each["id"]: each for each in found}


def _time(value: str) -> str:
    whole, _, fraction = value.rstrip("Z").partition(".")
    return f"{whole}.{fraction[:3]:0<3}" if whole else ""


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
