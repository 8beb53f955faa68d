"""The search index as it is: what it holds, and what differs from the database."""

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, TypeVar

import ckan.model as model
import orjson
import requests
import sqlalchemy as sa
from ckan.lib.search.common import make_connection

from ..engine.errors import summary_of
from ..portal.config import Options

_BATCH, _REMOVED = 1000, 200
_STATUS = re.compile(r"\(HTTP (\d+)\)")
T = TypeVar("T")


class Index:
    """The datasets of one site in Solr's core, which may hold those of others too.

    `belongs` is SQL: whether a row of the table `package` belongs into it. Each method
    raises what pysolr, requests and urllib raise.
    """

    def __init__(self, options: Options) -> None:
        self.solr: Any = make_connection(decode_dates=False)
        # pysolr's own decoder is the slower half of an answer
        self.solr.decoder = SimpleNamespace(decode=orjson.loads)
        self.belongs = "state <> 'deleted'" if options.hides_deleted else "true"
        self._own = [f'+site_id:"{options.site_id}"', "+entity_type:package"]

    def documents(self, ids: Sequence[str], fields: str) -> dict[str, dict[str, Any]]:
        """These fields of these documents by id; of what is there."""
        if not ids:
            return {}
        asked = "{!terms f=id}" + ",".join(ids)
        found = self.solr.search(asked, fq=self._own, fl=fields, rows=len(ids))
        return {each["id"]: each for each in found.docs}

    def count(self) -> int:
        """How many datasets it has."""
        return self.solr.search("*:*", fq=self._own, rows=0).hits

    def remove(self, ids: Sequence[str]) -> None:
        """Removes datasets; nothing is committed."""
        for batch in batched(ids, _REMOVED):
            named = " OR ".join(f'"{_escaped(each)}"' for each in batch)
            self.solr.delete(q=" ".join([*self._own, f"+id:({named})"]), commit=False)

    def differing(self) -> tuple[list[str], list[str]]:
        """Datasets missing or old in it, and ids in it that the database lacks.

        Each is looked at twice: what is saved between the looks at the one and at the
        other differs for a moment only.
        """
        found: tuple[list[str], list[str]] = [], []
        for batch in batched(self._differences(), _BATCH):
            documents = self.documents(batch, "id,metadata_modified")
            stored = dict(self._times("id = ANY(:ids)", ids=batch))
            for dataset in batch:
                document = documents.get(dataset)
                if stored.get(dataset) != (document and _modified(document)):
                    found[0 if dataset in stored else 1].append(dataset)
        return found

    def _differences(self) -> Iterator[str]:
        """Ids of datasets that are not in the index as they are in the database."""
        both = heapq.merge(self._stored(), self._indexed(), key=itemgetter(0))
        for id, found in groupby(both, key=itemgetter(0)):
            ours, *theirs = found
            if theirs != [ours]:
                yield id

    def _stored(self) -> Iterator[tuple[str, str]]:
        """Id and time of the datasets that belong into the index, in order of id."""
        after = ""
        # "C" is the order of Solr's strings
        page = 'id COLLATE "C" > :after ORDER BY id COLLATE "C" LIMIT :size'
        while rows := self._times(page, after=after, size=_BATCH):
            yield from rows
            after = rows[-1][0]

    def _times(self, which: str, **values: Any) -> list[tuple[str, str]]:
        """Id and time, as Solr prints it, of these datasets that belong into it."""
        statement = (
            "SELECT id, to_char(date_trunc('milliseconds', metadata_modified),"  # noqa: S608
            " 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')"
            f" FROM package WHERE {self.belongs} AND {which}"
        )
        rows = model.Session.execute(sa.text(statement), values)
        return [(id, time or "") for id, time in rows]

    def _indexed(self) -> Iterator[tuple[str, str]]:
        """Id and time of the datasets in the index, in order of id."""
        # by range and not by cursor: a cursor's pages would move with our own changes
        after = "[* TO *]"
        while found := self.solr.search(
            "*:*", fq=[*self._own, f"id:{after}"], fl="id,metadata_modified",
            sort="id asc", rows=_BATCH,
        ).docs:  # fmt: skip
            yield from ((each["id"], _modified(each)) for each in found)
            after = f'{{"{_escaped(found[-1]["id"])}" TO *]'


def unanswered(error: BaseException) -> str:
    """Why Solr gave no answer, for people: what pysolr and core say is a page long."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (requests.ConnectionError, requests.Timeout)):
            return "Solr does not answer: is it up, and is solr_url right?"
        if status := _STATUS.search(str(seen)):
            return (
                f"Solr answers with the error {status[1]}: is solr_url right, and has "
                "the core CKAN's schema? Solr's own log says more"
            )
        seen = seen.__cause__ or seen.__context__
    return summary_of(error)


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many, the last one of fewer."""
    left = iter(rows)
    return iter(lambda: list(islice(left, size)), [])


def _modified(document: dict[str, Any]) -> str:
    return milliseconds(document.get("metadata_modified") or "")


def milliseconds(time: str) -> str:
    """A time of Solr's, which leaves out zeros at its end, in milliseconds."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return f"{whole}.{fraction[:3]:0<3}" if whole else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
