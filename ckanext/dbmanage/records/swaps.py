"""What `package_show` and `user_show` give, for a whole batch at a time.

The real action runs for each record, with its chains, rules of access, schemas and
hooks; only what it reads one by one (the entity, the search index, the rows of a
dataset) is there already, read by a few queries a batch. Where no plugin takes part,
what the action would do is done at once. A core that lacks a name that is swapped
here is left as it is. Knows CKAN, not the web. Needs a request context.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import ckan
import ckan.lib.search as search
import orjson
import sqlalchemy as sa
from ckan import authz, logic, model
from ckan import plugins as p
from ckan.common import config
from ckan.lib import munge, signals
from ckan.lib import plugins as forms
from ckan.lib.dictization import model_dictize, table_dictize
from ckan.lib.helpers import helper_functions as h
from ckan.lib.search.common import make_connection
from ckan.model.types import JsonDictType
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from . import validation
from .processes import brief

Record = dict[str, Any]
#: whether it comes from the search index, and what gives it
Shown = tuple[bool, Callable[[], Record]]
_REMEMBERED_TAGS = 20_000
#: bytes of texts that are read at once
_PORTION = 4 << 20
#: bytes of a record that is not long, and those that a row takes beside its texts
_SHORT, _ROW = 16 << 10, 1000
#: so many digits in a row may be a number of more than 64 bits
_LONG_NUMBER, _DIGITS = b"0" * 19, bytes.maketrans(b"123456789", b"0" * 9)


class Datasets:
    """Datasets as `package_show` gives them.

    `context` makes the context of a call; with `fresh` the database alone is read.
    """

    def __init__(self, context: Callable[[], Any], fresh: bool) -> None:
        self._context = context
        self._fresh = fresh
        self._own_action = _is_cores_own()
        self._bare = _nobody_takes_part() and not context().get("user")
        self._of_resources = _with(p.IResourceController, "before_resource_show")
        self._rows = _Rows()
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
                    stack.enter_context(_swap(owner, name, ours))
            else:  # pragma: no cover - a CKAN that is not known yet
                self._bare = False
            yield

    def show(
        self, batch: Sequence[tuple[str, str]], entities: bool = False
    ) -> Iterator[Shown]:
        """For each (id, time of the last change, ISO) what gives its dataset.

        With `entities` the models of all are at hand too.
        """
        for part in _portions(batch, _LONG_DATASETS):
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
        if not self._own_action or found is None or not _has_core_form(found["type"]):
            return None
        del self._dictized[dataset]
        entity = self._entities.get(dataset)
        for plugin in _with(p.IPackageController, "read"):
            plugin.read(entity)
        shown = self._validated(self._hooked(found))
        after = _with(p.IPackageController, "after_dataset_show")
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
        return found is not None and _has_core_form(found["type"])

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


def dataset_counts(user: str, fresh: bool) -> tuple[Record, str]:
    """What makes `organization_show` and `group_show` count without asking one by one.

    From the search index, as core does; from the database when that does not answer,
    and then why not.
    """
    failed = ""
    if not fresh:
        try:
            return {"dataset_counts": _counts_of_index(user)}, ""
        except Exception as error:  # as many as there are ways not to reach Solr
            failed = brief(error)
    return {"dataset_counts": _counts_of_database(user)}, failed


def _counts_of_index(user: str) -> Record:
    counts = {}
    for field, private in (("owner_org", bool(user)), ("groups", False)):
        asked = {"rows": 0, "facet.field": [field], "facet.limit": -1}
        asked["include_private"] = private
        found = logic.get_action("package_search")({"user": user}, asked)
        counts[field] = found["facets"][field]
    return counts


def _counts_of_database(user: str) -> Record:
    package, member = model.package_table.c, model.member_table.c
    group, visible = model.group_table.c, package.state == "active"
    public = visible & package.private.is_(False)
    by_owner = sa.select(package.owner_org, sa.func.count()).where(
        visible if user else public
    )
    by_group = (
        sa.select(group.name, sa.func.count())
        .where(public, member.table_id == package.id, member.group_id == group.id)
        .where(member.state == "active", member.table_name == "package")
    )
    return {
        field: dict(list(map(tuple, model.Session.execute(query.group_by(column)))))
        for field, query, column in (
            ("owner_org", by_owner, package.owner_org),
            ("groups", by_group, group.name),
        )
    }


class Users:
    """Users as `user_show` gives them to a sysadmin."""

    def __init__(self, show: Callable[[str], Record], sysadmin: str) -> None:
        self._show = show
        self._sysadmin = model.User.get(sysadmin)
        self._entities: dict[str, model.User] = {}
        self._counts: dict[str, int] = {}

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the action reads from here; everything is as before afterwards."""
        with (
            _swap(model.User, "get", self._get),
            _swap(model.User, "number_created_packages", self._count),
        ):
            yield

    def show(self, batch: Sequence[tuple[str, str]]) -> Iterator[Shown]:
        """For each (id, anything) what gives its user."""
        for part in _portions(batch, _LONG_USERS):
            yield from self._show_part([each for each, _ in part])

    def _show_part(self, ids: list[str]) -> Iterator[Shown]:
        query = model.Session.query(model.User).filter(model.User.id.in_(ids))
        self._entities = {user.id: user for user in query}
        package = model.package_table.c
        rows = model.Session.execute(
            sa.select(package.creator_user_id, sa.func.count())
            .where(package.creator_user_id.in_(ids), package.state != "deleted")
            .group_by(package.creator_user_id)
        )
        self._counts = dict.fromkeys(ids, 0) | {row[0]: row[1] for row in rows}
        for user in ids:
            yield False, functools.partial(self._show, user)
        for user in self._entities.values():
            model.Session.expunge(user)

    def _get(self, before: Any, reference: Any) -> Any:
        if self._sysadmin is not None and reference == self._sysadmin.name:
            return self._sysadmin
        return self._entities.get(reference) or before(reference)

    def _count(
        self, before: Any, user: Any, include_private_and_draft: bool = False
    ) -> int:
        if include_private_and_draft and user.id in self._counts:
            return self._counts[user.id]
        return before(user, include_private_and_draft)


@contextmanager
def _swap(owner: Any, name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Puts ours in the place of a function of core's, which it is handed first."""
    own = vars(owner)[name]
    if isinstance(own, classmethod):
        before = getattr(owner, name)

        def replaced(cls: Any, *arguments: Any, **options: Any) -> Any:
            return ours(before, *arguments, **options)

        setattr(owner, name, classmethod(replaced))
    else:

        def replaced_function(*arguments: Any, **options: Any) -> Any:
            return ours(own, *arguments, **options)

        setattr(owner, name, replaced_function)
    try:
        yield
    finally:
        setattr(owner, name, own)


def _is_cores_own() -> bool:
    """Whether the action `package_show` is core's, and nobody is told of its success.

    Who is told may change its result.
    """
    import ckan.logic.action.get as actions

    action = getattr(logic.get_action("package_show"), "__wrapped__", None)
    told = signals.action_succeeded.has_receivers_for("package_show")
    return action is actions.package_show and not told


def _with(interface: Any, hook: str) -> list[Any]:
    """The plugins that have a hook of their own."""
    return [
        plugin
        for plugin in p.PluginImplementations(interface)
        if getattr(type(plugin), hook, None) is not getattr(interface, hook)
    ]


def _nobody_takes_part() -> bool:
    """Whether `package_show` is core's alone, but for what is said of resources."""
    import ckan.logic.auth.get as access

    function: Any = authz._AuthFunctions.get("package_show")
    function = getattr(function, "__wrapped__", function)
    labels = type(forms.get_permission_labels())
    hooks = ("read", "after_dataset_show")
    return (
        _is_cores_own()
        and function is access.package_show
        and labels is forms.DefaultPermissionLabels
        and not any(_with(p.IPackageController, hook) for hook in hooks)
    )


def _has_core_form(kind: str) -> bool:
    return type(forms.lookup_package_plugin(kind)).__module__ == forms.__name__


# ---------------------------------------------------------------- the search index


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
            self.failed = brief(error)
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


# -------------------------------------------------------------------- the database


class _Rows:
    """Datasets as `package_dictize` makes them, from a few queries a batch."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], tuple[Any, Record]] = {}
        self._organizations: dict[str, Record | None] = {}
        self._licences: dict[str | None, Record] = {}
        self._tags: dict[str, Record] = {}
        # 2.12 keeps extras in a column, 2.10 and 2.11 in a table
        self._extras = None
        if "extras" not in model.package_table.c:
            self._extras = _select(
                vars(model)["package_extra_table"], "package_id", "key"
            )
        self._download = "{}_resource.download"
        if ckan.__version__.startswith("2.10."):
            self._download = "resource.download"

    def __call__(self, ids: Sequence[str]) -> dict[str, Record]:
        """The datasets by id."""
        found: dict[str, Record] = {}
        for one in _read(_PACKAGES, ids):
            found[one["id"]] = one
            self._complete(one)
        if self._extras is not None:
            for extra in _read(self._extras, ids):
                found[extra["package_id"]]["extras"].append(_plain(extra))
            for one in found.values():
                one["extras"].sort(key=lambda extra: extra["key"])
        for resource in _read(_RESOURCES, ids):
            one = found[resource["package_id"]]
            one["resources"].append(self._resource(resource, one["type"]))
        tags = _read_rows(_TAGS, ids)
        self._know_tags({tag for _, tag in tags})
        for package, tag in tags:
            found[package]["tags"].append(dict(self._tags[tag]))
        groups: dict[str, list[tuple[Any, Record]]] = {}
        for package, group, capacity in _read_rows(_GROUPS, ids):
            groups.setdefault(package, []).append(self._group(group, capacity))
        for package, members in groups.items():
            members.sort(key=lambda member: member[0])
            found[package]["groups"] = [dict(member[1]) for member in members]
        for statement, side, key in _RELATIONSHIPS:
            for relationship in _read(statement, ids):
                found[relationship[key]][side].append(relationship)
        for one in found.values():
            one["resources"].sort(key=lambda resource: resource["position"])
            one["num_resources"] = len(one["resources"])
            one["tags"].sort(key=lambda tag: tag["name"])
            one["num_tags"] = len(one["tags"])
        return found

    def _complete(self, one: Record) -> None:
        one.pop("plugin_data", None)
        if one["title"]:
            one["title"] = one["title"].strip()
        extras = one.get("extras") or {}
        one["extras"] = [{"key": key, "value": value} for key, value in extras.items()]
        for name in ("resources", "tags", "groups"):
            one[name] = []
        for _, side, _ in _RELATIONSHIPS:
            one[side] = []
        one["organization"] = self._organization(one["owner_org"])
        one["type"] = one["type"] or "dataset"
        one.update(self._licence(one["license_id"]))
        _plain(one)

    def _resource(self, one: Record, kind: str) -> Record:
        # its own columns first: extras may have their names
        extras = _plain(one).pop("extras", None)
        resource = one["id"]
        if extras:
            one.update(extras)
        url = one["url"]
        if one.get("url_type") == "upload":
            one["url"] = h.url_for(
                self._download.format(kind),
                id=one["package_id"],
                resource_id=resource,
                filename=munge.munge_filename(url.rsplit("/")[-1]),
                qualified=True,
            )
        elif url and not urlsplit(url).scheme:
            one["url"] = "http://" + url.lstrip("/")
        return one

    def _know_tags(self, tags: set[str]) -> None:
        if len(self._tags) > _REMEMBERED_TAGS:
            self._tags.clear()
        for tag in _read(_TAG, list(tags - self._tags.keys())):
            tag |= {"state": "active", "display_name": tag["name"]}
            self._tags[tag["id"]] = tag

    def _group(self, group: str, capacity: str) -> tuple[Any, Record]:
        """A group as core shows it in a dataset, and what core sorts it by."""
        if (group, capacity) not in self._groups:
            table = model.group_table
            row: Any = model.Session.execute(
                sa.select(table, sa.literal(capacity).label("capacity")).where(
                    table.c.id == group
                )
            )
            context: Any = {"model": model, "session": model.Session, "user": ""}
            (made,) = model_dictize.group_list_dictize(
                row, context | {"with_capacity": False}, with_package_counts=False
            )
            shown = {str(key): value for key, value in made.items()}
            order = h.strxfrm(shown["display_name"])
            self._groups[group, capacity] = order, shown
        return self._groups[group, capacity]

    def _organization(self, group: str | None) -> Record | None:
        if group is None:
            return None
        if group not in self._organizations:
            table = model.group_table
            row = model.Session.execute(
                sa.select(table).where(table.c.id == group, table.c.state == "active")
            ).first()
            shown = None
            if row is not None:
                made = table_dictize(row, {}).items()
                shown = {str(key): value for key, value in made}
                shown.pop("extras", None)
            self._organizations[group] = shown
        shown = self._organizations[group]
        return dict(shown) if shown is not None else None

    def _licence(self, licence: str | None) -> Record:
        if licence not in self._licences:
            one = model.Package()
            one.license_id = licence
            # 2.10 and 2.11 take it for a property if it is one
            is_open = one.isopen if isinstance(one.isopen, bool) else one.isopen()
            shown: Record = {"isopen": is_open, "license_title": licence}
            if one.license:
                shown["license_title"] = one.license.title
            if one.license and one.license.url:
                shown["license_url"] = one.license.url
                shown["license_title"] = one.license.title.split("::")[-1]
            self._licences[licence] = shown
        return self._licences[licence]


_IDS = sa.bindparam("ids", type_=ARRAY(sa.Text))
_CTID = sa.literal_column("ctid")


def _select(table: Any, key: str, *order: str) -> Any:
    """The active rows of some datasets; ties in the order of the table, as in core."""
    statement = sa.select(*table.c).where(table.c[key] == sa.any_(_IDS))
    if key != "id":
        statement = statement.where(table.c.state == "active")
    return statement.order_by(*[table.c[each] for each in order], _CTID)


_PACKAGES = _select(model.package_table, "id")
_RESOURCES = _select(model.resource_table, "package_id")
_RELATIONSHIPS = tuple(
    (_select(model.package_relationship_table, key), side, key)
    for side, key in (
        ("relationships_as_subject", "subject_package_id"),
        ("relationships_as_object", "object_package_id"),
    )
)
_TAG = sa.select(*model.tag_table.c).where(model.tag_table.c.id == sa.any_(_IDS))
_TAGS = (
    sa.select(model.package_tag_table.c.package_id, model.package_tag_table.c.tag_id)
    .where(
        model.package_tag_table.c.package_id == sa.any_(_IDS),
        model.package_tag_table.c.state == "active",
    )
    .order_by(_CTID)
)
_GROUPS = (
    sa.select(
        model.member_table.c.table_id,
        model.member_table.c.group_id,
        model.member_table.c.capacity,
    )
    .where(
        model.member_table.c.table_id == sa.any_(_IDS),
        model.member_table.c.state == "active",
        model.member_table.c.group_id.in_(
            sa.select(model.group_table.c.id).where(
                model.group_table.c.is_organization == sa.false()
            )
        ),
    )
    .order_by(sa.literal_column("member.ctid"))
)


def _length(column: Any) -> Any:
    """The bytes of a column's text, without reading what is stored apart or packed."""
    if isinstance(column.type, JSONB):  # its text has to be made: for long ones only
        made = sa.func.octet_length(sa.cast(column, sa.Text))
        return sa.case((sa.func.pg_column_size(column) > 1000, made), else_=1000)
    return sa.func.coalesce(sa.func.octet_length(column), 0)


def _lengths(table: Any, key: str) -> Any:
    texts = [c for c in table.c if isinstance(c.type, (sa.Text, JSONB, JsonDictType))]
    size: Any = sum(map(_length, texts), _ROW)
    id = table.c[key]
    return sa.select(id.label("id"), size.label("bytes")).where(id == sa.any_(_IDS))


def _long(*parts: Any) -> Any:
    """The ids of records that are longer than most, and some bytes of each."""
    every = sa.union_all(*parts).subquery()
    size = sa.func.sum(every.c.bytes)
    return sa.select(every.c.id, size).group_by(every.c.id).having(size > _SHORT)


#: of a dataset all that can be long: its texts, its resources, its organization
_LONG_DATASETS = _long(
    _lengths(model.package_table, "id"),
    _lengths(model.resource_table, "package_id"),
    sa.select(model.package_table.c.id, _length(model.group_table.c.description)).where(
        model.package_table.c.id == sa.any_(_IDS),
        model.package_table.c.owner_org == model.group_table.c.id,
    ),
    *(
        _lengths(vars(model)[name], "package_id")
        for name in ("package_extra_table",)
        if name in vars(model)
    ),
)
_LONG_USERS = _long(_lengths(model.user_table, "id"))


def _portions(
    batch: Sequence[tuple[str, str]], long: Any
) -> Iterator[list[tuple[str, str]]]:
    """A batch in parts of which each is held in memory at once.

    A part has at most some _PORTION bytes, or is one record.
    """
    known = dict(map(tuple, _read_rows(long, [id for id, _ in batch])))
    part: list[tuple[str, str]] = []
    held = 0
    for one in batch:
        size = int(known.get(one[0], _SHORT))
        if part and held + size > _PORTION:
            yield part
            part, held = [], 0
        part.append(one)
        held += size
    if part:
        yield part


def _read_rows(statement: Any, ids: Sequence[str]) -> Any:
    return model.Session.execute(statement, {"ids": list(ids)}).fetchall()


def _read(statement: Any, ids: Sequence[str]) -> Iterator[Record]:
    """Rows as dictionaries by the names of their columns."""
    names: list[str] | None = None
    for row in _read_rows(statement, ids):
        names = names or [str(name) for name in row._fields]
        yield dict(zip(names, row, strict=True))


def _plain(one: Record) -> Record:
    """Times as core's dictionaries have them, in place."""
    for name, value in one.items():
        if value.__class__ is datetime.datetime:
            one[name] = value.isoformat()
    return one
