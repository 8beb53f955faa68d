"""The rows of a batch of datasets or users, by few queries, in portions."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import ckan
import sqlalchemy as sa
from ckan import model
from ckan.lib import munge
from ckan.lib.dictization import model_dictize, table_dictize
from ckan.lib.helpers import helper_functions as h
from ckan.model.types import JsonDictType
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from .kinds import Record

_REMEMBERED_TAGS = 20_000
#: bytes of texts that are read at once
_PORTION = 4 << 20
#: bytes of a record that is not long, and those that a row takes beside its texts
_SHORT, _ROW = 16 << 10, 1000


class Rows:
    """Datasets as `package_dictize` makes them, from a few queries a batch."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], tuple[Any, Record]] = {}
        self._organizations: dict[str, Record | None] = {}
        self._licences: dict[str | None, Record] = {}
        self._tags: dict[str, Record] = {}
        self._download = "{}_resource.download"
        if ckan.__version__.startswith("2.10."):
            self._download = "resource.download"

    def __call__(self, ids: Sequence[str]) -> dict[str, Record]:
        """The datasets by id."""
        found: dict[str, Record] = {}
        for one in _read(_PACKAGES, ids):
            found[one["id"]] = one
            self._complete(one)
        if _EXTRAS is not None:
            for extra in _read(_EXTRAS, ids):
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


# 2.12 keeps extras in a column, 2.10 and 2.11 in a table
_EXTRA_TABLE = vars(model).get("package_extra_table")
_EXTRAS = None
if "extras" not in model.package_table.c:
    _EXTRAS = _select(_EXTRA_TABLE, "package_id", "key")
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
LONG_DATASETS = _long(
    _lengths(model.package_table, "id"),
    _lengths(model.resource_table, "package_id"),
    sa.select(model.package_table.c.id, _length(model.group_table.c.description)).where(
        model.package_table.c.id == sa.any_(_IDS),
        model.package_table.c.owner_org == model.group_table.c.id,
    ),
    *([] if _EXTRA_TABLE is None else [_lengths(_EXTRA_TABLE, "package_id")]),
)

LONG_USERS = _long(_lengths(model.user_table, "id"))


def portions(
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
