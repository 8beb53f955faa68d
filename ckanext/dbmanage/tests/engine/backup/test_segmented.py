"""A night costs what changed, and what is stored is what pg_dump wrote."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from zstandard import ZstdCompressor

from ckanext.dbmanage.engine.archive import frames
from ckanext.dbmanage.engine.archive.segments import ALONE, Line, Segments
from ckanext.dbmanage.engine.backup.manifest import segments_of
from ckanext.dbmanage.engine.backup.verify import problems_of
from ckanext.dbmanage.engine.errors import Damaged, DbmanageError, Refused
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.signature import Hashed

from ...support.small import CKAN, Made

ROWS = f"""{CKAN}
    CREATE TABLE rows AS SELECT n, md5(n::text) || md5((n + 1)::text) AS text
        FROM generate_series(1, 120000) n;
    CREATE TABLE same AS SELECT md5(n::text) AS text FROM generate_series(1, 9000) n;"""
NIGHT = """UPDATE rows SET text = md5(text) WHERE n % 100 = 7; VACUUM rows;
    INSERT INTO rows SELECT n, md5(n::text) FROM generate_series(200000, 200500) n;
    CREATE TABLE IF NOT EXISTS fresh AS SELECT 1 AS a"""
SUM = "SELECT md5(string_agg(md5(r::text), '' ORDER BY n)), count(*) FROM rows r"


def night(made: Made) -> None:
    for statement in NIGHT.split(";"):
        connection = made.cluster.connect(made.name, "ckan_default")
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)


def dump_of(backup: Backup) -> dict[str, int]:
    return backup.manifest["databases"]["database"]["dump"]


def taken(made: Made) -> Backup:
    source = made.backup()
    assert source.backup is not None
    return source.backup


def test_a_night_adds_what_changed(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(ROWS, "ckan_default")
    first = taken(made)
    assert dump_of(first)["added"] == dump_of(first)["stored"] > 1 << 20
    was = made.sql(SUM)
    night(made)
    second, now = made.backup(), made.sql(SUM)
    assert second.backup is not None
    assert dump_of(second.backup)["added"] < dump_of(first)["stored"] * 0.03
    for source, expected in ((made.source(first.id), was), (second, now)):
        with made.copy(source) as name:
            connection = made.cluster.connect(name, "postgres")
            with closing(connection), connection.cursor() as cursor:
                cursor.execute(SUM)
                assert cursor.fetchall() == expected


@pytest.mark.parametrize("cluster", [15], indirect=True)
def test_what_differs_is_never_packed_against_what_differs(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.sql(ROWS, "ckan_default")
    for _ in range(3):
        backup = taken(made)
        night(made)
    lines = list(segments_of(backup, "database").lines())
    wholes = {line.object for line in lines if line.whole == ALONE}
    packed = [line for line in lines if line.whole != ALONE]
    assert packed
    first = list(segments_of(made.repository.backups()[-1], "database").lines())
    assert {line.whole for line in packed} <= wholes | {line.object for line in first}


@pytest.mark.parametrize("cluster", [15], indirect=True)
def test_a_rotten_whole_is_written_anew(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(ROWS, "ckan_default")
    first = taken(made)
    line = max(segments_of(first, "database").lines(), key=lambda line: line.bytes)
    place = segments_of(first, "database").place(line.object)
    whole = place.read_bytes()
    place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (problem,) = problems_of(first, made.site)
    assert problem == (
        f"database.list: table {line.table}: its content {line.object} was changed"
    )
    second = taken(made)
    assert place.read_bytes() == whole
    assert problems_of(first, made.site) == problems_of(second, made.site) == []


@pytest.mark.parametrize("cluster", [15], indirect=True)
@pytest.mark.parametrize("harm", ["missing", "link", "empty"])
def test_an_object_that_is_no_more_is_named(
    make: Callable[..., Made], harm: str
) -> None:
    made = make()
    made.sql(CKAN, "ckan_default")
    backup = taken(made)
    line = next(segments_of(backup, "database").lines())
    place = segments_of(backup, "database").place(line.object)
    place.rename(place.with_name("kept"))
    if harm == "link":
        place.symlink_to(place.with_name("kept"))
    elif harm == "empty":
        place.touch()
    (problem,) = problems_of(backup, made.site)
    assert problem.startswith("database.list: the table of contents: its content")
    with pytest.raises(Damaged, match=line.object):
        made.source(backup.id)


@pytest.mark.parametrize("cluster", [15], indirect=True)
def test_a_backup_names_what_stands_in_an_object_s_way(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.sql(CKAN, "ckan_default")
    backup = taken(made)
    line = next(x for x in segments_of(backup, "database").lines() if x.table)
    place = segments_of(backup, "database").place(line.object)
    place.unlink()
    place.mkdir()
    with pytest.raises(DbmanageError, match=f"{place}: Is a directory"):
        made.backup()


@pytest.mark.parametrize("cluster", [15], indirect=True)
def test_an_old_whole_is_not_built_upon(make: Callable[..., Made]) -> None:
    made = make()
    made.sql(ROWS, "ckan_default")
    first = taken(made)
    month = time.time() - 31 * 86400
    for name in segments_of(first, "database").object_sizes():
        os.utime(segments_of(first, "database").place(name), (month, month))
    night(made)
    lines = segments_of(taken(made), "database").lines()
    assert {line.whole for line in lines} == {ALONE}


# -- lists that nobody vouches for


def listed(directory: Path, *lines: Line) -> Segments:
    """A list of these lines, and its objects beside it."""
    path = directory / "database.list"
    with open(path, "wb") as file:
        out = Hashed(file)
        for line in lines:
            out.write(line.format())
    return Segments(path, out.bytes, out.sha256, (directory / "objects",))


def stored(directory: Path, frame: bytes) -> str:
    name = sha256(frame).hexdigest()
    place = directory / "objects" / name[:2]
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(frame)
    return name


def read(segments: Segments, most: int = 0) -> bytes:
    with segments.open(most) as stream:
        return stream.read(1 << 30)


def test_a_bomb_is_no_segment(tmp_path: Path) -> None:
    zeros = bytes(frames.SEGMENT + 1)
    name = stored(tmp_path, ZstdCompressor().compress(zeros))
    with pytest.raises(Damaged, match="larger than a segment"):
        read(listed(tmp_path, Line(name, ALONE, "0" * 64, 1, "")))


def test_many_times_the_same_is_refused_without_a_signature(tmp_path: Path) -> None:
    plain = bytes(frames.SEGMENT)
    name = stored(tmp_path, frames.pack(plain))
    line = Line(name, ALONE, sha256(plain).hexdigest(), len(plain), "public.t")
    segments = listed(tmp_path, *[line] * 40)
    with segments.open(16 << 20) as stream, pytest.raises(Refused, match="grows"):
        while stream.read(1 << 20):
            pass


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'../../etc/passwd - x 1 ""\n',
        b"0" * 64 + b" - " + b"0" * 64 + b' 99999999 ""\n',
        b"0" * 64 + b" - " + b"0" * 64 + b' 1 "\x1b[31m"\n',
        b"x" * 10000,
    ],
)
def test_a_line_that_is_none_is_damage(tmp_path: Path, line: bytes) -> None:
    segments = listed(tmp_path, Line("0" * 64, ALONE, "0" * 64, 1, ""))
    segments.path.write_bytes(line)
    with pytest.raises(Damaged):
        list(segments.lines())


def test_another_content_under_the_same_name_is_damage(tmp_path: Path) -> None:
    name = stored(tmp_path, frames.pack(b"one"))
    place = tmp_path / "objects" / name[:2] / name
    place.write_bytes(frames.pack(b"two"))
    own = sha256(b"two").hexdigest()
    with pytest.raises(Damaged, match="was changed"):
        read(listed(tmp_path, Line(name, ALONE, own, 3, "")))


def test_a_difference_needs_its_whole(tmp_path: Path) -> None:
    one, two = b"a line\n" * 9000, b"a line\n" * 8999 + b"b line\n"
    whole = stored(tmp_path, frames.pack(one))
    name = stored(tmp_path, frames.pack_against(two, one))
    other = stored(tmp_path, frames.pack(b"another"))
    line = Line(name, whole, sha256(two).hexdigest(), len(two), "")
    assert read(listed(tmp_path, line)) == two
    for wrong in (other, ALONE):
        with pytest.raises(Damaged):
            read(listed(tmp_path, line._replace(whole=wrong)))
