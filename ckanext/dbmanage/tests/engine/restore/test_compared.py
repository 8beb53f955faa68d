"""Owners and rights of a copy are those of the archive."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.restore.source import Source

from ...support.cluster import query
from ...support.portal import Portal
from ...support.small import CKAN, Made


@pytest.mark.parametrize("cluster", [15], indirect=True)
def test_what_cannot_run_here_as_it_stands(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    made = make()
    cluster = made.cluster
    space = tmp_path / "space"
    space.mkdir(mode=0o777)
    space.chmod(0o777)
    cluster.sql(f"CREATE TABLESPACE dba LOCATION '{space}'")
    try:
        made.sql(CKAN, "ckan_default")
        for role in ("grantor", "gone"):
            cluster.sql(f"CREATE ROLE {role}")
        made.sql(
            """CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
            REVOKE ALL ON FUNCTION f() FROM PUBLIC; GRANT ALL ON FUNCTION f() TO gone;
            GRANT SELECT ON package TO grantor WITH GRANT OPTION;
            GRANT UPDATE ON package TO editors, gone""",
            "ckan_default",
        )
        made.sql("SET ROLE grantor; GRANT SELECT ON package TO editors")
        made.sql('ALTER TABLE "user" SET TABLESPACE dba')
        # a dump as others make it: not signed, and its schema public is made
        file = tmp_path / "n.dump"
        subprocess.run(
            [made.bin / "pg_dump", "-Fc", "-n", "public", "-f", file,
             cluster.url(made.name, "postgres")], check=True,
        )  # fmt: skip
        signed = made.backup()
        rights = "SELECT has_table_privilege('editors', 'package', 'SELECT, UPDATE')"
        rights += ", has_function_privilege('stranger', 'f()', 'EXECUTE')"
        cluster.sql("REASSIGN OWNED BY gone TO postgres")
        made.sql("DROP OWNED BY gone")
        cluster.sql("DROP ROLE gone")
        unsigned = Source("n.dump", {"database": File(file)}, signed=False)
        for source in (signed, unsigned):
            made.heard.warned.clear()
            with made.copy(source) as name:
                assert cluster.sql(rights, name) == [(True, False)]
                assert cluster.sql('SELECT count(*) FROM "user"', name) == [(0,)]
            said = "\n".join(made.heard.warned)
            assert "tablespaces dba are not" in said
            assert "roles that do not exist here: gone" in said
            assert len(made.heard.warned) == 2
    finally:
        made.sql('DROP TABLE "user"')
        made.sql("DROP OWNED BY grantor")
        cluster.sql("DROP TABLESPACE dba")
        cluster.sql("DROP ROLE grantor")


def test_rights_of_a_role_that_is_gone_are_left_out(portal: Portal, role) -> None:
    analyst = role("dbm_analyst", "")
    portal.sql(f"GRANT SELECT ON package TO {analyst}")
    portal.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {analyst}", "datastore")
    portal.backup()
    for part in ("database", "datastore"):
        portal.sql(f"DROP OWNED BY {analyst}", part)
    query(f"DROP ROLE {analyst}")
    before = portal.state()
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert analyst in done.stderr and "Warning" in done.stderr
    assert portal.state() == before
    reader = psycopg2.connect(portal.options["ckan.datastore.read_url"])
    with closing(reader), reader.cursor() as cursor:
        cursor.execute('SELECT count(*) FROM "00000001-0000-4000-8000-000000000000"')
        assert cursor.fetchone() == (50,)
