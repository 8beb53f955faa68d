"""Which rows of CKAN's database belong to one dataset, organization, group or user.

What a plugin keeps in tables of its own is found by the ids in it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..engine.archive.rows import Rows, escaped, plain
from ..engine.errors import Refused
from ..engine.printable import one_line
from ..engine.restore.gathered import Belonging
from ..engine.words import alike

_PACKAGE, RESOURCE = "public.package", "public.resource"
_GROUP, _USER, _MEMBER = "public.group", "public.user", "public.member"

BELONGING = Belonging(
    names=(
        (_PACKAGE, "owner_org", _GROUP),
        (_PACKAGE, "creator_user_id", _USER),
        (_MEMBER, "table_id", _USER),
        (_MEMBER, "table_id", _GROUP),
    ),
    own={
        f"public.{name}"
        for name in (
            "package_extra", "package_tag", "package_member", "package_relationship",
            "resource_view", "member", "group_extra", "tag", "vocabulary",
        )
    },
    # all datasets of an organization, and of a user, name it
    never={
        f"public.{name}"
        for name in (
            "package", "resource", "activity", "activity_detail", "api_token",
            "tracking_raw", "tracking_summary", "user_following_dataset",
            "user_following_group", "user_following_user", "task_status", "dashboard",
            "term_translation",
        )
    },
)  # fmt: skip

#: tables of which CKAN reads all
WHOLE = ("public.system_info", "public.vocabulary")
_VERSIONS = "alembic_version"
_FLAG = "is_organization"

#: the tables of the kinds, and what `is_organization` is there
_TABLES = {
    "dataset": (_PACKAGE, None),
    "organization": (_GROUP, b"t"),
    "group": (_GROUP, b"f"),
    "user": (_USER, None),
}


@dataclass(frozen=True)
class Named:
    """A record that a dump has: its id and name, and whether it is deleted there."""

    id: str
    name: str
    deleted: bool


def whole_tables(rows: Rows) -> list[str]:
    """The tables that are loaded with all rows."""
    return [each for each in rows.entries if each in WHOLE or each.endswith(_VERSIONS)]


def named(rows: Rows, kind: str, names: Collection[str], source: str) -> list[Named]:
    """The records of a kind that have these names or ids, each once, in this order.

    Raises Refused for one that is not there, with those that are called alike.
    """
    table, flag = _TABLES[kind]
    at = [rows.place(table, column) for column in ("id", "name", "state")]
    found: dict[str, Named] = {}
    for fields in rows.having(table, [*map(escaped, names)], ["id", "name"]):
        if flag and fields[rows.place(table, _FLAG)] != flag:
            continue
        id, name, state = (plain(fields[place]) for place in at)
        found[name] = found[id] = Named(id, name, state == "deleted")
    for name in names:
        if name not in found:
            raise Refused(
                f"{source} holds no {kind} {one_line(name)!r}{_alike(rows, kind, name)}"
            )
    return list({found[name].id: found[name] for name in names}.values())


def _alike(rows: Rows, kind: str, name: str) -> str:
    """What is called alike, as the end of a sentence."""
    table, flag = _TABLES[kind]
    place = rows.place(table, "name")
    at = rows.place(table, _FLAG) if flag else 0
    known = (
        plain(fields[place])
        for fields in rows.all(table)
        if not flag or fields[at] == flag
    )
    return alike(name, known)


def roots(
    rows: Rows, kind: str, ids: Collection[str], with_datasets: bool
) -> Mapping[str, set[bytes]]:
    """The ids of the records and of what is part of them, by table.

    Of an organization or a group its datasets too, where they are asked for.
    """
    table, _ = _TABLES[kind]
    found = {table: {*map(escaped, ids)}}
    if with_datasets:
        found[_PACKAGE] = {
            fields[rows.place(_PACKAGE, "id")]
            for fields in rows.having(_PACKAGE, found[table], ["owner_org"])
        }
        if kind == "group":
            place = rows.place(_MEMBER, "table_id")
            members = rows.having(_MEMBER, found[table], ["group_id"])
            found[_PACKAGE] |= {fields[place] for fields in members}
    if _PACKAGE in found:
        place = rows.place(RESOURCE, "id")
        own = rows.having(RESOURCE, found[_PACKAGE], ["package_id"])
        found[RESOURCE] = {fields[place] for fields in own}
    return found
