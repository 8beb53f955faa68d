"""What no rule of retention may take: the newest proof, and what was replaced."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.engine.layout import FORMAT
from ckanext.dbmanage.engine.repository import retention
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.signature import dumped, sign

SECRET = "kept-secret-77"
#: no rule keeps any but the newest
RULES = {"last": 1, "days": 0, "weeks": 0, "months": 0, "min": 1}
ALL = ("database", "datastore", "files")

Add = Callable[..., str]

DUMP = {"bytes": 0, "stored": 0, "added": 0}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(str(tmp_path), (SECRET,))


@pytest.fixture
def add(repository: Repository) -> Add:
    """Makes a backup that is some days old; its id."""

    def make(
        days: float,
        parts: tuple[str, ...] = ALL,
        proven: bool = False,
        reason: str = "manual",
        problems: tuple[str, ...] = (),
    ) -> str:
        name = f"{now() - timedelta(days=days):%Y%m%dT%H%M%SZ}"
        (repository.path / name).mkdir()
        databases = [part for part in parts if part != "files"]
        manifest = {
            "format": FORMAT,
            "id": name,
            "reason": reason,
            "databases": {
                p: {"rows": {}, "migrations": {}, "dump": DUMP} for p in databases
            },
            "contents": {f"{p}.list": {"bytes": 0, "sha256": ""} for p in databases},
            "files": {"included": "files" in parts, "bytes": 0, "added": 0},
        }
        (repository.path / name / "manifest.json").write_bytes(
            dumped(sign(manifest, SECRET, "manifest"))
        )
        time = {"time": "now", "problems": []}
        facts = {"verified": time | {"problems": list(problems)}}
        repository.find(name).remember(**facts, **({"proved": time} if proven else {}))
        return name

    return make


def decided(repository: Repository, undo_days: int = 7) -> dict[str, str]:
    """The reasons by id; of what is to be forgotten they begin with `-`."""
    found = retention.decide(repository.backups(), RULES, undo_days)
    return {each.backup.id: "-" * each.forget + each.reason for each in found}


def test_the_newest_proven_one_stays_below_newer_unproven_ones(
    repository: Repository, add: Add
) -> None:
    newest, newer = add(0), add(1)
    proven, older = add(20, proven=True), add(21, proven=True)
    assert decided(repository) == {
        newest: "the last 1",
        newer: "-no rule keeps it",
        proven: "the newest proven of database, DataStore and uploads",
        older: "-no rule keeps it",
    }
    repository.find(newest).remember(proved={"time": "now", "problems": []})
    said = decided(repository)
    assert (
        said[newest]
        == "the last 1, the newest proven of database, DataStore and uploads"
    )
    assert said[proven] == "-no rule keeps it"


def test_a_proof_of_one_part_does_not_push_out_that_of_all(
    repository: Repository, add: Add
) -> None:
    add(0)
    one, two = add(1, ALL[:1], proven=True), add(2, ALL[:1], proven=True)
    whole, part = add(3, proven=True), add(4, ALL[1:], proven=True)
    said = decided(repository)
    assert said[one] == "the newest proven of database"
    assert said[whole] == "the newest proven of database, DataStore and uploads"
    assert said[two] == said[part] == "-no rule keeps it"


def test_one_that_was_found_damaged_since_is_not_the_newest_proven(
    repository: Repository, add: Add
) -> None:
    add(0)
    damaged = add(1, proven=True, problems=("database.list: was changed (checksum)",))
    whole = add(2, proven=True)
    said = decided(repository)
    assert said[damaged].startswith("-damaged: ")
    assert said[whole].startswith("the newest proven")


@pytest.mark.parametrize("reason", ["before restore of x", "before upgrade"])
def test_what_was_replaced_stays_as_long_as_undo_would(
    repository: Repository, add: Add, reason: str
) -> None:
    newest, aside = add(0), add(6.9, reason=reason)
    old = add(7.1, reason=reason)
    newer = add(0.5, reason=reason)
    assert decided(repository) == {
        newest: "the last 1",
        newer: "what was replaced, for 7 days",
        aside: "what was replaced, for 7 days",
        old: "-no rule keeps it",
    }
    assert decided(repository, 0)[aside] == "-no rule keeps it"


def test_what_was_replaced_uses_up_no_rule(repository: Repository, add: Add) -> None:
    aside, nightly = add(0, reason="before restore of x"), add(1)
    said = decided(repository)
    assert said[aside] == "what was replaced, for 7 days"
    assert said[nightly] == "the last 1"
