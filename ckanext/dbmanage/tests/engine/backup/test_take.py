"""A backup exists complete and checked, or not at all."""

from __future__ import annotations

import json

import pytest

from ...support.portal import Portal

pytestmark = pytest.mark.smoke


@pytest.mark.smoke
def test_backup_prints_its_id_alone(portal: Portal) -> None:
    done = portal.db("backup", "--note", "before the harvest")
    name = done.stdout.strip()
    assert (portal.repository / name / "manifest.json").is_file()
    assert done.stdout == f"{name}\n"
    (listed,) = portal.backups()
    assert listed["id"] == name
    assert listed["state"] == "verified"
    assert listed["note"] == "before the harvest"
    assert listed["parts"] == ["database", "datastore", "files"]


@pytest.mark.smoke
def test_json_is_one_document(portal: Portal) -> None:
    done = portal.db("backup", "--json")
    about = json.loads(done.stdout)
    assert set(about) == {"id", "path", "parts", "bytes", "added", "seconds"}
