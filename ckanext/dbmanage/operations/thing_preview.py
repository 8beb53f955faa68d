"""What bringing one thing back would change: then and now, field by field."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..engine.clock import stamp
from ..engine.errors import Refused
from ..engine.operation import Operation
from ..engine.postgres import beside
from ..engine.postgres.database import closing, query
from ..engine.postgres.tables import count_rows
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..engine.uploads.folders import folder_of, folders_of
from ..records.kinds import SECRETS
from .context import Portal, application, find_site, refuse_root
from .stages import staged
from .then import Then, open_then, then
from .things import Selection

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.thing import Thing

Told = dict[str, Any]

#: what CKAN makes of other fields, or counts
_DERIVED = {
    "activity_streams_email_notifications", "apikey", "display_name", "email_hash",
    "followers", "gravatar_url", "groups", "image_display_url", "isopen",
    "license_title", "num_followers", "num_resources", "num_tags",
    "number_created_packages", "organization", "package_count", "packages", "resources",
    "tracking_summary", "users",
}  # fmt: skip
#: what changes with anything, and is no difference of its own
_TIME = "metadata_modified"
_DERIVED_OF_RESOURCE = {"package_id", "tracking_summary", _TIME}
#: what lists are made of, by their field: what is shown of each entry
_NAMED = {"tags": "name", "groups": "name"}
_TABLES = {"dataset": "package", "organization": "group", "group": "group",
           "user": "user"}  # fmt: skip


@dataclass
class ComparedThing:
    """One thing, then and now.

    `then` and `now` are its state, as `active` or `deleted`, None where it is not
    there. `fields` are `{field, then, now}` of those that differ, None for no value;
    `lists` `{field, back, gone}`, what comes back and what goes; `resources` `{id,
    name, change, fields}`, where the change is `back`, `gone` or `changed`; `uploads`
    and `tables` `{name, then, now, changed}` in bytes and rows. `taken`: another has
    its name now. `needs` are `{kind, name}` of what it cannot be without, and is not
    there.
    """

    kind: str
    id: str
    name: str
    then: str | None = None
    now: str | None = None
    fields: list[Told] = field(default_factory=list)
    lists: list[Told] = field(default_factory=list)
    resources: list[Told] = field(default_factory=list)
    uploads: list[Told] = field(default_factory=list)
    tables: list[Told] = field(default_factory=list)
    taken: bool = False
    needs: list[Told] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether anything is another than then, as far as can be seen."""
        fields = [each for each in self.fields if each["field"] != _TIME]
        sized = [each for each in (*self.uploads, *self.tables) if each["changed"]]
        return bool(
            fields or self.lists or self.resources or sized or self.then != self.now
        )


@dataclass
class ThingPreview:
    """What a backup would bring back: `moment` is when it was taken, a stamp.

    `lacking` are sentences: what the things name and the backup does not hold.
    """

    source: str
    moment: str | None
    things: list[ComparedThing]
    lacking: list[str]


def preview_things(
    portal: Portal, name: str, selection: Selection, *, trust: bool = False
) -> ThingPreview:
    """Compares things of a backup with what is live; changes nothing.

    Takes no lock: who writes meanwhile need not wait. Raises as `then`.
    """
    site, repository = find_site(portal, heads=True)
    refuse_root(site)
    kind = selection.kind
    ahead = {"upload": [], "table": ["load datastore"]}.get(
        kind, ["look", "load", "read"]
    )
    with staged(portal, repository, f"preview {kind}", ["verify", *ahead]):
        source = open_then(site, repository, name, kind, trust, portal.talk)
        op = Operation(site, repository, portal.talk)
        with then(
            portal, op, source, kind, selection.names, selection.with_datasets
        ) as found:
            return _compared(portal, site, repository, found, selection.as_name)


def refuse_hindered(found: ThingPreview) -> None:
    """Refuses what would not be brought back, with the way out. Raises Refused."""
    for thing in found.things:
        what = f"{thing.kind} {one_line(thing.name)}"
        if thing.taken:
            raise Refused(
                f"another {what} is there now: `--as NAME` "
                "brings this one back under another name"
            )
        for each in thing.needs:
            option = f"--{each['kind']} {shlex.quote(each['name'])}"
            raise Refused(
                f"{what} needs the {each['kind']} {one_line(each['name'])}, which is "
                f"not there: bring it back before, with `{option}`"
            )


def _compared(
    portal: Portal, site: Site, repository: Repository, found: Then, as_name: str
) -> ThingPreview:
    from ..records.thing import ACTIONS, read

    live = _Live(site, repository)
    made = []
    records = [each for each in found.things if each.kind in ACTIONS]
    with application(portal):
        for thing in found.things:
            now = None
            if thing in records and not as_name:
                now = read(thing.kind, thing.id, portal.options, live.tables)
            made.append(_compare(thing, now, found, live, as_name))
    for thing, told in zip(found.things, made, strict=True):
        if thing.kind in ACTIONS:
            told.needs = live.missing(thing, found.things)
            told.taken = live.is_taken(thing, as_name)
    moment = found.moment and stamp(found.moment)
    return ThingPreview(found.source, moment, made, found.lacking)


def _compare(
    thing: Thing, now: Thing | None, found: Then, live: _Live, as_name: str
) -> ComparedThing:
    told = ComparedThing(thing.kind, thing.id, as_name or thing.name)
    then, there = thing.record, now.record if now else {}
    told.then = then.get("state", "active")
    told.now = there.get("state", "active") if now else None
    if now:
        told.fields = _fields(then, there, _DERIVED)
        told.lists = _lists(_listed(thing), _listed(now))
    told.resources = _resources(then.get("resources", ()), there.get("resources", ()))
    uploads = dict.fromkeys([*thing.uploads, *(now.uploads if now else ())])
    told.uploads = [_upload(path, found, live) for path in uploads]
    tables = dict.fromkeys([*thing.tables, *(now.tables if now else ())])
    counted = live.rows([*tables])
    told.tables = [
        _sized(each, found.rows.get(each), counted.get(each)) for each in tables
    ]
    if not then:  # a table or an upload alone
        sized = (told.uploads or told.tables)[0]
        told.now = None if sized["now"] is None else "active"
    return told


def _sized(name: str, then: Any, now: Any) -> Told:
    return {"name": name, "then": then, "now": now, "changed": then != now}


def _upload(path: str, found: Then, live: _Live) -> Told:
    facts, now = found.uploads.get(path), live.upload(path)
    told = _sized(path, facts and facts["size"], now and now[0])
    if facts and now:
        told["changed"] = (facts["size"], facts["mtime"]) != now
    return told


def _fields(
    then: Mapping[str, Any], now: Mapping[str, Any], left: Iterable[str]
) -> list[Told]:
    """The fields that differ, without those that hold a secret's value."""
    told = []
    pairs = [_flat(then), _flat(now)]
    for name in dict.fromkeys([*pairs[0], *pairs[1]]):
        values = [pair.get(name) for pair in pairs]
        values = [None if value in ("", [], {}) else value for value in values]
        if name in left or name in _NAMED or values[0] == values[1]:
            continue
        if name in SECRETS:
            values = [None if value is None else "…" for value in values]
        told.append({"field": name, "then": values[0], "now": values[1]})
    return told


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields; each extra is one by its key."""
    found = {key: value for key, value in record.items() if key != "extras"}
    extras = record.get("extras")
    if isinstance(extras, list):
        for each in extras:
            if isinstance(each, dict) and "key" in each:
                found[f"extra {each['key']}"] = each.get("value")
    elif extras:
        found["extras"] = extras
    return found


def _listed(thing: Thing) -> dict[str, list[str]]:
    """What a thing has several of, as what is shown of each."""
    called = {id: name for _, id, name in thing.needs}
    found = {
        name: [str(each.get(key)) for each in thing.record.get(name) or ()]
        for name, key in _NAMED.items()
    }
    around = thing.around
    for name, table, key in (
        ("collaborators", "package_member", "user_id"),
        ("datasets with this collaborator", "package_member", "package_id"),
        ("members", "member", "table_id"),
        ("member of", "member", "group_id"),
    ):
        found[name] = [
            f"{called.get(each[key], each[key])} ({each.get('capacity')})"
            for each in around.get(table, ())
            if each.get(key)
        ]
    found["views"] = [
        f"{each.get('title') or each['id']} ({each.get('view_type')})"
        for each in around.get("resource_view", ())
    ]
    return found


def _lists(then: dict[str, list[str]], now: dict[str, list[str]]) -> list[Told]:
    told = []
    for name, each in then.items():
        back = [entry for entry in each if entry not in now[name]]
        gone = [entry for entry in now[name] if entry not in each]
        if back or gone:
            told.append({"field": name, "back": back, "gone": gone})
    return told


def _resources(then: Iterable[Told], now: Iterable[Told]) -> list[Told]:
    before = {each["id"]: each for each in then}
    there = {each["id"]: each for each in now}
    told = []
    for id in dict.fromkeys([*before, *there]):
        fields = []
        if id in before and id in there:
            fields = _fields(before[id], there[id], _DERIVED_OF_RESOURCE)
            if not fields:
                continue
        change = "changed" if fields else "back" if id in before else "gone"
        name = (before.get(id) or there[id]).get("name") or ""
        told.append({"id": id, "name": name, "change": change, "fields": fields})
    return told


class _Live:
    """What the live site has, as far as CKAN does not show it."""

    def __init__(self, site: Site, repository: Repository) -> None:
        self._site = site
        self._folders = folders_of(site.uploads, repository.path)

    def tables(self, resources: Collection[str]) -> list[str]:
        """Which of these resources have a DataStore table."""
        if "datastore" not in self._site.databases or not resources:
            return []
        with closing(self._site.databases["datastore"].connect()) as connection:
            return beside.existing(connection, resources)

    def rows(self, tables: list[str]) -> dict[str, int]:
        """How many rows these tables have, of those that there are."""
        there = self.tables(tables)
        if not there:
            return {}
        with closing(self._site.databases["datastore"].connect()) as connection:
            connection.autocommit = True
            names = [("public", each) for each in there]
            counted = count_rows(connection, names)
        return {name.removeprefix("public."): rows for name, rows in counted.items()}

    def upload(self, path: str) -> tuple[int, float] | None:
        """The bytes and the time of an upload; None where there is none."""
        with suppress(OSError, Refused):
            folder, rest = folder_of(path, self._folders)
            about = os.lstat(folder.path / rest)
            if stat.S_ISREG(about.st_mode):
                return about.st_size, about.st_mtime
        return None

    def missing(self, thing: Thing, others: Iterable[Thing]) -> list[Told]:
        """What a thing needs that is neither there nor comes with it."""
        with_it = {(each.kind, each.id) for each in others}
        return [
            {"kind": kind, "name": name}
            for kind, id, name in thing.needs
            if (kind, id) not in with_it and not self._has(kind, "id", id)
        ]

    def is_taken(self, thing: Thing, as_name: str) -> bool:
        """Whether another of its kind has the name that it would have."""
        found = self._has(thing.kind, "name", as_name or thing.name)
        return any(id != thing.id or as_name for id in found)

    def _has(self, kind: str, column: str, value: str) -> list[str]:
        table = _TABLES[kind]
        statement = f'SELECT id FROM public."{table}" WHERE {column} = %s'  # noqa: S608
        with closing(self._site.main.connect()) as connection:
            return [id for (id,) in query(connection, statement, value)]
