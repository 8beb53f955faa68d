"""A backup is proven by restoring it."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from markupsafe import escape

from ckanext.dbmanage.engine.layout import LIST
from ckanext.dbmanage.engine.postgres.locks import lock_key
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.restore.proof import evidence
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import superuser
from ...support.portal import DATASETS, UPLOADS, Portal
from ...support.uploads import lines_of, write_lines
from ...support.waiting import wait_until


def signed(portal: Portal, path: Path) -> None:
    """Signs a backup whose list of uploads was changed, as the site itself would."""
    manifest = json.loads((path / "manifest.json").read_text())
    content = (path / LIST).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    manifest["contents"][LIST] = {"bytes": len(content), "sha256": digest}
    written = dumped(sign(manifest, portal.options["SECRET_KEY"], "manifest"))
    (path / "manifest.json").write_bytes(written)
    names = sorted([*manifest["contents"], "manifest.json"])
    sums = [hashlib.sha256((path / n).read_bytes()).hexdigest() for n in names]
    (path / "SHA256SUMS").write_text(
        "".join(f"{s}  {n}\n" for s, n in zip(sums, names, strict=True))
    )


@pytest.mark.smoke
def test_a_backup_is_proven(portal: Portal) -> None:
    path = portal.backup()
    before, left = portal.state(), portal.copies()
    done = portal.module("verify", "latest", "--prove")
    assert done.stdout == f"{path.name}  proven\n"
    assert portal.state() == before and portal.copies() == left
    (listed,) = portal.backups()
    assert listed["state"] == "proven" and listed["proved"]
    assert re.search(rf"{path.name}  proven 20\d\d-", portal.module("backups").stdout)
    state = json.loads((portal.repository / "state" / f"{path.name}.json").read_text())
    assert state["proved"]["read"] == {
        "datasets": DATASETS, "organizations": 1, "users": 6,
    }  # fmt: skip
    assert state["proved"]["uploads"] == {"named": UPLOADS + 1, "missing_before": 0}
    page = (portal.repository / "state" / f"{path.name}.html").read_text()
    assert (
        "Proven" in page
        and "public.package" in page
        and portal.options["SECRET_KEY"] not in page
    )
    assert "journal" not in page
    journal = (portal.repository / "journal.jsonl").read_text()
    assert '"event": "done", "what": "proof"' in journal
    # a byte that changes later takes it back
    (path / "database.list").write_bytes(b"")
    portal.module("verify", "latest", code=1)
    assert portal.backups()[0]["state"] == "damaged"


def test_a_name_of_others_is_no_markup_in_the_evidence(tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>&\"{{ 7 * 7 }}"
    found = Backup(tmp_path, ("secret",))
    found.manifest = {
        "databases": {hostile: {"rows": {hostile: 7}}}, "versions": {"ckan": hostile},
    }  # fmt: skip
    record = {
        "time": "2026-11-23T04:55:00Z", "seconds": 1.5, "tables": 1, "rows": 7, "migrated": [hostile],
        "read": {hostile: 1}, "uploads": {"named": 3, "missing_before": 2},
        "problems": [hostile], "told": [hostile, "more"],
    }  # fmt: skip
    site = Site(hostile, hostile, "", {}, ("secret",), versions={"ckan": hostile})
    page = evidence(site, found, record).decode()
    assert "<script" not in page and "alert('x')" not in page and '&"' not in page
    # as often as it is in what the page is made of; a part of this name there is none
    assert page.count(escape(hostile)) == 10
    assert page.count("<h1>Not proven: backup") == 1 and "49" not in page
    proven = record | {"problems": [], "told": [], "uploads": None}
    page = evidence(site, found, proven).decode()
    assert "<h1>Proven: backup" in page and "not part of this backup" in page
    assert "Problems" not in page and "What was told" not in page


def test_an_upload_that_is_not_in_the_backup_fails_the_proof(portal: Portal) -> None:
    upload = portal.storage / "resources" / "upl" / "oad" / "-1"
    content = upload.read_bytes()
    upload.unlink()  # missing at backup time: told, and no failure
    portal.backup()
    done = portal.module("verify", "--prove")
    assert "proven" in done.stdout
    record = json.loads(next((portal.repository / "state").glob("*.json")).read_text())[
        "proved"
    ]
    assert record["uploads"]["missing_before"] == 1
    upload.write_bytes(content)
    # signed, but the list lacks one though the database names it: only a proof can know
    path = portal.backup()

    write_lines(path / LIST, lines_of(path / LIST)[1:])
    signed(portal, path)
    done = portal.module("verify", "latest", "--prove", code=1)
    assert (
        "'resources/upl/oad/-1' is named by the database and is not in" in done.stdout
    )
    assert portal.backups()[0]["state"] != "proven"


def test_what_ckan_cannot_read_fails_the_proof(portal: Portal) -> None:
    portal.sql(
        "UPDATE package SET type = NULL, metadata_created = NULL WHERE id = 'id-7'"
    )
    portal.sql("UPDATE resource SET extras = 'no json' WHERE package_id = 'id-7'")
    portal.backup()
    left = portal.copies()
    done = portal.module("verify", "--prove", code=1)
    assert "CKAN cannot read datasets id-7" in done.stdout
    journal = (portal.repository / "journal.jsonl").read_text()
    assert '"event": "not proven", "what": "proof"' in journal
    assert portal.copies() == left


def test_a_proof_touches_no_live_service(portal: Portal) -> None:
    """With every live address wrong but the databases' own it goes on."""
    portal.backup()
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    before, oids = portal.state(), portal.oids()
    portal.module("verify", "--prove")
    assert (portal.state(), portal.oids()) == (before, oids)


def test_the_main_database_alone_is_proven(portal: Portal) -> None:
    """Without its DataStore, which CKAN would otherwise not start without."""
    portal.module("backup", "--only", "database")
    assert "proven" in portal.module("verify", "latest", "--prove").stdout
    assert portal.backups()[0]["state"] == "proven"


@pytest.mark.parametrize("how", ["session", "lock"])
def test_a_copy_that_cannot_be_dropped_is_told(portal: Portal, how: str) -> None:
    """Somebody is connected to it, or takes its lock the moment that it is free."""
    portal.backup()
    process = portal.start("verify", "latest", "--prove")
    wait_until(portal.copies)
    name = min(portal.copies())

    def connected() -> Any:
        with suppress(psycopg2.OperationalError):  # not before it has its comment
            return superuser(name)

    holder = superuser("postgres") if how == "lock" else wait_until(connected)
    with closing(holder), holder.cursor() as cursor:
        if how == "lock":
            cursor.execute("SELECT pg_advisory_lock(%s)", [lock_key("ours", name)])
        _, said = process.communicate(timeout=300)
        assert f"the copy {name!r} stays until the next command" in said
        assert portal.copies() == {name}
    portal.module("prune")
    assert not portal.copies()
