"""A backup is proven by restoring it; a restore is undone; an old one is migrated."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ckanext.dbmanage.engine.postgres.locks import lock_key
from ckanext.dbmanage.engine.signature import dumped, sign

from ...support.cluster import superuser
from ...support.portal import DATASETS, UPLOADS, Portal, fill, made_by, refused
from ...support.waiting import wait_until


def signed(portal: Portal, path: Path) -> None:
    """Signs a backup whose list of uploads was changed, as the site itself would."""
    manifest = json.loads((path / "manifest.json").read_text())
    content = (path / "files.jsonl").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    manifest["contents"]["files.jsonl"] = {"bytes": len(content), "sha256": digest}
    written = dumped(sign(manifest, portal.options["SECRET_KEY"], "manifest"))
    (path / "manifest.json").write_bytes(written)
    names = sorted([*manifest["contents"], "manifest.json"])
    sums = [hashlib.sha256((path / n).read_bytes()).hexdigest() for n in names]
    (path / "SHA256SUMS").write_text(
        "".join(f"{s}  {n}\n" for s, n in zip(sums, names, strict=True))
    )


# ----------------------------------------------------------------------------- proof


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
    assert '"what": "proof"' in (portal.repository / "journal.jsonl").read_text()
    # a byte that changes later takes it back
    (path / "database.dump.zst").write_bytes(b"")
    portal.module("verify", "latest", code=1)
    assert portal.backups()[0]["state"] == "damaged"


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

    lines = (path / "files.jsonl").read_bytes().splitlines(keepends=True)
    (path / "files.jsonl").write_bytes(b"".join(lines[1:]))
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


def test_what_another_site_wrote_breaks_no_listing(portal: Portal) -> None:
    path = portal.backup()
    for manifest in (
        {"format": 1, "files": {"bytes": "x", "included": True}, "versions": [1]},
        {"format": 1, "databases": {"database": []}, "note": "a\x1b[2Jb"},
    ):
        (path / "manifest.json").write_text(json.dumps(manifest))
        for arguments in (["backups"], ["backups", "latest"], ["backups", "--json"]):
            assert "\x1b" not in portal.module(*arguments).stdout
        done = portal.module("doctor", code=1)
        assert "Traceback" not in done.stderr and "there is no verified" in done.stdout
    deep = '{"format": 1, "hmac": "x", "a": ' + "[" * 990 + "]" * 990 + "}"
    (path / "manifest.json").write_text(deep)
    portal.module("backups")


# ------------------------------------------------------------------------------ undo


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
        _, said = process.communicate(timeout=120)
        assert f"the copy {name!r} stays until the next command" in said
        assert portal.copies() == {name}
    portal.module("prune")
    assert not portal.copies()


@pytest.mark.smoke
def test_a_restore_is_undone_and_the_undo_too(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    portal.damage()
    damaged = portal.state()
    assert "nothing to undo" in portal.module("undo", "--yes", code=1).stderr
    portal.module("restore", "latest", "--yes", "--no-backup")
    for wanted in (damaged, before, damaged):
        done = portal.module("undo", "--yes")
        assert portal.state() == wanted
        assert "undone: database and datastore and files as before" in done.stdout
    # one generation, however often
    ours = portal.copies()
    assert len(ours) == 2 and all(name.endswith("_undo") for name in ours)
    assert len(list(portal.storage.glob(".dbm_*"))) == 1
    assert "--yes" in portal.module("undo", code=2).stderr


def test_what_undo_would_need_is_gone(portal: Portal) -> None:
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    portal.write(**{"ckanext.dbmanage.undo_days": "0"})
    time.sleep(1.1)
    done = portal.module("prune", "--dry-run")
    assert "would be dropped: too old to undo" in done.stdout
    assert len(list(portal.storage.glob(".dbm_*_undo"))) == 1
    portal.module("prune")
    assert not list(portal.storage.glob(".dbm_*"))
    assert not portal.copies()
    done = portal.module("undo", "--yes", code=1)
    assert "not there any more" in done.stderr and "Traceback" not in done.stderr


def test_directories_that_look_like_ours_survive(portal: Portal) -> None:
    portal.backup()
    for name in (".dbm_00000000_undo", ".dbm_11111111_scratch"):
        (portal.storage / name).mkdir()
        (portal.storage / name / "theirs").write_text("theirs")
    _, repository = portal.engine()
    move = {"path": str(portal.storage), "prefix": "", "token": "t", "old": [], "new": [],
            "scratch": ".dbm_11111111_scratch", "undo": ".dbm_00000000_undo"}  # fmt: skip
    old = {"parts": ["files"], "time": "2001-01-01T00:00:00Z"}
    repository.record("odd", "stage", moves=[move])
    repository.record("odd", "switch", pairs=[], moves=[move])
    repository.record("odd", "switched", **old)
    repository.record("odd", "switched")
    repository.record("odd", "create", pair={"part": "database"})
    portal.module("restore", "latest", "--yes", "--no-backup")
    portal.module("prune")
    for name in (".dbm_00000000_undo", ".dbm_11111111_scratch"):
        assert (portal.storage / name / "theirs").read_text() == "theirs"


# -------------------------------------------------------------------- older and newer


@pytest.fixture(params=["2.10", "2.11"])
def older(portal: Portal, request: pytest.FixtureRequest) -> Portal:
    """A portal that an older CKAN made, and a backup that it took."""
    run = made_by(portal, request.param)
    run("python", "-m", "ckanext.dbmanage", "-c", str(portal.ini), "backup")
    return portal


def test_an_older_backup_is_migrated_in_the_copy(older: Portal) -> None:
    old = older.sql("SELECT version_num FROM alembic_version")
    older.module("verify", "latest", "--prove")
    assert older.sql("SELECT version_num FROM alembic_version") == old
    done = older.module("restore", "latest", "--yes", "--no-backup")
    assert "migrate" in done.stderr
    assert older.sql("SELECT version_num FROM alembic_version") != old
    assert older.sql("SELECT count(*) FROM package") == [(DATASETS,)]
    assert "up to date" in older.ckan("db", "check").stdout
    assert older.module("doctor").returncode == 0


def test_a_migration_that_fails_leaves_everything(older: Portal) -> None:
    # one of the measured blockers: two users, one address but for its case
    older.sql("UPDATE \"user\" SET email = 'A@x.org' WHERE name = 'user-1'")
    older.sql("UPDATE \"user\" SET email = 'a@x.org' WHERE name = 'user-2'")
    older.module("backup")
    said = refused(older, "latest")
    assert "CKAN failed on the copy" in said and "is duplicated" in said


def test_a_newer_backup_is_refused_with_what_to_install(portal: Portal) -> None:
    portal.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    portal.backup()
    assert "newer version of CKAN's schema (ffffffffffff)" in refused(portal, "latest")
    portal.sql("DELETE FROM alembic_version")
    portal.backup()
    assert "no tables of CKAN" in refused(portal, "latest")


def test_another_secret_is_told_before_the_switch(portal: Portal) -> None:
    portal.backup()
    portal.write(
        **{
            "SECRET_KEY": "another-secret-77",
            "beaker.session.secret": "another-secret-77",
            "SECRET_KEY_FALLBACKS": "portal-secret-5fd1",
        }
    )
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    warning = done.stderr.index("API tokens in it were made with another secret")
    assert warning < done.stderr.index("switch")
    assert "another-secret" not in done.stderr


def test_another_site_s_backup_says_what_changes(
    make_portal: Callable[..., Portal],
) -> None:
    one, two = make_portal(), make_portal({"ckan.site_url": "http://two.test"})
    path = one.backup()
    two.write(
        **{"SECRET_KEY": "two-secret-99", "beaker.session.secret": "two-secret-99"}
    )
    said = refused(two, str(path))
    assert "--trust" in said
    done = two.module("restore", str(path), "--trust", "--yes", "--no-backup")
    assert "site URL 'http://portal.test', here 'http://two.test'" in done.stderr
    assert f"will be put into {two.storage}" in done.stderr
    assert two.uploads() == one.uploads()


# ------------------------------------------------------------------------- the doctor


@pytest.mark.smoke
def test_the_doctor(portal: Portal) -> None:
    done = portal.module("doctor", code=1)
    assert re.search(r"problem +backups +there is no verified backup", done.stdout)
    portal.backup()
    done = portal.module("doctor")
    assert "problem" not in done.stdout and "`ckan db verify --prove`" in done.stdout
    found = json.loads(portal.module("doctor", "--json").stdout)
    assert {"name", "state", "text"} == set(found[0])
    done = portal.module("doctor", "--nagios", code=1)
    assert done.stdout.startswith("DBMANAGE WARNING - proof: ")
    portal.module("verify", "--prove")
    done = portal.module("doctor", "--nagios", code=1)
    assert "3 tables of the DataStore belong to no resource" in done.stdout
    portal.sql(
        "INSERT INTO resource (id, package_id, url, state, position, extras)"
        " SELECT '0000000' || i || '-0000-4000-8000-000000000000', 'id-1', '', 'active',"
        " i, '{}' FROM generate_series(0, 2) i"
    )
    assert portal.module("doctor", "--nagios").stdout.startswith("DBMANAGE OK")
    portal.module("maintenance", "on")
    assert "`ckan db maintenance off`" in portal.module("doctor").stdout
    portal.module("maintenance", "off")
    portal.write(**{"ckan.plugins": "datastore activity"})
    assert "dbmanage is not in ckan.plugins" in portal.module("doctor", code=1).stdout
    portal.write(**{"sqlalchemy.url": portal.url("database", password="wr0ng")})
    done = portal.module("doctor", code=1)
    assert "authentication failed" in done.stdout and "wr0ng" not in done.stdout
    portal.write(**{"ckan.plugins": "dbmanage datastore activity"})
    done = portal.module("doctor", "--fix", "--nagios", code=2)
    assert done.stdout.startswith("DBMANAGE CRITICAL - ") and "wr0ng" not in done.stdout
    portal.write(**{"ckanext.dbmanage.jobs": "many"})
    done = portal.module("doctor", "--nagios", code=2)
    assert done.stdout.startswith("DBMANAGE CRITICAL - configuration: ")
    (found,) = json.loads(portal.module("doctor", "--json", code=1).stdout)
    assert found["name"] == "configuration" and "many" in found["text"]


def test_the_doctor_knows_ckan(portal: Portal) -> None:
    portal.backup()
    portal.repository.chmod(0o755)
    portal.sql("DROP FUNCTION populate_full_text_trigger CASCADE", "datastore")
    (portal.storage / "resources" / "upl" / "oad" / "-1").unlink()
    (portal.storage / "resources" / "upl" / "oad" / "-99").write_bytes(b"whose?")
    portal.sql("DROP INDEX IF EXISTS idx_only_one_active_email_no_case")
    portal.sql("DROP INDEX IF EXISTS idx_only_one_active_email")
    portal.sql("UPDATE \"user\" SET email = 'U1@example.com' WHERE name = 'user-2'")
    table = "tracking_alembic_version"
    portal.sql(f"CREATE TABLE {table} (version_num text)")
    portal.sql(f"ALTER TABLE {table} OWNER TO ckan_default")
    portal.sql("CREATE TABLE nobody_s_alembic_version (version_num text);"
               "ALTER TABLE nobody_s_alembic_version OWNER TO ckan_default")  # fmt: skip
    # what a restore without rights (pg_restore -x) leaves
    portal.sql("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM datastore_default;"
               "GRANT INSERT ON _table_metadata TO datastore_default;"
               "ALTER DEFAULT PRIVILEGES FOR ROLE ckan_default IN SCHEMA public"
               " REVOKE SELECT ON TABLES FROM datastore_default", "datastore")  # fmt: skip
    portal.write(SECRET_KEY="change_me")

    found = json.loads(portal.db("doctor", "--json", code=1).stdout)
    said = {f"{each['state']} {each['name']}: {each['text']}" for each in found}
    for wanted in (
        f"problem search index: {DATASETS} datasets are missing or old",
        "problem datastore: the function populate_full_text_trigger is missing",
        "problem upload files: 1 uploads that the database names are not on the disk "
        "(resources/upl/oad/-1)",
        "hint upload files: 1 uploads on the disk are named by nothing",
        "hint users: the users user-1, user-2 have the same e-mail address",
        "hint migrations: the plugin 'tracking' is not enabled",
        "hint migrations: the database holds migrations of a plugin that is not",
        "problem datastore: the reading role 'datastore_default' may not read:",
        "problem datastore: the reading role 'datastore_default' will not be able",
        "problem datastore: the reading role 'datastore_default' may not read 3 tables",
        "problem datastore: the reading role 'datastore_default' may write to 1 tables",
        "hint secrets: SECRET_KEY is short or was never changed",
        "problem repository: ",
    ):
        assert any(each.startswith(wanted) for each in said), (wanted, said)

    preview = portal.db("doctor", "--fix", "--preview", code=1)
    repairs = ("close", "set the DataStore's permissions", "bring the search index")
    for repair in repairs:
        assert f"would {repair}" in preview.stderr
    assert portal.repository.stat().st_mode & 0o777 == 0o755
    portal.sql("REVOKE INSERT ON _table_metadata FROM datastore_default", "datastore")
    fixed = portal.db("doctor", "--fix", code=1)
    for name in ("search index", "datastore", "repository"):
        assert re.search(rf"ok +{name} ", fixed.stdout), fixed.stdout
    portal.sql("UPDATE alembic_version SET version_num = 'ccd38ad5fced'")
    done = portal.module("doctor", code=1)
    assert "migrations of CKAN are pending: `ckan db upgrade`" in done.stdout


def test_solr_down_all_the_while_is_caught_up_by_the_doctor(portal: Portal) -> None:
    portal.backup()
    solr = portal.options["solr_url"]
    portal.damage()
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert "Warning" in done.stderr
    assert (
        "still shows the state before a restore"
        in portal.module("doctor", code=1).stdout
    )
    portal.write(solr_url=solr)
    assert f"{DATASETS} datasets indexed" in portal.db("doctor", "--fix").stderr
    assert "search index" not in portal.module("doctor").stdout


def test_the_clock_set_back(portal: Portal) -> None:
    """Ids go up whatever the clock says: the newest backup is the last."""
    path = portal.backup()
    future = path.with_name("20991231T235959Z")
    path.rename(future)
    done = portal.module("backup")
    assert done.stdout.strip() == "21000101T000000Z"
    assert "the clock stands before the newest backup" in done.stderr
    assert portal.backups()[0]["id"] == "21000101T000000Z"
    assert "of the future" in portal.module("doctor", code=1).stdout


def test_two_hosts_with_one_repository(
    make_portal: Callable[..., Portal], tmp_path: Path
) -> None:
    """One at a time; contents are shared; each knows its own backups."""
    place = str(tmp_path / "shared")
    one = make_portal({"ckanext.dbmanage.repository": place})
    two = make_portal({"ckanext.dbmanage.repository": place, "SECRET_KEY": "two-99"})
    fill(one, 100_000)
    busy = one.start("backup")
    lock = Path(place) / ".lock"
    wait_until(lambda: lock.exists() and f"process {busy.pid} " in lock.read_text())
    os.kill(busy.pid, signal.SIGSTOP)
    done = two.module("backup", code=1)
    assert f"is in use: backup, process {busy.pid} of " in done.stderr
    os.kill(busy.pid, signal.SIGCONT)
    _, said = busy.communicate(timeout=120)
    assert busy.returncode == 0, said
    two.module("backup")
    contents = [p for p in (tmp_path / "shared" / "objects").rglob("*") if p.is_file()]
    assert len(contents) == UPLOADS + 1
    by_state = {b["state"] for b in json.loads(one.module("backups", "--json").stdout)}
    assert by_state == {"verified", "foreign"}
    one.module("prune")  # another site's are left alone, and so are their contents
    two.module("verify", "latest")
