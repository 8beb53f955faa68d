"""Owners and the schema public as an operator meets them: commands, page, doctor."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ckanext.dbmanage.engine import report
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.restore import proof
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.operations.preview import preview_restore
from ckanext.dbmanage.operations.restore import run_restore

from ..support.cluster import Cluster, query
from ..support.portal import Portal

PG14 = Path(os.environ["DBMANAGE_PG14_BIN"])


def test_what_another_role_owns_is_asked_for(
    portal: Portal, role: Callable[..., str]
) -> None:
    other = role("dbm_other", "")
    portal.sql(
        f"CREATE SCHEMA theirs AUTHORIZATION {other}; GRANT USAGE ON SCHEMA theirs TO PUBLIC;"
        "CREATE FUNCTION theirs.f() RETURNS name LANGUAGE sql SECURITY DEFINER"
        f" AS 'SELECT current_user'; ALTER FUNCTION theirs.f() OWNER TO {other}"
    )
    name = portal.backup("--only", "database").name
    # a job of the page, and an upgrade, have nobody to ask
    site, repository = portal.engine()
    page = context.Portal(portal.settings, report.Silent())
    with pytest.raises(Refused, match=rf"'{other}'.*SCHEMA theirs.*command line"):
        run_restore(page, name)
    # a preview tells it, before an operator is asked to arm
    told: list[str] = []
    listening = report.Silent()
    listening.warn = told.append  # type: ignore[method-assign]
    preview_restore(context.Portal(portal.settings, listening), name)
    assert f'GRANT "{other}"' in told[0]
    # a proof tells it, on the page that is the evidence too
    with repository.lock("proof"):
        record = proof.prove(
            Operation(site, repository), repository.find(name),
            prepare=lambda *_: None, read=lambda _: {"read": {}, "problems": []},
        )  # fmt: skip
    assert record["problems"] == [] and other in record["told"][0]
    assert other in (repository.path / "state" / f"{name}.html").read_text()
    done = portal.module("restore", name, "--yes", "--no-backup")
    first, told = (
        done.stderr.index(f'GRANT "{other}"'),
        done.stderr.index("ALTER SCHEMA"),
    )
    assert first < told
    runs = "SELECT has_function_privilege('datastore_default', 'theirs.f()', 'EXECUTE')"
    assert portal.sql(runs) == [(False,)]
    sql = re.findall(r"^\s*((?:ALTER|GRANT) .*;)$", done.stderr[told - 1 :], re.M)
    portal.sql("\n".join(sql))
    assert portal.sql(runs) == [(True,)]
    assert portal.sql("SELECT theirs.f()") == [(other,)]
    portal.sql("DROP SCHEMA theirs CASCADE")
    for database in portal.copies():
        query(f"DROP OWNED BY {other}", database)


def test_postgresql_14_says_who_can_close_the_schema_public(
    portal: Portal, make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster("-c", "fsync=off", bin=PG14)
    for part in portal.names:
        cluster.copy(portal, part)
    store = portal.names["datastore"]
    portal.backup("--only", "datastore")
    # pg_restore could not close it, and neither can this
    done = portal.module("doctor", "--fix", code=1)
    said = " ".join((done.stdout + done.stderr).split())
    assert "may not set all" in said
    assert "(the reading role 'datastore_default' may make tables)" in said
    sql = re.search(r"`(ALTER SCHEMA public OWNER TO \w+;)`", said)
    assert sql and f"in the database '{store}'" in said
    cluster.sql(sql[1], store)
    said = portal.module("doctor", "--fix", code=None).stdout
    assert "the DataStore's permissions are those that core sets" in said
    # the next copy would be open again: told by doctor and by the restore, beforehand
    assert "CREATE DATABASE ckan_scratch" in said
    portal.backup("--only", "datastore")
    done = portal.module("restore", "latest", "--yes", code=1)
    assert "everybody may make objects" in done.stderr
    portal.write(**{"ckanext.dbmanage.admin_url": cluster.url("postgres", "postgres")})
    portal.module("restore", "latest", "--yes", "--no-backup")
    may = "SELECT has_schema_privilege('datastore_default', 'public', 'CREATE')"
    assert cluster.sql(may, store) == [(False,)]
