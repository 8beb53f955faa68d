"""What holds for any dump that is cut: its segments make it again, or say what is wrong."""

from __future__ import annotations

import hashlib
import io
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckanext.dbmanage.engine.archive import cutting, frames
from ckanext.dbmanage.engine.archive.frames import pack, pack_against, unpack_frame
from ckanext.dbmanage.engine.archive.rows import NULL, escaped, plain
from ckanext.dbmanage.engine.archive.segments import Segments
from ckanext.dbmanage.engine.backup import segmented
from ckanext.dbmanage.engine.backup.segmented import Segmented
from ckanext.dbmanage.engine.errors import Damaged, DbmanageError
from ckanext.dbmanage.engine.objects import add_objects

from ...support.anything import TEXT, changed, scratch
from ...support.archives import number


def _text(value: str | None) -> bytes:
    raw = (value or "").encode()
    return number(len(raw)) if value is not None else b"\1\1\0\0\0"


def _text_of(value: str | None) -> bytes:
    return _text(value) + (value or "").encode()


def archive(tables: dict[str, bytes], large: bytes) -> bytes:
    """A dump of `pg_dump -Fc -Z0` of these rows, and of what follows them."""
    head = b"PGDMP\x01\x0e\x00\x04\x08\x01" + number(0) + number(0) * 7
    head += _text_of("db") + _text_of("15") + _text_of("15") + number(len(tables))
    for id, name in enumerate(tables, 1):
        head += number(id) + number(1) + _text_of("0") * 2
        head += _text_of(name) + _text_of("TABLE DATA") + number(2)
        head += _text_of("") * 2 + _text_of("COPY t (a) FROM stdin;\n")
        head += _text_of("public") + _text_of("") * 2 + _text_of("me") + _text_of("f")
        head += _text_of(None) + b"\x02" + bytes(8)
    for id, rows in enumerate(tables.values(), 1):
        piece = number(len(rows)) + rows if rows else b""
        head += b"\x01" + number(id) + piece + number(0)
    return head + large


#: rows as COPY writes them: no NUL; some have much in common
_ROWS = st.lists(
    st.sampled_from((b"a\t1\n", b"b\t\\N\n", b"x" * 40 + b"\n")) | TEXT.map(escaped),
    max_size=30,
).map(lambda rows: b"".join(rows).replace(b"\0", b""))
_TABLES = st.dictionaries(st.sampled_from("abcd"), _ROWS, max_size=3)
_DUMPS = st.builds(
    archive,
    _TABLES,
    st.just(b"") | st.binary(max_size=200).map(lambda raw: b"\x03\0\1\0\0\0" + raw),
)


class _Short:
    """A pipe, which gives what there is."""

    def __init__(self, raw: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(raw), most

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


def small(stack: ExitStack, size: int) -> None:
    """Cuts every `size` bytes, so that each boundary is met."""
    stack.enter_context(patch.object(cutting, "SEGMENT", size))
    stack.enter_context(patch.object(cutting, "CHUNK", max(1, size // 2)))
    stack.enter_context(patch.object(frames, "SEGMENT", max(size, 4096)))


@given(st.lists(_DUMPS, min_size=1, max_size=3), st.integers(1, 90), st.integers(1, 99))
def test_what_is_cut_makes_the_dump_again(
    dumps: list[bytes], size: int, most: int
) -> None:
    """Each version beside the one before, and all of them at the end."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(scratch()))
        small(stack, size)
        stack.enter_context(patch.object(segmented, "_WORTH", 1))
        objects, made = directory / "objects", list[Segments]()
        for at, dump in enumerate(dumps):
            (staged := directory / f"staged{at}").mkdir()
            cut = Segmented(objects, staged, made[-1] if made else None)
            lines = [each.format() for each in cut.lines(_Short(dump, most), id)]
            listed = b"".join(lines)
            assert cut.bytes == len(dump)
            add_objects(staged, objects)
            (path := directory / f"{at}.list").write_bytes(listed)
            sha256 = hashlib.sha256(listed).hexdigest()
            made.append(Segments(path, len(listed), sha256, (objects,)))
            assert sum(made[-1].object_sizes().values()) == cut.stored
        for dump, segments in zip(dumps, made, strict=True):
            with segments.open() as stream:
                assert b"".join(iter(lambda: stream.read(most), b"")) == dump
            start = most % (len(dump) + 1)
            assert b"".join(segments.plain(start)) == dump[start:]
            assert list(segments.problems()) == []


@given(_TABLES, st.binary(max_size=50), st.integers(1, 40), st.integers(1, 9))
def test_a_table_is_cut_from_its_own_start_to_its_end(
    tables: dict[str, bytes], large: bytes, size: int, most: int
) -> None:
    """Wherever the pieces of the pipe end: what changes in one moves no other."""
    dump, found = archive(tables, b"\x03\0\1\0\0\0" + large), dict[str, bytes]()
    with ExitStack() as stack:
        small(stack, size)
        for table, _, piece in cutting.cut(_Short(dump, most)):
            found[table] = found.get(table, b"") + piece
    for table, rows in tables.items():
        piece = number(len(rows)) + rows if rows else b""
        assert found[f"public.{table}"] == piece + number(0)
    assert found.get(cutting.LARGE, b"") == large


@given(st.data(), _DUMPS)
def test_a_stream_that_is_no_dump_is_cut_or_refused(
    data: st.DataObject, dump: bytes
) -> None:
    raw = data.draw(
        changed(dump) | st.binary(max_size=99).map(lambda tail: dump + tail)
    )
    with ExitStack() as stack:
        small(stack, 30)
        try:
            pieces = [piece for _, _, piece in cutting.cut(io.BytesIO(raw))]
        except DbmanageError:
            return
    assert b"".join(pieces) == raw


@given(st.binary(max_size=3000), st.data())
def test_a_frame_gives_its_segment_and_nothing_else(
    whole: bytes, data: st.DataObject
) -> None:
    plain = data.draw(st.binary(max_size=3000) | changed(whole))
    frame, against = pack(plain), pack_against(plain, whole)
    assert unpack_frame(frame, "x") == plain
    assert unpack_frame(against, "x", whole) == plain
    for packed, other in ((frame, None), (against, whole)):
        try:
            found = unpack_frame(data.draw(changed(packed)), "x", other)
        except Damaged:
            continue
        assert len(found) <= frames.SEGMENT


@given(st.binary(max_size=300))
def test_any_list_of_segments_is_read_or_damaged(raw: bytes) -> None:
    line = b'%s - %s 3 "t"\n' % (b"a" * 64, b"b" * 64)
    for listed in (raw, line + raw, line[: len(raw)] + raw + line):
        with scratch() as directory:
            (path := Path(directory, "x.list")).write_bytes(listed)
            sha256 = hashlib.sha256(listed).hexdigest()
            for size, other in ((len(listed), "0" * 64), (len(listed) + 1, sha256)):
                with pytest.raises(Damaged):
                    list(Segments(path, size, other, (Path(directory),)).lines())
            segments = Segments(path, len(listed), sha256, (Path(directory),))
            try:
                lines = [line.format() for line in segments.lines()]
            except Damaged:
                assert list(segments.problems())
                continue
            assert all(each.endswith(b"\n") for each in lines)
            if listed:
                with pytest.raises(Damaged), segments.open() as stream:
                    stream.read()


@given(TEXT.filter(lambda text: "\0" not in text))
def test_a_field_says_what_copy_was_told(text: str) -> None:
    field = escaped(text)
    assert not set(b"\n\t\r") & set(field) and field != NULL
    assert plain(field) == text.encode("utf-8", "replace").decode()
