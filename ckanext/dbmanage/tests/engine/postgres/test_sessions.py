"""Sessions in the way: named, ended, and what hinders that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.backup.manifest import segments_of
from ckanext.dbmanage.engine.errors import ConnectionFailed, Refused
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres import database, sessions
from ckanext.dbmanage.engine.postgres.database import literal
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore import preview, switch
from ckanext.dbmanage.engine.restore.history import oid_of
from ckanext.dbmanage.engine.restore.scratch import scratch_database
from ckanext.dbmanage.engine.restore.source import Source
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import Cluster
from ...support.server import main, refused_at, there
from ...support.waiting import wait_until


def test_a_role_that_takes_on_another_is_ended(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    role = login("IN ROLE ckan_default NOINHERIT")
    server.sql(f"ALTER ROLE {role} SET ROLE ckan_default")
    url = main(site).url.set(username=role)
    databases = {"database": replace(main(site), url=url)}
    site = replace(site, databases=databases)
    name = main(site).name
    with (
        closing(server.connect(name, role)) as session,
        closing(main(site).maintenance()) as connection,
    ):
        sessions.refuse_foreign(site.databases, connection, name)
        with sessions.ending(site.databases, [name]):
            wait_until(lambda: not there(server, name))
        with pytest.raises(psycopg2.OperationalError):
            database.query(session, "SELECT 1")


def test_a_prepared_transaction_is_named_with_the_server_s_reason(
    server: Cluster, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = main(site)
    gid = "it's\n2pc"
    with closing(live.connect()) as connection:
        database.query(connection, "INSERT INTO public.t VALUES (1)")
        connection.autocommit  # noqa: B018
        database.query(connection, "PREPARE TRANSACTION %s", gid)
    with closing(live.maintenance()) as connection:
        with pytest.raises(Refused) as refused:
            sessions.refuse_foreign(site.databases, connection, live.name)
        assert repr(gid) in str(refused.value) and "'ckan_default'" in str(
            refused.value
        )
        assert f"ROLLBACK PREPARED {literal(gid)}" in str(refused.value)
        monkeypatch.setattr(switch, "_ATTEMPTS", 1)
        oid = oid_of(connection, live.name)
        repository = Repository(Path(site.repository), site.secrets)
        Path(site.repository).mkdir()
        with (
            scratch_database(Operation(site, repository), "database") as made,
            pytest.raises(Refused) as refused,
        ):
            switch.rename(site, [made.pair])
        assert "DETAIL" in str(refused.value) and repr(gid) in str(refused.value)
        assert oid_of(connection, live.name) == oid
    with closing(live.connect()) as connection:
        connection.autocommit = True
        database.query(connection, f"ROLLBACK PREPARED {literal(gid)}")


def test_a_reader_that_pg_hba_fences_is_named(
    server: Cluster, site: Site, fenced: Callable[[str], None]
) -> None:
    store = site.databases["datastore"]
    fenced("host postgres,template1 datastore_default 127.0.0.1/32 reject\n")
    wait_until(lambda: refused_at(server, "postgres", "datastore_default"))
    with (
        closing(server.connect(store.name, "datastore_default")) as session,
        closing(store.maintenance()) as connection,
    ):
        with pytest.raises(Refused) as refused:
            sessions.refuse_foreign(site.databases, connection, store.name)
        said = str(refused.value)
        assert f"process {session.info.backend_pid}, role 'datastore_default'" in said
        assert (
            "pg_hba.conf" in said and "GRANT datastore_default TO ckan_default" in said
        )
        # what it says is enough
        server.sql("GRANT datastore_default TO ckan_default")
        try:
            sessions.refuse_foreign(site.databases, connection, store.name)
            with sessions.ending(site.databases, [store.name]):
                wait_until(lambda: not there(server, store.name))
        finally:
            server.sql("REVOKE datastore_default FROM ckan_default")


def test_the_server_s_words_do_not_matter(
    server: Cluster, site: Site, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionFailed) as failed:
        main(site).named("no_such").connect()
    if "existiert nicht" not in str(failed.value):
        pytest.skip("the machine has no German words of PostgreSQL")
    server.sql("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        with closing(main(site).maintenance()) as connection:
            assert connection.info.dbname == "template1"
        assert main(site).named("no_such").is_missing()
        assert not main(site).is_missing()
    finally:
        server.sql("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
    # the preview of a restore of a database that is gone
    repository = Repository(Path(site.repository), site.secrets)
    Path(site.repository).mkdir()
    taken = take.take(Operation(site, repository), parts=("datastore",))
    path = segments_of(taken, "datastore")
    gone = {"datastore": site.databases["datastore"].named("no_such")}
    source = Source("backup", {"datastore": path}, signed=True, backup=taken)
    (row,) = preview.preview(replace(site, databases=gone), repository, source, ())
    assert (row["now"], row["then"]) == (0, 1)


def test_a_fence_before_postgres_is_told_with_what_to_do(
    server: Cluster, site: Site, fenced: Callable[[str], None]
) -> None:
    """A lock in another database would be seen by nobody else."""
    fenced("host postgres ckan_default 127.0.0.1/32 reject\n")
    wait_until(lambda: refused_at(server, "postgres", "ckan_default"))
    with pytest.raises(ConnectionFailed) as failed:
        main(site).maintenance()
    said = str(failed.value)
    assert "'postgres'" in said and "admin_url" in said and "pg_hba.conf" in said
