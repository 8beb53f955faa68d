"""What holds for any archive: it is read as it is, or refused, and soon."""

from __future__ import annotations

import io
import secrets
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ckanext.dbmanage.engine.archive import lint
from ckanext.dbmanage.engine.archive.contents import MAGIC, Contents, read_contents
from ckanext.dbmanage.engine.archive.statements import Odd, Statements, columns
from ckanext.dbmanage.engine.errors import DbmanageError

from ...support.anything import TEXT, changed
from ...support.archives import dump, number, run
from ...support.cluster import query

_TABLES = """
CREATE TABLE package (id int PRIMARY KEY, "a ""b" text, c text DEFAULT 'x; y');
CREATE TABLE other (id serial, of int REFERENCES package, CHECK (id > 0));
CREATE VIEW seen AS SELECT id FROM package WHERE c <> E'\\n';
CREATE FUNCTION made() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER made BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION made();
CREATE RULE never AS ON DELETE TO other DO INSTEAD (SELECT 1; SELECT 2);
COMMENT ON TABLE other IS 'what''s /* in -- here';
INSERT INTO package SELECT i, 'é\t' || i, NULL FROM generate_series(1, 50) i;
SELECT lo_from_bytea(0, '\\x0001');
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """What pg_dump writes of one of everything."""
    name = f"any_{secrets.token_hex(4)}"
    query(f"CREATE DATABASE {name} OWNER ckan_default TEMPLATE template0")
    try:
        run(name, _TABLES)
        file = tmp_path_factory.mktemp("archive") / "x.dump"
        yield dump(name, file).read_bytes()
    finally:
        query(f"DROP DATABASE {name} WITH (FORCE)")


def read(raw: bytes) -> Contents | None:
    """What is in an archive that nobody signed; None when it is refused."""
    try:
        found = read_contents(io.BytesIO(raw), "x.dump")
        lint.refuse_odd(found, "x.dump")
    except DbmanageError as error:
        assert str(error)
        return None
    # on one line, and a text: what is printed makes signs of what is not printable
    assert all(len(str(entry).encode().splitlines()) == 1 for entry in found.entries)
    return found


def test_what_pg_dump_writes_is_read(archive: bytes) -> None:
    found = read(archive)
    assert found and found.tables() == {"package", "other"}
    assert found.table_data() == {"public.package", "public.other"}


@given(st.data())
def test_an_archive_that_was_changed_is_read_or_refused(
    archive: bytes, data: st.DataObject
) -> None:
    read(data.draw(changed(archive)))


@given(st.data())
def test_the_table_of_contents_is_read_or_refused_whatever_its_numbers(
    archive: bytes, data: st.DataObject
) -> None:
    """Of integers and lengths that pg_restore takes, wherever they stand."""
    at = data.draw(st.integers(5, len(archive) - 5))
    value = data.draw(st.sampled_from((0, 1, 2, 255, 1 << 16, 1 << 26, (1 << 31) - 1)))
    raw = archive[:at] + number(value) + archive[at + 5 :]
    tracemalloc.start()
    read(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # a length is no reason to take memory before its bytes are there
    assert peak < 8 << 20


@given(st.binary(max_size=200))
def test_what_is_no_archive_is_refused(archive: bytes, raw: bytes) -> None:
    assume(not raw.startswith(MAGIC))
    assert read(raw) is None
    assert read(raw[: len(MAGIC)] + archive[len(MAGIC) :]) is None


# ---------------------------------------------------------------------- its SQL

#: pieces in which one rule of the scanner ends and another begins
_SQL = st.lists(
    st.sampled_from((
        "SELECT 1", ";", "; ", "'", "''", "E'", "\\'", "\\\\", '"', '""', "$$", "$a$", "$1",
        "/*", "*/", "--", "\n", "\r", "(", ")", "U&'", "begin atomic", " end ", " case ",
        "create rule a as ", "create function f() ", "commit", "é", "\0", " ",
    )) | TEXT,
    max_size=14,
).map("".join)  # fmt: skip


def cut(*texts: str) -> list[tuple[str, list[tuple[str, str]]]] | str:
    """The statements of a text that comes in pieces, or why they are refused."""
    statements, found = Statements(), []
    try:
        for text in texts:
            found += [(each.text, each.tokens) for each in statements.feed(text)]
        found += [(each.text, each.tokens) for each in statements.end()]
    except Odd as odd:
        return str(odd)
    return found


@given(_SQL)
@example("'a\n'';\n'; b")
@example('"a\n"";\n"; b')
@example("E'\\\n'; b")
@example("/*\n;*/ a; b")
@example("$$\n$$; a")
def test_what_is_looked_at_whole_is_what_is_sent_line_by_line(text: str) -> None:
    """The lint sees an entry's text at once, and what is sent comes by lines."""
    whole = cut(text)
    lines = [f"{line}\n" for line in text.split("\n")]
    assert cut(*lines[:-1], lines[-1][:-1]) == whole
    if isinstance(whole, list):
        again = [each for statement, _ in whole for each in cut(statement) or []]
        assert again == whole
        for statement, tokens in whole:
            assert tokens and statement


@given(_SQL)
def test_any_statement_is_let_through_or_refused(text: str) -> None:
    statements = cut(text)
    if isinstance(statements, list):
        for statement, tokens in statements:
            try:
                lint.refuse_statement(lint.Statement(statement, tokens))
            except Odd as odd:
                assert str(odd)
                continue
            # what ends a transaction is never let through
            assert tokens[0][1] not in ("commit", "rollback", "end", "abort", "begin")


@given(st.lists(TEXT.filter(lambda name: name and "\0" not in name), min_size=1))
def test_the_columns_of_a_copy_are_its_names(names: list[str]) -> None:
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    copy = f"COPY public.t ({quoted}) FROM stdin;\n"
    assert columns(copy) == names
    assert lint.COPY.fullmatch(copy)
