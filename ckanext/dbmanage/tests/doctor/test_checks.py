"""What the doctor finds, and what it mends."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.doctor.finding import in_words
from ckanext.dbmanage.doctor.offsite import other_place
from ckanext.dbmanage.engine.clock import id_stamp, now
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.offsite.look import Seen, remember
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations import context

from ..support.offsite import set_remote
from ..support.portal import DATASETS, Portal


@pytest.mark.smoke
def test_the_doctor(portal: Portal) -> None:
    done = portal.module("doctor", code=1)
    assert re.search(r"problem +backups +there is no verified backup", done.stdout)
    portal.backup()
    done = portal.module("doctor")
    assert (
        "problem" not in done.stdout
        and " -m ckanext.dbmanage verify --prove`" in done.stdout
    )
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
    assert " -m ckanext.dbmanage maintenance off`" in portal.module("doctor").stdout
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
    done = portal.module("doctor", "--nagios", code=3)
    assert done.stdout.startswith("DBMANAGE UNKNOWN - ckanext.dbmanage.jobs is ")
    (found,) = json.loads(portal.module("doctor", "--json", code=1).stdout)
    assert found["name"] == "configuration" and "many" in found["text"]


def test_one_fault_is_told_once(portal: Portal) -> None:
    port = re.search(r":\d+/", portal.url("database"))
    assert port
    urls = {k: v for k, v in portal.options.items() if v.startswith("postgresql")}
    portal.write(**{k: v.replace(port[0], ":1/") for k, v in urls.items()})
    told = portal.module("doctor", "--nagios", code=2).stdout
    assert told.count("Connection refused") == 1
    shown = portal.module("doctor", code=1).stdout
    (line,) = [line for line in shown.splitlines() if "Connection refused" in line]
    assert line.startswith("problem  databases ") and line.count("?") == 1
    later = [line.split() for line in shown.splitlines() if "not checked" in line]
    assert ["hint", "migrations"] in [words[:2] for words in later] and len(later) == 7


def test_an_age_is_told_in_the_unit_that_fits() -> None:
    told = {30: "less than a minute", 60: "1 minute", 3500: "58 minutes", 3600: "1 hour",
            26 * 3600: "26 hours", 49 * 3600: "2 days"}  # fmt: skip
    assert {s: in_words(timedelta(seconds=s)) for s in told} == told


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
    assert re.search(
        r"of CKAN are pending: `.* -m ckanext.dbmanage upgrade`", done.stdout
    )


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


def test_the_doctor_looks_at_the_other_place(
    portal: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is noted here: nobody there is asked."""

    def found() -> list[tuple[str, str]]:
        site, repository = portal.engine()
        of = context.Portal(portal.settings, Silent())
        return list(other_place(of, site, repository))

    assert found() == []
    address = f"rest:http://127.0.0.1:9{tmp_path}"
    set_remote(portal, address)
    never = f"no backup was copied to {address} yet: `ckan db push`"
    assert found() == [("hint", never)]
    _, repository = portal.engine()
    repository.make()
    for age, state in ((2, "ok"), (40, "hint"), (200, "problem")):
        moment = id_stamp(now() - timedelta(hours=age))
        seen = Seen("2026-11-23T04:55:00Z", address, "id", [moment], {moment: "name"})
        remember(repository, seen)
        ((said, text),) = found()
        assert said == state and f"the newest backup at {address} is" in text
        assert ("`ckan db push`" in text) == (state != "ok")
    ahead = "29991231T000000Z"
    remember(
        repository, Seen("2026-11-23T04:55:00Z", address, "id", [ahead], {ahead: "n"})
    )
    ((state, text),) = found()
    assert state == "hint" and "2999-12-31T00:00:00Z, is in the future" in text
    set_remote(portal, f"{address}/other")
    ((state, text),) = found()
    assert state == "hint" and f"the last copy went to {address}:" in text
    password = portal.directory / "restic.password"
    password.chmod(0o640)
    told = json.loads(portal.module("doctor", "--json", code=1).stdout)
    (about,) = [each for each in told if each["name"] == "other place"]
    assert about["state"] == "problem" and f"chmod 600 {password}" in about["text"]
    password.chmod(0o600)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="apt-get install restic"):
        found()
    old = tmp_path / "restic"
    old.write_text("#!/bin/sh\necho restic 0.12.1\n")
    old.chmod(0o700)
    with pytest.raises(Refused, match="is restic 0.12: install restic 0.14 or newer"):
        found()
