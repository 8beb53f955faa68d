"""What belongs to a database is copied with it, or told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.postgres import database
from ckanext.dbmanage.engine.postgres.database import query as query_
from ckanext.dbmanage.engine.restore.properties import _elements, stays_behind
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import Cluster, query
from ...support.portal import Portal
from ...support.server import copied, hostile, main
from ...support.small import Made


@pytest.mark.smoke
def test_what_belongs_to_the_database_is_copied(portal: Portal) -> None:
    name = portal.names["database"]
    for statement in (
        "ALTER DATABASE {} SET work_mem = '7MB'",
        'ALTER DATABASE {} SET search_path = public, "odd, schema"',
        "ALTER ROLE ckan_default IN DATABASE {} SET statement_timeout = '1h'",
        "COMMENT ON DATABASE {} IS 'the portal''s 100% own'",
        "ALTER DATABASE {} CONNECTION LIMIT 77",
        "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {} TO datastore_default",
    ):
        query(statement.format(f'"{name}"'))
    properties = (
        "SELECT shobj_description(oid, 'pg_database'), datconnlimit, pg_get_userbyid(datdba),"
        " (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), encoding, datcollate,"
        " (SELECT array_agg(setrole || array_to_string(setconfig, ';') ORDER BY 1)"
        " FROM pg_db_role_setting WHERE setdatabase = d.oid)"
        " FROM pg_database d WHERE datname = %s"
    )
    before = query(properties, "postgres", name)
    oids = portal.oids()
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert not set(portal.oids()) & set(oids)
    assert query(properties, "postgres", name) == before


def test_a_setting_of_another_s_is_told_and_not_run(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    tenant, name = login(), main(site).name
    server.sql(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    with closing(server.connect("postgres", tenant)) as connection:
        value = hostile(tenant)
        query_(connection, "SELECT set_config('search_path', %s, false)", value)
        query_(
            connection,
            f"ALTER ROLE {tenant} IN DATABASE {name} SET search_path FROM CURRENT",
        )
    for admin in (None, make_url(server.url("postgres", "postgres"))):
        warned: list[str] = []
        database = replace(main(site), admin_url=admin)
        databases = {**site.databases, "database": database}
        assert copied(replace(site, databases=databases), warned) == []
        assert len(warned) == 1
        assert f"{tenant!r}" in warned[0] and "'search_path'" in warned[0]
        assert "ALTER" not in warned[0]
        superusers = server.sql("SELECT rolname FROM pg_roles WHERE rolsuper")
        assert superusers == [("postgres",)]


@pytest.mark.parametrize("who", ["DATABASE {0}", "ROLE ckan_default IN DATABASE {0}"])
def test_a_list_setting_is_copied_name_by_name(
    server: Cluster, site: Site, who: str
) -> None:
    name = main(site).name
    for value in (
        hostile("ckan_default"), 'public, "odd, schema"', '"$user", "a""b"', "",
        'x", y', "x'); DROP TABLE t; --", "trailing, ",
    ):  # fmt: skip
        with closing(server.connect("postgres", "ckan_default")) as connection:
            set_it = "SELECT pg_catalog.set_config('search_path', %s, false)"
            try:
                database.query(connection, set_it, value)
            except psycopg2.Error:
                continue  # the server does not take it for a list
            target = f"ALTER {who.format(name)} SET search_path FROM CURRENT"
            database.query(connection, target)
        before = server.sql(
            "SELECT setrole::bigint, setconfig FROM pg_db_role_setting JOIN pg_database"
            f" d ON d.oid = setdatabase WHERE datname = '{name}'"
        )
        warned: list[str] = []
        after = copied(site, warned)
        assert [role for role, _ in after] == [role for role, _ in before]
        ((setting,),) = (found for _, found in before)
        ((copy,),) = (found for _, found in after)
        key, _, listed = setting.partition("=")
        assert copy.partition("=")[0] == key
        assert _elements(copy.partition("=")[2]) == _elements(listed)
        assert not warned
    assert server.sql("SELECT rolname FROM pg_roles WHERE rolsuper") == [("postgres",)]


@pytest.mark.parametrize("cluster", [15], indirect=True)
def test_what_stays_with_the_old_database_is_told(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(
        "CREATE SUBSCRIPTION \"Sub\" CONNECTION 'host=x password=hush-2' PUBLICATION a, b"
        " WITH (connect = false, slot_name = 'its')"
    )
    try:
        (said,) = stays_behind(made.site.databases["database"])
        assert "hush-2" not in said
        sql = said.partition("\n")[2].replace("***", "host=y").splitlines()
        for statement in sql[:-1]:
            made.sql(statement)
        made.sql(sql[-1].replace("create_slot = false", "connect = false"))
        kept = (
            "SELECT subname, subpublications::text[], subslotname FROM pg_subscription"
        )
        assert made.sql(kept) == [("Sub", ["a", "b"], "its")]
    finally:
        made.sql('ALTER SUBSCRIPTION "Sub" SET (slot_name = NONE)')
        made.sql('DROP SUBSCRIPTION "Sub"')
