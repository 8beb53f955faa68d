"""Documents of the search index: made, compared with what is stored, sent.

In a process of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import ckan.lib.search.index as core
import ckan.model as model
import pysolr
import simplejson
from ckan import logic
from ckan.lib import search

from ..engine.postgres.again import passes
from ..portal.config import Options
from .datasets import Datasets
from .search_index import Index, milliseconds


class _Buffer:
    """Stands in for core's connection to Solr, and keeps the documents."""

    def __init__(self, solr: Any) -> None:
        self._solr = solr
        self.documents: list[dict[str, Any]] = []

    def add(self, docs: list[dict[str, Any]], commit: bool | None = None) -> None:
        self.documents += docs

    def delete(self, **what: Any) -> Any:
        return self._solr.delete(**what | {"commit": False})


@contextmanager
def _connected(buffer: _Buffer) -> Iterator[None]:
    """Inside, core writes to the buffer."""
    before = core.make_connection
    core.make_connection = lambda *_, **__: buffer  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        core.make_connection = before


class Writer:
    """Makes the documents of a batch, and sends them; if `deep`, those that differ."""

    def __init__(self, options: Options, deep: bool) -> None:
        self._stored = Index(options)
        self._solr = self._stored.solr
        self._fields = _Fields(self._solr) if deep else None
        self._bulk = Datasets(lambda: {"ignore_auth": True})
        self._core_index = search.index_for("Package")

    def __call__(self, batch: Sequence[tuple[str, str]]) -> tuple[int, int, list[str]]:
        """How many of (id, time) were sent, were the same, and the ids that failed."""
        documents, failed = self.documents(batch)
        made = len(documents)
        if (fields := self._fields) is not None:
            there = self._stored.documents([each["id"] for each in documents], "*")
            documents = [e for e in documents if fields.differ(e, there.get(e["id"]))]
        same = made - len(documents)
        failed += self._send(documents)
        return len(batch) - same - len(failed), same, failed

    def documents(
        self, batch: Sequence[tuple[str, str]]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """The documents of (id, time), and the ids that failed."""
        buffer, failed = _Buffer(self._solr), []
        with self._bulk.swapped(), _connected(buffer):
            shown = self._bulk.show(batch, entities=True)
            for (dataset, _), _ in zip(batch, shown, strict=True):
                before = len(buffer.documents)
                try:
                    self._write(dataset)
                except Exception as error:
                    model.Session.rollback()
                    if passes(error):  # no fault of the dataset's
                        raise
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
        self._core_index.update_dict(shown, True)

    def _send(self, documents: list[dict[str, Any]]) -> list[str]:
        """Sends documents; the ids of those that Solr refuses."""
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
        """Whether the index has stored something else than a document holds now."""
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
    texts = [
        str(each).lower() if isinstance(each, bool) else str(each)
        for each in values
        if each is not None
    ]
    return [
        milliseconds(text) if text.endswith("Z") and text[4:5] == "-" else text
        for text in texts
        if text
    ]
