"""What stands in the database with the ids and names of records that are to come."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from ckan import model

from .kinds import Record


@dataclass(frozen=True)
class Known:
    """A row with an id or a name that a line has too."""

    kind: str
    id: str
    name: str
    modified: str


def called(there: Known) -> str:
    return f"the {there.kind.removesuffix('s')} {there.name!r}"


def groups_of(wanted: Collection[str]) -> set[str]:
    """The ids and names of the groups that have one of these."""
    group = model.group_table.c
    rows = model.Session.execute(
        sa.select(group.id, group.name).where(
            group.id.in_(wanted) | group.name.in_(wanted)
        )
    )
    return {value for row in rows for value in row}


def known_of(records: Sequence[Record]) -> list[Known]:
    """The rows of any kind that have one of these ids or names."""
    values = {
        "ids": [each["id"] for each in records if each.get("id")],
        "names": [each["name"] for each in records if each.get("name")],
    }
    rows = model.Session.execute(_KNOWN, values)
    return [
        Known(kind, id, name or "", time.isoformat() if time else "")
        for kind, id, name, time in rows
    ]


_KNOWN = sa.text("""
SELECT 'datasets', id, name, metadata_modified FROM package
  WHERE id = ANY(:ids) OR name = ANY(:names)
UNION ALL SELECT CASE WHEN is_organization THEN 'organizations' ELSE 'groups' END,
  id, name, NULL FROM "group" WHERE id = ANY(:ids) OR name = ANY(:names)
UNION ALL SELECT 'users', id, name, NULL FROM "user"
  WHERE id = ANY(:ids) OR name = ANY(:names)
UNION ALL SELECT 'resources', id, name, NULL FROM resource WHERE id = ANY(:ids)
""")
