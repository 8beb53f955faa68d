"""Emptying the database: what goes along, what stays and why, and the init after it."""

from __future__ import annotations

import pytest

from ckanext.dbmanage.engine.postgres.database import closing
from ckanext.dbmanage.engine.postgres.emptying import emptying
from ckanext.dbmanage.portal.plan import Plan, Wanted, plan
from ckanext.dbmanage.portal.plan import plan as plan_
from ckanext.dbmanage.portal.site import build_site

from ..support.portal import Portal

OTHERS = (
    # CKAN's role's
    "CREATE TABLE visits (day date) PARTITION BY RANGE (day);"
    "CREATE TABLE visits_2026 PARTITION OF visits"
    " FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');"
    "ALTER TABLE visits OWNER TO ckan_default;"
    "ALTER TABLE visits_2026 OWNER TO ckan_default;"
    "CREATE SCHEMA own AUTHORIZATION ckan_default;"
    "CREATE TABLE own.notes (n int); ALTER TABLE own.notes OWNER TO ckan_default;"
    # somebody else's
    "CREATE TABLE statistics (n int);"
    "CREATE VIEW own.titles AS SELECT title FROM package;"
    "CREATE VIEW own.upper AS SELECT upper(title) FROM own.titles;"
    "CREATE VIEW own.today AS SELECT now();"
    "CREATE TABLE own.liked (id text REFERENCES package);"
    "CREATE FUNCTION own.of(package) RETURNS int LANGUAGE sql AS 'SELECT 1';"
)


def test_what_goes_along_and_what_stays_is_named(portal: Portal) -> None:
    portal.sql(OTHERS)
    site, _ = portal.engine()
    with closing(site.databases["database"].connect()) as connection:
        found = emptying(connection)
    assert {("public", "visits"), ("public", "visits_2026")} < set(found.tables)
    assert ("public", "package") in found.tables
    assert found.along == [
        "foreign key liked_id_fkey of own.liked",
        "function own.of(public.package)",
        "view own.titles",
        "view own.upper",
    ]
    assert found.stays == [
        "the table own.liked (it belongs to 'postgres')",
        "the table own.notes (it is in another schema)",
        "the view own.today (it belongs to 'postgres')",
        "the table public.statistics (it belongs to 'postgres')",
    ]


def test_init_takes_a_database_that_clean_left(portal: Portal) -> None:
    portal.sql(OTHERS)
    done = portal.db("clean", "--yes", "--no-backup")
    assert (
        "this goes too, for it needs CKAN's tables: the view own.titles" in done.stderr
    )
    assert "not deleted: the table own.notes (it is in another" in done.stderr
    assert "is empty" not in done.stdout and "tables are gone" in done.stdout
    assert portal.sql("SELECT to_regclass('visits')::text") == [(None,)]
    options = portal.settings
    found = plan(options, build_site(options), Wanted())
    assert found.empty and not found.blockers
    assert "SUCCESS" in portal.db("init").stdout
    assert portal.sql("SELECT count(*) FROM package") == [(0,)]
    assert portal.sql("SELECT count(*) FROM own.notes") == [(0,)]


def test_a_database_of_something_else_is_not_taken_for_an_empty_one(
    portal: Portal,
) -> None:
    portal.sql(
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION ckan_default;"
    )
    options = portal.settings

    def plan() -> Plan:
        return plan_(options, build_site(options), Wanted())

    assert plan().empty
    portal.sql("CREATE TABLE orders (n int); ALTER TABLE orders OWNER TO ckan_default")
    assert not plan().empty and "sqlalchemy.url" in plan().blockers[0]
    portal.sql("DROP TABLE orders; CREATE TABLE package (n int)")
    assert not plan().empty


@pytest.mark.smoke
def test_clean_takes_a_backup_and_needs_neither_solr_nor_a_superuser(
    portal: Portal,
) -> None:
    # what PostGIS has: a table that is an extension's, and a superuser's
    portal.sql(
        "CREATE TABLE spatial_ref_sys (id int);"
        "ALTER EXTENSION plpgsql ADD TABLE spatial_ref_sys"
    )
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    assert "--yes" in portal.db("clean", code=2).stderr
    before = portal.state()
    done = portal.db("clean", "--yes")
    assert "could not be emptied" in done.stderr
    left = portal.sql("SELECT relname FROM pg_class WHERE relkind = 'r'"
                      " AND relnamespace = 'public'::regnamespace")  # fmt: skip
    assert left == [("spatial_ref_sys",)]
    (taken,) = portal.backups()
    assert taken["reason"] == "before clean" and taken["id"] in done.stderr
    done = portal.db("clean", "--yes")
    assert len(portal.backups()) == 1  # there was nothing
    portal.module("restore", taken["id"], "--yes", "--no-backup")
    assert {k: v for k, v in before.items() if "spatial" not in k} == portal.state()
