"""Archives of any size and encoding are read within bounds."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import zstandard

from ckanext.dbmanage.engine.archive.contents import Entry, contents_of, limit
from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.archive.unpack import read_to_end, unpack
from ckanext.dbmanage.engine.errors import Damaged, Refused
from ckanext.dbmanage.engine.postgres.database import query as query_
from ckanext.dbmanage.engine.restore import preview
from ckanext.dbmanage.records.kinds import KINDS

from ...support.archives import OWN, dump, load, number, run
from ...support.cluster import PG_BIN
from ...support.portal import Portal


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
    archive = File(file)
    with archive.open(most) as packed, pytest.raises(Refused, match="zstd -d"):
        read_to_end(packed, file.name, str(PG_BIN))
    with pytest.raises(Refused, match="zstd -d"):
        unpack(archive, tmp_path, lambda *_: None, most)
    live = psycopg2.connect(f"{OWN}/{database()}")
    kinds = tuple(k for k in KINDS if k.table == "package")
    with live.cursor() as cursor, pytest.raises(Refused, match="zstd -d"):
        preview._copy(archive, kinds, str(PG_BIN), cursor, most)
    live.close()


def test_a_table_of_contents_has_a_bound(tmp_path: Path) -> None:
    """A million entries of nothing: kind, name and all that an entry has are empty."""
    head = b"PGDMP\x01\x0e\x00\x04\x08\x01" + number(0) * 8 + number(0) * 3
    nothing = number(0) * 15 + b"\x01\x01\0\0\0" + bytes(9)
    file = tmp_path / "bomb.dump.zst"
    file.write_bytes(zstandard.compress(head + number(10**6) + nothing * 10**6))
    with pytest.raises(Refused, match="zstd -d"):
        contents_of(File(file))


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
    found = contents_of(File(file))
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
        preview._copy(File(file), packages, str(PG_BIN), cursor, 0)
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
