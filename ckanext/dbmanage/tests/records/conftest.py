"""Fixtures of the records' tests: portals with every oddity, with other plugins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ckanext.dbmanage
from ckanext.dbmanage.engine.postgres.database import quoted

from ..support.cluster import PG_BIN, client, query
from ..support.exports import WITHOUT_RECORDS
from ..support.lines import an_id
from ..support.portal import Portal

ROOT = Path(ckanext.dbmanage.__file__).parent.parent.parent


@pytest.fixture(scope="module")
def odd(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """Some 300 datasets with every oddity that is known: two batches of any kind."""
    portal = Portal(tmp_path_factory.mktemp("odd"), f"odd{os.getpid()}")
    name, site = portal.names["database"], portal.options["ckan.site_id"]
    query(
        f'CREATE DATABASE {quoted(name)} OWNER ckan_default TEMPLATE "{template.names["database"]}"'
    )
    portal.write(**{"ckan.plugins": "dbmanage", "ckan.site_title": "Odd"})
    clean = (
        'TRUNCATE package, "group", tag, member, activity, resource CASCADE;'
        f"DELETE FROM \"user\" WHERE name NOT LIKE 'tpl%'; UPDATE \"user\" SET name = '{site}'"
    )
    portal.sql(clean)
    for script in (ROOT / "bench/portal.sql", Path(__file__).with_name("odd.sql")):
        client(
            PG_BIN / "psql", portal.url("database"), "-qX", "-v", "n=300",
            "-f", script, capture_output=True,
        )  # fmt: skip
    yield portal
    portal.ckan("search-index", "clear")
    portal.drop()


@pytest.fixture
def empty(make_portal: Callable[..., Portal]) -> Portal:
    portal = make_portal()
    portal.sql(WITHOUT_RECORDS)
    return portal


@pytest.fixture
def owned(empty: Portal) -> Portal:
    """A portal with one organization, for datasets."""
    empty.sql(
        'INSERT INTO "group" (id, name, title, state, type, approval_status,'
        f" is_organization) VALUES ('{an_id('org')}', 'org', 'Org', 'active',"
        " 'organization', 'approved', true)"
    )
    return empty
