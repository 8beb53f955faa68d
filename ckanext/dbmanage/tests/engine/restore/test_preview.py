"""The preview counts what a restore would lose and gain."""

from __future__ import annotations

import pytest

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
    assert rows["DataStore tables"] == ["4", "3", "1", "0"]
    assert rows["uploads"] == [str(UPLOADS), str(UPLOADS + 1), "1", "2", "1"]
    assert portal.state() == before
    portal.write(**{"ckan.plugins": "dbmanage"})
    done = portal.module("restore", "latest", "--preview", code=1)
    assert "holds the DataStore, this site has none: enable" in done.stderr
