"""Restored data is hostile input: archives that are odd, broken, too new or forged."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.engine.archive import lint
from ckanext.dbmanage.engine.archive.contents import Contents, Entry, contents_of
from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.archive.unpack import read_to_end
from ckanext.dbmanage.engine.errors import Damaged, DbmanageError, Refused
from ckanext.dbmanage.engine.postgres import database, programs
from ckanext.dbmanage.engine.postgres.programs import Tools, dump_tools, installed_tools

from ...support.cluster import PG16, PG18, PG_BIN, Cluster, client, query
from ...support.portal import Portal, refused


def superuser_dump(portal: Portal, file: Path, *options: str) -> Path:
    """What an operator's cron job made for ten years: pg_dump -Fc."""
    url = os.environ["DBMANAGE_SUPERUSER_URL"].rsplit("/", 1)[0]
    name = portal.names["database"]
    client(PG_BIN / "pg_dump", f"{url}/{name}", "-Fc", "-f", file, *options)
    return file


@pytest.mark.smoke
def test_a_plain_pg_dump_is_restored_with_trust(portal: Portal, tmp_path: Path) -> None:
    # what pg_dump keeps of the database itself is in the archive, and not restored
    name = portal.names["database"]
    query(f"ALTER DATABASE \"{name}\" SET DateStyle = 'ISO, DMY'")
    query(f"COMMENT ON DATABASE \"{name}\" IS 'the portal''s'")
    query(f'GRANT CONNECT ON DATABASE "{name}" TO datastore_default')
    portal.sql("CREATE TABLE nothing (); ALTER TABLE nothing OWNER TO ckan_default")
    file = superuser_dump(portal, tmp_path / "ckan.dump")
    before = portal.state()
    portal.damage()
    said = refused(portal, str(file))
    assert "--trust" in said and "as CKAN's database role" in said
    portal.module("restore", str(file), "--trust", "--yes", "--no-backup")
    after = portal.state()
    main = {k for k in before if k.startswith("database:")}
    assert {k: after[k] for k in main} == {k: before[k] for k in main}


def test_other_formats_are_refused_with_the_reason(
    portal: Portal, tmp_path: Path
) -> None:
    plain = superuser_dump(portal, tmp_path / "plain.sql", "-Fp").read_bytes()
    files = {
        "a.sql": (plain, "is plain SQL"),
        "b.dump": (b"\\! touch /tmp/pwned\n" + plain, "is plain SQL"),
        "c.sql.gz": (gzip.compress(plain), "is plain SQL"),
        "i.dump.gz": (gzip.compress(b"PGDMP\x01"), "Unpack it first: `gzip -dk"),
        "j.gz": (gzip.compress(plain)[:9] + os.urandom(99), "is not an archive"),
        "d.tar": (
            superuser_dump(portal, tmp_path / "x.tar", "-Ft").read_bytes(),
            "tar",
        ),
        "e.dump": (b"", "is not an archive"),
        "f.dump": (os.urandom(1000), "is not an archive"),
        "g.dump.zst": (b"\x28\xb5\x2f\xfd" + os.urandom(100), "is not an archive"),
        "h.dump": (b"PGDMP\x01\x63\x00" + os.urandom(500), "newer than this"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        assert reason in refused(portal, str(tmp_path / name), "--trust"), name
    superuser_dump(portal, tmp_path / "dir", "-Fd")
    assert "pg_dump -Fc" in refused(portal, str(tmp_path / "dir"), "--trust")


def test_truncated_and_flipped_archives_are_damaged(
    portal: Portal, tmp_path: Path
) -> None:
    whole = superuser_dump(portal, tmp_path / "whole.dump").read_bytes()
    chance = random.Random(1)
    pg_bin = ""
    broken = tmp_path / "broken.dump"
    for size in (5, 8, 60, len(whole) // 3, len(whole) - 1000, len(whole) - 1):
        broken.write_bytes(whole[:size])
        with (
            pytest.raises(DbmanageError),
            open(broken, "rb") as file,
        ):
            read_to_end(file, "broken.dump", pg_bin)
    # the table of contents: never anything but one of our errors
    for _ in range(300):
        flipped = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            flipped[chance.randrange(5, 40_000)] = chance.randrange(256)
        broken.write_bytes(flipped)
        with contextlib.suppress(Damaged, Refused):
            lint.refuse_odd(contents_of(File(broken)), "broken.dump")
    # `pg_restore -l` passes this one
    broken.write_bytes(whole[: len(whole) - 200])
    listed = subprocess.run([PG_BIN / "pg_restore", "-l", broken], capture_output=True)
    assert listed.returncode == 0
    assert "damaged" in refused(portal, str(broken), "--trust")
    flipped = bytearray(whole)
    flipped[len(whole) - 2000] ^= 4  # in compressed rows
    broken.write_bytes(flipped)
    refused(portal, str(broken), "--trust")


def test_what_only_a_superuser_makes_is_left_out(
    portal: Portal, tmp_path: Path
) -> None:
    portal.sql(
        "CREATE EXTENSION pg_trgm; COMMENT ON EXTENSION pg_trgm IS 'a superuser''s words';"
        "CREATE INDEX odd ON package USING gin (title gin_trgm_ops);"
        "CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER et ON ddl_command_start EXECUTE FUNCTION nothing();"
        "CREATE PUBLICATION pub FOR TABLE package;"
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO datastore_default"
    )
    before = portal.state()
    file = superuser_dump(portal, tmp_path / "ckan.dump")
    done = portal.module("restore", str(file), "--trust", "--yes", "--no-backup")
    assert "left out" in done.stderr and "EVENT TRIGGER et" in done.stderr
    assert portal.state() == before
    assert portal.sql("SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'")
    assert portal.sql("SELECT indexname FROM pg_indexes WHERE indexname = 'odd'")
    # and so does a backup of our own
    portal.sql(
        "CREATE EVENT TRIGGER et ON ddl_command_start EXECUTE FUNCTION nothing()"
    )
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.state() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE FUNCTION bad() RETURNS int LANGUAGE internal AS 'int4in'",
        "CREATE FUNCTION bad() RETURNS language_handler LANGUAGE c"
        " AS '$libdir/plpgsql', 'plpgsql_call_handler'",
        "CREATE FUNCTION bad() RETURNS text LANGUAGE sql AS 'SELECT pg_read_file(''/etc/passwd'')'",
        "CREATE FUNCTION bad() RETURNS void LANGUAGE plpgsql AS"
        " 'BEGIN EXECUTE ''ALTER /* x */ DATABASE y SET z = 1''; END'",
    ],
)
def test_odd_functions_are_refused_by_name(
    portal: Portal, tmp_path: Path, statement: str
) -> None:
    portal.sql(f"SET check_function_bodies = off; {statement}")
    file = superuser_dump(portal, tmp_path / "bad.dump")
    assert "FUNCTION public.bad(" in refused(portal, str(file), "--trust")


def test_nothing_unsigned_runs_as_a_superuser(
    portal: Portal, tmp_path: Path, role: Callable[..., str]
) -> None:
    file = superuser_dump(portal, tmp_path / "ckan.dump")
    root = role("dbm_root", "SUPERUSER")
    portal.write(**{"sqlalchemy.url": portal.url("database", root, "other")})
    said = refused(portal, str(file), "--trust")
    assert "is a superuser" in said and f"ALTER ROLE {root} NOSUPERUSER" in said


def smuggle(content: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with one statement made longer by another, lengths put right."""
    at = content.index(old)
    size = int.from_bytes(content[at - 4 : at], "little")
    text = content[at : at + size].replace(old, old + new, 1)
    length = len(text).to_bytes(4, "little")
    return content[: at - 4] + length + text + content[at + size :]


@pytest.mark.parametrize(
    "where", [b"CREATE TABLE public.package (", b"COPY public.package ("]
)
def test_smuggled_sql_is_refused_by_name(
    portal: Portal, tmp_path: Path, where: bytes
) -> None:
    """A TABLE entry's SQL is free text: this one reaches for the live database."""
    whole = superuser_dump(portal, tmp_path / "ckan.dump", "-Z0").read_bytes()
    name = portal.names["database"].encode()
    evil = (
        b"); ALTER DATABASE "
        + name
        + b" SET application_name = 'pwned'; CREATE TABLE x ("
    )
    (tmp_path / "evil.dump").write_bytes(smuggle(whole, where, evil))
    said = refused(portal, str(tmp_path / "evil.dump"), "--trust")
    assert "public.package" in said
    assert not query(
        "SELECT 1 FROM pg_db_role_setting WHERE setconfig::text LIKE '%pwned%'"
    )


def test_what_hides_in_comments_and_quotes() -> None:
    def odd(statement: str, kind: str = "TABLE", copy: str = "") -> bool:
        entry = Entry(1, kind, "public", "t", "o", statement, copy, bool(copy))
        try:
            lint.refuse_odd(Contents((1, 14), "", [entry]), "x")
        except Refused:
            return True
        return False

    for harmless in (
        "CREATE TABLE t (a text DEFAULT 'x; DROP TABLE y');\n",
        "CREATE TABLE t (a text);\n\n\nALTER TABLE ONLY public.t REPLICA IDENTITY FULL;\n",
        "COMMENT ON TABLE t IS 'drop; -- role /* $$';\n",
        "SET client_encoding = 'UTF8';\n",
        "SELECT pg_catalog.setval('public.s', 4, true);\n",
        "",
    ):
        assert not odd(harmless), harmless
    for harmful in (
        "CREATE TABLE t (); ALTER/**/DATABASE x SET y = 1;",
        "CREATE TABLE t (); ALTER --\nDATABASE x SET y = 1;",
        "CREATE TABLE t (); COMMIT; CREATE TABLE u ();",
        "CREATE TABLE t (); DO $$BEGIN END$$;",
        "CREATE TABLE t (); COPY t FROM PROGRAM 'id';",
        "CREATE TABLE t (); DELETE FROM package;",
        "SET ROLE postgres;",
        "SET SESSION AUTHORIZATION postgres;",
        "CREATE ROLE x SUPERUSER;",
        "ALTER SYSTEM SET x = 1;",
        "LOAD 'x';",
        "CREATE VIEW v AS SELECT dblink('x', 'y');",
        "CREATE DATABASE x;",
        "DROP TABLE package;",
    ):
        assert odd(harmful), harmful
    assert odd("", "TABLE DATA", "COPY t FROM stdin;\nALTER TABLE x ADD y int;")
    assert odd("", "TABLE DATA", "COPY t FROM PROGRAM 'id';\n")
    assert odd("", "TABLE DATA", "COPY t (a) FROM '/etc/passwd';\n")
    assert not odd("", "TABLE DATA", 'COPY public."t ""x" (a, "b c") FROM stdin;\n')


def in_cluster(portal: Portal, cluster: Cluster) -> None:
    for part in portal.names:
        cluster.copy(portal, part)


def rows(portal: Portal) -> list[tuple]:
    with psycopg2.connect(portal.options["sqlalchemy.url"]) as connection:
        return database.query(connection, "SELECT count(*), min(title) FROM package")


@pytest.mark.parametrize(("bin", "version"), [(PG16, 15), (PG18, 16)])
def test_newer_servers_are_served_by_their_own_programs(
    portal: Portal, make_cluster: Callable[..., Cluster], bin: Path, version: int
) -> None:
    in_cluster(portal, make_cluster(bin=bin))
    done = portal.module("backup", code=1)
    assert "pg_dump 15 cannot dump PostgreSQL" in done.stderr
    assert "install postgresql-client-" in done.stderr
    assert "ckanext.dbmanage.pg_bin" in done.stderr
    portal.write(**{"ckanext.dbmanage.pg_bin": str(bin)})
    path = portal.backup()
    before = rows(portal)
    with psycopg2.connect(portal.options["sqlalchemy.url"]) as connection:
        database.query(connection, "UPDATE package SET title = 'damaged'")
        connection.commit()
    portal.module("restore", "latest", "--yes")
    assert rows(portal) == before
    portal.write(**{"ckanext.dbmanage.pg_bin": str(PG_BIN)})
    done = portal.module("verify", path.name, code=1)
    assert f"pg_restore 15 cannot read an archive of version 1.{version}" in done.stdout


def test_archives_of_newer_programs_and_this_server(portal: Portal) -> None:
    files = {}
    for bin, major in ((PG_BIN, 15), (PG16, 16), (PG18, 18)):
        files[major] = portal.directory / f"{major}.dump"
        client(bin / "pg_dump", portal.url("database"), "-Fc", "-f", files[major])
    before = portal.state()
    assert "pg_restore 15 cannot read an archive of version 1.15" in refused(
        portal, str(files[16]), "--trust"
    )
    portal.write(**{"ckanext.dbmanage.pg_bin": str(PG16)})
    for major in (15, 16):
        portal.module("restore", str(files[major]), "--trust", "--yes", "--no-backup")
        assert portal.state() == before
    assert "1.16" in refused(portal, str(files[18]), "--trust")
    portal.write(**{"ckanext.dbmanage.pg_bin": str(PG18)})
    # pg_restore 18 sends a setting that a server 15 does not know
    assert "PostgreSQL 15" in refused(portal, str(files[15]), "--trust")
    assert "pg_dump of version 16 or older" in refused(
        portal, str(files[18]), "--trust"
    )


def test_the_program_is_chosen_for_the_way_back() -> None:
    def tools(*majors: int) -> None:
        found = tuple(Tools(f"/{m}", m) for m in sorted(majors, reverse=True))
        programs.installed_tools = lambda _="": found  # type: ignore[assignment]

    original = installed_tools
    try:
        for have, server, wanted in (
            ((15, 16, 18), 15, 16), ((18,), 15, 18), ((15, 18), 16, 18),
            ((15, 17, 18), 17, 18), ((14, 15), 14, 15),
        ):  # fmt: skip
            tools(*have)
            assert dump_tools(server).major == wanted
        tools()
        with pytest.raises(Refused, match="no pg_dump was found: install"):
            dump_tools(15)
    finally:
        programs.installed_tools = original


def test_more_datastore_tables_than_a_transaction_may_lock(
    portal: Portal, make_cluster: Callable[..., Cluster]
) -> None:
    """A server with its default settings: five thousand. This one: some hundred."""
    options = (
        "max_locks_per_transaction=10",
        "max_connections=40",
        "shared_buffers=16MB",
    )
    cluster = make_cluster(*(word for option in options for word in ("-c", option)))
    cluster.copy(portal, "datastore")
    name = portal.names["datastore"]
    make = (
        "DO $$ BEGIN FOR i IN {}..{} LOOP EXECUTE format("
        "'CREATE TABLE %I (_id int PRIMARY KEY, v text)',"
        " lpad(i::text, 8, '0') || '-1111-4000-8000-000000000000');"
        " END LOOP; END $$"
    )
    with contextlib.closing(cluster.connect(name, "ckan_default")) as connection:
        with pytest.raises(psycopg2.errors.OutOfMemory):
            database.query(connection, make.format(1, 500))
        for start in range(0, 500, 50):
            database.query(connection, make.format(start, start + 49))
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    oid = f"SELECT oid::bigint FROM pg_database WHERE datname = '{name}'"
    before, live = cluster.sql(tables, name), cluster.sql(oid)
    assert len(before) > 500
    portal.backup("--only", "datastore")
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert cluster.sql(tables, name) == before and cluster.sql(oid) != live
    left = "SELECT datname FROM pg_database WHERE datname ~ 'scratch$'"
    assert not cluster.sql(left)
