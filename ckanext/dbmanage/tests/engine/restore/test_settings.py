"""Settings of a database, copied name by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.postgres import database
from ckanext.dbmanage.engine.postgres.database import query as query_
from ckanext.dbmanage.engine.restore.properties import _elements
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import Cluster
from ...support.server import copied, hostile, main


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
