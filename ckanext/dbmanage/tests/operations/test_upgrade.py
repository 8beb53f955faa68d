"""An upgrade: rehearsed, done, undone; with other servers, roles and options."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from ..support.asked import answered
from ..support.cluster import PG16, PG18, Cluster, query
from ..support.portal import DATASETS, HEAD, Portal, own


@pytest.mark.smoke
def test_nothing_pending_is_done_at_once(portal: Portal) -> None:
    for verb in ("upgrade", "init"):
        assert "Nothing to do" in portal.db(verb).stdout
    assert "Nothing to do" in portal.module("upgrade", "--rehearse").stdout
    assert portal.backups() == []
    # nor does a container that calls `init` at each start need a place for backups
    own(portal, "CREATE TABLE gone_alembic_version (version_num text)",
        "INSERT INTO gone_alembic_version VALUES ('1')")  # fmt: skip
    storage = portal.options.pop("ckan.storage_path")
    portal.write()
    done = portal.db("init")
    assert "Nothing to do" in done.stdout and "the plugin 'gone'" in done.stderr
    portal.write(**{"ckan.storage_path": storage})
    assert (
        "exclude each other"
        in portal.db("upgrade", "--rehearse", "--in-place", code=2).stderr
    )


#: what 2.10 keeps of a field in its column's comment
COMMENT = """
SELECT col_description(c.oid, attnum) FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
WHERE relname LIKE '00000000%' AND attname = 'a b'"""


def test_from_2_10_to_2_12_and_back(old: Portal) -> None:
    table = "00000000-0000-4000-8000-000000000000"
    comment = f'COMMENT ON COLUMN "{table}"."a b" IS \'{{"label": "Old"}}\''
    old.sql(comment, "datastore")
    before = old.state()
    done = old.db("upgrade", "--rehearse")
    assert "rehearsed: the upgrade would work" in done.stdout
    assert re.search(r"\d\.\d\d s  CKAN 12d64978ab44  ", done.stdout)
    assert re.search(r"\d\.\d\d s  activity fab3bfdcf830  ", done.stdout)
    assert f"public.package_extra ({3 * DATASETS} rows)" in done.stdout
    assert old.state() == before and not old.copies()

    done = old.db("upgrade")
    assert "upgraded by" in done.stdout and "restart CKAN's" in done.stderr
    assert "up to date" in old.db("check").stdout
    assert old.sql("SELECT sum((SELECT count(*) FROM jsonb_object_keys(extras))) "
                   "FROM package") == [(3 * DATASETS,)]  # fmt: skip
    ((kept, reason),) = [(b["id"], b["reason"]) for b in old.backups()[:1]]
    assert reason == "before upgrade" and kept in done.stderr
    assert "Nothing to do" in old.db("upgrade").stdout
    ((field,),) = old.sql(COMMENT, "datastore")
    assert json.loads(field) == {"_info": {"label": "Old"}}

    old.module("undo", "--yes")
    assert old.state() == before
    assert old.sql(COMMENT, "datastore") == [('{"label": "Old"}',)]


@pytest.mark.parametrize("bin", [PG16, PG18])
def test_other_servers(
    old: Portal, make_cluster: Callable[..., Cluster], bin: Path
) -> None:
    cluster = make_cluster(bin=bin)
    old.write(**{"ckanext.dbmanage.pg_bin": str(bin)})
    for part in old.names:
        cluster.copy(old, part)
    assert "the upgrade would work" in old.module("upgrade", "--rehearse").stdout
    assert "upgraded by" in old.module("upgrade").stdout
    assert "up to date" in old.ckan("db", "check").stdout
    old.module("undo", "--yes")
    head = cluster.sql(HEAD, old.names["database"])
    assert head == [("9f33a0280c51",)]


def test_solr_is_down(old: Portal) -> None:
    old.write(solr_url="http://127.0.0.1:9/solr/none")
    done = old.db("upgrade")
    assert "upgraded by" in done.stdout and "searches will show" in done.stderr
    assert "up to date" in old.db("check").stdout


def test_without_the_right_to_make_a_copy(
    old: Portal, role: Callable[..., str]
) -> None:
    plain = role("dbm_plain", "NOCREATEDB IN ROLE ckan_default")
    old.write(**{"sqlalchemy.url": old.url("database", plain, "other")})
    before = old.state()
    said = old.module("upgrade", code=1).stderr
    assert f"ALTER ROLE {plain} CREATEDB;" in said and "--in-place" in said
    assert old.state() == before
    with closing(psycopg2.connect(old.url("database"))) as holder:
        holder.cursor().execute("LOCK TABLE package IN ACCESS SHARE MODE")
        said = old.module("upgrade", "--in-place", code=1).stderr
    assert "lock timeout" in said and "on the live database" in said
    assert old.state() == before
    done = old.module("upgrade", "--in-place")
    assert "upgraded by" in done.stdout
    assert "a restore of the backup" in done.stderr
    assert old.backups()[0]["reason"] == "before upgrade"
    assert "up to date" in old.ckan("db", "check").stdout
    assert "Nothing to do" in old.module("upgrade").stdout


def test_cores_own_options(old: Portal) -> None:
    old.db("upgrade", "--skip-plugins", "-v", "12d64978ab44")
    assert old.sql(HEAD) == [("12d64978ab44",)]
    assert old.sql("SELECT to_regclass('file')::text") == [(None,)]
    assert "no way" in old.db("upgrade", "-v", "nowhere", code=1).stderr
    old.db("upgrade", "--skip-core", "--no-backup")
    assert old.sql(HEAD) == [("12d64978ab44",)]
    there = old.sql("SELECT version_num FROM activity_alembic_version")
    assert there == [("fab3bfdcf830",)]
    assert "Nothing to do" in old.db("upgrade", "-p", "activity").stdout
    assert "'nosuch' is not" in old.db("upgrade", "-p", "nosuch", code=1).stderr
    old.db("upgrade", "--no-backup")
    assert len(old.backups()) == 1
    assert "up to date" in old.db("check").stdout


@pytest.mark.smoke
def test_init_with_a_percent_sign(portal: Portal, role: Callable[..., str]) -> None:
    plain = role("dbm_percent", "CREATEDB IN ROLE ckan_default", "p@s%s")
    name = portal.names["database"]
    query(f'DROP DATABASE "{name}" WITH (FORCE)')
    query(f'CREATE DATABASE "{name}" OWNER {plain} TEMPLATE template0')
    try:
        portal.write(**{"sqlalchemy.url": portal.url("database", plain, "p@s%s")})
        assert "is empty" in portal.module("upgrade", code=1).stderr
        assert "SUCCESS" in portal.db("init").stdout
        assert portal.sql("SELECT count(*) FROM package") == [(0,)]
        assert portal.db("version").returncode == 0
    finally:
        query(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_clean_asks_for_the_sites_name(portal: Portal) -> None:
    portal.write(**{"ckan.site_title": "Open Data"})
    command = [f"{sys.prefix}/bin/ckan", "-c", str(portal.ini), "db", "clean"]
    for answer, gone in (("yes", False), ("Open Data", True)):
        answered(portal, command, answer)
        there = portal.sql("SELECT to_regclass('package')::text") != [(None,)]
        assert there is not gone
