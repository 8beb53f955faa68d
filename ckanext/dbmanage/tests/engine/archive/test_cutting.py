"""A dump is cut so that what changes in one table moves nothing in another."""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Callable

import pytest

from ckanext.dbmanage.engine.archive import cutting
from ckanext.dbmanage.engine.archive.cutting import CONTENTS, LARGE, cut
from ckanext.dbmanage.engine.archive.frames import SEGMENT

from ...support.small import Made

TABLES = """
    CREATE TABLE large AS SELECT n, md5(n::text) || repeat('x', 90) AS text
        FROM generate_series(1, 80000) n;
    CREATE TABLE "odd "" name" AS SELECT E'\\\\.\\n\\t\\\\N' AS text, NULL::text AS nothing;
    CREATE TABLE empty (a int);
    CREATE TABLE wide AS SELECT repeat(md5('w'), 200000) AS text;
    CREATE TABLE last AS SELECT n FROM generate_series(1, 1000) n;"""


def dumped(made: Made) -> bytes:
    """As a backup reads it: through a pipe, in the snapshot's order."""
    return subprocess.run(
        [made.bin / "pg_dump", "-Fc", "-Z0", made.cluster.url(made.name, "postgres")],
        check=True, capture_output=True,
    ).stdout  # fmt: skip


def sums(dump: bytes) -> list[tuple[str, int, str]]:
    return [
        (table, number, hashlib.sha256(piece).hexdigest())
        for table, number, piece in cut(io.BytesIO(dump))
    ]


def test_the_segments_are_the_dump(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(TABLES)
    dump = dumped(made)
    pieces = list(cut(io.BytesIO(dump)))
    assert b"".join(piece for *_, piece in pieces) == dump
    assert max(len(piece) for *_, piece in pieces) == SEGMENT
    assert [n for table, n, _ in pieces if table == "public.large"] == [0, 1, 2]
    assert {table for table, *_ in pieces} == {
        CONTENTS, "public.large", 'public.odd " name', "public.empty", "public.wide",
        "public.last",
    }  # fmt: skip


def test_a_table_that_comes_moves_no_other(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(TABLES)
    before = sums(dumped(made))
    made.sql("CREATE TABLE a_first AS SELECT 1 AS a; INSERT INTO empty VALUES (1)")
    rows = {each for each in sums(dumped(made)) if each[0] != CONTENTS}
    lost = {each for each in before if each[0] != CONTENTS} - rows
    assert {table for table, *_ in lost} == {"public.empty"}


def test_large_objects_are_cut_by_their_length_alone(make: Callable[..., Made]) -> None:
    made = make()
    # what ends a table's rows, over and over
    odd = r"decode(repeat('0a00000000000100000000000a', 100000), 'hex')"
    made.sql(f"{TABLES}; SELECT lo_from_bytea(0, {odd}) FROM generate_series(1, 4)")
    dump = dumped(made)
    pieces = list(cut(io.BytesIO(dump)))
    assert b"".join(piece for *_, piece in pieces) == dump
    assert [n for table, n, _ in pieces if table == LARGE] == [0, 1]
    assert [n for table, n, _ in pieces if table == "public.wide"] == [0, 1]
    assert len(pieces) < 25


@pytest.mark.parametrize("cluster", [15], indirect=True)
@pytest.mark.parametrize("size", [1, 7, 1 << 12])
def test_how_a_pipe_hands_it_out_moves_no_cut(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    made = make()
    made.sql(
        "CREATE TABLE a AS SELECT 1 AS a; CREATE TABLE b (); CREATE TABLE c (t text)"
    )
    dump = dumped(made)
    expected = sums(dump)
    monkeypatch.setattr(cutting, "CHUNK", size)
    assert sums(dump) == expected
    assert [t for t, *_ in expected if t] == ["public.a", "public.b", "public.c"]


def test_a_cut_dump_loses_no_byte(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(TABLES)
    dump = dumped(made)
    for end in (
        len(dump) - 1,
        len(dump) - 9,
        SEGMENT * 2,
        dump.index(b"PGDMP") + 20000,
    ):
        pieces = b"".join(p for *_, p in cut(io.BytesIO(dump[:end])))
        assert pieces == dump[:end]
