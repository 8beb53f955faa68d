"""The index of records that a backup has: its lines, its form, its moment."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.backup.databases import dump_all, snapshot
from ckanext.dbmanage.engine.backup.records import Records, Writer
from ckanext.dbmanage.engine.backup.segmented import Segmented
from ckanext.dbmanage.engine.backup.verify import problems_of
from ckanext.dbmanage.engine.layout import RECORDS
from ckanext.dbmanage.engine.repository.backup import Backup

from ...support.indexes import resign, written
from ...support.portal import DATASETS, DATASTORE_TABLES, UPLOADS, Portal


def lines_in(directory: Path) -> list[dict]:
    """What stock `zstd` makes of it."""
    done = subprocess.run(
        ["zstd", "-dcq", directory / RECORDS], check=True, capture_output=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.smoke
def test_stock_tools_read_a_line_for_each_record(portal: Portal) -> None:
    portal.sql(
        "UPDATE \"user\" SET password = '$pbkdf2-secret', about = 'about him';"
        "UPDATE package SET state = 'deleted', title = E'\\x1b\\\\ \"a\"\\n'"
        " WHERE id = 'id-7'"
    )
    taken = portal.backup()
    found = lines_in(taken)
    kinds = [each["kind"] for each in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "dataset": DATASETS, "organization": 1, "group": 1, "user": 6,
        "resource": DATASETS + UPLOADS, "table": DATASTORE_TABLES,
    }  # fmt: skip
    for kind in dict.fromkeys(kinds):
        ids = [each["id"] for each in found if each["kind"] == kind]
        assert ids == sorted(ids)
    by_id = {each["id"]: each for each in found}
    ((modified,),) = portal.sql(
        "SELECT to_json(metadata_modified) FROM package WHERE id = 'id-7'"
    )
    assert by_id["id-7"] == {
        "kind": "dataset", "id": "id-7", "name": "dataset-7", "title": '\x1b\\ "a"\n',
        "state": "deleted", "owner": "org-1", "modified": modified,
        "hash": None,
    }  # fmt: skip
    assert by_id["r-1"]["owner"] == "id-1" and by_id["user-1"]["title"] == "Usér 1"
    assert {*by_id["user-1"]} == {*by_id["id-7"]}
    text = json.dumps(found)
    assert "example.com" not in text and "secret" not in text and "about" not in text
    # the hash of a table's rows, as `cut` and `sha256sum` make it
    (table,) = [each for each in found if each["id"].startswith("00000001-")]
    listed = (taken / "datastore.list").read_text().splitlines()
    sums = [e.split()[2] for e in listed if e.endswith(f'"public.{table["id"]}"')]
    joined = "".join(f"{each}\n" for each in sums).encode()
    assert sums and table["hash"] == hashlib.sha256(joined).hexdigest()


def test_a_backup_of_some_parts_has_their_lines(portal: Portal) -> None:
    kinds = {e["kind"] for e in lines_in(portal.backup("--only", "datastore"))}
    assert kinds == {"table"}
    kinds = {e["kind"] for e in lines_in(portal.backup("--only", "database"))}
    assert kinds == {"dataset", "organization", "group", "user", "resource"}
    assert not (portal.backup("--only", "files") / RECORDS).exists()


def test_it_is_of_the_moment_of_the_dump(portal: Portal, tmp_path: Path) -> None:
    """What is written after the snapshot is neither in the one nor in the other."""
    site = portal.site()
    with snapshot(site, site.databases["database"]) as source:
        portal.sql("UPDATE package SET name = 'later' WHERE id = 'id-1'")
        portal.sql("DELETE FROM package_tag; DELETE FROM member; DELETE FROM resource")
        portal.sql("DELETE FROM package WHERE id = 'id-2'")
        into = {"database": Segmented(tmp_path / "objects", tmp_path, None)}
        dump_all(site, {"database": source}, tmp_path, into, lambda *_: None)
    by_id = {each["id"]: each for each in lines_in(tmp_path)}
    assert by_id["id-1"]["name"] == "dataset-1" and "id-2" in by_id
    assert len([1 for each in by_id.values() if each["kind"] == "resource"]) > 40


def test_a_schema_of_other_columns_ends_no_backup(portal: Portal) -> None:
    """As before an upgrade of an old CKAN: the kind is left out, which is said."""
    portal.sql("ALTER TABLE resource RENAME metadata_modified TO another")
    portal.sql('ALTER TABLE "group" ALTER is_organization DROP DEFAULT')
    portal.sql('ALTER TABLE "group" ALTER is_organization TYPE text')
    done = portal.module("backup")
    assert "the index of records has no line of any resource" in done.stderr
    assert "no line of any organization: argument of WHERE must be" in done.stderr
    taken = portal.repository / done.stdout.strip()
    assert {e["kind"] for e in lines_in(taken)} >= {"dataset", "user", "table"}
    done = portal.module("history", "resource", "r-1", code=1)
    assert f"not known: {taken.name}: it has no index of records" in done.stdout


def test_a_kind_that_breaks_off_leaves_no_line(tmp_path: Path) -> None:
    """As when the server ends the session amid its rows."""
    path = tmp_path / RECORDS
    with open(path, "wb") as file:
        writer = Writer(file)
        broken = writer.add("dataset")
        for number in range(2500):
            broken.write(b"%05d\tname\t{}\n" % number)
        writer.leave_out()
        about = written(writer, {"user": [{"id": "u-1", "name": "anna"}]})
    content = path.read_bytes()
    assert about["bytes"] == len(content)
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    index = Records(path, about["bytes"], about["sha256"], *about["table"].values())
    assert [*index.table()] == ["user"] and not index.problems()
    assert lines_in(tmp_path)[0]["name"] == "anna"


def test_equal_nights_have_equal_indexes(portal: Portal) -> None:
    first, second = (portal.backup().joinpath(RECORDS).read_bytes() for _ in range(2))
    assert first == second


def test_verify_looks_inside(portal: Portal) -> None:
    """One that is signed as it is, but tells nothing, was written wrong."""
    taken = portal.backup("--only", "database")

    def sign_as_it_is(manifest: dict) -> None:
        about = manifest["contents"][RECORDS]
        content = b"x" * about["bytes"]
        (taken / RECORDS).write_bytes(content)
        about["sha256"] = hashlib.sha256(content).hexdigest()

    resign(taken, sign_as_it_is)
    site = portal.site()
    assert problems_of(Backup(taken, site.secrets), site) == [
        f"{RECORDS}: was changed (checksum)"
    ]
