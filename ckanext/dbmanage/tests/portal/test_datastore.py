"""The DataStore's rights and triggers after a restore: as they were, and no more."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.restore import restore
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.portal import datastore, migrate

from ..support.cluster import READER, query, superuser
from ..support.portal import Portal
from ..support.waiting import wait_until

TABLES = [f"0000000{n}-0000-4000-8000-000000000000" for n in range(3)]
FUNCTION = "populate_full_text_trigger()"
TRIGGER = (
    'CREATE TRIGGER zfulltext BEFORE INSERT OR UPDATE ON "{}"'
    f" FOR EACH ROW EXECUTE PROCEDURE {FUNCTION}"
)


@pytest.fixture
def site_s(portal: Portal) -> Portal:
    """A portal whose DataStore holds a table of the site's own, closed to readers."""
    portal.sql(
        "CREATE TABLE site_log (line text); ALTER TABLE site_log OWNER TO ckan_default;"
        "REVOKE ALL ON site_log FROM datastore_default;"
        "CREATE VIEW site_view AS SELECT * FROM site_log;"
        "ALTER VIEW site_view OWNER TO ckan_default;"
        "REVOKE ALL ON site_view FROM datastore_default;" + TRIGGER.format(TABLES[0]),
        "datastore",
    )
    return portal


def rights(portal: Portal) -> list[tuple]:
    """Each relation's rights and triggers."""
    return portal.sql(
        "SELECT relname, coalesce(relacl, acldefault('r', relowner))::text[],"
        " array(SELECT tgname::text FROM pg_trigger"
        " WHERE tgrelid = c.oid ORDER BY 1) FROM pg_class c"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
        " ORDER BY 1",
        "datastore",
    )


def may(portal: Portal, what: str) -> bool:
    """Whether CKAN's reading role may do it."""
    address: Any = portal.url("datastore", "datastore_default", READER)
    with psycopg2.connect(address) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(what)
        except psycopg2.errors.InsufficientPrivilege:
            return False
    return True


def test_rights_and_triggers_come_back_as_they_were(site_s: Portal) -> None:
    # closed by an extension that keeps what is private from SQL searches
    site_s.sql(
        f'REVOKE SELECT ON "{TABLES[1]}" FROM datastore_default;'
        "GRANT INSERT ON site_log TO datastore_default",
        "datastore",
    )
    before = rights(site_s)
    site, repository = site_s.engine()
    op = Operation(site, repository)
    with repository.lock("backup"):
        taken = take.take(op, parts=("datastore",))
    site_s.sql(f'DROP TABLE "{TABLES[2]}"', "datastore")
    with repository.lock("restore"):
        source = open_source(site, repository, taken.id)
        prepare = migrate.prepare(site_s.settings)
        restore.restore_backup(op, source, prepare)
    assert rights(site_s) == before
    site_s.sql("INSERT INTO site_log VALUES ('a row')", "datastore")


@pytest.mark.smoke
def test_what_is_missing_is_set_on_the_datastores_own_tables(site_s: Portal) -> None:
    # what `pg_restore -x` leaves of a DataStore of long ago
    site_s.sql(
        f'CREATE VIEW alias AS SELECT * FROM "{TABLES[0]}";'
        "ALTER VIEW alias OWNER TO ckan_default;"
        f"DROP FUNCTION {FUNCTION} CASCADE; DROP VIEW _table_metadata;"
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM datastore_default;"
        "ALTER DEFAULT PRIVILEGES FOR ROLE ckan_default IN SCHEMA public"
        " REVOKE ALL ON TABLES FROM datastore_default",
        "datastore",
    )
    site, _ = site_s.engine()
    store, main = site.databases["datastore"], site.databases["database"]
    said = list(datastore.unset_permissions(store, main))
    assert "the view _table_metadata is missing" in said
    assert "the reading role 'datastore_default' may not read 4 tables" in said
    datastore.bring_permissions(store, main)
    assert not list(datastore.unset_permissions(store, main))
    own = {name: triggers for name, _, triggers in rights(site_s)}
    assert [own[name] for name in TABLES] == [["zfulltext"]] * 3
    assert own["site_log"] == []
    site_s.sql("INSERT INTO site_log VALUES ('a row')", "datastore")
    site_s.sql(f'INSERT INTO "{TABLES[0]}" ("a b") VALUES (\'x\')', "datastore")
    assert may(site_s, f'SELECT _full_text FROM "{TABLES[0]}"')
    assert may(site_s, "SELECT 1 FROM alias") and may(site_s, "TABLE _table_metadata")
    assert not may(site_s, "TABLE site_log") and not may(site_s, "TABLE site_view")


def test_what_a_newer_ckan_adds_opens_no_table(site_s: Portal) -> None:
    site_s.sql(
        f'REVOKE SELECT ON "{TABLES[1]}" FROM datastore_default;'
        "DROP VIEW _table_metadata",
        "datastore",
    )
    site, _ = site_s.engine()
    store, main = site.databases["datastore"], site.databases["database"]
    datastore.bring_permissions(store, main)
    assert may(site_s, "TABLE _table_metadata")
    assert not may(site_s, f'TABLE "{TABLES[1]}"')
    assert [t for name, _, t in rights(site_s) if name in TABLES[1:]] == [[], []]


def test_too_many_rights_are_told_with_what_takes_them(site_s: Portal) -> None:
    site_s.sql("GRANT INSERT ON site_log TO datastore_default", "datastore")
    store = site_s.engine()[0].databases["datastore"]
    (said,) = datastore.excess(store)
    assert "may write to 1 tables" in said
    site_s.sql(said[said.index("REVOKE") :], "datastore")
    assert not list(datastore.excess(store))


def test_rights_are_set_again_after_a_deadlock(site_s: Portal) -> None:
    site_s.sql(f"DROP FUNCTION {FUNCTION} CASCADE", "datastore")
    site, _ = site_s.engine()
    store, main = site.databases["datastore"], site.databases["database"]
    told: list[str] = []
    # looked for once: not before the other one waits too
    query(f"ALTER DATABASE {store.name} SET deadlock_timeout = '5s'")
    with closing(superuser(store.name)) as other:
        cursor = other.cursor()
        # the other one is patient: the rights are what the server ends
        cursor.execute("SET deadlock_timeout = '1min'")
        cursor.execute(f'BEGIN; LOCK TABLE "{TABLES[2]}"')
        setting = threading.Thread(
            target=datastore.bring_permissions, args=(store, main, told.append)
        )
        setting.start()
        wait_until(
            lambda: query(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = %s", "postgres", store.name,
            )
        )  # fmt: skip
        cursor.execute(f'LOCK TABLE "{TABLES[0]}"')  # granted when the server ends it
        cursor.execute("ROLLBACK")
        setting.join()
    assert not list(datastore.unset_permissions(store, main))
    assert len(told) == 1 and told[0].startswith(
        "setting the permissions of the DataStore did not work, and is tried again: "
    )
    assert "deadlock detected" in told[0]
