"""Archives that reach beyond their own database, and people's own words that do not."""

from __future__ import annotations

import io
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import zstandard

from ckanext.dbmanage.engine.archive import contents, feeding, lint
from ckanext.dbmanage.engine.archive.contents import Contents, Entry, contents_of, limit
from ckanext.dbmanage.engine.archive.unpack import read_to_end, unpack
from ckanext.dbmanage.engine.errors import Damaged, Refused, ToolFailed
from ckanext.dbmanage.engine.postgres.database import query as query_
from ckanext.dbmanage.engine.restore import preview
from ckanext.dbmanage.engine.restore.copies import choose
from ckanext.dbmanage.engine.restore.faithful import left_out, plan
from ckanext.dbmanage.engine.restore.preflight import refuse_mighty
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.records.kinds import KINDS

from ...support.cluster import PASSWORD, PG_BIN, SUPERUSER, client, query
from ...support.portal import Portal

OWN = f"postgresql://ckan_default:{PASSWORD}@127.0.0.1:{SUPERUSER.port}"
PUBLIC = "GRANT ALL ON SCHEMA public TO ckan_default"


@pytest.fixture
def database() -> Iterator[Callable[..., str]]:
    """Makes empty databases of CKAN's role; their names."""
    made = []

    def make(options: str = "ENCODING 'UTF8'") -> str:
        made.append(name := f"hostile_{secrets.token_hex(4)}")
        query(f"CREATE DATABASE {name} OWNER ckan_default TEMPLATE template0 {options}")
        query(PUBLIC, name)
        return name

    yield make
    for name in made:
        query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def run(name: str, statement: str) -> None:
    with psycopg2.connect(f"{OWN}/{name}") as connection, connection.cursor() as cursor:
        connection.set_client_encoding("UTF8")
        cursor.execute(statement)
    connection.close()


def dump(name: str, file: Path, *options: str) -> Path:
    client(PG_BIN / "pg_dump", f"{OWN}/{name}", "-Fc", "-Z0", "-f", file, *options)
    return file


def load(file: Path, name: str, scan: bool = True) -> None:
    """What a restore does with an archive that nobody signed."""
    found = contents_of(file)
    if scan:
        lint.refuse_odd(found, file.name)
    connection = psycopg2.connect(f"{OWN}/{name}")
    try:
        tools = contents.tools(file, connection, str(PG_BIN))
        listed = file.with_suffix(".list")
        role = connection.info.user
        left = left_out(plan(found, connection, role), found, connection)
        chosen = choose(found, connection, left)
        connection.rollback()
        listed.write_text("\n".join(chosen) + "\n")
        arguments = ["-O", "-e", "-L", str(listed), "-f-", str(file)]
        feeding.load(connection, [tools.path("pg_restore"), *arguments], file.name)
    finally:
        connection.close()


def number(value: int) -> bytes:
    return b"\0" + value.to_bytes(4, "little")


def patched(file: Path, old: bytes, new: bytes) -> None:
    """Puts another text in the place of one, its length put right."""
    content = file.read_bytes()
    assert content.count(number(len(old)) + old) == 1
    file.write_bytes(content.replace(number(len(old)) + old, number(len(new)) + new))


def exists(name: str) -> bool:
    return bool(query("SELECT 1 FROM pg_database WHERE datname = %s", "postgres", name))


TABLE = b"CREATE TABLE public.t (\n    a integer\n);\n"


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize(
    "evil",
    [
        "COMMIT; DROP DATABASE {victim};",
        "END; DROP DATABASE {victim};",
        "ROLLBACK; DROP DATABASE {victim};",
        "DROP DATABASE {victim};",
        "/* /* */ ; */ COMMIT; DROP DATABASE {victim};",
        "DO $$ BEGIN COMMIT; END $$; DROP DATABASE {victim};",
        "ALTER DATABASE {victim} RENAME TO {victim}_x;",
        "CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS 'SELECT 1';"
        " ALTER DATABASE {victim} RENAME TO {victim}_x;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case;"
        " END; ALTER DATABASE {victim} RENAME TO {victim}_x;",
        "COMMENT ON DATABASE {victim} IS 'ours';",
        "SET standard_conforming_strings = off;",
        "GRANT ckan_default TO pg_monitor;",
    ],
)
def test_no_statement_gets_out(
    database: Callable[..., str], tmp_path: Path, evil: str, scan: bool
) -> None:
    """Not even where the table of contents was not looked at."""
    source, victim = database(), database()
    run(source, "CREATE TABLE t (a int)")
    # no rows: where they are stands in the table of contents, and would be wrong
    file = dump(source, tmp_path / "evil.dump", "-s")
    patched(file, TABLE, TABLE + evil.format(victim=victim).encode())
    with pytest.raises((Refused, ToolFailed)):
        load(file, copy := database(), scan)
    assert exists(victim)
    assert query("SELECT shobj_description(oid, 'pg_database') FROM pg_database"
                 " WHERE datname = %s", "postgres", victim) == [(None,)]  # fmt: skip
    assert query("SELECT to_regclass('public.t')", copy) == [(None,)]


@pytest.mark.parametrize("end", [b"COMMIT;", b"/* /* */ ; */ END;", b"ROLLBACK;"])
def test_no_entry_ends_the_transaction_for_the_next(
    database: Callable[..., str], tmp_path: Path, end: bytes
) -> None:
    """`pg_restore -1` drops the victim here."""
    source, victim = database(), database()
    run(source, "CREATE TABLE t (a int); CREATE TABLE u (a int)")
    file = dump(source, tmp_path / "evil.dump", "-s")
    patched(file, TABLE, TABLE + end)
    patched(file, TABLE.replace(b".t", b".u"), f"DROP DATABASE {victim};".encode())
    with pytest.raises(Refused):
        lint.refuse_odd(contents_of(file), file.name)
    with pytest.raises((Refused, ToolFailed)):
        load(file, copy := database(), scan=False)
    assert exists(victim)
    assert query("SELECT to_regclass('public.t')", copy) == [(None,)]


@pytest.mark.parametrize("kind", [b"DATABASE X", b"EVENT TRIGGERS", b"FUNCTION!"])
def test_only_known_kinds(
    database: Callable[..., str], tmp_path: Path, kind: bytes
) -> None:
    run(source := database(), "CREATE TABLE t (a int)")
    file = dump(source, tmp_path / "kind.dump")
    patched(file, b"TABLE", kind)
    with pytest.raises(Refused, match="is of a kind that no pg_dump writes"):
        lint.refuse_odd(contents_of(file), file.name)


def test_integers_are_read_as_pg_restore_reads_them(
    database: Callable[..., str], tmp_path: Path
) -> None:
    """A sign and a length of 2^32 - N: nothing here, a statement there."""
    run(source := database(), "CREATE TABLE t (a int)")
    content = dump(source, tmp_path / "whole.dump").read_bytes()
    old = number(len(TABLE)) + TABLE
    for odd in (
        b"\x01" + (2**32 - len(TABLE)).to_bytes(4, "little"),
        b"\x02" + len(TABLE).to_bytes(4, "little"),
        b"\0" + (2**32 - 1).to_bytes(4, "little"),
    ):
        (tmp_path / "odd.dump").write_bytes(content.replace(old, odd + TABLE))
        with pytest.raises(Damaged):
            contents_of(tmp_path / "odd.dump")
    # a text that ends earlier for pg_restore
    (tmp_path / "odd.dump").write_bytes(content.replace(b"a integer", b"a int\0ger"))
    with pytest.raises(Damaged):
        contents_of(tmp_path / "odd.dump")


def test_rows_that_are_sql(database: Callable[..., str], tmp_path: Path) -> None:
    victim = database()
    run(source := database(), "CREATE TABLE t (a text)")
    run(source, f"INSERT INTO t VALUES ('ALTER DATABASE {victim} RENAME TO x')")
    file = dump(source, tmp_path / "rows.dump", "--inserts")
    with pytest.raises(Refused, match="without --inserts"):
        lint.refuse_odd(contents_of(file), file.name)
    with pytest.raises(Refused, match="says 'INSERT INTO"):
        load(file, database(), scan=False)


def test_rows_that_call_themselves_large_objects(
    database: Callable[..., str], tmp_path: Path
) -> None:
    """The table of contents is in order; pg_restore sends such rows as SQL."""
    victim = database()
    run(source := database(), "CREATE TABLE t (a text)")
    run(source, f"INSERT INTO t VALUES ('COMMIT; DROP DATABASE {victim};')")
    file = dump(source, tmp_path / "rows.dump")
    copy, drop = b"COPY public.t (a) FROM stdin;\n", b"DROP TABLE public.t;\n"
    patched(file, b"TABLE DATA", b"BLOBS")
    patched(file, copy, b"")
    patched(file, drop, drop + b" " * len(b" DATA" + copy))  # rows stay where they are
    lint.refuse_odd(contents_of(file), file.name)
    with pytest.raises(Refused, match="says 'DROP DATABASE"):
        load(file, database())
    assert exists(victim)


@pytest.mark.parametrize(
    "grant",
    ["SUPERUSER", "CREATEROLE", "pg_execute_server_program", "pg_write_server_files",
     "pg_read_server_files", "postgres"],
)  # fmt: skip
def test_a_mighty_role_runs_nothing_unsigned(
    role: Callable[..., str], grant: str
) -> None:
    site = Site("test", "http://test", "", {}, ("secret",))
    option = grant if grant.isupper() else ""
    name = role(f"dbm_{secrets.token_hex(3)}", option)
    with psycopg2.connect(f"{OWN}/postgres") as connection:
        if not option:
            refuse_mighty(site, connection, name, "x")
            query(f"GRANT {grant} TO {name}")
        with pytest.raises(Refused, match=r"REVOKE|ALTER ROLE"):
            refuse_mighty(site, connection, name, "x")
    connection.close()


# -------------------------------------------------------------- people's own words

WORDS = """
    CREATE TABLE "Übersicht" ("Create User" text DEFAULT 'alter role x; --', language text,
        "a ""b"" (c)" text);
    CREATE DOMAIN "EU" AS text;
    CREATE TABLE documents (id int, language "EU", "set" text);
    COMMENT ON TABLE documents IS 'The set role of the employee; drop database /* $$ it''s \\';
    COMMENT ON COLUMN "Übersicht"."Create User" IS 'create role';
    CREATE VIEW v AS SELECT '; alter system'::text AS a;
    CREATE RULE r AS ON INSERT TO v DO INSTEAD
        (INSERT INTO documents VALUES (1); DELETE FROM documents);
    CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql
        BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN 1 ELSE 2 END; SELECT a; END;
    CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- a comment; /* of two lines
        RETURN NEW; /* and /* one */ more */
    END $$;
    INSERT INTO "Übersicht" VALUES (E'\\\\.\\n; COMMIT;', 'b', 'c');
    SELECT lo_from_bytea(77, 'abc'); COMMENT ON LARGE OBJECT 77 IS 'create user';
"""


@pytest.mark.parametrize("version", ["", "DBMANAGE_PG16_BIN"])
def test_peoples_own_words_are_no_sql(
    database: Callable[..., str], tmp_path: Path, version: str
) -> None:
    run(source := database(), WORDS)
    bin = Path(os.environ[version]) if version else PG_BIN
    file = tmp_path / "words.dump"
    client(bin / "pg_dump", f"{OWN}/{source}", "-Fc", "-Z0", "-f", file)
    lint.refuse_odd(contents_of(file), file.name)
    if version:
        return  # its pg_restore is a test of its own
    load(file, copy := database())
    texts = [
        client(PG_BIN / "pg_dump", f"{OWN}/{name}", capture_output=True).stdout
        for name in (source, copy)
    ]
    assert [
        [line for line in text.splitlines() if b"restrict " not in line]
        for text in texts[:1]
    ] == [
        [line for line in text.splitlines() if b"restrict " not in line]
        for text in texts[1:]
    ]


def test_large_objects_of_newer_versions() -> None:
    """pg_dump 17 writes their numbers, a line each, and pg_restore makes SQL of them."""

    def odd(statement: str) -> bool:
        entry = Entry(1, "BLOB METADATA", "", "77..78", "o", statement, "")
        try:
            lint.refuse_odd(Contents((1, 16), "", [entry]), "x")
        except Refused:
            return True
        return False

    assert not odd("77\n78\n")
    assert odd("77'); COMMIT; --\n")


def test_the_scan_is_linear() -> None:
    begun = time.process_time()
    for text in (
        "CREATE TABLE t (" + "'" * 300_001,
        "CREATE TABLE t (); " + "/*" * 200_000,
        'COPY "' + '""' * 200_000 + " FROM stdin;",
        "COPY t (" + "a, " * 100_000 + ";",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS '" + "pg_read_" * 60_000 + "'",
        "CREATE TABLE t (" + "$a" * 200_000,
    ):
        for statement, copy in ((text, ""), ("", text)):
            kind = "TABLE DATA" if copy else "FUNCTION"
            entry = Entry(1, kind, "s", "t", "o", statement, copy)
            with pytest.raises(Refused) if copy else pytest.raises((Refused, Flat)):
                lint.refuse_odd(Contents((1, 14), "", [entry]), "x")
                raise Flat
    assert time.process_time() - begun < 20


class Flat(Exception):
    """Nothing was odd, and soon so."""


# ------------------------------------------------------------------------- bounds


def test_a_small_file_does_not_fill_the_disk(
    database: Callable[..., str], tmp_path: Path
) -> None:
    run(
        source := database(),
        "CREATE TABLE package (id text, state text, metadata_modified text);"
        "INSERT INTO package SELECT repeat('a', 1000000) || n FROM generate_series(1, 40) n",
    )
    whole = dump(source, tmp_path / "whole.dump").read_bytes()
    file = tmp_path / "bomb.dump.zst"
    file.write_bytes(zstandard.compress(whole))
    most = limit(file.stat().st_size)
    assert most < len(whole) / 2
    with open(file, "rb") as packed, pytest.raises(Refused, match="zstd -d"):
        read_to_end(packed, file.name, str(PG_BIN), most)
    with pytest.raises(Refused, match="zstd -d"):
        unpack(file, tmp_path, "", lambda *_: None, most)
    live = psycopg2.connect(f"{OWN}/{database()}")
    kinds = tuple(k for k in KINDS if k.table == "package")
    with live.cursor() as cursor, pytest.raises(Refused, match="zstd -d"):
        preview._copy(file, kinds, str(PG_BIN), cursor, most)
    live.close()


def test_a_table_of_contents_has_a_bound(tmp_path: Path) -> None:
    """A million entries of nothing: kind, name and all that an entry has are empty."""
    head = b"PGDMP\x01\x0e\x00\x04\x08\x01" + number(0) * 8 + number(0) * 3
    nothing = number(0) * 15 + b"\x01\x01\0\0\0" + bytes(9)
    file = tmp_path / "bomb.dump.zst"
    file.write_bytes(zstandard.compress(head + number(10**6) + nothing * 10**6))
    with pytest.raises(Refused, match="zstd -d"):
        contents_of(file)


# ---------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_archives_in_their_own_encoding(
    database: Callable[..., str], tmp_path: Path, encoding: str
) -> None:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    source = database(options)
    run(
        source,
        'CREATE TABLE "Übersicht" (a text);'
        "CREATE TABLE package (id text, state text, metadata_modified text, title text);"
        "INSERT INTO package VALUES ('é', 'active', '2', 'ü'), ('b', 'active', '2', 'ü')",
    )
    file = dump(source, tmp_path / "latin.dump")
    found = contents_of(file)
    assert found.encoding == encoding
    assert found.tables() == {"Übersicht", "package"}
    load(file, copy := database(options))
    with psycopg2.connect(f"{OWN}/{copy}") as connection:
        connection.set_client_encoding("UTF8")
        assert query_(connection, 'SELECT count(*) FROM "Übersicht"') == [(0,)]
    connection.close()
    # the live database has one of the two, in another encoding
    live = psycopg2.connect(f"{OWN}/{database()}")
    with live.cursor() as cursor:
        packages = tuple(k for k in KINDS if k.table == "package")
        preview._copy(file, packages, str(PG_BIN), cursor, 0)
        cursor.execute('SELECT id FROM pg_temp.package ORDER BY id COLLATE "C"')
        assert cursor.fetchall() == [("b",), ("é",)]
    live.close()


def test_a_portal_in_another_schema_is_not_backed_up(
    portal: Portal, tmp_path: Path
) -> None:
    portal.sql('CREATE SCHEMA ckan AUTHORIZATION ckan_default; ALTER TABLE package SET SCHEMA ckan;'
               'ALTER TABLE "user" SET SCHEMA ckan')  # fmt: skip
    for arguments in (("backup",), ("dump", str(tmp_path / "x.dump"))):
        said: Any = portal.module(*arguments, code=1).stderr
        assert "in the schema ckan" in said and "SET SCHEMA public" in said


@pytest.mark.parametrize(
    "copy", ['COPY public.package (U&"a") FROM stdin;\n', "COPY public.package (a\n"]
)
def test_a_preview_reads_rows_of_pg_dump_alone(copy: str) -> None:
    entry = Entry(1, "TABLE DATA", "public", "package", "", "", copy)
    with pytest.raises(Damaged, match="more than a COPY"):
        preview._Rows(io.BytesIO(copy.encode()), entry, {"a"}, "x.dump")
