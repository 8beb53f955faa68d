"""What `package_show` gives, for a whole batch at a time."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import ckan.lib.search as search
import orjson
from ckan import logic, model
from ckan import plugins as p
from ckan.common import config
from ckan.lib import plugins as forms
from ckan.lib.dictization import model_dictize
from ckan.lib.search.common import make_connection

from ..engine.errors import summary_of
from . import validation
from .kinds import Record, Shown
from .rows import LONG_DATASETS, Rows, portions
from .swaps import has_core_form, is_cores_own, nobody_takes_part, plugins_with, swap

#: so many digits in a row may be a number of more than 64 bits
_LONG_NUMBER, _DIGITS = b"0" * 19, bytes.maketrans(b"123456789", b"0" * 9)


class Datasets:
    """Datasets as `package_show` gives them.

    `context` makes the context of a call; with `fresh` the database alone is read.
    """

    def __init__(self, context: Callable[[], Any], fresh: bool) -> None:
        self._context = context
        self._fresh = fresh
        self._own_action = is_cores_own()
        self._bare = nobody_takes_part() and not context().get("user")
        self._of_resources = plugins_with(p.IResourceController, "before_resource_show")
        self._rows = Rows()
        self._schemas: dict[str, validation.Kept] = {}
        self._solr: Any = None if fresh else _Index()
        self._documents: dict[str, Any] = {}
        self._dictized: dict[str, Record] = {}
        self._entities: dict[str, model.Package] = {}

    @property
    def index_failed(self) -> str:
        """Why the search index is not asked any more, or nothing."""
        return "" if self._fresh else self._solr.failed

    def plain(self, dataset: str) -> Record:
        """One dataset by the action alone, nothing prefetched or left out."""
        context = self._context() | ({"use_cache": False} if self._fresh else {})
        return logic.get_action("package_show")(context, {"id": dataset})

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the action reads from here; everything is as before afterwards."""
        with contextlib.ExitStack() as stack:
            if all(
                (
                    stack.enter_context(validation.faster()),
                    hasattr(search, "show"),
                    hasattr(model_dictize, "package_dictize"),
                )
            ):
                for owner, name, ours in (
                    (search, "show", self._show),
                    (model_dictize, "package_dictize", self._dictize),
                    (model.Package, "get", self._get),
                ):
                    stack.enter_context(swap(owner, name, ours))
            else:  # pragma: no cover - a CKAN that is not known yet
                self._bare = False
            yield

    def show(
        self, batch: Sequence[tuple[str, str]], entities: bool = False
    ) -> Iterator[Shown]:
        """For each (id, time of the last change, ISO) what gives its dataset.

        With `entities` the models of all are at hand too.
        """
        for part in portions(batch, LONG_DATASETS):
            yield from self._show_part(dict(part), entities)

    def _show_part(self, modified: dict[str, str], entities: bool) -> Iterator[Shown]:
        self._documents = self._solr(modified) if self._solr else {}
        missing = [each for each in modified if each not in self._documents]
        self._dictized = self._read(missing)
        self._entities = {}
        bare = {each: self._is_bare(each) for each in modified}
        others = [each for each in modified if entities or not bare[each]]
        if others:
            found = model.Session.query(model.Package).filter(
                model.Package.id.in_(others)
            )
            self._entities = {each.id: each for each in found}
        for dataset in modified:
            one = self._bare_show if bare[dataset] else self._action
            yield dataset in self._documents, functools.partial(one, dataset)
        model.Session.expunge_all()

    def _read(self, ids: Sequence[str]) -> dict[str, Record]:
        """These datasets' rows; one whose rows are broken is left to the action."""
        try:
            return self._rows(ids) if ids else {}
        except Exception:
            model.Session.rollback()
            half = len(ids) // 2
            return {**self._read(ids[:half]), **self._read(ids[half:])} if half else {}

    # -- a dataset without a plugin that has a say

    def both(self, dataset: str) -> tuple[Record, Record] | None:
        """It by the default schema and by its own one, as core's index wants it.

        As `ckan.logic.package_show_default_and_custom_schemas`; both are the same one
        unless a hook changes the second. None where plugins have more of a say than
        by hooks, or the dataset was not read.
        """
        found = self._dictized.get(dataset)
        if not self._own_action or found is None or not has_core_form(found["type"]):
            return None
        del self._dictized[dataset]
        entity = self._entities.get(dataset)
        for plugin in plugins_with(p.IPackageController, "read"):
            plugin.read(entity)
        shown = self._validated(self._hooked(found))
        after = plugins_with(p.IPackageController, "after_dataset_show")
        if not after:
            return shown, shown
        other = self._validated(found)
        context = self._context() | {"session": model.Session, "package": entity}
        for plugin in after:
            plugin.after_dataset_show(context, other)
        return shown, other

    def _is_bare(self, dataset: str) -> bool:
        if not self._bare or dataset in self._documents:
            return self._bare
        found = self._dictized.get(dataset)
        # a form of a plugin may want the entity, and more
        return found is not None and has_core_form(found["type"])

    def _bare_show(self, dataset: str) -> Record:
        document = self._documents.pop(dataset, None)
        if document is not None:
            return self._hooked(_understood(document["validated_data_dict"]))
        return self._validated(self._hooked(self._dictized.pop(dataset)))

    def _hooked(self, found: Record) -> Record:
        """It, once each plugin has had its say on each resource."""
        for plugin in self._of_resources:
            for resource in found["resources"]:
                plugin.before_resource_show(resource)
        return found

    def _validated(self, found: Record) -> Record:
        kind = found["type"]
        form = forms.lookup_package_plugin(kind)
        if kind not in self._schemas:
            self._schemas[kind] = validation.Kept(form.show_package_schema())
        schema = self._schemas[kind]
        context = self._context() | {
            "model": model,
            "session": model.Session,
            validation.ONLY_VALUES: True,
        }
        return forms.plugin_validate(form, context, found, schema, "package_show")[0]

    # -- the action, and what it reads

    def _action(self, dataset: str) -> Record:
        context = self._context() | {validation.ONLY_VALUES: True}
        if self._fresh:
            context["use_cache"] = False
        return logic.get_action("package_show")(context, {"id": dataset})

    def _show(self, before: Any, reference: str) -> Any:
        if reference in self._documents:
            # once: another reader of the same dataset gets core's answer
            return self._documents.pop(reference)
        if reference in self._dictized:
            raise search.SearchError(f"{reference} is read from the database")
        return before(reference)

    def _dictize(
        self, before: Any, pkg: Any, context: Any, include_plugin_data: bool = False
    ) -> Record:
        usual = context.get("active", True) and not context.get("for_edit")
        if not usual or include_plugin_data or pkg.id not in self._dictized:
            return before(pkg, context, include_plugin_data)
        context["with_capacity"] = False
        return self._dictized.pop(pkg.id)

    def _get(self, before: Any, reference: Any, for_update: bool = False) -> Any:
        found = None if for_update else self._entities.get(reference)
        return before(reference, for_update=for_update) if found is None else found


class _Index:
    """Datasets as the search index holds them."""

    def __init__(self) -> None:
        # pysolr's own decoder is the slower half of an answer
        self._solr = make_connection(decode_dates=False)
        self._solr.decoder = SimpleNamespace(decode=orjson.loads)
        self.failed = ""

    def __call__(self, modified: Mapping[str, str]) -> dict[str, Any]:
        """The documents of the same moment, by id: {id: time of the last change}."""
        if self.failed:
            return {}
        try:
            found = self._solr.search(
                "{!terms f=id}" + ",".join(modified),
                fq=[f'+site_id:"{config.get("ckan.site_id")}"', "+entity_type:package"],
                fl="id,metadata_modified,validated_data_dict",
                rows=len(modified),
            ).docs
        except Exception as error:  # pysolr lets through what requests and urllib raise
            self.failed = summary_of(error)
            return {}
        return {
            each["id"]: each
            for each in found
            # core's own test in package_show: Solr stores less of a second
            if modified[each["id"]][:22] == str(each.get("metadata_modified"))[:22]
            and "validated_data_dict" in each
        }


def _understood(text: str) -> Record:
    """A dataset from its JSON, as core's own `json` reads it."""
    # for orjson a number of more than 64 bits is a float, and NaN none
    packed = text.encode()
    if _LONG_NUMBER not in packed.translate(_DIGITS):  # a tenth of a regular expression
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(packed)
    return json.loads(text)
