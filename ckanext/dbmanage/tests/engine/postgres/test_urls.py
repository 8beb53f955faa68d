"""Every connection URL that CKAN accepts, through backup, verify, restore and dump."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy.engine import URL, make_url

from ckanext.dbmanage.engine.postgres.database import Database, quoted

from ...support.cluster import PASSWORD, SUPERUSER, Cluster, query
from ...support.portal import DATASETS, Portal

SOCKET = os.environ["DBMANAGE_PG_SOCKET"]


def there_and_back(portal: Portal) -> None:
    portal.backup()
    portal.sql("DELETE FROM package_tag")
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.sql("SELECT count(*) FROM package_tag") == [(DATASETS,)]
    portal.module("dump", str(portal.directory / "x.dump"))


@pytest.mark.parametrize(
    "name",
    [
        "Ckan Default",
        'q"uote',
        "per%cent %(x)s {y}",
        "\u6771\u4eac-\u00fc",
        "semi;'colon\\",
        "select",
    ],
)
def test_names_that_need_quotes(
    make_portal: Callable[..., Portal], name: str, request: pytest.FixtureRequest
) -> None:
    names = {
        "database": f"{name} {os.getpid()}",
        "datastore": f"{name} {os.getpid()} ds",
    }
    try:
        there_and_back(make_portal(names=names))
    finally:
        for one in names.values():
            query(f"DROP DATABASE IF EXISTS {quoted(one)} WITH (FORCE)")


def test_a_socket_and_query_options(portal: Portal) -> None:
    def url(part: str) -> str:
        return URL.create(
            "postgresql+psycopg2", "ckan_default", PASSWORD, None, SUPERUSER.port, portal.names[part],
            {"host": SOCKET, "sslmode": "prefer", "application_name": "my ckan",
             "options": "-c work_mem=8MB", "connect_timeout": "7"},
        ).render_as_string(hide_password=False)  # fmt: skip

    portal.write(
        **{
            "sqlalchemy.url": url("database"),
            "ckan.datastore.write_url": url("datastore"),
        }
    )
    there_and_back(portal)


def test_sslmode_is_obeyed(portal: Portal) -> None:
    portal.write(**{"sqlalchemy.url": portal.url("database") + "?sslmode=require"})
    done = portal.module("backup", code=1)
    assert "SSL" in done.stderr


def test_ipv6(portal: Portal, make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster("-c", "listen_addresses=127.0.0.1,::1")
    for part, option in (
        ("database", "sqlalchemy.url"), ("datastore", "ckan.datastore.write_url"),
    ):  # fmt: skip
        cluster.copy(portal, part)
        six = portal.options[option].replace("@127.0.0.1:", "@[::1]:")
        portal.write(**{option: six})
    portal.backup()
    name = portal.names["database"]
    cluster.sql("DELETE FROM package_tag", name)
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert cluster.sql("SELECT count(*) FROM package_tag", name) == [(DATASETS,)]


def test_no_secret_in_an_argument_list() -> None:
    url = "postgresql://u:p%40ss%25@h/d?sslmode=verify-full&passfile=/x&sslcert=/c"
    arguments, environment = Database("database", make_url(url)).program()
    assert "p@ss%" not in " ".join(arguments) and "/x" not in " ".join(arguments)
    assert environment["PGPASSWORD"] == "p@ss%" and environment["PGPASSFILE"] == "/x"
    assert "sslmode=verify-full" in arguments[1]
    assert "p@ss" not in repr(Database("database", make_url(url)))


def test_the_password_may_come_from_the_environment(portal: Portal) -> None:
    """As for CKAN: libpq takes it from PGPASSWORD when the URL has none."""
    url = make_url(portal.url("database"))._replace(password=None)
    portal.write(**{"sqlalchemy.url": str(url), "ckan.plugins": "dbmanage activity"})
    portal.module("backup", env={"PGPASSWORD": PASSWORD})
    with closing(psycopg2.connect(portal.url("database"))):
        assert portal.backups()[0]["parts"] == ["database", "files"]
