"""A backup exists complete and checked, or not at all."""

from __future__ import annotations

import json
import stat
import subprocess

import pytest

from ...support.cluster import PG_BIN, query
from ...support.portal import DATASETS, Portal

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
def test_restore_brings_back_every_row_and_nothing_else(portal: Portal) -> None:
    portal.db("backup")
    before = portal.state()
    portal.damage()
    portal.sql("CREATE TABLE stray (a int); ALTER TABLE stray OWNER TO ckan_default")
    done = portal.db("restore", "latest", "--yes")
    assert done.stdout.startswith("restored database and datastore")
    assert portal.state() == before
    # the replaced state is a backup too, and its databases are kept
    reasons = [one["reason"] for one in portal.backups()]
    assert len(reasons) == 2 and reasons[0].startswith("before restore of")
    assert not {n for n in portal.copies() if n.endswith("scratch")}
    found = portal.ckan("search-index", "check").stdout
    assert f"Packages not indexed = 0 out of {DATASETS}" in found


@pytest.mark.smoke
def test_it_works_without_ckan(portal: Portal) -> None:
    """`ckan` cannot start when its database is gone; `python -m` brings it back."""
    portal.db("backup")
    before = portal.state()
    for name in portal.names.values():
        query(f'DROP DATABASE "{name}" WITH (FORCE)')
    assert portal.ckan("db", "backups", code=1).returncode == 1
    assert portal.module("verify").stdout.strip().endswith("whole")
    portal.module("restore", "latest", "--yes")
    assert portal.state() == before
    assert portal.db("backups").returncode == 0


@pytest.mark.smoke
def test_dump_and_load(portal: Portal) -> None:
    file = portal.directory / "my dump.dump"
    portal.db("dump", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    subprocess.run([PG_BIN / "pg_restore", "-l", file], check=True, capture_output=True)
    before = portal.state()
    portal.damage()
    portal.db("load", str(file), "--yes")
    after = portal.state()
    assert {k: v for k, v in after.items() if k.startswith("database:")} == {
        k: v for k, v in before.items() if k.startswith("database:")
    }


@pytest.mark.smoke
def test_json_is_one_document(portal: Portal) -> None:
    done = portal.db("backup", "--json")
    about = json.loads(done.stdout)
    assert set(about) == {"id", "path", "parts", "bytes", "seconds"}
