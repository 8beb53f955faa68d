"""Connections of ours: what others have set, planted or locked does not reach them.

The server speaks German where it can, so that no check depends on its words.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from ckanext.dbmanage.doctor import portal_checks
from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.backup.manifest import content_file
from ckanext.dbmanage.engine.errors import Busy, ConnectionFailed, Refused, ToolFailed
from ckanext.dbmanage.engine.postgres import database, sessions
from ckanext.dbmanage.engine.postgres.database import (
    Database,
    execute,
    literal,
    quoted,
    unlimited,
)
from ckanext.dbmanage.engine.postgres.database import query as query_
from ckanext.dbmanage.engine.postgres.locks import live_lock, lock_key, try_lock, unlock
from ckanext.dbmanage.engine.postgres.programs import finish, running
from ckanext.dbmanage.engine.postgres.tables import tables_of
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore import preview, switch
from ckanext.dbmanage.engine.restore.history import oid_of
from ckanext.dbmanage.engine.restore.properties import _elements
from ckanext.dbmanage.engine.restore.scratch import scratch_databases
from ckanext.dbmanage.engine.restore.source import Source
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.portal import blockers
from ckanext.dbmanage.portal.plan import _not_enabled
from ckanext.dbmanage.records import processes

from ...support.cluster import PG_BIN, Cluster, query
from ...support.portal import Portal
from ...support.server import LIMITS, copied, hostile, limit, main, refused_at, there
from ...support.waiting import wait_until
from ...test_project import PACKAGE


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


ODD = [
    "plain",
    "select",
    "Ünïcode",
    "q\"uo'te",
    "a;b--",
    "line\n    DROP TABLE t;\x1b[1m\\",
]


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_is_told_can_be_pasted(site: Site, name: str) -> None:
    with closing(main(site).connect()) as connection, connection.cursor() as cursor:
        assert quoted(name).isprintable() and literal(name).isprintable()
        cursor.execute(f"SELECT {literal(name)} AS {quoted(name)}")
        assert cursor.description is not None
        assert (cursor.description[0].name, cursor.fetchone()) == (name, (name,))


def test_what_is_offered_to_be_run_does_only_what_it_says(site: Site) -> None:
    name = "x'; DROP TABLE public.t; --\n    DROP TABLE public.t;"
    table = 'x; DROP TABLE public.t; --"_alembic_version'
    with closing(main(site).connect()) as connection:
        database.query(
            connection,
            'CREATE TABLE public."user" (name text, email text, state text);'
            "INSERT INTO public.\"user\" VALUES ('a', 'A@x\nDROP', 'active'),"
            " (%s, 'a@x\nDROP', 'active')",
            name,
        )
        execute(connection, "CREATE TABLE public.{} ()", table)
        offered = [
            *blockers.emails(connection),
            *_not_enabled({table: ["1"]}, {}),
        ]
        assert len(offered) == 2
        for sentence in offered:
            # nothing that was written by others begins a line of its own
            assert len(sentence.splitlines()) == 2
            database.query(connection, sentence.splitlines()[1])
        emails = database.query(connection, 'SELECT name, email FROM public."user"')
        assert dict(emails) == {"a": "A@x\nDROP", name: None}
        assert [t for _, t, *_ in tables_of(connection)] == ["t", "user"]
        said = [text for _, text in portal_checks._migrations(site, [])]
        assert said  # it does not fail


def test_a_planted_function_does_not_run(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    """PostgreSQL 14 lets everybody create in schema public, of `postgres` too."""
    other = login()
    server.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        with closing(server.connect("postgres", other)) as connection:
            database.query(
                connection,
                "CREATE FUNCTION public.to_jsonb(pg_database) RETURNS jsonb AS $$"
                "BEGIN RAISE EXCEPTION 'planted'; END $$ LANGUAGE plpgsql",
            )
        repository = Repository(tmp := Path(site.repository), site.secrets)
        tmp.mkdir()
        warned: list[str] = []
        with (
            scratch_databases(
                site, repository, "op", "database", None, warned.append
            ) as made,
            closing(made.database.connect()) as connection,
        ):
            assert database.query(connection, "SHOW search_path") == [("pg_catalog",)]
        assert not warned
    finally:
        server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def test_there_is_one_place_that_connects() -> None:
    found = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "tests" not in file.parts and "psycopg2.connect(" in file.read_text()
    ]
    assert found == ["engine/postgres.py"]


def test_limits_do_not_end_a_session_of_ours(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    role = login("IN ROLE ckan_default CREATEDB")
    limit(server, role, LIMITS)
    url = main(site).url.set(
        username=role, query={"options": "-c work_mem=8MB -c statement_timeout=150"}
    )
    database = Database("database", url)
    with (
        closing(database.maintenance()) as keeper,
        closing(database.connect()) as connection,
    ):
        assert try_lock(keeper, "ours", "x")
        query_(connection, "SELECT pg_sleep(0.4)")
        connection.rollback()  # nothing of it goes with a transaction
        assert query_(connection, "SHOW statement_timeout") == [("0",)]
        assert query_(connection, "SHOW work_mem") == [("8MB",)]
        time.sleep(0.3)  # idle in a transaction, the other outside
        unlock(keeper, "ours", "x")
        query_(connection, "SELECT 1")
        options = unlimited(connection)
    # a program gets what the URL asks for, too
    target, environment = database.program(options)
    shown = subprocess.run(
        [PG_BIN / "psql", "-XAt", *target, "-c", "SHOW work_mem"]
        + [word for name in LIMITS for word in ("-c", f"SHOW {name}")],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout.split() == ["8MB", "0", "0", "0", "0"]
    assert "options" not in "".join(target)
    # a role without limits needs no options, which some poolers refuse
    with closing(main(site).connect()) as connection:
        assert unlimited(connection) == ""
    assert "PGOPTIONS" not in main(site).program()[1]


def test_limits_do_not_end_a_reader_s_transaction(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    role = login("IN ROLE ckan_default")
    limit(server, role, LIMITS)
    engine = sa.create_engine(main(site).url.set(username=role))
    with engine.connect() as connection:
        with connection.begin():
            processes._unlimited(connection)
            connection.exec_driver_sql("SELECT pg_sleep(0.3)")
            time.sleep(0.3)
            shown = connection.exec_driver_sql("SHOW lock_timeout").scalar()
            assert shown == "0"
        # what is CKAN's own is as it was
        shown = connection.exec_driver_sql("SHOW lock_timeout").scalar()
        assert shown == "1ms"
    engine.dispose()


def test_a_backup_and_a_restore_under_limits(portal: Portal, role: Any) -> None:
    limited = role("dbm_limited", "CREATEDB IN ROLE ckan_default")
    # some hundred milliseconds of a load, and of waiting for it
    for name, value in (LIMITS | {"statement_timeout": "2s"}).items():
        query(f"ALTER ROLE {limited} SET {name} = '{value}'")
    portal.sql(
        "CREATE TABLE big AS SELECT repeat(i::text, 99) FROM generate_series(1, 99999) i"
    )
    portal.sql("ALTER TABLE big OWNER TO ckan_default")
    query(f"GRANT datastore_default TO {limited}")
    portal.write(
        **{
            "sqlalchemy.url": portal.url("database", limited, "other"),
            "ckan.datastore.write_url": portal.url("datastore", limited, "other"),
        }
    )
    portal.backup()
    before = portal.state()
    portal.damage()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.state() == before
    portal.drop()


def test_a_pooler_is_not_given_settings(server: Cluster, site: Site) -> None:
    """What is set in a session that CKAN gets next would break the portal."""
    with closing(socket.create_server(("127.0.0.1", 0))) as pooler:

        def pass_on(come: socket.socket, go: socket.socket) -> None:
            with suppress(OSError):
                while data := come.recv(1 << 16):
                    # a pooler tells a process number of its own
                    head, key, rest = data.partition(b"K\0\0\0\x0c")
                    go.sendall(head + key + (b"\x7f" + rest[1:] if key else rest))
            go.close()

        def serve() -> None:
            here, _ = pooler.accept()
            there = socket.create_connection(("127.0.0.1", server.port))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        pooled = replace(
            main(site), url=main(site).url.set(port=pooler.getsockname()[1])
        )
        with pytest.raises(
            ConnectionFailed, match=r"pooler.*ckanext.dbmanage.admin_url"
        ):
            pooled.connect()
        thread.join()


def test_a_lost_lock_ends_the_operation(server: Cluster, site: Site) -> None:
    with live_lock(site) as held:
        held()
        server.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
        )
        with pytest.raises(ToolFailed, match=main(site).name) as failed:
            held()
        # the server's own reason is told: it ends with "administrator", in any language
        assert "dministrator" in str(failed.value)


def test_a_restore_whose_lock_was_lost_switches_nothing(portal: Portal) -> None:
    portal.backup()
    portal.damage()
    before, oids = portal.state(), portal.oids()
    key = lock_key("live", portal.names["database"])
    process = portal.start("restore", "latest", "--yes", "--no-backup")
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        f" AND (classid::bigint << 32 | objid::bigint) = {key}"
    )
    assert process.stderr is not None
    for line in process.stderr:  # not the lock of the tidying before
        if line.startswith("load"):
            break
    assert query(ended) == [(True,)]
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "was lost" in said
    assert "terminating connection due to administrator command" in said
    assert portal.state() == before and portal.oids() == oids


def test_a_lock_of_a_role_that_has_no_part_in_it(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    other, key = login(), lock_key("live", main(site).name)
    repository = Repository(Path(site.repository), site.secrets)
    Path(site.repository).mkdir()
    with closing(server.connect("postgres", other)) as connection:
        database.query(connection, f"SELECT pg_advisory_lock({key})")
        with pytest.raises(Busy) as failed, live_lock(site):
            pass
        pid = connection.info.backend_pid
        assert f"process {pid}, role '{other}'" in str(failed.value)
        assert f"SELECT pg_terminate_backend({pid});" in str(failed.value)
        with live_lock(site, foreign=True):
            pass
        assert take.take(site, repository, parts=("database",)).signed
    # a role that may switch the database is waited for, whoever it is
    member = login("IN ROLE ckan_default")
    with closing(server.connect("postgres", member)) as connection:
        database.query(connection, f"SELECT pg_advisory_lock({key})")
        with (
            pytest.raises(Busy, match="wait for its end"),
            live_lock(site, foreign=True),
        ):
            pass


def test_a_copy_is_dropped_whoever_has_its_lock(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    repository = Repository(Path(site.repository), site.secrets)
    Path(site.repository).mkdir()
    warned: list[str] = []
    with closing(server.connect("postgres", login())) as connection:
        with scratch_databases(
            site, repository, "op", "database", None, warned.append
        ) as made:
            name = made.pair.scratch
            lock = f"SELECT pg_advisory_lock({lock_key('ours', name)})"
            waiting = threading.Thread(target=database.query, args=(connection, lock))
            waiting.start()
            wait_until(lambda: server.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
        waiting.join()
    assert not warned
    assert not server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")


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
        sessions.refuse_foreign(site, connection, name)
        with sessions.ending(site, [name]):
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
            sessions.refuse_foreign(site, connection, live.name)
        assert repr(gid) in str(refused.value) and "'ckan_default'" in str(
            refused.value
        )
        assert f"ROLLBACK PREPARED {literal(gid)}" in str(refused.value)
        monkeypatch.setattr(switch, "_ATTEMPTS", 1)
        oid = oid_of(connection, live.name)
        repository = Repository(Path(site.repository), site.secrets)
        Path(site.repository).mkdir()
        with (
            scratch_databases(site, repository, "op", "database", None, print) as made,
            pytest.raises(Refused) as refused,
        ):
            switch.rename(site, live, [made.pair])
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
            sessions.refuse_foreign(site, connection, store.name)
        said = str(refused.value)
        assert f"process {session.info.backend_pid}, role 'datastore_default'" in said
        assert (
            "pg_hba.conf" in said and "GRANT datastore_default TO ckan_default" in said
        )
        # what it says is enough
        server.sql("GRANT datastore_default TO ckan_default")
        try:
            sessions.refuse_foreign(site, connection, store.name)
            with sessions.ending(site, [store.name]):
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
    taken = take.take(site, repository, parts=("datastore",))
    path = content_file(taken, "datastore")
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


def test_the_first_error_is_told_and_the_middle_left_out(
    site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "x.dump"
    body = "\n".join(f"-- line {number}" for number in range(50))
    with closing(main(site).connect()) as connection:
        database.query(
            connection,
            f"CREATE FUNCTION public.f() RETURNS int AS $$ SELECT 1\n{body} $$ LANGUAGE sql",
        )
        connection.commit()
    target, environment = main(site).program()
    subprocess.run(
        [PG_BIN / "pg_dump", "-Fc", "-f", file, *target], env=environment, check=True
    )
    arguments = [PG_BIN / "pg_restore", "-e", *target, file]
    with (
        pytest.raises(ToolFailed) as failed,
        running(list(map(str, arguments)), environment) as process,
    ):
        finish(process, "loading")
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("loading failed: pg_restore: error: could not execute")
    assert any("lines more" in line for line in lines) and len(lines) < 15
    assert "line 49" in lines[-1]


def test_a_program_with_much_to_say_is_heard_to_its_end() -> None:
    wordy = (
        "import sys; sys.stderr.write('pg_x: error: why\\n' + 'word\\n' * 10**6);"
        "sys.stderr.flush(); print('rows'); sys.exit(1)"
    )
    with (
        pytest.raises(ToolFailed, match="^working failed: pg_x: error: why"),
        running([sys.executable, "-c", wordy], stdout=-1) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read() == b"rows\n"  # it came to this
        finish(process, "working")
