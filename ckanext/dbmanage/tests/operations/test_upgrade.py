"""An upgrade: rehearsed, blocked, failing, written into, killed; and undone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest

from ckanext.dbmanage.engine.errors import Written
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres import writes
from ckanext.dbmanage.engine.restore import switch
from ckanext.dbmanage.engine.restore.copies import loaded_copies
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.portal import blockers

from ..support.cluster import PG16, PG18, SUPERUSER, Cluster, query
from ..support.portal import DATASETS, Portal, install_plugin, made_by
from ..support.waiting import end_group
from ..support.web import Web

HEAD = "SELECT version_num FROM alembic_version"


@pytest.fixture
def old(portal: Portal) -> Portal:
    """A portal of CKAN 2.10, whose code is 2.12 now."""
    made_by(portal, "2.10")
    portal.sql(
        "INSERT INTO package_extra (id, package_id, key, value, state)"
        " SELECT 'e' || k || id, id, 'key ' || k, 'v', 'active'"
        " FROM package, generate_series(1, 3) k"
    )
    return portal


PLUGIN = {
    "plugin.py": "import ckan.plugins as p\nclass Bad(p.SingletonPlugin):\n    pass\n",
    "migration/bad/alembic.ini": "[alembic]\nscript_location = %(here)s\n",
    "migration/bad/env.py": """
from alembic import context
from sqlalchemy import engine_from_config, pool
engine = engine_from_config(
    context.config.get_section(context.config.config_ini_section),
    prefix="sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, version_table="bad_alembic_version")
    with context.begin_transaction():
        context.run_migrations()
""",
    "migration/bad/versions/1.py": """
import time
from alembic import op
revision, down_revision = "bad1", None
def upgrade():
    CODE
""",
}


@pytest.fixture
def bad(portal: Portal) -> Callable[[str], dict[str, str]]:
    """Enables a plugin with one pending migration of this code."""

    def make(code: str) -> dict[str, str]:
        files = {name: text.replace("CODE", code) for name, text in PLUGIN.items()}
        portal.write(**{"ckan.plugins": "dbmanage datastore activity bad"})
        root = portal.directory / "ckanext"
        return install_plugin(root, "bad", files, "plugin:Bad")

    return make


def own(portal: Portal, *statements: str) -> None:
    """Runs statements as CKAN's role, in one transaction."""
    with closing(psycopg2.connect(portal.url("database"))) as connection, connection:
        for statement in statements:
            connection.cursor().execute(statement)


@pytest.mark.smoke
def test_nothing_pending_is_done_at_once(portal: Portal) -> None:
    for verb in ("upgrade", "init"):
        assert "Nothing is pending" in portal.db(verb).stdout
    assert "Nothing is pending" in portal.module("upgrade", "--rehearse").stdout
    assert portal.backups() == []
    # nor does a container that calls `init` at each start need a place for backups
    own(portal, "CREATE TABLE gone_alembic_version (version_num text)",
        "INSERT INTO gone_alembic_version VALUES ('1')")  # fmt: skip
    storage = portal.options.pop("ckan.storage_path")
    portal.write()
    done = portal.db("init")
    assert "Nothing is pending" in done.stdout and "the plugin 'gone'" in done.stderr
    portal.write(**{"ckan.storage_path": storage})
    assert "two ways" in portal.db("upgrade", "--rehearse", "--in-place", code=2).stderr


#: what 2.10 keeps of a field in its column's comment
COMMENT = """
SELECT col_description(c.oid, attnum) FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
WHERE relname LIKE '00000000%' AND attname = 'a b'"""


def test_from_2_10_to_2_12_and_back(old: Portal) -> None:
    table = "00000000-0000-4000-8000-000000000000"
    comment = f'COMMENT ON COLUMN "{table}"."a b" IS \'{{"label": "Old"}}\''
    old.sql(comment, "datastore")
    before = old.state()
    done = old.db("upgrade", "--rehearse")
    assert "rehearsed: the upgrade would work" in done.stdout
    assert re.search(r"\d\.\d\d s  CKAN 12d64978ab44  ", done.stdout)
    assert re.search(r"\d\.\d\d s  activity fab3bfdcf830  ", done.stdout)
    assert f"public.package_extra ({3 * DATASETS} rows)" in done.stdout
    assert old.state() == before and not old.copies()

    done = old.db("upgrade")
    assert "upgraded by" in done.stdout and "restart CKAN's" in done.stderr
    assert "up to date" in old.db("check").stdout
    assert old.sql("SELECT sum((SELECT count(*) FROM jsonb_object_keys(extras))) "
                   "FROM package") == [(3 * DATASETS,)]  # fmt: skip
    ((kept, reason),) = [(b["id"], b["reason"]) for b in old.backups()[:1]]
    assert reason == "before upgrade" and kept in done.stderr
    assert "Nothing is pending" in old.db("upgrade").stdout
    ((field,),) = old.sql(COMMENT, "datastore")
    assert json.loads(field) == {"_info": {"label": "Old"}}

    old.module("undo", "--yes")
    assert old.state() == before
    assert old.sql(COMMENT, "datastore") == [('{"label": "Old"}',)]


#: what is broken in an old database, and a word of what is said of it
BROKEN = {
    "UPDATE \"user\" SET email = 'A@x.org' WHERE name = 'user-1';"
    "UPDATE \"user\" SET email = 'a@x.org' WHERE name = 'user-2'": "same e-mail address",
    "UPDATE package_extra SET value = NULL WHERE key = 'key 1'": "no key or no value",
    "CREATE VIEW public.seen AS SELECT key FROM package_extra": "the view public.seen needs",
    "CREATE TABLE mine (id text REFERENCES package_extra (id))": "foreign key",
    "DROP INDEX idx_package_period": "not there (idx_package_period)",
    "DROP INDEX idx_only_one_active_email": "not there (idx_only_one_active_email)",
    "INSERT INTO alembic_version VALUES ('103676e0a497')": "holds 2 revisions",
    "DROP TABLE rating": "the table rating, to be dropped, is not there",
    "CREATE TABLE gone_alembic_version (version_num text);"
    "INSERT INTO gone_alembic_version VALUES ('1')": "the plugin 'gone'",
}


def test_what_would_fail_is_named_with_what_mends_it(
    old: Portal, small_disk: Callable[[str], Path]
) -> None:
    for statement, said in BROKEN.items():
        own(old, statement)
        before = old.sql(HEAD)
        refused = old.module("upgrade", "--rehearse", code=1).stderr
        assert said in refused and "nothing was touched" in refused, refused
        assert old.sql(HEAD) == before
        mends = re.findall(r"^    (.*;)$", refused, re.M)
        assert mends, refused
        own(old, *mends)
    old.sql("UPDATE package_extra SET state = 'deleted' WHERE key = 'key 2'")
    own(old, "UPDATE package_extra SET key = 'same', state = 'active'"
             " WHERE package_id = 'id-1'")  # fmt: skip
    done = old.module("upgrade", "--rehearse")
    assert f"{DATASETS - 1} deleted extras of packages are not kept" in done.stderr
    assert "repeated extras of packages" in done.stderr
    with closing(psycopg2.connect(old.url("database"))) as connection:
        assert list(blockers.server(connection)) == []
        (told,) = blockers.server(connection, oldest=99)
    assert "99 is the oldest" in told and "pg_upgradecluster" in told
    small = small_disk("1m")
    small.chmod(0o700)
    old.write(**{"ckanext.dbmanage.repository": str(small / "backups")})
    refused = old.module("upgrade", code=1).stderr
    assert "are free for the repository" in refused and "ckan db prune" in refused
    old.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    refused = old.module("upgrade", code=1).stderr
    assert "ffffffffffff, which the installed code does not know" in refused


def test_what_scripts_drop_is_read(tmp_path: Path) -> None:
    first, second = tmp_path / "1.py", tmp_path / "2.py"
    first.write_text(
        "def upgrade():\n"
        "    op.create_index('made', 'a', ['b'])\n"
        "    op.drop_index('sure', table_name='t')\n"
        "    op.drop_index('by_place', 'u')\n"
        "    op.drop_index('perhaps', 'u', if_exists=True)\n"
        "    op.drop_index(op.f('unread'), 'u')\n"
        "    if there:\n"
        "        op.drop_index('conditional', 'u')\n"
        "        op.drop_table('gone')\n"
        "    op.rename_table('renamed', 'x')\n"
        "def downgrade():\n"
        "    op.drop_table('not this')\n"
    )
    second.write_text("def upgrade():\n    op.drop_index('made')\n")
    found = blockers.drops([first, second])
    assert found.indexes == [("sure", "t"), ("by_place", "u")]
    assert found.tables == {"gone"}


def test_a_migration_that_fails_half_way(old: Portal) -> None:
    # no list of blockers knows of it: the last of core's migrations makes this table
    own(old, "CREATE TABLE file (id text)")
    before = old.state()
    done = old.db("upgrade", code=1)
    assert 'relation "file" already exists' in done.stderr
    assert "all that is live is as it was" in done.stderr
    assert re.search(r"\d s  CKAN f7b64c701a10", done.stdout)
    assert re.search(r"not ended  CKAN 9445ce34fc23", done.stdout)
    assert old.state() == before and not old.copies()


def test_a_rehearsal_names_what_nobody_could_read(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    code = 'op.execute("ALTER TABLE package ADD COLUMN of_bad int"); time.sleep(2)'
    done = portal.module("upgrade", "--rehearse", env=bad(code))
    assert re.search(r"locked against readers: public\.package$", done.stdout, re.M)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("op.execute(\"DELETE FROM member WHERE id = 'm-1'\")", "took 1 of"),
        ('op.execute("DROP TABLE package_tag CASCADE")', "package_tag with 40 rows"),
        ('raise OSError("bad luck")', "bad luck"),
    ],
)
def test_a_plugins_migration_that_does_harm(
    portal: Portal, bad: Callable[[str], dict[str, str]], code: str, said: str
) -> None:
    before = portal.state()
    done = portal.module("upgrade", code=1, env=bad(code))
    assert said in done.stderr, done.stderr
    assert portal.state() == before and not portal.copies()


@pytest.mark.smoke
def test_a_plugin_that_cannot_be_imported(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    environment = bad("pass")
    plugin = portal.directory / "ckanext" / "bad" / "plugin.py"
    plugin.write_text("from ckan.lib.gone import Old\n" + plugin.read_text())
    done = portal.module("upgrade", code=1, env=environment)
    assert (
        "the plugin 'bad' has migrations to run and cannot be imported" in done.stderr
    )
    assert "ckan.lib.gone" in done.stderr
    package = portal.directory / "ckanext" / "bad" / "__init__.py"
    migration = package.parent / "migration" / "bad" / "versions" / "1.py"
    script = migration.read_text()
    for path, text in (
        (migration, f"import nowhere\n{script}"),
        (package, "import nowhere"),
    ):
        path.write_text(text)
        for verb in ("upgrade", "doctor"):
            done = portal.module(verb, code=1, env=environment)
            said = done.stdout + done.stderr
            assert "nowhere" in said and "bad" in said and "Traceback" not in said, said


def test_a_write_meanwhile_is_in_another_copy_or_nothing_is_switched(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    environment = bad("time.sleep(2)")
    writer = psycopg2.connect(portal.url("database"), application_name="harvester")
    stop = threading.Event()

    def write() -> None:
        nonlocal writer
        while not stop.wait(0.5):
            try:
                with writer, writer.cursor() as cursor:
                    cursor.execute("UPDATE package SET notes = 'new' WHERE id = 'id-1'")
            except psycopg2.Error:
                writer = psycopg2.connect(
                    portal.url("database"), application_name="harvester"
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        done = portal.module("upgrade", code=1, env=environment)
    finally:
        stop.set()
        thread.join()
        writer.close()
    assert done.stderr.count("Another copy is made") == 2
    assert "database: public.package were written" in done.stderr
    assert "application 'harvester'" in done.stderr
    assert not portal.copies(), done.stderr
    assert len(portal.oids()) == 2

    started = portal.start("upgrade", env=environment)
    said = ""
    while "\nmigrate" not in said:
        said += started.stderr.read(1)
    # what leaves no rows to be counted, too
    portal.sql("UPDATE package SET notes = 'in time' WHERE id = 'id-1'")
    portal.sql('DROP TABLE "00000000-0000-4000-8000-000000000000"', "datastore")
    portal.sql("TRUNCATE tag CASCADE")
    said += started.communicate(timeout=300)[1]
    assert started.returncode == 0 and said.count("Another copy is made") == 1, said
    assert "1 rows of database: public.package were written" in said
    assert "database: public.tag was made, altered or emptied" in said
    assert "datastore: public.00000000" in said
    assert portal.sql("SELECT notes FROM package WHERE id = 'id-1'") == [("in time",)]
    assert portal.sql("SELECT count(*) FROM tag") == [(0,)]
    left = portal.sql(
        "SELECT to_regclass('\"00000000-0000-4000-8000-000000000000\"')::text",
        "datastore",
    )
    assert left == [(None,)]


@pytest.mark.smoke
def test_what_was_written_before_is_in_the_first_copy(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    # PostgreSQL counts what an idle session wrote up to ten seconds later
    with closing(psycopg2.connect(portal.url("database"))) as idle:
        for number in range(5):
            with idle, idle.cursor() as cursor:
                cursor.execute("UPDATE package SET notes = %s", (f"{number}",))
        done = portal.module("upgrade", env=bad("time.sleep(9)"))
    assert "Another copy" not in done.stderr
    assert portal.sql("SELECT DISTINCT notes FROM package") == [("4",)]


def test_who_reads_with_a_token_does_not_hinder_it(
    portal: Portal, bad: Callable[[str], dict[str, str]], serve: Callable[[Portal], Web]
) -> None:
    web = serve(portal)
    token = portal.ckan("user", "token", "add", "user-2", "t", "-q").stdout.split()[-1]
    environment = bad("time.sleep(2)")
    portal.sql('UPDATE "user" SET last_active = NULL')
    seen = "SELECT last_access FROM api_token"
    ((before,),) = portal.sql(seen)
    started = portal.start("upgrade", env=environment)
    said = ""
    while "\nmigrate" not in said:
        said += started.stderr.read(1)
    path = "/api/3/action/package_show?id=dataset-1"
    assert web.ask(path, Authorization=token).status == 200
    assert portal.sql(seen) != [(before,)]
    said += started.communicate(timeout=300)[1]
    assert started.returncode == 0 and "Another copy" not in said, said


def test_a_write_at_the_last_moment_is_not_left_behind(portal: Portal) -> None:
    portal.backup()
    site, repository = portal.engine()
    source = open_source(site, repository, "latest")
    before, oids = portal.state(), portal.oids()
    op = Operation(site, repository)
    with (
        repository.lock("restore"),
        loaded_copies(op, source, lambda *_: None) as scratches,
        closing(site.databases["database"].maintenance()) as connection,
        pytest.raises(Written, match="written to at the last moment"),
    ):
        pairs = [scratch.pair for scratch in scratches.values()]
        known = {p.live_oid: writes.tuples(connection, p.live_oid) for p in pairs}
        own(portal, "UPDATE package SET notes = 'late' WHERE id = 'id-1'")
        switch.switch(op, pairs, [], known)
    assert portal.oids() == oids and portal.state() != before
    assert portal.sql("SELECT notes FROM package WHERE id = 'id-1'") == [("late",)]
    assert not portal.copies()


def test_no_live_service_is_within_reach(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    told = portal.directory / "told.json"
    environment = bad(
        "import json; from ckan.common import config; "
        f"json.dump({{k: str(v) for k, v in config.items()}}, open({str(told)!r}, 'w'))"
    )
    # a socket in the address, and the site's address in the environment only
    socket = os.environ["DBMANAGE_PG_SOCKET"]
    live = {
        option: f"{portal.url(part).partition('@')[0]}@/{portal.names[part]}"
        f"?host={quote(socket, safe='')}&port={SUPERUSER.port}"
        for part, option in (
            ("database", "sqlalchemy.url"),
            ("datastore", "ckan.datastore.write_url"),
        )
    }
    others = {
        "ckanext.xloader.jobs_db.uri": live["sqlalchemy.url"],
        "ckanext.other.store": "postgresql://who@db.example.com/other",
        "ckanext.other.cache": "redis://cache.example.com:6379/3",
        "ckan.harvest.mq.hostname": "mq.example.com",
        "smtp.server": "mail.example.com",
    }
    portal.write(**live, **others)
    del portal.options["ckan.site_url"]
    portal.write()
    environment["CKAN_SITE_URL"] = "http://of.the.environment"
    portal.module("upgrade", env=environment)
    seen = json.loads(told.read_text())
    assert seen["ckan.site_url"] == "http://of.the.environment"
    named = [v for v in seen.values() if "example.com" in v]
    # the `+` of a driver, or a name of a live database
    for option in (*live, "ckan.datastore.read_url", "ckanext.xloader.jobs_db.uri"):
        assert "dbm_" in seen[option] and "_scratch" in seen[option], option
    for option in ("ckan.redis.url", "solr_url"):
        assert "127.0.0.1:9" in seen[option]
    assert named == [] and str(portal.storage) not in seen["ckan.storage_path"]


def test_killed_at_each_step(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    environment = bad("op.execute('CREATE TABLE of_bad ()'); time.sleep(1)")
    table = "SELECT to_regclass('of_bad')::text"
    for phase in ("dump", "load", "migrate", "check", "switch"):
        before = portal.state()
        started = portal.start("upgrade", env=environment)
        said = ""
        while f"\n{phase} " not in said:
            letter = started.stderr.read(1)
            assert letter, said
            said += letter
        end_group(started)
        portal.module("doctor", "--fix", code=None)
        if portal.sql(table) == [(None,)]:
            assert portal.state() == before, phase
            assert not portal.copies(), phase
        else:
            assert phase == "switch"
    portal.module("upgrade", env=environment)
    assert portal.sql(table) == [("of_bad",)]


def test_a_session_that_holds_a_lock_is_waited_for_and_named(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    # in the live database this migration would wait for ever
    environment = bad('op.execute("ALTER TABLE package ADD COLUMN of_bad int")')
    holder = psycopg2.connect(portal.url("database"), application_name="holder")
    with closing(holder), holder.cursor() as cursor:
        cursor.execute("LOCK TABLE package IN SHARE ROW EXCLUSIVE MODE")
        done = portal.module("upgrade", env=environment)
    assert "still at work in the live databases, and ended" in done.stderr
    assert "application 'holder'" in done.stderr
    assert portal.sql("SELECT count(of_bad) FROM package") == [(0,)]


def test_the_disk_of_the_server_is_full(
    portal: Portal,
    bad: Callable[[str], dict[str, str]],
    make_cluster: Callable[..., Cluster],
    small_disk: Callable[[str], Path],
) -> None:
    cluster = make_cluster()
    name = cluster.onto_small_disk(portal, small_disk("100m"), 20000)
    fill = 'op.execute("CREATE TABLE of_bad AS SELECT t FROM filler, generate_series(1, 3)")'
    done = portal.module("upgrade", code=1, env=bad(fill))
    assert "No space left on device" in done.stderr, done.stderr
    assert cluster.sql("SELECT to_regclass('of_bad')::text", name) == [(None,)]
    left = cluster.sql("SELECT datname FROM pg_database WHERE datname LIKE 'dbm%'")
    assert left == []


@pytest.mark.parametrize("bin", [PG16, PG18])
def test_other_servers(
    old: Portal, make_cluster: Callable[..., Cluster], bin: Path
) -> None:
    cluster = make_cluster(bin=bin)
    old.write(**{"ckanext.dbmanage.pg_bin": str(bin)})
    for part in old.names:
        cluster.copy(old, part)
    assert "the upgrade would work" in old.module("upgrade", "--rehearse").stdout
    assert "upgraded by" in old.module("upgrade").stdout
    assert "up to date" in old.ckan("db", "check").stdout
    old.module("undo", "--yes")
    head = cluster.sql(HEAD, old.names["database"])
    assert head == [("9f33a0280c51",)]


def test_solr_is_down(old: Portal) -> None:
    old.write(solr_url="http://127.0.0.1:9/solr/none")
    done = old.db("upgrade")
    assert "upgraded by" in done.stdout and "searches will show" in done.stderr
    assert "up to date" in old.db("check").stdout


def test_without_the_right_to_make_a_copy(
    old: Portal, role: Callable[..., str]
) -> None:
    plain = role("dbm_plain", "NOCREATEDB IN ROLE ckan_default")
    old.write(**{"sqlalchemy.url": old.url("database", plain, "other")})
    before = old.state()
    said = old.module("upgrade", code=1).stderr
    assert f"ALTER ROLE {plain} CREATEDB;" in said and "--in-place" in said
    assert old.state() == before
    with closing(psycopg2.connect(old.url("database"))) as holder:
        holder.cursor().execute("LOCK TABLE package IN ACCESS SHARE MODE")
        said = old.module("upgrade", "--in-place", code=1).stderr
    assert "lock timeout" in said and "on the live database" in said
    assert old.state() == before
    done = old.module("upgrade", "--in-place")
    assert "upgraded by" in done.stdout
    assert "a restore of the backup" in done.stderr
    assert old.backups()[0]["reason"] == "before upgrade"
    assert "up to date" in old.ckan("db", "check").stdout
    assert "Nothing is pending" in old.module("upgrade").stdout


def test_cores_own_options(old: Portal) -> None:
    old.db("upgrade", "--skip-plugins", "-v", "12d64978ab44")
    assert old.sql(HEAD) == [("12d64978ab44",)]
    assert old.sql("SELECT to_regclass('file')::text") == [(None,)]
    assert "no way" in old.db("upgrade", "-v", "nowhere", code=1).stderr
    old.db("upgrade", "--skip-core", "--no-backup")
    assert old.sql(HEAD) == [("12d64978ab44",)]
    there = old.sql("SELECT version_num FROM activity_alembic_version")
    assert there == [("fab3bfdcf830",)]
    old.db("upgrade", "--no-backup")
    assert len(old.backups()) == 1
    assert "up to date" in old.db("check").stdout


@pytest.mark.smoke
def test_init_with_a_percent_sign(portal: Portal, role: Callable[..., str]) -> None:
    plain = role("dbm_percent", "CREATEDB IN ROLE ckan_default", "p@s%s")
    name = portal.names["database"]
    query(f'DROP DATABASE "{name}" WITH (FORCE)')
    query(f'CREATE DATABASE "{name}" OWNER {plain} TEMPLATE template0')
    try:
        portal.write(**{"sqlalchemy.url": portal.url("database", plain, "p@s%s")})
        assert "is empty" in portal.module("upgrade", code=1).stderr
        assert "SUCCESS" in portal.db("init").stdout
        assert portal.sql("SELECT count(*) FROM package") == [(0,)]
        assert portal.db("version").returncode == 0
    finally:
        query(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.smoke
def test_clean_takes_a_backup_and_needs_neither_solr_nor_a_superuser(
    portal: Portal,
) -> None:
    # what PostGIS has: a table that is an extension's, and a superuser's
    portal.sql(
        "CREATE TABLE spatial_ref_sys (id int);"
        "ALTER EXTENSION plpgsql ADD TABLE spatial_ref_sys"
    )
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    assert "--yes" in portal.db("clean", code=2).stderr
    before = portal.state()
    done = portal.db("clean", "--yes")
    assert "could not be emptied" in done.stderr
    left = portal.sql("SELECT relname FROM pg_class WHERE relkind = 'r'"
                      " AND relnamespace = 'public'::regnamespace")  # fmt: skip
    assert left == [("spatial_ref_sys",)]
    (taken,) = portal.backups()
    assert taken["reason"] == "before clean" and taken["id"] in done.stderr
    done = portal.db("clean", "--yes")
    assert len(portal.backups()) == 1  # there was nothing
    portal.module("restore", taken["id"], "--yes", "--no-backup")
    assert {k: v for k, v in before.items() if "spatial" not in k} == portal.state()


def test_clean_asks_for_the_sites_name(portal: Portal) -> None:
    portal.write(**{"ckan.site_title": "Open Data"})
    command = ["script", "-qec", f"{sys.prefix}/bin/ckan -c {portal.ini} db clean"]
    for answer, gone in (("yes", False), ("Open Data", True)):
        subprocess.run(
            [*command, "/dev/null"], input=f"{answer}\n", text=True,
            env=portal.environment | {"PATH": os.environ["PATH"]}, timeout=300,
            capture_output=True,
        )  # fmt: skip
        there = portal.sql("SELECT to_regclass('package')::text") != [(None,)]
        assert there is not gone
