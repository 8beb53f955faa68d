"""Datasets, organizations, groups and users: what these kinds are in CKAN's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine.restore.preview import Kind

#: for the preview of a restore; `is_organization` is a boolean here, its text there
KINDS = (
    Kind("datasets", "package", "state = 'active'", changed="metadata_modified"),
    Kind("resources", "resource", "state = 'active'", changed="metadata_modified"),
    Kind(
        "organizations",
        "group",
        "state = 'active' AND left(is_organization::text, 1) = 't'",
    ),
    Kind(
        "groups", "group", "state = 'active' AND left(is_organization::text, 1) = 'f'"
    ),
    Kind("users", "user", "state = 'active'"),
)

Record = dict[str, Any]
#: whether it comes from the search index, and what gives it
Shown = tuple[bool, Callable[[], Record]]


@dataclass(frozen=True)
class Exportable:
    """A kind of records that can be exported: its action, and which there are."""

    action: str
    listed: str
    everything: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _groups(flag: str) -> tuple[str, str]:
    every = f"SELECT id, name, '' FROM \"group\" WHERE is_organization IS {flag}"  # noqa: S608
    return f"{every} AND state = 'active' ORDER BY name", f"{every} ORDER BY name"


_PACKAGE = "SELECT id, name, metadata_modified FROM package"
_USER = "SELECT id, name, '' FROM \"user\" WHERE name <> :site"
#: what ckanapi asks for
NO_USERS = {"include_datasets": False, "include_users": False}

EXPORTED = {
    "datasets": Exportable(
        "package_show",
        f"{_PACKAGE} WHERE state = 'active' AND NOT private ORDER BY name",
        f"{_PACKAGE} ORDER BY name",
    ),
    "organizations": Exportable("organization_show", *_groups("TRUE"), NO_USERS),
    "groups": Exportable("group_show", *_groups("FALSE"), NO_USERS),
    "users": Exportable(
        "user_show",
        f"{_USER} AND state <> 'deleted' ORDER BY name",
        f"{_USER} ORDER BY name",
        {"include_datasets": False},
    ),
}

#: what no file of users holds without being asked for
SECRETS = ("apikey", "password_hash", "password", "reset_key", "plugin_extras")


@dataclass(frozen=True)
class Wanted:
    """How records are shown.

    `everything` is what a sysadmin sees, private, draft and deleted ones too;
    otherwise what an anonymous visitor sees (of users: what `user_list` lists).
    """

    everything: bool = False
    fresh: bool = False
    secrets: bool = False
