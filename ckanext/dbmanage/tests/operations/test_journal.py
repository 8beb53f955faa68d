"""Exports and publications stand in the journal; and need no journal."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations.context import Portal as Asked
from ckanext.dbmanage.operations.journal import journalled
from ckanext.dbmanage.portal.config import Options

from ..support.portal import Portal


class Told(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def lines(portal: Portal, *names: str) -> list[tuple[Any, ...]]:
    """Those facts of the journal's lines, but of what its stages took."""
    text = (portal.repository / "journal.jsonl").read_text()
    told = map(json.loads, text.splitlines())
    return [
        tuple(line.get(name) for name in names)
        for line in told
        if line["event"] != "took"
    ]


def test_what_the_command_line_exports_and_publishes(
    portal: Portal, tmp_path: Path
) -> None:
    file = tmp_path / "users.jsonl"
    portal.db("export", "users", "--secrets", "-O", file, "-q")
    portal.db("publish", "-q")
    portal.write(**{"ckanext.dbmanage.public_licence": "no such licence"})
    portal.db("publish", "-q", code=1)
    portal.db("reindex", "--changed", "-q")
    names = ("what", "operation", "event", "secrets", "rows")
    groups = {"datasets": 36, "organizations": 1, "groups": 1}
    assert lines(portal, *names) == [
        ("export", str(file), "done", True, 5),
        ("publish", "publish", "done", None, groups),
        ("publish", "publish", "failed", None, None),
        ("reindex", "index", "done", None, None),
    ]
    assert all(by for (by,) in lines(portal, "by"))
    assert "no such licence" in lines(portal, "error")[2][0]


def test_an_export_to_stdout_needs_no_repository(portal: Portal) -> None:
    portal.write(**{"ckan.storage_path": ""})
    done = portal.db("export", "groups")
    assert json.loads(done.stdout)["name"] == "group-1" and "Warning" not in done.stderr
    assert not portal.repository.exists()


def asked(path: Path, **options: str) -> tuple[Asked, Told]:
    """A site with a repository at a path; no database answers."""
    settings = {
        "SECRET_KEY": "a secret",
        "sqlalchemy.url": f"postgresql://a@127.0.0.1:9/{secrets.token_hex(4)}",
        "ckanext.dbmanage.repository": str(path),
    }  # fmt: skip
    told = Told()
    return Asked(Options(settings | options), told), told


def test_a_journal_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    portal, told = asked(tmp_path / "plain" / "backups")
    with journalled(portal, "export", "stdout"):
        pass
    assert len(told.warnings) == 1 and "not noted" in told.warnings[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
def test_root_writes_no_journal_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    os.chown(tmp_path / "backups", 33, 33)
    portal, told = asked(tmp_path / "backups")
    with journalled(portal, "export", "stdout") as (repository, _):
        assert repository is None
    assert "this runs as root" in told.warnings[0]
    assert not [*(tmp_path / "backups").iterdir()]


def test_how_it_ended_is_noted(tmp_path: Path) -> None:
    portal, _ = asked(tmp_path / "backups")
    for failure in (Refused("no room"), ValueError("a password"), SystemExit(1)):
        with pytest.raises(type(failure)), journalled(portal, "export", "x", kind="a"):
            raise failure
    text = (tmp_path / "backups" / "journal.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    assert [(line["event"], line.get("error")) for line in found] == [
        ("failed", "no room"), ("failed", "ValueError"), ("cancelled", None),
    ]  # fmt: skip
    assert {line["kind"] for line in found} == {"a"}
