"""The search index, rebuilt in bulk: core's documents, made by several processes.

What is indexed is core's own work; only what it reads comes from rows read for a whole
batch, and its documents go out a batch at a time. Nothing is cleared before: search
serves the old documents until the one commit at the end. Compares dataset ids and times
of the database and of Solr side by side, both streamed. Needs an application context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import ckan.lib.search.index as core
import ckan.model as model
import pysolr
import simplejson
import sqlalchemy as sa
from ckan import logic
from ckan.common import config
from ckan.lib import search
from ckan.lib.search.common import make_connection

from . import bulk
from .engine import Progress
from .engine.errors import DbmanageError
from .readers import Readers, brief

_BATCH = 1000
#: datasets that a process makes and sends at once
_SENT = 250


@dataclass
class Indexed:
    """What was done: datasets indexed, orphans removed, and the ids that failed.

    `same` are those that `deep` found as they should be. `datasets` and `documents`
    are how many there are afterwards, in the database and in the index.
    """

    indexed: int = 0
    removed: int = 0
    same: int = 0
    failed: list[str] = field(default_factory=list)
    datasets: int = 0
    documents: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the index has what the database has, but for those that failed."""
        return self.documents >= self.datasets - len(self.failed)


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
    return _told(lambda: _changed(progress))


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
    orphans = [dataset for dataset, there in _differences() if not there]
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
    return _ended(orphans, done)


def _changed(progress: Progress) -> Indexed:
    done = Indexed()
    # compared first and then written: a commit in between would move the pages
    missing, orphans = differing()
    write = _Writer(False)
    for batch in _batches(missing, _SENT):
        sent, _, failed = write([(dataset, "") for dataset in batch])
        done.indexed += sent
        for dataset in failed:
            _index(dataset, done)
        progress("index", done.indexed, len(missing))
    return _ended(orphans, done)


def _ended(orphans: Sequence[str], done: Indexed) -> Indexed:
    """Removes the orphans, makes all of it seen at once, and counts."""
    site = config.get("ckan.site_id")
    for batch in _batches(orphans, 200):
        ids = " OR ".join(f'"{_escaped(each)}"' for each in batch)
        make_connection().delete(
            q=f'+site_id:"{site}" +entity_type:package +id:({ids})', commit=False
        )
        done.removed += len(batch)
    solr = make_connection()
    if done.indexed or done.removed or done.failed:
        solr.commit()
    own = [f'+site_id:"{site}"', "+entity_type:package"]
    done.documents = solr.search("*:*", fq=own, rows=0).hits
    hidden = " WHERE state <> 'deleted'" if _hides_deleted() else ""
    count = f"SELECT count(*) FROM package{hidden}"  # noqa: S608
    done.datasets = model.Session.execute(sa.text(count)).scalar()
    return done


def _index(dataset: str, done: Indexed) -> None:
    """One dataset by core alone: what it says of it is what the operator is told."""
    try:
        search.rebuild(package_ids=[dataset], quiet=True)
        done.indexed += 1
    except Exception as error:
        model.Session.rollback()
        make_connection().ping()  # a Solr that is gone is no dataset's fault
        done.failed.append(f"{dataset}: {brief(error)}")


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
        self._deep = deep
        self._solr = make_connection()
        self._bulk = bulk.Datasets(lambda: {"ignore_auth": True}, fresh=True)
        self._index = search.index_for("Package")

    def __call__(self, batch: Sequence[tuple[str, str]]) -> tuple[int, int, list[str]]:
        """How many of (id, time) were sent, were the same, and the ids that failed."""
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
        documents, same = buffer.documents, 0
        if self._deep:
            stored = self._stored([each["id"] for each in documents])
            documents = [e for e in documents if _differs(e, stored.get(e["id"]))]
            same = len(buffer.documents) - len(documents)
        failed += self._send(documents)
        return len(batch) - same - len(failed), same, failed

    def _write(self, dataset: str) -> None:
        if hasattr(logic, "index_update_package_dicts"):
            bare = self._bulk.bare(dataset)
            if bare is not None:
                logic.index_update_package_dicts((bare, bare), True)
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

    def _stored(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        site = config.get("ckan.site_id")
        found = self._solr.search(
            "*:*",
            fq=[f'+site_id:"{site}"', "+entity_type:package",
                "{!terms f=id}" + ",".join(ids)],
            fl=",".join(_COMPARED), rows=len(ids),
        ).docs if ids else []  # fmt: skip
        return {each["id"]: each for each in found}


#: what of a document says all that its dataset is; permission labels are not stored
_COMPARED = (
    "id", "data_dict", "validated_data_dict", "organization", "groups", "tags",
    "capacity", "state", "dataset_type", "name", "title",
)  # fmt: skip


def _differs(document: dict[str, Any], stored: dict[str, Any] | None) -> bool:
    if stored is None:
        return True
    for name in _COMPARED:
        ours, theirs = document.get(name), stored.get(name)
        if (ours or None) != (theirs or None) and (
            not name.endswith("data_dict")
            or not theirs
            or simplejson.loads(ours or "null") != simplejson.loads(theirs)
        ):
            return True
    return False


@contextmanager
def _connection(buffer: _Buffer) -> Iterator[None]:
    before = core.make_connection
    core.make_connection = lambda *_, **__: buffer  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        core.make_connection = before


def _batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(ids)
    return iter(lambda: list(islice(left, size)), [])


def _pair(row: Any) -> tuple[str, str]:
    return row[0], row[1].isoformat() if row[1] else ""


def _hides_deleted() -> bool:
    return bool(config.get("ckan.search.remove_deleted_packages"))


# -- what is there and what should be


def differing() -> tuple[list[str], list[str]]:
    """Datasets missing or old in the index, and ids in it that the database lacks."""
    found: tuple[list[str], list[str]] = [], []
    for dataset, there in _differences():
        found[0 if there else 1].append(dataset)
    return found


def _differences() -> Iterator[tuple[str, bool]]:
    """Ids that differ, and whether the database has them."""
    ours, theirs = _stored(), _indexed()
    mine, other = next(ours, None), next(theirs, None)
    while mine or other:
        if other is None or (mine is not None and mine[0] < other[0]):
            assert mine is not None
            yield mine[0], True
            mine = next(ours, None)
        elif mine is None or other[0] < mine[0]:
            yield other[0], False
            other = next(theirs, None)
        else:
            if mine != other:
                yield mine[0], True
            mine, other = next(ours, None), next(theirs, None)


def _stored() -> Iterator[tuple[str, str]]:
    """Id and time of the datasets that belong into the index, in order of id."""
    # "C" is the order of Solr's strings; the time as Solr prints it
    query = sa.text(
        "SELECT id, to_char(date_trunc('milliseconds', metadata_modified),"
        " 'YYYY-MM-DD\"T\"HH24:MI:SS.MS') FROM package"
        " WHERE (state <> 'deleted' OR NOT :hidden) AND id COLLATE \"C\" > :after"
        ' ORDER BY id COLLATE "C" LIMIT :size'
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


def _indexed() -> Iterator[tuple[str, str]]:
    """Id and time of the datasets in the index, in order of id."""
    solr = make_connection(decode_dates=False)
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


def _time(value: str) -> str:
    whole, _, fraction = value.rstrip("Z").partition(".")
    return f"{whole}.{fraction[:3]:0<3}" if whole else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
