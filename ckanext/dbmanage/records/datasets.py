"""What `package_show` gives, for a whole batch at a time."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ckan.lib.search as search
import orjson
from ckan import logic, model
from ckan import plugins as p
from ckan.lib import plugins as forms
from ckan.lib.dictization import model_dictize

from ..engine.postgres.again import passes
from . import validation
from .kinds import Record, Shown
from .rows import LONG_DATASETS, Rows, portions
from .search_index import Index, unanswered
from .swaps import (
    has_core_form,
    is_core_action,
    is_shown_by_core,
    plugins_overriding,
    swap,
)

#: so many digits in a row may be a number of more than 64 bits
_LONG_NUMBER, _DIGITS = b"0" * 19, bytes.maketrans(b"123456789", b"0" * 9)


class Datasets:
    """Datasets as `package_show` gives them.

    `context` makes the context of a call; without an index the database alone is read.
    `index_failed` says why the search index is not asked any more.
    """

    def __init__(self, context: Callable[[], Any], index: Index | None = None) -> None:
        self._context, self._index = context, index
        self.index_failed = ""
        self._core_action = is_core_action()
        self._bare = is_shown_by_core() and not context().get("user")
        self._of_resources = plugins_overriding(
            p.IResourceController, "before_resource_show"
        )
        self._rows = Rows()
        self._schemas: dict[str, validation.FixedSchema] = {}
        self._documents: dict[str, Any] = {}
        self._dictized: dict[str, Record] = {}
        self._entities: dict[str, model.Package] = {}

    def plain(self, dataset: str) -> Record:
        """One dataset by the action alone, nothing prefetched or left out."""
        return self._call({}, dataset)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the action reads from here; everything is as before afterwards."""
        replaced = (
            (search, "show", self._show),
            (model_dictize, "package_dictize", self._dictize),
            (model.Package, "get", self._get),
        )
        with contextlib.ExitStack() as stack:
            faster = stack.enter_context(validation.faster())
            if faster and all(hasattr(owner, name) for owner, name, _ in replaced):
                for owner, name, ours in replaced:
                    stack.enter_context(swap(owner, name, ours))
            else:  # pragma: no cover - a CKAN that is not known yet
                self._bare = False
            yield

    def show(
        self, batch: Sequence[tuple[str, str]], entities: bool = False
    ) -> Iterator[Shown]:
        """For each (id, time of the last change, ISO) what gives its dataset.

        With `entities` the models of all are prefetched too.
        """
        for part in portions(batch, LONG_DATASETS):
            yield from self._show_part(dict(part), entities)

    def prefetch(self, ids: Sequence[str]) -> dict[str, Record]:
        """Reads datasets that the action is asked for next, in `swapped`; by id.

        Raises what is wrong with the rows of one.
        """
        self._documents, self._entities = {}, {}
        self._dictized = self._rows(ids)
        return self._dictized

    def _show_part(self, modified: dict[str, str], entities: bool) -> Iterator[Shown]:
        self._documents = self._indexed(modified)
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
            one = self._bare_show if bare[dataset] else self._faster
            yield dataset in self._documents, functools.partial(one, dataset)
        model.Session.expunge_all()

    def _read(self, ids: Sequence[str]) -> dict[str, Record]:
        """Datasets from their rows; the action reads one whose rows are broken."""
        try:
            return self._rows(ids) if ids else {}
        except Exception as error:
            model.Session.rollback()
            if passes(error):
                raise
            half = len(ids) // 2
            return {**self._read(ids[:half]), **self._read(ids[half:])} if half else {}

    def _indexed(self, modified: Mapping[str, str]) -> dict[str, Any]:
        """The documents of {id: time of the last change} of the same moment, by id."""
        if self._index is None or self.index_failed:
            return {}
        try:
            fields = "id,metadata_modified,validated_data_dict"
            found = self._index.documents(list(modified), fields)
        except Exception as error:  # pysolr lets through what requests and urllib raise
            self.index_failed = unanswered(error)
            return {}
        return {
            id: each
            for id, each in found.items()
            # core's own test in package_show: Solr stores less of a second
            if modified[id][:22] == str(each.get("metadata_modified"))[:22]
            and "validated_data_dict" in each
        }

    # -- a dataset that no plugin changes

    def both(self, dataset: str) -> tuple[Record, Record] | None:
        """A dataset by the default schema and by its own one, for core's index.

        As `ckan.logic.package_show_default_and_custom_schemas`; both are the same one
        unless a hook changes the second. None where plugins change more than hooks do,
        or the dataset was not read.
        """
        found = self._dictized.get(dataset)
        if not self._core_action or found is None or not has_core_form(found["type"]):
            return None
        del self._dictized[dataset]
        entity = self._entities.get(dataset)
        for plugin in plugins_overriding(p.IPackageController, "read"):
            plugin.read(entity)
        shown = self._validated(self._hooked(found))
        after = plugins_overriding(p.IPackageController, "after_dataset_show")
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
            return self._hooked(_from_json(document["validated_data_dict"]))
        return self._validated(self._hooked(self._dictized.pop(dataset)))

    def _hooked(self, found: Record) -> Record:
        """The dataset, each resource as the plugins' hooks leave it."""
        for plugin in self._of_resources:
            for resource in found["resources"]:
                plugin.before_resource_show(resource)
        return found

    def _validated(self, found: Record) -> Record:
        kind = found["type"]
        form = forms.lookup_package_plugin(kind)
        if kind not in self._schemas:
            self._schemas[kind] = validation.FixedSchema(form.show_package_schema())
        schema = self._schemas[kind]
        context = self._context() | {
            "model": model,
            "session": model.Session,
            validation.ONLY_VALUES: True,
        }
        return forms.plugin_validate(form, context, found, schema, "package_show")[0]

    # -- the action, and what it reads

    def _faster(self, dataset: str) -> Record:
        return self._call({validation.ONLY_VALUES: True}, dataset)

    def _call(self, more: dict[str, Any], dataset: str) -> Record:
        context = self._context() | more
        if self._index is None:
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


def _from_json(text: str) -> Record:
    """A dataset from its JSON, as core's own `json` reads it."""
    # for orjson a number of more than 64 bits is a float, and NaN none
    packed = text.encode()
    if _LONG_NUMBER not in packed.translate(_DIGITS):  # a tenth of a regular expression
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(packed)
    return json.loads(text)
