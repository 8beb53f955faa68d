"""Every byte counts: what is flipped, missing, added or forged is found and named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.backup.verify import problems_of
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.signature import dumped

from ...support.portal import Portal, forge

FILES = sorted(
    [
        "files.jsonl.zst",
        "records.jsonl.zst",
        "SHA256SUMS",
        "database.list",
        "datastore.list",
        "manifest.json",
    ]
)


@pytest.fixture
def taken(portal: Portal) -> Path:
    return portal.backup()


def problems(portal: Portal, path: Path) -> list[str]:
    return problems_of(Backup(path, portal.site().secrets), portal.site())


def test_a_backup_is_these_files_and_no_others(taken: Path) -> None:
    assert sorted(entry.name for entry in taken.iterdir()) == FILES
    assert {oct(f.stat().st_mode & 0o777) for f in taken.iterdir()} == {"0o600"}
    assert oct(taken.stat().st_mode & 0o777) == "0o700"


@pytest.mark.smoke
def test_a_flipped_bit_anywhere_is_named(portal: Portal, taken: Path) -> None:
    chance = random.Random(4711)
    for name in FILES:
        whole = (taken / name).read_bytes()
        places = {0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(6))}
        if name in ("manifest.json", "SHA256SUMS"):
            places |= set(range(0, len(whole), max(1, len(whole) // 40)))
        for place in sorted(places):
            broken = bytearray(whole)
            broken[place] ^= 1 << chance.randrange(8)
            (taken / name).write_bytes(broken)
            found = problems(portal, taken)
            assert found, f"byte {place} of {name}"
            assert all(p.startswith(name) for p in found), f"byte {place}: {found}"
        (taken / name).write_bytes(whole)
    assert problems(portal, taken) == []


def test_a_missing_or_added_byte_is_named(portal: Portal, taken: Path) -> None:
    for name in FILES:
        whole = (taken / name).read_bytes()
        middle = len(whole) // 2
        for broken in (
            whole[:-1],
            whole + b"\n",
            whole[1:],
            whole[:middle],
            b"",
            whole[:middle] + b"x" + whole[middle:],
        ):
            (taken / name).write_bytes(broken)
            found = problems(portal, taken)
            assert found and all(p.startswith(name) for p in found), found
        (taken / name).write_bytes(whole)


def test_a_missing_added_or_replaced_file_is_named(portal: Portal, taken: Path) -> None:
    for name in FILES:
        kept = (taken / name).read_bytes()
        (taken / name).unlink()
        assert any(name in p for p in problems(portal, taken))
        (taken / name).symlink_to("/etc/hostname")
        assert any(name in p for p in problems(portal, taken))
        (taken / name).unlink()
        (taken / name).write_bytes(kept)
    hostile = "..%2F\n" + "x" * 200
    (taken / hostile).write_text("")
    assert any(repr(hostile) in p for p in problems(portal, taken))
    (taken / hostile).unlink()
    (taken / "sub").mkdir()
    assert any("sub" in p for p in problems(portal, taken))


def test_the_command_names_the_file_and_fails(portal: Portal, taken: Path) -> None:
    assert portal.db("verify").stdout == f"{taken.name}  verified\n"
    with open(taken / "database.list", "r+b") as file:
        file.seek(2000)
        file.write(b"\0\0\0\0")
    done = portal.db("verify", taken.name, code=1)
    assert "database.list: was changed" in done.stdout
    assert portal.backups()[0]["state"] == "damaged"
    (result,) = json.loads(portal.module("verify", "--all", "--json", code=1).stdout)
    assert result["ok"] is False and "database.list" in result["problems"][0]
    journal = portal.engine()[1].journal()
    said = [e.event for e in journal if e.text("what") == "verify"]
    said = [event for event in said if event != "took"]
    assert said == ["done", "found damage", "found damage"]
    done = portal.module("restore", taken.name, "--yes", code=1)
    assert "database.list" in done.stderr


def test_a_forged_manifest_is_not_trusted(portal: Portal, taken: Path) -> None:
    forge(taken, note="forged")
    done = portal.module("verify", code=1)
    assert "manifest.json: is not signed" in done.stdout
    before = portal.state()
    done = portal.module("restore", taken.name, "--yes", code=1)
    assert "--trust" in done.stderr and "database role" in done.stderr
    assert portal.state() == before
    assert portal.backups()[0]["state"] == "foreign"


def test_a_manifest_of_another_shape_is_refused(portal: Portal, taken: Path) -> None:
    whole = json.loads((taken / "manifest.json").read_text())
    for changes in (
        {"contents": {"../../etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"contents": {"/etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"contents": 7},
        {"databases": {"database": {"rows": {"public.package": "x"}}}},
        {"databases": None},
        {"format": 99},
    ):
        (taken / "manifest.json").write_bytes(dumped(whole | changes))
        found = problems(portal, taken)
        assert found == ["manifest.json: was changed or is not a manifest"]
        done = portal.module("restore", taken.name, "--trust", "--yes", code=1)
        assert "manifest.json" in done.stderr
        assert portal.backups()[0]["id"] == taken.name


def test_another_site_s_backup_needs_trust(make_portal, portal: Portal) -> None:
    other = make_portal({"SECRET_KEY": "another", "beaker.session.secret": "another"})
    other.sql("UPDATE package SET title = 'from the other site'")
    path = other.backup()
    done = portal.module("restore", str(path), "--yes", code=1)
    assert "is not signed with this site's secret" in done.stderr
    assert "--trust" in done.stderr
    portal.module("restore", str(path), "--trust", "--yes")
    assert portal.sql("SELECT DISTINCT title FROM package") == [
        ("from the other site",)
    ]


def test_an_older_secret_still_counts(portal: Portal, taken: Path) -> None:
    portal.write(SECRET_KEY="a new one", SECRET_KEY_FALLBACKS="portal-secret-5fd1")
    assert portal.module("verify").stdout == f"{taken.name}  verified\n"
    portal.write(SECRET_KEY_FALLBACKS="")
    portal.module("verify", code=1)


@pytest.mark.smoke
def test_a_copied_backup_directory_can_be_restored(portal: Portal, taken: Path) -> None:
    copy = portal.directory / "elsewhere"
    shutil.copytree(taken, copy)
    before = portal.state()
    portal.damage()
    portal.module("restore", str(copy), "--yes", "--no-backup")
    assert portal.state() == before


def test_a_copy_under_another_id_is_not_another_backup(
    portal: Portal, taken: Path
) -> None:
    copy = taken.with_name("20991231T000000Z")
    shutil.copytree(taken, copy)
    assert [(b["id"], b["state"]) for b in portal.backups()] == [
        (taken.name, "verified"),
        (copy.name, "foreign"),
    ]
    done = portal.module("verify", copy.name, code=1)
    assert "a copy under another name" in done.stdout
    assert "--trust" in portal.module("restore", copy.name, "--yes", code=1).stderr


def test_hostile_ids_are_only_looked_up(portal: Portal, taken: Path) -> None:
    _, repository = portal.engine()
    for name in (
        "../../etc", "..", "20261123T045500Z/..", "%2e%2e%2f", "x" * 5000,
        f"{taken.name}/", f"{taken.name}\n", "20261123T045500Z",
    ):  # fmt: skip
        with pytest.raises(Refused, match="^no backup"):
            repository.find(name)
    for name in ("", "a\nb", "-"):
        done = portal.module("verify", "--", name, code=1)
        assert done.stderr.startswith("Error: no backup")
    done = portal.module("restore", "--yes", "--", "../../etc", code=1)
    assert "Traceback" not in done.stderr
