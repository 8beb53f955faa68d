"""Archives that reach beyond their own database, and people's own words that do not."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.engine.archive import lint
from ckanext.dbmanage.engine.archive.contents import Contents, Entry, contents_of
from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.errors import Damaged, Refused, ToolFailed
from ckanext.dbmanage.engine.restore.preflight import refuse_mighty
from ckanext.dbmanage.engine.site import Site

from ...support.archives import OWN, dump, load, number, run
from ...support.cluster import PG_BIN, client, query


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
        lint.refuse_odd(contents_of(File(file)), file.name)
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
        lint.refuse_odd(contents_of(File(file)), file.name)


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
            contents_of(File(tmp_path / "odd.dump"))
    # a text that ends earlier for pg_restore
    (tmp_path / "odd.dump").write_bytes(content.replace(b"a integer", b"a int\0ger"))
    with pytest.raises(Damaged):
        contents_of(File(tmp_path / "odd.dump"))


def test_rows_that_are_sql(database: Callable[..., str], tmp_path: Path) -> None:
    victim = database()
    run(source := database(), "CREATE TABLE t (a text)")
    run(source, f"INSERT INTO t VALUES ('ALTER DATABASE {victim} RENAME TO x')")
    file = dump(source, tmp_path / "rows.dump", "--inserts")
    with pytest.raises(Refused, match="without --inserts"):
        lint.refuse_odd(contents_of(File(file)), file.name)
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
    lint.refuse_odd(contents_of(File(file)), file.name)
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
    lint.refuse_odd(contents_of(File(file)), file.name)
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


def said_odd(statement: str, kind: str = "FUNCTION") -> str:
    """What is found odd in an entry; empty where nothing is."""
    entry = Entry(1, kind, "public", "f", "o", statement, "")
    try:
        lint.refuse_odd(Contents((1, 14), "", [entry]), "x")
    except Refused as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "name",
    [
        "pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf", "lo_import",
        "lo_export", "ts_stat", "ts_rewrite", "query_to_xml", "query_to_xmlschema",
        "query_to_xml_and_xmlschema", "pg_file_write", "pg_read_binary_file",
        "pg_ls_dir", "pg_stat_file", "dblink", "dblink_exec", "connectby", "crosstab3",
        "xpath_table",
    ],
)  # fmt: skip
def test_functions_that_reach_beyond_are_refused_where_they_are_called(
    name: str,
) -> None:
    made = "CREATE FUNCTION public.f() RETURNS text LANGUAGE {} AS $${}$$;\n"
    call = f"SELECT {name}('a')"
    assert name.upper() in said_odd(made.format("sql", call))
    # in a text that is run, and in a language of which nothing is known
    told = f"BEGIN EXECUTE '{call.replace(chr(39), chr(39) * 2)}'; END"
    assert name.upper() in said_odd(made.format("plpgsql", told))
    assert name.upper() in said_odd(made.format("plv8", f"// it's\n{name} (1)"))


def test_what_only_has_a_similar_name_is_not_odd() -> None:
    made = "CREATE FUNCTION public.f() RETURNS text LANGUAGE {} AS $${}$$;\n"
    for body in (
        "SELECT lower('a')",
        "SELECT my_lo_import('a')",
        "SELECT pg_read_x(1)",
    ):
        assert not said_odd(made.format("sql", body))
    assert not said_odd(made.format("plv8", "// it's"))
    table = "CREATE TABLE public.t (\n    {} text\n);\n"
    for column in ("dblink", "crosstab", "connectby"):
        assert not said_odd(table.format(column), "TABLE")


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
