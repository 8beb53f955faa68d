"""Datasets, organizations, groups and users: what these kinds are in CKAN's tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine.restore.preview import Kind

_ACTIVE = "state = 'active'"
# the preview of a restore reads the tables as texts: a boolean's first letter is one
_ORGANIZATION = "left(is_organization::text, 1) = 't'"
_GROUP = "left(is_organization::text, 1) = 'f'"

#: who changed a dataset last: as the stream of activities has it, else who made one
#: that is not in the backup
_EDITORS = {
    "activity": 'SELECT u.name FROM public.activity x JOIN public."user" u'
    " ON u.id = x.user_id WHERE x.object_id = a.id ORDER BY x.timestamp DESC LIMIT 1",
    "package": 'SELECT u.name FROM public.package x JOIN public."user" u'
    " ON u.id = x.creator_user_id WHERE x.id = a.id AND b.id IS NULL",
}
# no time tells of a change of these
_GROUP_STATE = "concat_ws(chr(31), name, title, description, image_url)"
_USER_STATE = (
    "concat_ws(chr(31), name, fullname, email, about, password,"
    " left(sysadmin::text, 1))"
)


def _indexed(kind: str) -> str:
    """The same rows among the lines of a backup's index (`portal/indexed.py`)."""
    return f"kind = '{kind}' AND {_ACTIVE}"


#: for the preview of a restore
KINDS = (
    Kind(
        "datasets", "package", _ACTIVE, _indexed("dataset"),
        changed="metadata_modified", label="name", title="title", people=_EDITORS,
    ),
    Kind(
        "resources", "resource", _ACTIVE, _indexed("resource"),
        changed="metadata_modified",
    ),
    Kind(
        "organizations", "group", f"{_ACTIVE} AND {_ORGANIZATION}",
        _indexed("organization"),
        changed=_GROUP_STATE, label="name", title="title",
    ),
    Kind(
        "groups", "group", f"{_ACTIVE} AND {_GROUP}", _indexed("group"),
        changed=_GROUP_STATE, label="name", title="title",
    ),
    Kind(
        "users", "user", _ACTIVE, _indexed("user"),
        changed=_USER_STATE, label="name", title="fullname",
    ),
)  # fmt: skip

Record = dict[str, Any]
#: whether it comes from the search index, and what gives it
Shown = tuple[bool, Callable[[], Record]]


@dataclass(frozen=True)
class Exportable:
    """A kind of records that can be exported: its action, its table, and which rows.

    `rows` tells those of the kind; `listed` those of them that an export has unless all
    are asked for; `modified` is the column with the time of the last change.
    """

    action: str
    table: str
    rows: str = "true"
    listed: str = _ACTIVE
    modified: str = "''"
    options: Mapping[str, Any] = field(default_factory=dict)

    def select(self, everything: bool) -> str:
        """SQL for id, name and time of the records; `:site` is the site's id."""
        where = self.rows if everything else f"{self.rows} AND {self.listed}"
        return f'SELECT id, name, {self.modified} FROM "{self.table}" WHERE {where}'  # noqa: S608


#: what ckanapi asks for
NO_USERS = {"include_datasets": False, "include_users": False}

EXPORTED = {
    "datasets": Exportable(
        "package_show",
        "package",
        listed=f"{_ACTIVE} AND NOT private",
        modified="metadata_modified",
    ),
    "organizations": Exportable(
        "organization_show", "group", _ORGANIZATION, options=NO_USERS
    ),
    "groups": Exportable("group_show", "group", _GROUP, options=NO_USERS),
    "users": Exportable(
        "user_show",
        "user",
        "name <> :site",
        listed="state <> 'deleted'",
        options={"include_datasets": False},
    ),
}

#: what no file of users holds without being asked for
SECRETS = ("apikey", "password_hash", "password", "reset_key", "plugin_extras")


@dataclass(frozen=True)
class Wanted:
    """How records are shown.

    `everything` is what a sysadmin sees, private, draft and deleted ones too;
    otherwise an export has what an anonymous visitor sees, and the users that
    `user_list` lists.
    """

    everything: bool = False
    fresh: bool = False
    secrets: bool = False
