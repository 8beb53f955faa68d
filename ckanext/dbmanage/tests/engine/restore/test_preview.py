"""The preview counts what a restore would lose and gain."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ...support.indexes import take_away
from ...support.portal import DATASETS, UPLOADS, Portal


@pytest.mark.smoke
def test_the_preview_counts_what_would_be_lost_and_gained(portal: Portal) -> None:
    portal.backup()
    portal.sql("DELETE FROM resource WHERE id IN ('r-1', 'r-2')")
    portal.sql("UPDATE package SET metadata_modified = now() WHERE id = 'id-7'")
    portal.sql("UPDATE package SET state = 'deleted' WHERE id = 'id-8'")
    portal.sql(
        'INSERT INTO "group" (id, name, title, state, type, is_organization, approval_status)'
        " VALUES ('org-2', 'org-2', 'New', 'active', 'organization', true, 'approved')"
    )
    portal.sql('CREATE TABLE "new-table" (a int)', "datastore")
    uploads = portal.storage / "resources" / "upl" / "oad"
    (uploads / "-1").unlink()
    (uploads / "-2").unlink()
    (uploads / "-3").write_bytes(b"changed")
    (uploads / "new").write_bytes(b"new")
    before = portal.state()
    done = portal.module("restore", "latest", "--preview")
    rows = {line[:16].strip(): line[16:].split() for line in done.stdout.splitlines()}
    assert rows[""] == ["now", "then", "lost", "gained", "changed"]
    assert rows["datasets"] == [str(DATASETS - 1), str(DATASETS), "0", "1", "1"]
    resources = DATASETS + UPLOADS
    assert rows["resources"] == [str(resources - 2), str(resources), "0", "2", "0"]
    assert rows["organizations"] == ["2", "1", "1", "0", "0"]
    assert rows["DataStore tables"] == ["4", "3", "1", "0", "-"]
    assert rows["uploads"] == [str(UPLOADS), str(UPLOADS + 1), "1", "2", "1"]
    assert portal.state() == before
    portal.write(**{"ckan.plugins": "dbmanage"})
    done = portal.module("restore", "latest", "--preview", code=1)
    assert "holds the DataStore, this site has none: enable" in done.stderr


def test_the_index_and_the_archive_tell_the_same(portal: Portal) -> None:
    """Where the backup has an index nothing is unpacked, and the words are the same."""
    taken = portal.backup("--only", "database")
    portal.sql(
        "DELETE FROM resource WHERE id = 'r-1';"
        "UPDATE resource SET metadata_modified = now() WHERE id = 'r-2';"
        "UPDATE resource SET state = 'deleted' WHERE id = 'r-3';"
        "UPDATE package SET metadata_modified = now() WHERE id = 'id-7';"
        "UPDATE package SET state = 'deleted' WHERE id = 'id-8';"
        "UPDATE package SET name = 'renamed' WHERE id = 'id-9';"
        "INSERT INTO package (id, name, title, state, type, creator_user_id)"
        " VALUES ('new', 'new', E'\\\\ \\t\\x1b', 'active', 'dataset', 'user-2'),"
        "        ('draft', 'draft', NULL, 'draft', 'dataset', 'user-2');"
        "UPDATE \"group\" SET description = 'Another' WHERE id = 'org-1';"
        "UPDATE \"group\" SET is_organization = true WHERE id = 'group-1';"
        "UPDATE \"user\" SET email = 'another@example.com' WHERE id = 'user-3';"
        "UPDATE \"user\" SET password = 'another' WHERE id = 'user-4';"
        "UPDATE \"user\" SET sysadmin = true, state = 'deleted' WHERE id = 'user-5'"
    )

    def told() -> tuple[dict, str]:
        done = portal.module("restore", taken.name, "--preview", "--json")
        found = json.loads(done.stdout)
        return found, Path(found["file"]).read_text()

    by_index = told()
    take_away(taken)
    by_archive = told()
    assert by_index == by_archive
    counts = {row["kind"]: row for row in by_index[0]["rows"]}
    assert counts["users"]["changed"] == 2 and counts["users"]["gained"] == 1
    assert counts["organizations"]["lost"] == counts["groups"]["gained"] == 1
    assert counts["resources"] == {
        "kind": "resources", "now": 43, "then": 45,
        "lost": 0, "gained": 2, "changed": 1,
    }  # fmt: skip


def test_live_tables_that_no_index_can_be_made_of_are_compared(portal: Portal) -> None:
    name = portal.backup("--only", "database").name
    portal.sql('ALTER TABLE "group" ALTER is_organization DROP DEFAULT')
    portal.sql('ALTER TABLE "group" ALTER is_organization TYPE text')
    done = portal.module("restore", name, "--preview", "--json")
    rows = {row["kind"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["organizations"]["now"] == rows["organizations"]["then"] == 1


def test_the_preview_tells_by_name_what_goes_and_who_changed_it(portal: Portal) -> None:
    name = portal.backup("--only", "database").name
    portal.sql(
        "INSERT INTO package (id, name, title, state, type, creator_user_id,"
        "                     metadata_created, metadata_modified)"
        " SELECT 'new-' || i, 'new-' || i, E'\\x1b[2J\\n\\u202eA title', 'active', 'dataset',"
        " 'user-2', now(), now() FROM generate_series(10, 39) i;"
        "UPDATE package SET metadata_modified = now() WHERE id = 'id-7';"
        "INSERT INTO activity (id, timestamp, user_id, object_id, activity_type, data)"
        " VALUES ('1', now(), 'user-2', 'id-7', 'changed package', '{}'),"
        "        ('2', now() + interval '1 s', 'user-3', 'id-7', 'changed package', '{}');"
        "UPDATE package SET state = 'deleted' WHERE id = 'id-8';"
        "UPDATE \"group\" SET title = 'Another' WHERE id = 'org-1';"
        "UPDATE \"user\" SET state = 'deleted' WHERE id = 'user-5'"
    )
    said = portal.module("restore", name, "--preview").stdout
    assert "\x1b" not in said and "\u202e" not in said
    lines = said.splitlines()
    first = lines.index("Datasets that would be lost:")
    assert lines[first + 1] == "  new-10  ?[2J ?A title  (last changed by user-2)"
    assert lines[first + 21] == "  and 10 more"
    for line in (
        "  dataset-7  Dataset 東京 7  (last changed by user-3)",
        "  dataset-8  Dataset 東京 8",
        "  org-1  Another",
        "  user-5  Usér 5",
        "Who changed last what would be lost or go back: user-2 (30), user-3 (1)",
    ):
        assert line in lines
    assert lines[-1].startswith("All 34 names, for a day: ")
    file = Path(lines[-1].partition(": ")[2])
    assert file.stat().st_mode & 0o777 == 0o600
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(told) == 34 and told[0]["title"] == "\x1b[2J\n\u202eA title"
    assert {"kind": "users", "change": "gained", "name": "user-5"}.items() <= told[
        -1
    ].items()
    assert not any("password" in each for each in told)
    shown = json.loads(portal.module("restore", name, "--preview", "--json").stdout)
    assert shown["count"] == 34 and shown["file"] == str(file)
    assert [e["name"] for e in shown["names"]["organizations"]["changed"]] == ["org-1"]
    # it goes with the next preview, or a day later
    portal.module("restore", portal.backup().name, "--preview")
    assert not file.exists()
    (other,) = file.parent.iterdir()
    os.utime(other, (0, 0))
    portal.backup("--only", "files")
    assert not other.exists()
