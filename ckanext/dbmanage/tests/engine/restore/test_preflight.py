"""What a restore refuses before it touches anything, and what it says."""

from __future__ import annotations

from contextlib import closing

import pytest

from ...support.cluster import SUPERUSER, query, superuser
from ...support.portal import DATASETS, Portal, as_role, refused


@pytest.mark.smoke
def test_a_role_without_createdb_is_told_the_one_line(portal: Portal, role) -> None:
    plain = role("dbm_plain", "NOCREATEDB IN ROLE ckan_default")
    as_role(portal, plain)
    portal.backup()  # works without the right
    said = refused(portal, "latest")
    assert f"ALTER ROLE {plain} CREATEDB;" in said
    assert "ckanext.dbmanage.admin_url" in said
    query(f"ALTER ROLE {plain} CREATEDB")
    portal.damage()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.sql("SELECT count(*) FROM package") == [(DATASETS,)]


def test_an_admin_url_may_do_it_for_ckan_s_role(portal: Portal, role) -> None:
    plain = role("dbm_plain", "NOCREATEDB IN ROLE ckan_default")
    as_role(portal, plain)
    admin = role("dbm_admin", f"CREATEDB IN ROLE {plain}")
    portal.backup()
    before = portal.state()
    portal.damage()
    port = SUPERUSER.port
    portal.write(
        **{
            "ckanext.dbmanage.admin_url": f"postgresql://{admin}:other@127.0.0.1:{port}/postgres"
        }
    )
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.state() == before
    owners = {
        r[0]
        for r in portal.sql(
            "SELECT tableowner FROM pg_tables WHERE schemaname = 'public'"
        )
    }
    assert owners == {plain}
    portal.drop()


def test_wrong_password_missing_database_and_no_server(portal: Portal) -> None:
    portal.backup()
    for url, wanted in (
        (portal.url("database", password="wr0ng-pw"), "password authentication failed"),
        (portal.url("database", user="nosuchrole"), "password authentication failed"),
        (portal.url("database") + "_nosuch", "does not exist"),
        ("postgresql://ckan_default:wr0ng-pw@127.0.0.1:9/x", "refused"),
        ("nonsense", "sqlalchemy.url is not a URL"),
    ):
        portal.write(**{"sqlalchemy.url": url})
        done = portal.module("backup", code=1)
        assert wanted in done.stderr and "sqlalchemy.url" in done.stderr
        assert "wr0ng-pw" not in done.stderr and "Traceback" not in done.stderr
    portal.write(**{"sqlalchemy.url": portal.url("database")})
    assert len(portal.backups()) == 1
    assert not list(portal.repository.glob(".*.partial"))


def test_other_migrations_are_refused_before_anything_is_touched(
    portal: Portal,
) -> None:
    (head,) = portal.sql("SELECT version_num FROM alembic_version")
    portal.sql("UPDATE alembic_version SET version_num = '0123456789ab'")
    portal.backup()
    file = portal.directory / "older.dump"
    portal.module("dump", str(file))
    portal.sql(f"UPDATE alembic_version SET version_num = '{head[0]}'")
    said = refused(portal, "latest")
    assert "0123456789ab" in said and head[0] in said
    said = refused(portal, str(file), "--trust")
    assert "0123456789ab" in said
    portal.sql("CREATE TABLE vanished_alembic_version (version_num varchar)")
    portal.sql("INSERT INTO vanished_alembic_version VALUES ('1'); ")
    portal.sql("ALTER TABLE vanished_alembic_version OWNER TO ckan_default")
    portal.backup()
    portal.sql("DROP TABLE vanished_alembic_version")
    assert "plugin 'vanished'" in refused(portal, "latest")


@pytest.mark.smoke
def test_a_foreign_session_is_named(portal: Portal) -> None:
    portal.backup()
    with closing(superuser(portal.names["datastore"])) as session:
        with session.cursor() as cursor:
            cursor.execute("SET application_name = 'a report'")
        said = refused(portal, "latest")
        assert "'postgres'" in said and "'a report'" in said
        assert str(session.info.backend_pid) in said
    portal.module("restore", "latest", "--yes", "--no-backup")
