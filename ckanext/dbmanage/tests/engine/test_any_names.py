"""What holds for any name: it moves no cursor, forges no line, leads nowhere else."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from ckanext.dbmanage.engine import clock
from ckanext.dbmanage.engine.archive.segments import ALONE, Line
from ckanext.dbmanage.engine.disk import is_partial, whole, write_file
from ckanext.dbmanage.engine.errors import Damaged, Refused
from ckanext.dbmanage.engine.printable import one_line, printable, sentence
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.uploads.folders import Folder, folder_of
from ckanext.dbmanage.engine.uploads.listing import (
    checked,
    format_line,
    parse_line,
    safe,
)

from ..support.anything import JSON, TEXT, scratch
from ..support.shelf import NOON, Shelf
from ..support.uploads import line

#: as the disk has them: any bytes
_BYTES = st.binary(min_size=1, max_size=300) | TEXT.map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
_PATHS = st.lists(_BYTES | st.sampled_from((b"..", b".", b"", b"a")), max_size=4).map(
    lambda parts: os.fsdecode(b"/".join(parts))
)
#: what a terminal obeys: controls, halves of letters, signs that turn the direction
_OBEYED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def obeyed(text: str) -> list[str]:
    return [letter for letter in text if unicodedata.category(letter) in _OBEYED]


@given(TEXT)
def test_what_is_shown_moves_no_cursor(text: str) -> None:
    assert not obeyed(one_line(text)) and one_line(one_line(text)) == one_line(text)
    lines = printable(text).split("\n")
    assert not any(map(obeyed, lines)) and printable(printable(text)) == printable(text)
    assert len(lines) == text.replace("\r\n", "\n").count("\n") + 1
    first, *more = sentence(text).split("\n")
    assert all(each.startswith(" ") for each in more) and first == lines[0]
    shown = [a for a, b in zip(text, printable(text), strict=False) if a == b]
    if text.isprintable():
        assert printable(text) == text and len(shown) == len(text)


@given(TEXT | st.sampled_from(("latest", "oldest", ".", "..", "objects", "state")))
def test_no_id_leads_out_of_the_repository(name: str) -> None:
    with scratch() as directory:
        shelf = Shelf(Path(directory) / "backups")
        taken = shelf.add(NOON)
        (Path(directory) / "20200101T000000Z").mkdir()
        repository = Repository(str(shelf.path), ("s",))
        for asked in (
            name,
            f"../{name}",
            f"{name}/../{taken}",
            f"../20200101T000000Z{name}",
        ):
            try:
                found = repository.find(asked)
            except Refused as refused:
                assert not obeyed(str(refused))
                continue
            assert found.path == shelf.path / taken and asked in (
                taken,
                "latest",
                "oldest",
            )


@given(_PATHS)
def test_a_path_of_a_list_stays_below_the_storage(path: str) -> None:
    facts = line(path)
    raw = format_line(facts)
    assert raw.count(b"\n") == 1 and parse_line(raw) == facts
    try:
        (found,) = checked([raw])
    except Damaged as damaged:
        assert not obeyed(str(damaged).replace("\n", ""))
        return
    assert found == facts and safe(path)
    with scratch() as directory:
        top = os.path.realpath(directory)
        place = os.path.normpath(os.path.join(top, path))
        assert os.path.dirname(place).startswith(top) and place != top
        folders = [Folder("", Path(top)), Folder("@other", Path(top, "b"))]
        try:
            folder, rest = folder_of(path, folders)
        except Refused:
            assert path.startswith("@")
            return
        assert folder.joined(rest) == path
        # and it is one that the disk can have
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).write_bytes(b"")
        assert os.path.exists(os.path.join(os.fsencode(top), os.fsencode(path)))


@given(
    st.lists(
        _PATHS.map(line) | JSON | st.binary(max_size=60),
        max_size=5,
    )
)
@example([line("a"), line("a/b")])
def test_any_list_of_uploads_is_read_or_damaged(lines: list) -> None:
    raw = [each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n"
           for each in lines]  # fmt: skip
    found = list[list[str]]()
    try:
        for facts in checked(raw):
            found.append(facts["path"].split("/"))
    except Damaged as damaged:
        assert re.search(rf"line {len(found) + 1} ", str(damaged))
        return
    assert found == sorted(found) and len(found) == len(raw)
    assert all(a != b[: len(a)] for a, b in zip(found, found[1:], strict=False))


#: as long as a file system has them, cut within a letter too
_LONG = st.integers(95, 255).map(lambda size: ("é" * size).encode())


@given((_BYTES | _LONG).map(lambda raw: re.sub(rb"[\0/]", b"_", raw)[:255]))
def test_a_file_of_any_name_is_written_whole(raw: bytes) -> None:
    name = os.fsdecode(raw)
    if name in ("", ".", ".."):
        return
    with scratch() as directory:
        write_file(Path(directory, name), b"one")
        with whole(Path(directory, name), 0o600) as file:
            (partial,) = set(os.listdir(directory)) - {name}
            assert is_partial(partial, name) and not is_partial(name, name)
            file.write(b"other")
        assert os.listdir(directory) == [name]
        assert Path(directory, name).read_bytes() == b"other"


@given(st.text("0123456789abcdef", min_size=64, max_size=64), TEXT)
def test_a_line_of_a_segment_is_one_line(digest: str, table: str) -> None:
    raw = Line(digest, ALONE, digest, 7, table).format()
    assert raw.count(b"\n") == 1 and json.loads(raw.split(b" ", 4)[4]) == table


_MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=timezone.utc)
)


@given(_MOMENTS, st.timedeltas(timedelta(seconds=1), timedelta(days=99)))
def test_ids_and_stamps_are_moments_and_sort_like_them(
    one: datetime, later: timedelta
) -> None:
    for said, parsed in (
        (clock.id_stamp, clock.parse_id),
        (clock.stamp, clock.parse_stamp),
    ):
        assert parsed(said(one)) == one.replace(microsecond=0)
        assert said(one + later) > said(one)
    assert clock.parse_stamp(clock.precise_stamp(one)) == one


@given(
    TEXT | st.builds(lambda moment, more: clock.stamp(moment) + more, _MOMENTS, TEXT)
)
def test_what_is_no_moment_is_none(text: str) -> None:
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"
    assert not clock.is_stamp(text) or re.fullmatch(form, text, re.ASCII)
    try:
        assert clock.parse_stamp(text).tzinfo
    except ValueError:
        assert not clock.is_stamp(text)
