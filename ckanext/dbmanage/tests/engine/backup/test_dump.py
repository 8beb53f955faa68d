"""One database to one file, and back."""

from __future__ import annotations

import io
import stat
import subprocess
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.archive import contents
from ckanext.dbmanage.engine.backup import dump
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.repository.backup import Backup

from ...support.cluster import PG_BIN
from ...support.portal import Portal


@pytest.mark.smoke
def test_dump_and_load(portal: Portal) -> None:
    file = portal.directory / "my dump.dump"
    portal.db("dump", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    subprocess.run([PG_BIN / "pg_restore", "-l", file], check=True, capture_output=True)
    before = portal.state()
    portal.damage()
    portal.db("load", str(file), "--yes")
    after = portal.state()
    assert {k: v for k, v in after.items() if k.startswith("database:")} == {
        k: v for k, v in before.items() if k.startswith("database:")
    }


def test_dump_to_stdout_is_an_archive(portal: Portal, tmp_path: Path) -> None:
    done = portal.module("dump", "-", text=False)
    assert done.stdout[:5] == b"PGDMP"
    listed = subprocess.run(
        [PG_BIN / "pg_restore", "-f", "/dev/null"],
        input=done.stdout,
        capture_output=True,
    )
    assert listed.returncode == 0
    done = portal.module("dump", "-", "--only", "datastore", text=False)
    assert b"_table_metadata" in done.stdout


@pytest.mark.smoke
def test_one_file_out_of_a_backup(portal: Portal) -> None:
    taken, file = portal.backup().name, portal.directory / "then.dump"
    before = portal.state()
    portal.damage()
    portal.db("dump", "--from", taken, str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    portal.module("load", str(file), "--yes", "--no-backup")
    after = portal.state()
    assert {k: v for k, v in after.items() if k.startswith("database:")} == {
        k: v for k, v in before.items() if k.startswith("database:")
    }
    done = portal.module(
        "dump", "--from", taken, "-", "--only", "datastore", text=False
    )
    assert b"_table_metadata" in done.stdout


def test_one_file_out_of_a_damaged_backup_is_not_there(portal: Portal) -> None:
    taken, file = portal.backup("--only", "database"), portal.directory / "then.dump"
    for content in (portal.repository / "objects").rglob("?" * 64):
        content.write_bytes(b"rotten")
    done = portal.module("dump", "--from", taken.name, str(file), code=1)
    assert "database.list: its content" in done.stderr and not file.exists()
    done = portal.module(
        "dump", "--from", taken.name, "-", "--only", "datastore", code=1
    )
    assert "holds no DataStore, only database" in done.stderr


def test_what_a_stranger_sent_grows_within_bounds(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list may name one piece a million times."""
    portal.backup("--only", "database")
    _, repository = portal.engine()
    own = repository.find("latest")
    stranger = Backup(own.path, ("another secret",))
    stranger.objects = own.objects
    monkeypatch.setattr(contents, "AT_LEAST", 0)
    monkeypatch.setattr(contents, "TIMES", 1)
    dump.from_backup(own, "database", io.BytesIO(), lambda *_: None)
    with pytest.raises(Refused, match="grows to more than"):
        dump.from_backup(stranger, "database", io.BytesIO(), lambda *_: None)


def test_a_failed_dump_leaves_the_old_file(portal: Portal) -> None:
    file = portal.directory / "nightly.dump"
    portal.module("dump", str(file))
    good = file.read_bytes()
    portal.sql("CREATE TABLE secret_table (a int)")  # of the superuser: unreadable
    done = portal.module("dump", str(file), "--yes", code=1)
    assert "secret_table" in done.stderr
    assert file.read_bytes() == good
    assert [f.name for f in portal.directory.glob(".*")] == []
    portal.module("dump", "/nosuch/dir/x.dump", code=1)


@pytest.mark.smoke
def test_the_datastore_goes_by_only(portal: Portal) -> None:
    file = portal.directory / "ds.dump"
    portal.module("dump", str(file), "--only", "datastore")
    before = portal.state()
    portal.damage()
    done = portal.module("load", str(file), "--yes", code=1)
    assert "--only datastore" in done.stderr
    portal.module("load", str(file), "--only", "datastore", "--yes", "--no-backup")
    after = portal.state()
    assert {k: v for k, v in after.items() if k.startswith("datastore:")} == {
        k: v for k, v in before.items() if k.startswith("datastore:")
    }
    main = portal.directory / "main.dump"
    portal.module("dump", str(main))
    done = portal.module("load", str(main), "--only", "datastore", "--yes", code=1)
    assert "the main database" in done.stderr


def test_an_empty_database_is_told_the_next_step(portal: Portal) -> None:
    done = portal.db("clean", "--yes")
    assert "ckan db init" in done.stderr and "ckan db load FILE" in done.stderr
    for command in (["backup"], ["dump", "-"]):
        done = portal.module(*command, code=1)
        assert "`ckan db init`" in done.stderr and ".dbmanage load FILE`" in done.stderr
