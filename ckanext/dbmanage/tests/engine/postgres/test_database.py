"""Connections of ours: what others have set or planted does not reach them."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ckanext.dbmanage.doctor import portal_checks
from ckanext.dbmanage.engine.errors import ConnectionFailed
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres import database
from ckanext.dbmanage.engine.postgres.database import (
    Database,
    execute,
    literal,
    no_limits,
    quoted,
)
from ckanext.dbmanage.engine.postgres.database import query as query_
from ckanext.dbmanage.engine.postgres.locks import try_lock, unlock
from ckanext.dbmanage.engine.postgres.tables import tables_of
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore.scratch import scratch_database
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.portal import blockers
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.plan import _not_enabled
from ckanext.dbmanage.records import processes

from ...support.cluster import PG_BIN, Cluster, query
from ...support.heard import Heard
from ...support.portal import Portal
from ...support.server import LIMITS, limit, main

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
        opened = context.Portal(Options({}), Silent())
        found = portal_checks.migrations(opened, site, None)  # type: ignore[arg-type]
        said = [text for _, text in found]
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
        heard = Heard()
        with (
            scratch_database(Operation(site, repository, heard), "database") as made,
            closing(made.database.connect()) as connection,
        ):
            assert database.query(connection, "SHOW search_path") == [("pg_catalog",)]
        assert not heard.warned
    finally:
        server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def test_limits_do_not_end_a_session_of_ours(
    server: Cluster, site: Site, login: Callable[..., str]
) -> None:
    role = login("IN ROLE ckan_default CREATEDB")
    limit(server, role, LIMITS)
    url = main(site).url.set(
        username=role, query={"options": "-c work_mem=8MB -c statement_timeout=450"}
    )
    database = Database("database", url)
    with (
        closing(database.maintenance()) as keeper,
        closing(database.connect()) as connection,
    ):
        assert try_lock(keeper, "ours", "x")
        query_(connection, "SELECT pg_sleep(0.8)")
        connection.rollback()  # nothing of it goes with a transaction
        assert query_(connection, "SHOW statement_timeout") == [("0",)]
        assert query_(connection, "SHOW work_mem") == [("8MB",)]
        time.sleep(0.8)  # idle in a transaction, the other outside
        unlock(keeper, "ours", "x")
        query_(connection, "SELECT 1")
        options = no_limits(connection)
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
        assert no_limits(connection) == ""
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
            connection.exec_driver_sql("SELECT pg_sleep(0.8)")
            time.sleep(0.8)
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
