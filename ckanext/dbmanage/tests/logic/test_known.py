"""What the page reads of a repository: as little as it can, whatever lies there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.logic import status
from ckanext.dbmanage.logic.known import backups
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.site import build_site


def test_a_link_in_a_foreign_backup_ends_no_page(tmp_path: Path) -> None:
    backup = tmp_path / "20261101T030000Z"
    backup.mkdir()
    (backup / "manifest.json").write_text(json.dumps({"format": 2}))
    (backup / "database.dump").symlink_to(tmp_path / "nothing")
    (about,) = backups(Repository(str(tmp_path), ("a secret",)))
    assert about["state"] == "foreign" and about["bytes"] < 1000


def test_a_journal_is_read_anew_only_when_it_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have grown to any size, and the page looks each second."""
    settings = {
        "SECRET_KEY": "a secret",
        "sqlalchemy.url": "postgresql://ckan@db.test/a",
        "ckanext.dbmanage.repository": str(tmp_path),
    }
    site, reads = build_site(Options(settings)), []
    deeds = Repository.deeds
    monkeypatch.setattr(
        Repository, "deeds", lambda self: reads.append(self) or deeds(self)
    )
    for grown in (1, 2):
        Repository(site.repository, site.secrets).record("a", "begin", what="restore")
        for _ in range(3):
            assert (
                status.undo(site, Repository(site.repository, site.secrets), 7) is None
            )
        assert len(reads) == grown
