"""The search index after a switch: only what differs is indexed, the rest stays.

Compares dataset ids and times of the database and of Solr side by side, both in order
of id and both streamed, so that memory does not grow with the portal. Knows CKAN, not
the web. Needs an application context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import ckan.model as model
import sqlalchemy as sa
from ckan.common import config
from ckan.lib import search
from ckan.lib.search.common import make_connection

from .engine import Progress
from .engine.errors import DbmanageError

_BATCH = 1000


@dataclass
class Indexed:
    """What was done: datasets indexed, orphans removed, and the ids that failed."""

    indexed: int = 0
    removed: int = 0
    failed: list[str] = field(default_factory=list)


def changed(progress: Progress = lambda *_: None) -> Indexed:
    """Indexes the datasets whose time in the index is not the database's.

    Removes from the index what the database does not have. A dataset that Solr
    refuses is noted and never stops the others. Raises DbmanageError when Solr cannot
    be reached.
    """
    done = Indexed()
    try:
        # compared first and then written: a commit in between would move the pages
        for dataset, there in _differences():
            if there:
                _index(dataset, done)
            else:
                search.clear(dataset)
                done.removed += 1
            progress("index", done.indexed + done.removed, 0)
        search.commit()
    except Exception as error:
        raise DbmanageError(
            f"the search index could not be brought up to date: {_brief(error)}"
        ) from error
    finally:
        model.Session.remove()
    return done


def _index(dataset: str, done: Indexed) -> None:
    try:
        search.rebuild(package_ids=[dataset], quiet=True)
        done.indexed += 1
    except Exception as error:
        model.Session.rollback()
        make_connection().ping()  # a Solr that is gone is no dataset's fault
        done.failed.append(f"{dataset}: {_brief(error)}")


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
    hidden = bool(config.get("ckan.search.remove_deleted_packages"))
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


def _brief(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) < 240 else words[:240].rsplit(" ", 1)[0] + " …"
