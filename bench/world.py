"""What must be there: the soak's own account of a portal, and what stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any

import psycopg2
from portals import Portal
from tools import E

_MAIN = """SELECT json_build_object(
  'datasets', (SELECT json_object_agg(id, json_build_array(name, title, state)) FROM package),
  'resources', (SELECT json_object_agg(id, package_id) FROM resource WHERE state = 'active'),
  'users', (SELECT json_object_agg(name, json_build_array(fullname, state)) FROM "user"))"""


@dataclass
class World:
    """A portal: datasets by id, files and tables of the DataStore by their resource."""

    datasets: dict[str, list[str]] = field(default_factory=dict)  # name, title, state
    resources: dict[str, str] = field(default_factory=dict)  # the dataset's id
    users: dict[str, list[str]] = field(default_factory=dict)  # full name, state
    files: dict[str, str] = field(default_factory=dict)  # sha256
    tables: dict[str, list[Any]] = field(default_factory=dict)  # rows

    def copy(self) -> World:
        return deepcopy(self)

    def lost(self, there: World) -> list[str]:
        """What is not there as it must be, and what is there and must not."""
        found = []
        for each in fields(self):
            wanted, has = getattr(self, each.name), getattr(there, each.name)
            for id in sorted({*wanted, *has}):
                if wanted.get(id) != has.get(id):
                    must, is_ = (_short(side.get(id)) for side in (wanted, has))
                    found.append(f"{each.name} {id}: must be {must}, is {is_}")
        return found

    # -- one dataset

    def part(self, id: str, resources: set[str]) -> Part:
        """A dataset and what belongs to these resources, whether it is there or not."""
        return Part(
            id,
            self.datasets.get(id),
            self.of(id),
            {each: self.files.get(each) for each in resources},
            {each: self.tables.get(each) for each in resources},
        )

    def of(self, id: str) -> set[str]:
        """A dataset's resources."""
        return {each for each, dataset in self.resources.items() if dataset == id}

    def put(self, part: Part) -> None:
        """Makes a dataset what it was."""
        for each in self.of(part.id):
            del self.resources[each]
        self.resources |= dict.fromkeys(part.resources, part.id)
        _set(self.datasets, {part.id: part.dataset})
        _set(self.files, part.files)
        _set(self.tables, part.tables)


@dataclass
class Part:
    """A dataset as it was at a moment; None is what was not there."""

    id: str
    dataset: list[str] | None
    resources: set[str]
    files: dict[str, str | None]
    tables: dict[str, list[Any] | None]


def _set(there: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if value is None:
            there.pop(key, None)
        else:
            there[key] = deepcopy(value)


def _short(value: Any) -> str:
    text = "not there" if value is None else repr(value)
    return text if len(text) < 100 else f"{text[:100]} …"


def observed(portal: Portal) -> World:
    """What stands in the databases and on the disk."""
    world = World(**asked(portal.main, _MAIN)[0][0])
    for table in [row[0] for row in asked(portal.datastore, _TABLES)]:
        world.tables[table] = asked(portal.datastore, _ROWS.format(table))[0][0]
    for place in (portal.storage / "resources").rglob("*"):
        if place.is_file():
            id = "".join(place.relative_to(portal.storage / "resources").parts)
            world.files[id] = sha256(place.read_bytes()).hexdigest()
    return world


_TABLES = """SELECT table_name FROM information_schema.columns
  JOIN information_schema.tables USING (table_schema, table_name)
  WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = '_id'"""
_ROWS = """SELECT coalesce(json_agg(to_jsonb(t) - '_id' - '_full_text' ORDER BY _id), '[]')
  FROM "{}" t"""


def asked(database: str, statement: str) -> list[Any]:
    """What a statement selects; no session stays in the way of a switch."""
    url = f"postgresql://ckan_default:{E['DBMANAGE_CKAN_PASSWORD']}@127.0.0.1"
    with (
        closing(
            psycopg2.connect(f"{url}:{E['DBMANAGE_PG_PORT']}/{database}")
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
        return cursor.fetchall()


def left_half_made(portal: Portal) -> Iterator[str]:
    """What the next command after a killed one must not have left."""
    repository = portal.storage / "dbmanage/backups"
    for place in (
        *repository.glob(".*.partial"),
        *portal.storage.glob(".dbm_*_scratch"),
    ):
        yield f"{place} is left"
    for (name,) in asked("postgres", _SCRATCH):
        yield f"the database {name} is left"


_SCRATCH = r"""SELECT datname FROM pg_database WHERE datname LIKE 'dbm\_%\_scratch' AND
  shobj_description(oid, 'pg_database') LIKE '%site ''dbmanage_bench''%'"""
