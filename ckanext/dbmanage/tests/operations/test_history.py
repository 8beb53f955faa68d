"""`ckan db history`, and the action behind the page."""

from __future__ import annotations

import json

import pytest

from ckanext.dbmanage.engine.clock import day_and_time, parse_stamp

from ..support.indexes import take_away
from ..support.portal import Portal

FACTS = ["there", "name", "title", "state", "owner", "modified", "hash"]


@pytest.mark.smoke
def test_the_command_tells_what_became_of_a_dataset(portal: Portal) -> None:
    older = portal.backup("--only", "database")
    take_away(older)
    first = portal.backup().name
    portal.sql(
        "UPDATE package SET name = 'renamed', title = E'\\x1b[2J', metadata_modified ="
        " '2026-01-02 03:04:05.678' WHERE id = 'id-7'"
    )
    second = portal.backup("--only", "database").name
    portal.backup("--only", "files")
    portal.sql("UPDATE package SET state = 'deleted' WHERE id = 'id-7'")
    third = portal.backup("--only", "database").name
    portal.sql("UPDATE package SET name = 'dataset-7' WHERE id = 'id-8'")
    found = json.loads(portal.db("history", "dataset", "dataset-7", "--json").stdout)
    assert {key: found[key] for key in ("kind", "asked", "backups", "unsigned")} == {
        "kind": "dataset", "asked": "dataset-7", "backups": 5, "unsigned": [],
    }  # fmt: skip
    assert [each["why"] for each in found["unknown"]] == [
        "it has no index of records",
        "it holds only uploads",
    ]
    by_id = {each["id"]: each for each in found["things"]}
    assert {*by_id} == {"id-7", "id-8"} and by_id["id-8"]["name"] == "dataset-7"
    runs = by_id["id-7"]["runs"]
    assert [list(run) for run in runs] == [["from", "to", "backups", *FACTS]] * 3
    told = [(run["from"], run["to"], run["name"], run["state"]) for run in runs]
    assert told == [
        (first, first, "dataset-7", "active"),
        (second, second, "renamed", "active"),
        (third, third, "renamed", "deleted"),
    ]
    assert runs[1]["modified"] == "2026-01-02T03:04:05.678Z"
    assert list(by_id["id-7"]["now"]) == FACTS
    assert by_id["id-7"]["now"]["state"] == "deleted"
    at = day_and_time(parse_stamp("2026-01-02T03:04:05Z"))  # with the year, in others
    said = portal.module("history", "dataset", "id-7").stdout
    assert "\x1b" not in said
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == "dataset renamed, id id-7"
    assert f"{second} {second} 1 active {at} renamed ?[2J" in lines
    assert f"now deleted {at} renamed ?[2J" in lines
    assert lines[-2].startswith("not known: ") and lines[-1].endswith("looked at")


def test_a_table_and_people_tell_a_change_by_their_hash(portal: Portal) -> None:
    table = "00000001-0000-4000-8000-000000000000"
    portal.backup()
    portal.sql(f'UPDATE "{table}" SET "a b" = \'x\' WHERE _id = 1', "datastore")
    portal.sql("UPDATE \"user\" SET email = 'new@example.com' WHERE id = 'user-3'")
    portal.sql("DELETE FROM member WHERE group_id = 'group-1'")
    portal.sql("DELETE FROM \"group\" WHERE id = 'group-1'")
    portal.backup()
    for line, counts in (
        (f"history table {table}", [1, 1]),
        ("history user user-3", [1, 1]),
        ("history user user-4", [2]),
        ("history organization org-1", [2]),
        ("history group group-1", [1, 1]),
        ("history resource r-1", [2]),
    ):
        found = json.loads(portal.module(*line.split(), "--json").stdout)
        (thing,) = found["things"]
        assert [run["backups"] for run in thing["runs"]] == counts, line
    assert thing["now"]["there"]
    said = portal.module("history", "group", "group-1").stdout
    assert said.count("gone") == 2


def test_what_nobody_knows_is_an_error_and_a_dead_database_is_none(
    portal: Portal,
) -> None:
    portal.backup("--only", "database")
    done = portal.module("history", "dataset", "no-such", code=1)
    assert "Error: no backup knows the dataset 'no-such'" in done.stderr
    done = portal.module("history", "dataset", "no-such", "--json", code=1)
    assert json.loads(done.stdout)["things"] == []
    portal.module("history", "spaceship", "x", code=2)
    portal.write(**{"sqlalchemy.url": "postgresql://a@127.0.0.1:9/none"})
    said = portal.module("history", "dataset", "dataset-7").stdout
    assert "not known" in said and "dataset-7" in said
