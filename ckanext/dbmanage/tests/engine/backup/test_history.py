"""The history of a record, over backups that were never taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from ckanext.dbmanage.engine.backup.history import Past, Thing, history
from ckanext.dbmanage.engine.backup.records import Records, Writer, format_line
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.layout import RECORDS
from ckanext.dbmanage.engine.signature import dumped

from ...support.indexes import night
from ...support.shelf import Shelf, measured

PARKS = {
    "id": "1",
    "name": "parks",
    "title": "Parks",
    "modified": "2020-11-01T00:00:00",
}
OTHERS = [{"id": f"x{n:05}", "name": f"other-{n}"} for n in range(2500)]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "backups")


def asked(shelf: Shelf, name: str, kind: str = "dataset") -> Past:
    return history(reversed(shelf.repository.backups()), kind, name)


def runs(thing: Thing) -> list[tuple]:
    """Of each run its length, name and state."""
    return [
        (run.count, *([run.line["name"], run.line["state"]] if run.line else [None]))
        for run in thing.runs
    ]


def test_runs_tell_change_deletion_purge_and_return(shelf: Shelf) -> None:
    newer = PARKS | {"modified": "2020-12-01T00:00:00"}
    lines = [[], [PARKS], [PARKS], [newer], [newer | {"state": "deleted"}], [], [PARKS]]
    ids = [night(shelf, n, {"dataset": each + OTHERS}) for n, each in enumerate(lines)]
    (thing,) = asked(shelf, "parks").things
    assert runs(thing) == [
        (1, None), (2, "parks", "active"), (1, "parks", "active"),
        (1, "parks", "deleted"), (1, None), (1, "parks", "active"),
    ]  # fmt: skip
    assert [(run.first, run.last) for run in thing.runs[:2]] == [
        (ids[0], ids[0]),
        (ids[1], ids[2]),
    ]
    assert asked(shelf, "1").things == [thing]
    assert asked(shelf, "nothing").things == asked(shelf, "parks", "user").things == []


def test_a_name_leads_to_all_that_had_it_and_on_by_their_ids(shelf: Shelf) -> None:
    renamed = PARKS | {"name": "gardens"}
    taken = {"id": "2", "name": "parks"}
    for n, each in enumerate(([PARKS], [renamed], [renamed, taken])):
        night(shelf, n, {"dataset": each + OTHERS})
    first, second = asked(shelf, "parks").things
    assert (first.id, second.id) == ("1", "2")
    assert runs(first) == [(1, "parks", "active"), (2, "gardens", "active")]
    assert runs(second) == [(2, None), (1, "parks", "active")]
    assert [each.id for each in asked(shelf, "gardens").things] == ["1"]


def test_what_a_backup_does_not_tell_is_said_and_ends_nothing(shelf: Shelf) -> None:
    one = {"dataset": [PARKS]}
    older = night(shelf, 0, None)
    night(shelf, 1, one)
    tables = night(shelf, 2, {"table": []})
    broken, cut, closed = (
        night(shelf, n, {"dataset": [PARKS, *OTHERS]}) for n in (3, 4, 5)
    )
    other = night(shelf, 6, one, secret="another")
    night(shelf, 7, one)
    path = shelf.path / broken / RECORDS
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    path = shelf.path / cut / RECORDS
    path.write_bytes(path.read_bytes()[:-5])
    path = shelf.path / closed / RECORDS
    path.unlink()
    path.symlink_to("/etc/hostname")
    (shelf.path / night(shelf, 8, one) / "manifest.json").write_text("{}")
    past = asked(shelf, "parks")
    (thing,) = past.things
    assert runs(thing) == [(3, "parks", "active")] and past.count == 9
    assert past.unsigned == [other]
    whys = [past.unknown.pop(each) for each in (older, tables, broken, cut, closed)]
    assert whys == [
        "it has no index of records",
        "it holds only database",
        f"it is damaged: {RECORDS}: was changed (checksum)",
        f"it is damaged: {RECORDS}: was changed (checksum)",
        f"{RECORDS}: is a link, not a plain file",
    ]
    assert list(past.unknown.values()) == [
        "it is damaged: manifest.json: is not a manifest"
    ]


def test_a_name_that_too_many_have_is_refused(shelf: Shelf) -> None:
    files = [{"id": f"r{n}", "name": "CSV"} for n in range(3000)]
    night(shelf, 0, {"resource": files})
    with pytest.raises(Refused, match="more than 20 are called 'CSV': ask for one by"):
        asked(shelf, "CSV", "resource")
    assert len(asked(shelf, "r7", "resource").things) == 1
    # those of the live database alone
    with pytest.raises(Refused, match="more than 20 are called 'CSV'"):
        history([], "resource", "CSV", [each["id"] for each in files[:21]])


def test_a_name_longer_than_an_index_has_is_found(shelf: Shelf) -> None:
    long = "\u6771" * 300
    with open(shelf.path / "index", "w+b") as file:
        writer = Writer(file)
        row = format_line({"kind": "resource", "id": "r-1", "name": long[:200]})
        into = writer.add("resource")
        into.write(b"\t".join((b"r-1", long.encode(), row)))
        into.close()
        table = writer.finish()["table"]
        file.flush()
        size = file.seek(0, 2)
    index = Records(shelf.path / "index", size, "", *table.values())
    held = index.table()["resource"]
    (found,) = index.find(index.with_name(held, long), "name", long)
    assert found["id"] == "r-1"


def test_names_and_ids_of_any_letters_are_found(shelf: Shelf) -> None:
    odd = ['"id":"1"', "a\\b\nc", "\u6771\u4eac \U0001f600", "", "%", "\x7f\x1b[2J"]
    lines = [{"id": f"{each}-", "name": each} for each in odd if each]
    night(shelf, 0, {"dataset": [*lines, PARKS]})
    for each in lines:
        for text in each.values():
            (thing,) = asked(shelf, text).things
            assert thing.id == each["id"]
            assert thing.runs[0].line and thing.runs[0].line["name"] == each["name"]


BLOCK = {"first": "1", "lines": 1, "at": 0, "bytes": 1, "sha256": "0"}


@pytest.mark.parametrize(
    "table",
    [
        {"blocks": [{"kind": "dataset"}]},
        "x" * 1000,
        [7],
        [{"kind": "dataset", "blocks": [["dataset"] * 6], "names": BLOCK}],
        [{"kind": ["dataset"], "blocks": [], "names": BLOCK}],
        [{"kind": "dataset", "blocks": [BLOCK], "names": BLOCK}],
        [{"kind": "dataset", "blocks": [BLOCK | {"first": 1}], "names": BLOCK}],
        [{"kind": "dataset", "blocks": [BLOCK | {"at": True}], "names": BLOCK}],
        [{"kind": "dataset", "blocks": [BLOCK | {"bytes": 1e9}], "names": BLOCK}],
        [{"kind": "dataset", "blocks": [BLOCK | {"bytes": -1}], "names": BLOCK}],
    ],
)
def test_a_forged_table_is_said_to_be_damaged(shelf: Shelf, table: object) -> None:
    past = forged(shelf, table)
    assert not past.things
    (why,) = past.unknown.values()
    assert why.startswith(f"it is damaged: {RECORDS}: has ")


def test_forged_lines_are_bounded_and_other_kinds_ignored(shelf: Shelf) -> None:
    night(
        shelf, 0,
        {
            "dataset": [
                PARKS | {"title": "x" * 100_000},
                {"id": "2", "name": "odd", "owner": {"a": 1}},
                {"id": "3", "name": "good"},
            ],
            "spaceship": [{"id": "4", "name": "good"}],
        },
        secret="another",
    )  # fmt: skip
    past = history(shelf.repository.backups(), "dataset", "good", kinds=("dataset",))
    assert [thing.id for thing in past.things] == ["3"]
    assert past.ignored == past.unsigned == shelf.ids()
    assert asked(shelf, "parks").things == asked(shelf, "odd").things == []


def forged(shelf: Shelf, table: object) -> Past:
    """The history where the table of an index says what nobody wrote."""
    id = night(shelf, 0, {"dataset": [PARKS]}, secret="another")
    path = shelf.path / id / RECORDS
    manifest = json.loads((path.parent / "manifest.json").read_bytes())
    about = manifest["contents"][RECORDS]
    start = about["bytes"] - about["table"]["bytes"]
    content = path.read_bytes()[: start + 8]
    content += zstandard.compress(json.dumps(table).encode())
    path.write_bytes(content)
    manifest["contents"][RECORDS] = measured(content)
    manifest["contents"][RECORDS]["table"] = measured(content[start:])
    (path.parent / "manifest.json").write_bytes(dumped(manifest))
    return asked(shelf, "parks")
