"""The search index, rebuilt in bulk and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ckan.model as model
import sqlalchemy as sa
from ckan.common import config
from ckan.lib import search
from ckan.lib.search.common import make_connection

from ..engine.errors import DbmanageError, summary_of
from ..engine.report import Progress
from .processes import Readers
from .search_index import Writer, batched, differing, escaped, hides_deleted

#: datasets that a process makes and sends at once
_SENT = 250
#: looks at what differs, the last of which finds nothing unless people save on and on
_LOOKS = 4


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


def reindex_all(
    app: Any, jobs: int, progress: Progress = lambda *_: None, deep: bool = False
) -> Indexed:
    """Indexes every dataset, and removes what the database does not have.

    With `deep` every document is made, and only those sent that differ from what the
    index has stored. Raises DbmanageError when Solr cannot be reached.
    """
    return _told(lambda: _all(app, jobs, progress, deep))


def reindex_changed(progress: Progress = lambda *_: None) -> Indexed:
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
            f"the search index could not be brought up to date: {summary_of(error)}"
        ) from error
    finally:
        model.Session.remove()


def _all(app: Any, jobs: int, progress: Progress, deep: bool) -> Indexed:
    done = Indexed()
    make_connection().ping()
    # found before anything is sent: a commit in between would move the pages
    orphans = differing()[1]
    model.Session.remove()
    hidden = " WHERE state <> 'deleted'" if hides_deleted() else ""
    listed = f"SELECT id, metadata_modified FROM package{hidden}"  # noqa: S608
    with Readers(app, lambda: Writer(deep), jobs) as readers:
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
    write = Writer(False)
    for _ in range(_LOOKS):
        # compared first and then written: a commit in between would move the pages
        missing, orphans = differing()
        missing = [each for each in missing if each not in done.failed]
        if not missing and not orphans:
            break
        before = done.indexed
        for batch in batched(missing, _SENT):
            sent, _, failed = write([(dataset, "") for dataset in batch])
            done.indexed += sent
            for dataset in failed:
                _index(dataset, done)
            progress("index", done.indexed - before, len(missing))
        _remove(orphans, done)
        make_connection().commit()
    own = [f'+site_id:"{config.get("ckan.site_id")}"', "+entity_type:package"]
    done.documents = make_connection().search("*:*", fq=own, rows=0).hits
    hidden = " WHERE state <> 'deleted'" if hides_deleted() else ""
    count = f"SELECT count(*) FROM package{hidden}"  # noqa: S608
    done.datasets = model.Session.execute(sa.text(count)).scalar()
    return done


def _remove(orphans: Sequence[str], done: Indexed) -> None:
    site = config.get("ckan.site_id")
    for batch in batched(orphans, 200):
        ids = " OR ".join(f'"{escaped(each)}"' for each in batch)
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
        done.failed[dataset] = summary_of(error)


def _pair(row: Any) -> tuple[str, str]:
    return row[0], row[1].isoformat() if row[1] else ""
