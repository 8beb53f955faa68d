"""The live database is never the workbench, whatever is wrong with the rest."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.engine import report
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.restore.history import Pair, half_way
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.operations.restore import undo

from ...support import forked
from ...support.cluster import BIN, PASSWORD, PG_BIN, SUPERUSER, query, superuser
from ...support.portal import DATASETS, UPLOADS, Portal, as_role, refused
from ...support.waiting import wait_until


@pytest.mark.smoke
def test_a_role_without_createdb_is_told_the_one_line(portal: Portal, role) -> None:
    plain = role("dbm_plain", "NOCREATEDB IN ROLE ckan_default")
    as_role(portal, plain)
    portal.backup()  # works without the right
    said = refused(portal, "latest")
    assert f"ALTER ROLE {plain} CREATEDB;" in said
    assert "ckanext.dbmanage.admin_url" in said
    query(f"ALTER ROLE {plain} CREATEDB")
    portal.damage()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.sql("SELECT count(*) FROM package") == [(DATASETS,)]


def test_an_admin_url_may_do_it_for_ckan_s_role(portal: Portal, role) -> None:
    plain = role("dbm_plain", "NOCREATEDB IN ROLE ckan_default")
    as_role(portal, plain)
    admin = role("dbm_admin", f"CREATEDB IN ROLE {plain}")
    portal.backup()
    before = portal.state()
    portal.damage()
    port = SUPERUSER.port
    portal.write(
        **{
            "ckanext.dbmanage.admin_url": f"postgresql://{admin}:other@127.0.0.1:{port}/postgres"
        }
    )
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.state() == before
    owners = {
        r[0]
        for r in portal.sql(
            "SELECT tableowner FROM pg_tables WHERE schemaname = 'public'"
        )
    }
    assert owners == {plain}
    portal.drop()


def test_without_a_terminal_and_yes_it_refuses(portal: Portal) -> None:
    portal.backup()
    done = portal.module("restore", "latest", code=2)
    assert "--yes" in done.stderr
    done = portal.module("load", "nosuch.dump", code=2)
    assert "--yes" in done.stderr


def test_wrong_password_missing_database_and_no_server(portal: Portal) -> None:
    portal.backup()
    for url, wanted in (
        (portal.url("database", password="wr0ng-pw"), "password authentication failed"),
        (portal.url("database", user="nosuchrole"), "password authentication failed"),
        (portal.url("database") + "_nosuch", "does not exist"),
        ("postgresql://ckan_default:wr0ng-pw@127.0.0.1:9/x", "refused"),
        ("nonsense", "sqlalchemy.url is not a URL"),
    ):
        portal.write(**{"sqlalchemy.url": url})
        done = portal.module("backup", code=1)
        assert wanted in done.stderr and "sqlalchemy.url" in done.stderr
        assert "wr0ng-pw" not in done.stderr and "Traceback" not in done.stderr
    portal.write(**{"sqlalchemy.url": portal.url("database")})
    assert len(portal.backups()) == 1
    assert not list(portal.repository.glob(".*.partial"))


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


@pytest.mark.smoke
def test_what_belongs_to_the_database_is_copied(portal: Portal) -> None:
    name = portal.names["database"]
    for statement in (
        "ALTER DATABASE {} SET work_mem = '7MB'",
        'ALTER DATABASE {} SET search_path = public, "odd, schema"',
        "ALTER ROLE ckan_default IN DATABASE {} SET statement_timeout = '1h'",
        "COMMENT ON DATABASE {} IS 'the portal''s 100% own'",
        "ALTER DATABASE {} CONNECTION LIMIT 77",
        "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {} TO datastore_default",
    ):
        query(statement.format(f'"{name}"'))
    properties = (
        "SELECT shobj_description(oid, 'pg_database'), datconnlimit, pg_get_userbyid(datdba),"
        " (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), encoding, datcollate,"
        " (SELECT array_agg(setrole || array_to_string(setconfig, ';') ORDER BY 1)"
        " FROM pg_db_role_setting WHERE setdatabase = d.oid)"
        " FROM pg_database d WHERE datname = %s"
    )
    before = query(properties, "postgres", name)
    oids = portal.oids()
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert not set(portal.oids()) & set(oids)
    assert query(properties, "postgres", name) == before


def test_rights_of_a_role_that_is_gone_are_left_out(portal: Portal, role) -> None:
    analyst = role("dbm_analyst", "")
    portal.sql(f"GRANT SELECT ON package TO {analyst}")
    portal.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {analyst}", "datastore")
    portal.backup()
    for part in ("database", "datastore"):
        portal.sql(f"DROP OWNED BY {analyst}", part)
    query(f"DROP ROLE {analyst}")
    before = portal.state()
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert analyst in done.stderr and "Warning" in done.stderr
    assert portal.state() == before
    reader = psycopg2.connect(portal.options["ckan.datastore.read_url"])
    with closing(reader), reader.cursor() as cursor:
        cursor.execute('SELECT count(*) FROM "00000001-0000-4000-8000-000000000000"')
        assert cursor.fetchone() == (50,)


def test_other_migrations_are_refused_before_anything_is_touched(
    portal: Portal,
) -> None:
    (head,) = portal.sql("SELECT version_num FROM alembic_version")
    portal.sql("UPDATE alembic_version SET version_num = '0123456789ab'")
    portal.backup()
    file = portal.directory / "older.dump"
    portal.module("dump", str(file))
    portal.sql(f"UPDATE alembic_version SET version_num = '{head[0]}'")
    said = refused(portal, "latest")
    assert "0123456789ab" in said and head[0] in said
    said = refused(portal, str(file), "--trust")
    assert "0123456789ab" in said
    portal.sql("CREATE TABLE vanished_alembic_version (version_num varchar)")
    portal.sql("INSERT INTO vanished_alembic_version VALUES ('1'); ")
    portal.sql("ALTER TABLE vanished_alembic_version OWNER TO ckan_default")
    portal.backup()
    portal.sql("DROP TABLE vanished_alembic_version")
    assert "plugin 'vanished'" in refused(portal, "latest")


def test_a_wrong_row_count_is_found_in_the_copy(portal: Portal) -> None:
    """The manifest is signed, the archive is whole, and still they disagree."""
    from ckanext.dbmanage.engine.signature import dumped, sign

    from ..backup.test_verify import forge

    path = portal.backup()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["databases"]["database"]["rows"]["public.package"] += 1
    signed = dumped(sign(manifest, portal.options["SECRET_KEY"], "manifest"))
    (path / "manifest.json").write_bytes(signed)

    forge(path)
    (path / "manifest.json").write_bytes(signed)
    import hashlib

    sums = (path / "SHA256SUMS").read_text().splitlines()
    sums[-1] = f"{hashlib.sha256(signed).hexdigest()}  manifest.json"
    (path / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    said = refused(portal, "latest")
    assert f"public.package: {DATASETS} rows, the manifest says {DATASETS + 1}" in said


@pytest.mark.smoke
def test_a_foreign_session_is_named(portal: Portal) -> None:
    portal.backup()
    with closing(superuser(portal.names["datastore"])) as session:
        with session.cursor() as cursor:
            cursor.execute("SET application_name = 'a report'")
        said = refused(portal, "latest")
        assert "'postgres'" in said and "'a report'" in said
        assert str(session.info.backend_pid) in said
    portal.module("restore", "latest", "--yes", "--no-backup")


def test_names_that_look_like_ours_survive(portal: Portal) -> None:
    theirs = {"x_scratch", "dbm_0_undo", "dbm_00000000_undo", "dbm_00000000_scratch"}
    for name in theirs:
        query(f'DROP DATABASE IF EXISTS "{name}"')  # of a run that was ended
        query(f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0')
    try:
        portal.backup()
        # a journal that names them, as a hostile or mistaken one would
        pair = {
            "part": "database", "live": portal.names["database"], "token": "0" * 32,
            "scratch": "dbm_00000000_scratch", "undo": "dbm_00000000_undo",
            "site": portal.options["ckan.site_id"],
        }  # fmt: skip
        other = pair | {"scratch": "x_scratch", "undo": "dbm_0_undo"}
        live = pair | {
            "scratch": portal.names["datastore"],
            "undo": portal.names["datastore"],
        }
        _, repository = portal.engine()
        for number, one in enumerate((pair, other, live)):
            repository.record(f"old{number}", "create", pair=one)
            repository.record(f"old{number}", "switch", pairs=[one])
            repository.record(f"old{number}", "switched", parts=["database"])
        before = portal.state()
        portal.module("restore", "latest", "--yes", "--no-backup")
        portal.module("restore", "latest", "--yes", "--no-backup")
        portal.backup()
        assert {r[0] for r in query("SELECT datname FROM pg_database")} >= theirs
        assert portal.state() == before
    finally:
        for name in theirs:
            query(f'DROP DATABASE IF EXISTS "{name}"')


@pytest.mark.smoke
def test_one_way_back_is_kept(portal: Portal) -> None:
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    first = portal.copies()
    assert len(first) == 2 and all(name.endswith("_undo") for name in first)
    portal.module("restore", "latest", "--yes", "--no-backup")
    second = portal.copies()
    assert len(second) == 2 and not first & second


def test_two_portals_of_one_role_do_not_touch_each_other(make_portal) -> None:
    one, two = make_portal(), make_portal()
    one.backup(), two.backup()
    state = one.state()
    busy = one.start("restore", "latest", "--yes", "--no-backup")
    try:
        wait_until(lambda: "create" in (one.repository / "journal.jsonl").read_text()
                   if (one.repository / "journal.jsonl").exists() else False)  # fmt: skip
        for _ in range(2):
            two.backup()
            two.module("restore", "latest", "--yes", "--no-backup")
    finally:
        out, err = busy.communicate(timeout=120)
    assert busy.returncode == 0, err
    assert one.state() == state


def test_two_at_once_in_one_repository(portal: Portal) -> None:
    portal.backup()
    lock = portal.repository / ".lock"
    for _ in range(5):
        busy = portal.start("backup")
        who = str(busy.pid)
        while who not in lock.read_text() and busy.poll() is None:
            time.sleep(0.005)
        busy.send_signal(signal.SIGSTOP)
        done = portal.module("backup", code=None)
        busy.send_signal(signal.SIGCONT)
        _, said = busy.communicate(timeout=60)
        assert busy.returncode == 0, said
        if done.returncode:  # else the first one had already ended
            break
    assert f"is in use: backup, process {busy.pid} of " in done.stderr
    portal.backup()


@pytest.mark.smoke
def test_a_running_site_serves_the_datastore_after_the_switch(portal: Portal) -> None:
    """Without a look at each new connection it answers 500 for ever."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(portal.directory / "web.log", "w")  # noqa: SIM115
    web = forked.start(
        [BIN / "ckan", "-c", portal.ini, "run", "-H", "127.0.0.1", "-p", str(port), "-r"],
        env=portal.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/api/3/action/datastore_search?resource_id="
    url += "00000001-0000-4000-8000-000000000000"

    def rows() -> int:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310
            return len(json.load(answer)["result"]["records"])

    def up() -> bool:
        try:
            return rows() == 50
        except OSError:
            return False

    try:
        # the table's resource has to be known, for its permissions
        portal.sql(
            "UPDATE resource SET id = '00000001-0000-4000-8000-000000000000',"
            " extras = '{\"datastore_active\": true}' WHERE id = 'r-1'"
        )
        portal.sql("ALTER TYPE json OWNER TO postgres", "datastore")
        portal.sql(
            "CREATE TYPE nested AS (json json, extra text); ALTER TYPE nested OWNER TO ckan_default;"
            ' ALTER TABLE "00000001-0000-4000-8000-000000000000" ADD n nested',
            "datastore",
        )
        wait_until(up, 60)
        portal.backup()
        for _ in range(2):
            portal.module("restore", "latest", "--yes", "--no-backup")
            assert rows() == 50
    finally:
        web.terminate()
        web.wait()
        log.close()


def test_solr_down_is_a_warning_and_is_made_up_for(portal: Portal) -> None:
    portal.module("backup")
    solr = portal.options["solr_url"]
    before = portal.state()
    portal.damage()
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert "ckan db reindex" in done.stderr and "Warning" in done.stderr
    assert portal.state() == before
    portal.write(solr_url=solr)
    assert "`ckan db reindex --changed`" in portal.db("backups").stderr
    done = portal.db("keep", "latest")
    assert f"{DATASETS} datasets indexed" in done.stderr
    assert "search index" not in portal.db("backups").stderr
    done = portal.ckan("search-index", "check")
    assert "Packages not indexed = 0" in done.stdout


@pytest.mark.smoke
def test_only_what_differs_is_indexed_and_orphans_go(portal: Portal) -> None:
    portal.ckan("search-index", "rebuild", "-q")
    portal.db("backup")
    portal.sql(
        "UPDATE package SET metadata_modified = now() WHERE id IN ('id-3', 'id-4')"
    )
    portal.sql(
        "INSERT INTO package (id, name, title, state, type, private, metadata_created,"
        " metadata_modified) VALUES ('orphan', 'orphan', 'x', 'active', 'dataset', false, now(), now())"
    )
    for name in ("dataset-3", "dataset-4", "orphan"):
        portal.ckan("search-index", "rebuild", name)
    done = portal.db("restore", "latest", "--yes", "--no-backup")
    assert "search index: 2 datasets indexed, 1 removed" in done.stderr


def test_one_bad_dataset_does_not_stop_the_others(portal: Portal) -> None:
    # Solr takes no term of more than 32,766 bytes
    portal.sql(
        "UPDATE package SET title = repeat('\u00fc', 20000), name = 'dataset-5' WHERE id = 'id-5'"
    )
    portal.db("backup")
    done = portal.db("restore", "latest", "--yes", "--no-backup")
    assert "id-5" in done.stderr and "not indexed" in done.stderr
    assert f"{DATASETS - 1} datasets indexed" in done.stderr


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


def test_a_failed_dump_leaves_the_old_file(portal: Portal) -> None:
    file = portal.directory / "nightly.dump"
    portal.module("dump", str(file))
    good = file.read_bytes()
    portal.sql("CREATE TABLE secret_table (a int)")  # of the superuser: unreadable
    done = portal.module("dump", str(file), code=1)
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
    assert "CKAN's main database" in done.stderr


def test_an_empty_database_is_told_the_next_step(portal: Portal) -> None:
    done = portal.db("clean", "--yes")
    assert "ckan db init" in done.stderr and "ckan db load FILE" in done.stderr
    for command in (["backup"], ["dump", "-"]):
        done = portal.module(*command, code=1)
        assert "`ckan db init`" in done.stderr and "`ckan db load FILE`" in done.stderr


def test_a_served_repository_is_refused(portal: Portal, tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    link = tmp_path / "link"
    link.symlink_to(portal.storage / "storage")
    for place in (
        portal.storage / "storage" / "uploads" / "backups",
        portal.storage / "resources" / "backups",
        public / "backups",
        link / "x",
    ):
        portal.write(
            **{
                "ckanext.dbmanage.repository": str(place),
                "extra_public_paths": str(public),
            }
        )
        done = portal.module("backup", code=1)
        assert "serves to visitors" in done.stderr
        assert not place.exists()


def test_rights_whatever_the_umask(portal: Portal) -> None:
    for umask in (0o000, 0o777):
        done = portal.module("backup", umask=umask)
        path = portal.repository / done.stdout.strip()
        for entry in [path, *path.iterdir(), portal.repository, portal.repository / "state",
                      *(portal.repository / "state").iterdir()]:  # fmt: skip
            assert oct(entry.stat().st_mode & 0o777) == (
                "0o700" if entry.is_dir() else "0o600"
            )
        shutil.rmtree(path)


def test_passwords_are_seen_nowhere(portal: Portal, role) -> None:
    """Not in argv, not in output, logs or manifest, while it works and when it fails."""
    import threading

    secret = "p@ss:w/o%r#d ü'\"\\\uff21\uff22"
    name = role("dbm_secret", "CREATEDB IN ROLE ckan_default", secret)
    portal.write(
        **{
            "sqlalchemy.url": portal.url("database", name, secret),
            "ckan.datastore.write_url": portal.url("datastore", name, secret),
        }
    )
    needles = [secret.encode(), b"p@ss:w", b"p%40ss", PASSWORD.encode()]
    seen: list[bytes] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = line.read_bytes()
                except OSError:
                    continue
                seen.extend(n for n in needles if n in text)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = [portal.module("backup")]
        said.append(portal.module("restore", "latest", "--yes"))
        said.append(portal.module("dump", str(portal.directory / "d.dump")))
        portal.sql("CREATE TABLE unreadable (a int)")
        said.append(portal.module("backup", code=1))
    finally:
        stop.set()
        watcher.join()
    assert seen == []
    texts = [d.stdout.encode() + d.stderr.encode() for d in said]
    texts += [
        f.read_bytes()
        for f in portal.repository.rglob("*")
        if f.suffix in (".json", ".jsonl")
    ]
    assert not [n for n in needles for text in texts if n in text]


def test_an_undo_asks_when_it_is_known_what_is_the_last(portal: Portal) -> None:
    site, repository = portal.engine()
    page = context.Portal(portal.settings, report.Silent())
    name = portal.names["database"]
    pair = Pair(
        "database", name, "dbm_00000000_scratch", "dbm_00000000_undo", "0" * 32,
        site.id, portal.oids()[0], 1,
    )  # fmt: skip
    repository.record("ended", "switch", pairs=[asdict(pair)], moves=[])
    assert half_way(site, repository) == ["ended"]
    with pytest.raises(Refused, match="nothing to undo"):
        undo(page, lambda *_: pytest.fail("it was asked for all the same"))
    assert half_way(site, repository) == []
