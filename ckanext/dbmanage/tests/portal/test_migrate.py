"""Backups of other versions: migrated in the copy, or refused."""

from __future__ import annotations

import pytest

from ..support.older import made_by
from ..support.portal import DATASETS, Portal, refused


@pytest.fixture(params=["2.10", "2.11"])
def older(portal: Portal, request: pytest.FixtureRequest) -> Portal:
    """A portal that an older CKAN made, and a backup that it took."""
    run = made_by(portal, request.param)
    run("python", "-m", "ckanext.dbmanage", "-c", str(portal.ini), "backup")
    return portal


def test_an_older_backup_is_migrated_in_the_copy(older: Portal) -> None:
    old = older.sql("SELECT version_num FROM alembic_version")
    older.module("verify", "latest", "--prove")
    assert older.sql("SELECT version_num FROM alembic_version") == old
    done = older.module("restore", "latest", "--yes", "--no-backup")
    assert "migrate" in done.stderr
    assert older.sql("SELECT version_num FROM alembic_version") != old
    assert older.sql("SELECT count(*) FROM package") == [(DATASETS,)]
    assert "up to date" in older.ckan("db", "check").stdout
    assert older.module("doctor").returncode == 0


def test_a_migration_that_fails_leaves_everything(older: Portal) -> None:
    # one of the measured blockers: two users, one address but for its case
    older.sql("UPDATE \"user\" SET email = 'A@x.org' WHERE name = 'user-1'")
    older.sql("UPDATE \"user\" SET email = 'a@x.org' WHERE name = 'user-2'")
    older.module("backup")
    said = refused(older, "latest")
    assert "CKAN failed on the copy" in said and "is duplicated" in said


def test_a_newer_backup_is_refused_with_what_to_install(portal: Portal) -> None:
    portal.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    portal.backup()
    assert "newer version of CKAN's schema (ffffffffffff)" in refused(portal, "latest")
    portal.sql("DELETE FROM alembic_version")
    portal.backup()
    assert "no tables of CKAN" in refused(portal, "latest")
