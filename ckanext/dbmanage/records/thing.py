"""One thing of a portal as CKAN shows it, with all that belongs to it.

It is read out of the CKAN of this process: the live one, or an isolated one on a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import sqlalchemy as sa
from ckan import logic, model

from ..portal.config import Options
from ..portal.uploads import bases
from .kinds import NO_USERS, Record

#: the kinds of thing, as the index of a backup names them, and CKAN's word for each
ACTIONS = {
    "dataset": "package",
    "organization": "organization",
    "group": "group",
    "user": "user",
}
#: smaller ones, which come back alone while their record stays
TABLE, UPLOAD = "table", "upload"

#: kind, id and name of another thing
Other = tuple[str, str, str]


@dataclass(frozen=True)
class Thing:
    """One thing, JSON through and through.

    `kind` is one of ACTIONS, or TABLE (`id` is the resource's) or UPLOAD (`id` is the
    path), whose `record` is empty. `record` is what CKAN's own action shows, hooks and
    schemas included; `around` what belongs to it and the action does not show, as rows
    by table. `uploads` are names as in a backup's `files.jsonl`; `tables` the ids of
    resources that have a DataStore table; `needs` what it refers to: its organization,
    its groups, its users.
    """

    kind: str
    id: str
    name: str
    record: Record = field(default_factory=dict)
    around: Record = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    needs: list[Other] = field(default_factory=list)

    def as_json(self) -> Record:
        """What `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Record) -> Thing:
        """The thing of what `as_json` gave. Raises KeyError, TypeError."""
        known: Any = {each.name: found[each.name] for each in fields(cls)}
        known["needs"] = [(str(a), str(b), str(c)) for a, b, c in known["needs"]]
        return cls(**known)


#: which of these resources have a DataStore table
Tables = Callable[[Sequence[str]], Iterable[str]]


def read(
    kind: str, reference: str, options: Options, tables: Tables = lambda _: ()
) -> Thing | None:
    """The thing of an id or a name, deleted ones too; None where there is none.

    A user comes with the hash of the password. Needs CKAN's application context, and
    asks neither the search index nor Redis. Raises what CKAN's actions raise.
    """
    found = _found(kind, reference)
    if found is None:
        return None
    context: Any = {"ignore_auth": True, "use_cache": False, "user": sysadmin()}
    asked: Record = {"id": found.id}
    if kind in ("organization", "group"):
        asked |= NO_USERS | {"include_dataset_count": False}
        asked |= {"include_followers": False}
        # else the index is asked for those of its parents
        context["dataset_counts"] = {"owner_org": {}, "groups": {}}
    elif kind == "user":
        asked |= {"include_password_hash": True, "include_plugin_extras": True}
    record = logic.get_action(f"{ACTIONS[kind]}_show")(context, asked)
    around, needs = _READERS[kind](found)
    resources = [each["id"] for each in record.get("resources", ())]
    return Thing(
        kind,
        found.id,
        found.name,
        _plain(record),
        _plain(around),
        _uploads(kind, found, options),
        sorted(tables(resources)) if resources else [],
        needs,
    )


def datasets_of(kind: str, id: str) -> list[str]:
    """The ids of an organization's datasets, or a group's, but for the deleted."""
    package, member = model.package_table.c, model.member_table.c
    query = sa.select(package.id).where(package.state != "deleted")
    if kind == "organization":
        query = query.where(package.owner_org == id)
    else:
        query = query.where(
            member.group_id == id,
            member.table_name == "package",
            member.table_id == package.id,
            member.state == "active",
        )
    return [row[0] for row in model.Session.execute(query.order_by(package.name))]


def sysadmin() -> str:
    """The name of the user that CKAN acts as for itself."""
    return logic.get_action("get_site_user")({"ignore_auth": True}, {})["name"]


def _found(kind: str, reference: str) -> Any:
    model.Session.expire_all()
    if kind == "dataset":
        return model.Package.get(reference)
    if kind == "user":
        return model.User.get(reference)
    group = model.Group.get(reference)
    wanted = kind == "organization"
    return group if group is not None and group.is_organization == wanted else None


# -- what the actions do not show


def _around_dataset(found: Any) -> tuple[Record, list[Other]]:
    resource = model.resource_table.c
    mapped: Any = sa.inspect(model.ResourceView)
    view = mapped.local_table.c
    around = {
        "package": {
            "creator_user_id": found.creator_user_id,
            "metadata_created": found.metadata_created,
            "plugin_data": found.plugin_data,
        },
        "resource_view": _rows(
            sa.select(*view)
            .where(view.resource_id == resource.id, resource.package_id == found.id)
            .where(resource.state == "active")
            .order_by(view.resource_id, view.order, view.id)
        ),
        "package_member": _rows(
            sa.select(model.PackageMember.user_id, model.PackageMember.capacity)
            .where(model.PackageMember.package_id == found.id)
            .order_by(model.PackageMember.user_id)
        ),
        "vocabulary": _vocabularies(found.id),
    }
    member = model.member_table.c
    groups = sa.select(member.group_id).where(
        member.table_id == found.id,
        member.table_name == "package",
        member.state == "active",
    )
    others = [row[0] for row in model.Session.execute(groups)]
    people = [each["user_id"] for each in around["package_member"]]
    needs = _groups([found.owner_org, *others])
    return around, needs + _users([found.creator_user_id, *people])


def _vocabularies(dataset: str) -> list[Record]:
    """Those of a dataset's tags: the id and the name of each."""
    mapped: Any = sa.inspect(model.Vocabulary)
    vocabulary, tag = mapped.local_table.c, model.tag_table.c
    tagged = model.package_tag_table.c
    return _rows(
        sa.select(vocabulary.id, vocabulary.name)
        .distinct()
        .where(tagged.package_id == dataset, tagged.state == "active")
        .where(tag.id == tagged.tag_id, tag.vocabulary_id == vocabulary.id)
        .order_by(vocabulary.name)
    )


def _around_group(found: Any) -> tuple[Record, list[Other]]:
    member = model.member_table.c
    # of an organization the datasets say so themselves
    kinds = ["user"] if found.is_organization else ["user", "package"]
    around = {
        "group": {"created": found.created},
        "member": _rows(
            sa.select(member.table_name, member.table_id, member.capacity)
            .where(member.group_id == found.id, member.state == "active")
            .where(member.table_name.in_(kinds))
            .order_by(member.table_name, member.table_id, member.id)
        ),
    }
    parents = sa.select(member.table_id).where(
        member.group_id == found.id,
        member.table_name == "group",
        member.state == "active",
    )
    above = [row[0] for row in model.Session.execute(parents)]
    people = [
        each["table_id"] for each in around["member"] if each["table_name"] == "user"
    ]
    return around, _groups(above) + _users(people)


def _around_user(found: Any) -> tuple[Record, list[Other]]:
    member = model.member_table.c
    around = {
        "user": {"created": found.created},
        "member": _rows(
            sa.select(member.group_id, member.capacity)
            .where(member.table_id == found.id, member.table_name == "user")
            .where(member.state == "active")
            .order_by(member.group_id, member.id)
        ),
        "package_member": _rows(
            sa.select(model.PackageMember.package_id, model.PackageMember.capacity)
            .where(model.PackageMember.user_id == found.id)
            .order_by(model.PackageMember.package_id)
        ),
    }
    groups = [each["group_id"] for each in around["member"]]
    return around, _groups(groups)


_READERS: dict[str, Callable[[Any], tuple[Record, list[Other]]]] = {
    "dataset": _around_dataset,
    "organization": _around_group,
    "group": _around_group,
    "user": _around_user,
}


def _rows(query: Any) -> list[Record]:
    return [dict(row._mapping) for row in model.Session.execute(query)]


def _groups(ids: Iterable[str | None]) -> list[Other]:
    column = model.group_table.c
    query = sa.select(column.is_organization, column.id, column.name)
    return [
        ("organization" if is_organization else "group", id, name)
        for is_organization, id, name in _those(query, column.id, ids)
    ]


def _users(ids: Iterable[str | None]) -> list[Other]:
    column = model.user_table.c
    rows = _those(sa.select(column.id, column.name), column.id, ids)
    return [("user", id, name) for id, name in rows]


def _those(query: Any, column: Any, ids: Iterable[str | None]) -> Any:
    """The rows of these ids that are there, by name."""
    wanted = sorted(set(filter(None, ids)))
    return model.Session.execute(query.where(column.in_(wanted)).order_by("name"))


def _plain(found: Any) -> Any:
    """The same as JSON has it: times are texts."""
    if isinstance(found, dict):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_plain(value) for value in found]
    return found.isoformat() if hasattr(found, "isoformat") else found


# -- its files


def _uploads(kind: str, found: Any, options: Options) -> list[str]:
    begin = bases(options)
    if kind != "dataset":
        base = begin.get("user" if kind == "user" else "group")
        image = found.image_url or ""
        own = base and image and "/" not in image and image not in (".", "..")
        return [f"{base}/{image}"] if own else []
    base, resource = begin.get("resource"), model.resource_table.c
    if base is None:
        return []
    rows = model.Session.execute(
        sa.select(resource.id)
        .where(resource.package_id == found.id, resource.url_type == "upload")
        .where(resource.state == "active")
        .order_by(resource.id)
    )
    return [f"{base}/{id[:3]}/{id[3:6]}/{id[6:]}" for (id,) in rows]
