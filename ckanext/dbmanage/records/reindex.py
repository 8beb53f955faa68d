"""The search index, rebuilt in bulk: core's documents, made by several processes.

What is indexed is core's own work; only what it reads comes from rows read for a whole
batch, and its documents go out a batch at a time. Nothing is cleared before: search
serves the old documents until the one commit at the end. Then ids and times of the
database and of Solr are compared side by side, both streamed: what was saved meanwhile
is indexed again. Needs an application context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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

from ..engine.errors import DbmanageError
from ..engine.report import Progress
from . import datasets
from .processes import Readers, brief

_BATCH = 1000
#: datasets that a process makes and sends at once
_SENT = 250
#: looks at what differs, the last of which finds nothing unless people save on and on
_LOOKS = 4
T = TypeVar("T")


@dataclass
class Indexed:
    """What was done: datasets indexed, orphans removed, and why which ids failed.

    `same` are those that `deep` found as they should be. `datasets` and `documents`
    are how many there are afterwards, in the database and in the index.
    """

    indexed: int = 0
    removed: int = 0
    same: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    datasets: int = 0
    documents: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the index has what the database has, but for those that failed."""
        return self.datasets - len(self.failed) <= self.documents <= self.datasets


def rebuilt(
    app: Any, jobs: int, progress: Progress = lambda *_: None, deep: bool = False
) -> Indexed:
    """Indexes every dataset, and removes what the database does not have.

    With `deep` every document is made, and only those sent that differ from what the
    index has stored. Raises DbmanageError when Solr cannot be reached.
    """
    return _told(lambda: _all(app, jobs, progress, deep))


def changed(progress: Progress = lambda *_: None) -> Indexed:
    """Indexes the datasets whose time in the index is not the database's.

    Removes from the index what the database does not have. A dataset that Solr
    refuses is noted and never stops the others. Raises DbmanageError when Solr cannot
    be reached.
    """
    return _told(lambda: _changed(progress, Indexed()))


def _told(work: Callable[[], Indexed]) -> Indexed:
    try:
        return work()
    except Exception as error:
        raise DbmanageError(
            f"the search index could not be brought up to date: {brief(error)}"
        ) from error
    finally:
        model.Session.remove()


def _all(app: Any, jobs: int, progress: Progress, deep: bool) -> Indexed:
    done = Indexed()
    make_connection().ping()
    # found before anything is sent: a commit in between would move the pages
    orphans = differing()[1]
    model.Session.remove()
    hidden = " WHERE state <> 'deleted'" if _hides_deleted() else ""
    listed = f"SELECT id, metadata_modified FROM package{hidden}"  # noqa: S608
    with Readers(app, lambda: _Writer(deep), jobs) as readers:
        count = readers.rows(f"SELECT count(*) FROM ({listed}) found")  # noqa: S608
        total = count.scalar()
        rows = readers.rows(f"{listed} ORDER BY id")
        batches = iter(lambda: [_pair(row) for row in rows.fetchmany(_SENT)], [])
        for _, (sent, same, failed) in readers.each(batches):
            done.indexed += sent
            done.same += same
            for dataset in failed:
                _index(dataset, done)
            progress("index", done.indexed + done.same + len(done.failed), total)
    _remove(orphans, done)
    if done.indexed or done.removed or done.failed:
        make_connection().commit()
    # of what was saved meanwhile the document may be that of before
    return _changed(progress, done)


def _changed(progress: Progress, done: Indexed) -> Indexed:
    """Indexes what differs, removes orphans, and looks again; counts in the end."""
    write = _Writer(False)
    for _ in range(_LOOKS):
        # compared first and then written: a commit in between would move the pages
        missing, orphans = differing()
        missing = [each for each in missing if each not in done.failed]
        if not missing and not orphans:
            break
        before = done.indexed
        for batch in _batched(missing, _SENT):
            sent, _, failed = write([(dataset, "") for dataset in batch])
            done.indexed += sent
            for dataset in failed:
                _index(dataset, done)
            progress("index", done.indexed - before, len(missing))
        _remove(orphans, done)
        make_connection().commit()
    own = [f'+site_id:"{config.get("ckan.site_id")}"', "+entity_type:package"]
    done.documents = make_connection().search("*:*", fq=own, rows=0).hits
    hidden = " WHERE state <> 'deleted'" if _hides_deleted() else ""
    count = f"SELECT count(*) FROM package{hidden}"  # noqa: S608
    done.datasets = model.Session.execute(sa.text(count)).scalar()
    return done


def _remove(orphans: Sequence[str], done: Indexed) -> None:
    site = config.get("ckan.site_id")
    for batch in _batched(orphans, 200):
        ids = " OR ".join(f'"{_escaped(each)}"' for each in batch)
        make_connection().delete(
            q=f'+site_id:"{site}" +entity_type:package +id:({ids})', commit=False
        )
        done.removed += len(batch)


def _index(dataset: str, done: Indexed) -> None:
    """One dataset by core alone: what it says of it is what the operator is told."""
    try:
        search.rebuild(package_ids=[dataset], quiet=True)
        done.indexed += 1
    except Exception as error:
        model.Session.rollback()
        make_connection().ping()  # a Solr that is gone is no dataset's fault
        done.failed[dataset] = brief(error)


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


class _Writer:
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


def _batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many, the last one of fewer."""
    left = iter(rows)
    return iter(lambda: list(islice(left, size)), [])


def _pair(row: Any) -> tuple[str, str]:
    return row[0], row[1].isoformat() if row[1] else ""


def _hides_deleted() -> bool:
    return bool(config.get("ckan.search.remove_deleted_packages"))


# -- what is there and what should be


def differing() -> tuple[list[str], list[str]]:
    """Datasets missing or old in the index, and ids in it that the database lacks.

    Each is looked at twice: what is saved between the looks at the one and at the
    other differs for a moment only.
    """
    found: tuple[list[str], list[str]] = [], []
    solr = make_connection(decode_dates=False)
    for batch in _batched(_differences(solr), _BATCH):
        there = _documents(solr, batch, "id,metadata_modified")
        rows = model.Session.execute(
            sa.text(f"{_STORED} AND id = ANY(:ids)"),
            {"ids": batch, "hidden": _hides_deleted()},
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
    hidden = _hides_deleted()
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
        start = "* TO *" if after == "*" else f'"{_escaped(after)}" TO *'
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


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
