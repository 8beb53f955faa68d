"""Import: what an export has written is there again, and what is refused is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support.exports import KINDS, export
from ..support.portal import Portal

#: ids as CKAN makes them: it takes back no others
_IDS = (
    ("user", "id"), ("group", "id"), ("member", "id"), ("member", "group_id"),
    ("member", "table_id"), ("package", "id"), ("package", "owner_org"),
    ("package", "creator_user_id"), ("resource", "id"), ("resource", "package_id"),
    ("package_tag", "package_id"), ("package_relationship", "subject_package_id"),
    ("package_relationship", "object_package_id"),
)  # fmt: skip
_SOURCE = ";".join(
    [
        "SET session_replication_role = replica",
        *(f'UPDATE "{table}" SET {c} = md5({c})::uuid::text' for table, c in _IDS),
    ]
)
_EMPTY = (
    'TRUNCATE package, "group", tag, member, resource CASCADE;'
    "DELETE FROM \"user\" WHERE name LIKE 'user-%'"
)
#: what CKAN itself sets
_OF_CKAN = {
    "metadata_created", "creator_user_id", "created", "number_created_packages",
    "num_followers", "last_active", "member_count",
}  # fmt: skip


@pytest.fixture
def empty(make_portal: Callable[..., Portal]) -> Portal:
    portal = make_portal()
    portal.sql(_EMPTY)
    return portal


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def kept(lines: list[bytes]) -> list[Any]:
    """Records without what CKAN itself sets."""

    def less(value: Any) -> Any:
        if isinstance(value, list):
            return sorted(map(less, value), key=str)
        if not isinstance(value, dict):
            return value
        value = {k: less(v) for k, v in value.items() if k not in _OF_CKAN}
        if "vocabulary_id" in value:  # ids of tags
            value.pop("id")
        return value

    found = [less(json.loads(line)) for line in lines]
    for record in found:
        for resource in record.get("resources", ()):
            resource.pop("metadata_modified")
    return found


@pytest.mark.smoke
def test_there_and_back(portal: Portal, empty: Portal) -> None:
    portal.sql(_SOURCE)
    before = {}
    for kind in ("users", "organizations", "groups", "datasets"):
        file = portal.directory / f"{kind}.jsonl.zst"
        portal.db("export", kind, "--all", "--fresh", "-O", str(file))
        done = empty.db("import", kind, str(file))
        assert "refused" not in done.stderr, done.stderr
    for kind in KINDS:
        before, after = (
            kept(export(each, kind, "--all", "--fresh")) for each in (portal, empty)
        )
        assert before and before == after, kind
    found = empty.ckan("search-index", "check").stdout
    assert "Packages not indexed = 0" in found
