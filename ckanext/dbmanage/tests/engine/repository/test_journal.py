"""The journal: which of its lines are believed, and that it may grow."""

from __future__ import annotations

import json
import secrets
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.repository.journal import _LARGE
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore.history import Pair, half_way, last_switch, oid_of
from ckanext.dbmanage.engine.restore.recover import recover
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.engine.uploads import moves

from ...support.cluster import query
from ...support.heard import Heard
from ...support.portal import Portal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def opened(path: Path, *known: str) -> Repository:
    return Repository(str(path), known or ("secret",))


def wrote(path: Path) -> list[bytes]:
    """Three deeds of two operations, and a line for people; the lines."""
    repository = opened(path)
    repository.record("one", "switch", pairs=[])
    repository.record("one", "switched", parts=["files"])
    repository.record("two", "done", what="backup")
    repository.record("two", "switch", pairs=[])
    return (path / "journal.jsonl").read_bytes().splitlines(keepends=True)


def believed(path: Path, *known: str) -> list[tuple[str, str]]:
    return [(e.operation, e.event) for e in opened(path, *known).deeds()]


ALL = [("one", "switch"), ("one", "switched"), ("two", "switch")]

# ------------------------------------------------------------------ what is believed


def test_only_deeds_are_deeds(path: Path) -> None:
    wrote(path)
    assert believed(path) == ALL
    assert [e.event for e in opened(path).journal()][2] == "done"


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda a, b, c, d: [a.replace(b'"one"', b'"six"'), b, c, d], ALL[1:]),
        (lambda a, b, c, d: [a[: a.index(b', "hmac"')] + b"}\n", b, c, d], ALL[1:]),
        (lambda a, b, c, d: [a, b, c, d, a], ALL),  # once more, after its end
        (lambda a, b, c, d: [b, c, d, a], ALL[1:]),  # at another place
        (lambda a, b, c, d: [a, b, c], ALL[:2]),  # cut off the end
        (lambda a, b, c, d: [a, b, c, d[:50]], ALL[:2]),
        (
            lambda a, b, c, d: [a, b, c, d[:-1]],
            ALL[:2],
        ),  # nobody was told that it is there
        (lambda a, b, c, d: [a, b"[" * 200_000 + b"\n", b, c, d], ALL),
        (lambda a, b, c, d: [a, b'{"event": "switch"' * 99_999 + b"\n", b, d], ALL),
        (lambda a, b, c, d: [b'"event": "switch"', b"\xff\n", a, b, d], ALL),
        (lambda a, b, c, d: [a, b"x" * (9 << 20) + b"\n", b, c, d], ALL),
    ],
)
def test_a_line_is_believed_as_it_was_written_and_where(
    path: Path, change: Any, left: list[tuple[str, str]]
) -> None:
    lines = wrote(path)
    (path / "journal.jsonl").write_bytes(b"".join(change(*lines)))
    repository = opened(path)
    repository.record("new", "switch", pairs=[])
    assert believed(path) == [*left, ("new", "switch")]
    assert repository.journal()[-1].operation == "new"


def test_a_line_that_was_cut_off_cannot_come_back(path: Path) -> None:
    *lines, last = wrote(path)
    (path / "journal.jsonl").write_bytes(b"".join(lines))
    opened(path).record("new", "switch", pairs=[])
    with (path / "journal.jsonl").open("ab") as journal:
        journal.write(last)
    assert believed(path) == [*ALL[:2], ("new", "switch")]
    assert [e.operation for _, e in opened(path).others_deeds()] == ["two"]


def test_what_an_older_secret_signed_is_believed_and_what_a_lost_one_did_is_not(
    path: Path,
) -> None:
    wrote(path)
    changed = opened(path, "new", "secret")
    changed.record("three", "switched", parts=[])
    assert believed(path, "new", "secret") == [*ALL, ("three", "switched")]
    assert believed(path, "new") == [("three", "switched")]
    # found again: the numbers of each secret rise by themselves
    opened(path, "new").record("four", "switched", parts=[])
    after = [("three", "switched"), ("four", "switched")]
    assert believed(path, "new", "secret") == [*ALL, *after]
    assert believed(path, "secret") == ALL


def test_sites_that_share_a_repository_do_not_believe_each_other(path: Path) -> None:
    wrote(path)
    other = opened(path, "other")
    assert other.deeds() == []
    other.record("theirs", "switch", pairs=[])
    opened(path).record("ours", "switch", pairs=[])
    assert [e.operation for e in other.deeds()] == ["theirs"]
    assert believed(path) == [*ALL, ("ours", "switch")]


def test_what_another_process_adds_is_read_too(path: Path) -> None:
    wrote(path)
    reader = opened(path)
    assert len(reader.deeds()) == 3
    opened(path).record("new", "drop", database="x")
    assert [e.event for e in reader.deeds()][-1] == "drop"
    (path / "journal.jsonl").unlink()
    assert reader.deeds() == []


# ------------------------------------------------------------------------ its size


@pytest.fixture
def grown(path: Path) -> Path:
    """A journal of 18 MB, with deeds at its beginning; and another site's in it."""
    wrote(path)
    opened(path, "other").record("theirs", "switch", pairs=[])
    line = json.dumps({"operation": "x", "event": "done", "text": "y" * 400}) + "\n"
    forged = json.dumps({"operation": "z", "event": "switch", "hmac": "0" * 64}) + "\n"
    with (path / "journal.jsonl").open("a") as journal:
        journal.write(line * ((17 << 20) // len(line)) + "[" * (1 << 20) + "\n")
        journal.write(forged * 5000)
    opened(path).record("last", "done", what="backup")
    return path


def test_reading_a_large_one_takes_little_memory(grown: Path) -> None:
    tracemalloc.start()
    try:
        repository = opened(grown)
        assert len(repository.deeds()) == 3
        assert repository.journal()[-1].operation == "last"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_large_one_is_begun_anew_with_what_undo_and_recovery_need(
    grown: Path,
) -> None:
    before = (grown / "journal.jsonl").stat()
    old = opened(grown)
    old.deeds()
    with opened(grown).lock("backup"):
        pass
    about = (grown / "journal.jsonl").stat()
    assert before.st_size > _LARGE and about.st_size < 3 << 20
    assert about.st_mode & 0o777 == 0o600
    assert (grown / "journal.1.jsonl").stat().st_ino == before.st_ino
    assert believed(grown) == ALL
    assert opened(grown).journal()[-1].operation == "last"
    opened(grown).record("new", "switch", pairs=[])
    assert len(old.deeds()) == 4  # by whoever had read the old one
    assert opened(grown, "other").deeds()[0].operation == "theirs"


def test_a_new_one_has_all_that_is_ours_however_much_others_have_signed(
    path: Path,
) -> None:
    wrote(path)
    opened(path, "other").record("theirs", "switch", text="y" * 60_000)
    journal = path / "journal.jsonl"
    theirs = journal.read_bytes().splitlines(keepends=True)[-1]
    with journal.open("ab") as file:
        file.write(theirs * (1 + _LARGE // len(theirs)))
    with opened(path).lock("backup"):
        pass
    assert journal.stat().st_size < 6 << 20
    assert believed(path) == ALL
    assert opened(path, "other").deeds()[0].operation == "theirs"


# --------------------------------------------------------------- what is acted upon


@pytest.fixture
def half(portal: Portal) -> Iterator[tuple[Site, Repository, Pair]]:
    """A portal with a copy beside it, as a switch that was killed has left it."""
    site, repository = portal.engine()
    number = secrets.token_hex(4)
    pair = Pair(
        "database", portal.names["database"], f"dbm_{number}_scratch",
        f"dbm_{number}_undo", secrets.token_hex(16), site.id,
    )  # fmt: skip
    query(f"CREATE DATABASE {pair.scratch} OWNER ckan_default TEMPLATE template0")
    query(f"COMMENT ON DATABASE {pair.scratch} IS %s", "postgres", pair.comment)
    with closing(site.databases["database"].maintenance()) as connection:
        oids = [oid_of(connection, name) for name in (pair.live, pair.scratch)]
    yield site, repository, replace(pair, live_oid=oids[0], scratch_oid=oids[1])
    for name in (pair.scratch, pair.undo):
        query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def forged(site: Site, repository: Repository, events: list[dict[str, Any]]) -> None:
    repository.path.mkdir(parents=True, exist_ok=True)
    with (repository.path / "journal.jsonl").open("a") as journal:
        for facts in events:
            journal.write(json.dumps({"operation": "forged"} | facts) + "\n")


def test_a_forged_switch_is_told_and_left(
    half: tuple[Site, Repository, Pair], portal: Portal
) -> None:
    site, repository, pair = half
    move = moves.Move(
        str(portal.storage), "", ".dbm_00000000_scratch", ".dbm_00000000_undo", "t",
        ["resources", "storage"],
    )  # fmt: skip
    (portal.storage / move.undo).mkdir()  # as if it were begun
    other = replace(pair, part="datastore", live=portal.names["datastore"],
                    scratch=f"{pair.scratch[:4]}x", live_oid=1, scratch_oid=0)  # fmt: skip
    state, oids = portal.state(), portal.oids()
    # half of a switch over two servers, which recovery would complete
    forged(site, repository, [
        {"event": "create", "pair": asdict(pair)},
        {"event": "switch", "pairs": [asdict(pair), asdict(other)], "moves": []},
        {"event": "switch", "pairs": [], "moves": [asdict(move)], "operation": "more"},
        {"event": "switch", "pairs": [{"part": []}], "moves": 5, "operation": "odd"},
        {"event": "drop", "database": [], "operation": {}},
    ])  # fmt: skip
    heard = Heard()
    recover(Operation(site, repository, heard))
    assert portal.oids() == oids and portal.state() == state
    assert query("SELECT 1 FROM pg_database WHERE datname = %s", "postgres",
                 pair.scratch)  # fmt: skip
    (told,) = heard.warned
    assert "2 operations that are not signed" in told and "line 3)" in told
    assert half_way(site, repository) == []
    assert last_switch(site, repository) is None


def test_a_signed_switch_is_finished_when_both_sides_are_ours_still(
    half: tuple[Site, Repository, Pair], portal: Portal
) -> None:
    """Else it is told and left, as after somebody tidied up or copied a repository."""
    site, repository, pair = half
    other = portal.names["datastore"]
    (oid,) = {*portal.oids()} - {pair.live_oid}
    # the other half of it is done, so that recovery goes on with this one
    done = replace(pair, part="datastore", live=other, scratch_oid=oid)
    comment = f"COMMENT ON DATABASE {pair.scratch} IS %s"
    before = portal.oids()
    for said_of_it, noted in (
        ("precious", pair),
        (None, pair),
        (pair.comment, replace(pair, scratch_oid=pair.scratch_oid + 1)),
        (pair.comment, replace(pair, live_oid=pair.live_oid + 1)),
        (pair.comment, replace(pair, scratch=other, scratch_oid=oid)),
        (pair.comment, replace(pair, undo="precious")),
        (pair.comment, replace(pair, token="0" * 32)),
        (pair.comment, pair),
    ):
        query(comment, "postgres", said_of_it)
        (repository.path / "journal.jsonl").unlink(missing_ok=True)
        repository.record(
            "old", "switch", pairs=[asdict(done), asdict(noted)], moves=[]
        )
        heard = Heard()
        recover(Operation(site, repository, heard))
        assert len(heard.warned) == 1
        if noted != pair or said_of_it != pair.comment:
            assert portal.oids() == before and "stays half-way" in heard.warned[0]
            assert half_way(site, repository) == ["old"]
    assert "has been completed" in heard.warned[0]
    assert pair.scratch_oid in portal.oids() and pair.live_oid not in portal.oids()
    assert half_way(site, repository) == []
