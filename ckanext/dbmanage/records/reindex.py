"""The search index, rebuilt in bulk and compared."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ckan.model as model
import sqlalchemy as sa
from ckan.lib import search

from ..engine.errors import DbmanageError, summary_of
from ..engine.postgres.again import passes
from ..engine.report import Progress
from ..portal.config import Options
from .documents import Writer
from .processes import Readers
from .search_index import Index, batched, unanswered

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
    app: Any,
    options: Options,
    jobs: int,
    progress: Progress = lambda *_: None,
    deep: bool = False,
) -> Indexed:
    """Indexes every dataset, and removes what the database does not have.

    With `deep` every document is made, and only those sent that differ from what the
    index has stored. Raises DbmanageError when Solr cannot be reached.
    """
    with _explained():
        work = _Reindex(options, progress)
        work.everything(app, jobs, deep)
        # of what was saved meanwhile the document may be that of before
        return work.changed("check")


def reindex_changed(options: Options, progress: Progress = lambda *_: None) -> Indexed:
    """Indexes the datasets whose time in the index is not the database's.

    Removes from the index what the database does not have. A dataset that Solr
    refuses is noted and never stops the others. Raises DbmanageError when Solr cannot
    be reached.
    """
    with _explained():
        return _Reindex(options, progress).changed("index")


def reindex_these(options: Options, ids: Sequence[str]) -> Indexed:
    """Indexes these datasets, or removes those that do not belong there any more.

    Counts nothing else. Raises DbmanageError when Solr cannot be reached.
    """
    with _explained():
        return _Reindex(options, lambda *_: None).these(ids)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DbmanageError(
            f"the search index could not be brought up to date: {unanswered(error)}"
        ) from error
    finally:
        model.Session.remove()


class _Reindex:
    """One run, and what was done so far."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self._options, self._progress = options, progress
        self._index, self._done = Index(options), Indexed()

    def everything(self, app: Any, jobs: int, deep: bool) -> None:
        done = self._done
        self._progress("compare", 0, 0)
        self._index.solr.ping()
        # found before anything is sent: a commit in between would move the pages
        orphans = self._index.differing()[1]
        model.Session.remove()
        listed = (
            f"SELECT id, metadata_modified FROM package WHERE {self._index.belongs}"  # noqa: S608
        )
        with Readers(app, lambda: Writer(self._options, deep), jobs) as readers:
            total, batches = readers.listed(listed, "id", _SENT)
            self._progress("index", 0, total)
            for _, outcome in readers.each(batches):
                self._note(*outcome)
                self._progress(
                    "index", done.indexed + done.same + len(done.failed), total
                )
        self._remove(orphans)
        if done.indexed or done.removed or done.failed:
            self._index.solr.commit()

    def changed(self, stage: str) -> Indexed:
        """Indexes what differs, removes orphans, and looks again; counts in the end."""
        done, write = self._done, Writer(self._options, False)
        self._progress(stage, 0, 0)
        for _ in range(_LOOKS):
            # compared first and then written: a commit in between would move the pages
            missing, orphans = self._index.differing()
            missing = [each for each in missing if each not in done.failed]
            if not missing and not orphans:
                break
            before = done.indexed
            for batch in batched(missing, _SENT):
                self._note(*write([(dataset, "") for dataset in batch]))
                self._progress(stage, done.indexed - before, len(missing))
            self._remove(orphans)
            self._index.solr.commit()
        done.documents = self._index.count()
        count = f"SELECT count(*) FROM package WHERE {self._index.belongs}"  # noqa: S608
        done.datasets = model.Session.execute(sa.text(count)).scalar()
        return done

    def these(self, ids: Sequence[str]) -> Indexed:
        """Indexes these datasets; removes those that do not belong there."""
        write = Writer(self._options, False)
        for batch in batched(ids, _SENT):
            belong = (
                f"SELECT id FROM package WHERE id = ANY(:ids) AND {self._index.belongs}"  # noqa: S608
            )
            rows = model.Session.execute(sa.text(belong), {"ids": list(batch)})
            there = {id for (id,) in rows}
            self._note(*write([(id, "") for id in batch if id in there]))
            self._remove([id for id in batch if id not in there])
        self._index.solr.commit()
        return self._done

    def _note(self, sent: int, same: int, failed: Sequence[str]) -> None:
        """Counts what came of a batch, and indexes by core alone what failed in it.

        What core says of a dataset is what the operator is told.
        """
        self._done.indexed += sent
        self._done.same += same
        for dataset in failed:
            try:
                search.rebuild(package_ids=[dataset], quiet=True)
                self._done.indexed += 1
            except Exception as error:
                model.Session.rollback()
                if passes(error):
                    raise
                self._index.solr.ping()  # a Solr that is gone is no dataset's fault
                self._done.failed[dataset] = summary_of(error)

    def _remove(self, orphans: Sequence[str]) -> None:
        self._index.remove(orphans)
        self._done.removed += len(orphans)
