"""An upgrade that is blocked, fails or is killed: nothing that is live has changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.portal import blockers

from ..support.cluster import Cluster
from ..support.portal import DATASETS, HEAD, Portal, own
from ..support.waiting import end_group

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
    assert "are free for the repository" in refused and ".dbmanage prune" in refused
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


def test_killed_at_each_step(
    portal: Portal, bad: Callable[[str], dict[str, str]]
) -> None:
    environment = bad("op.execute('CREATE TABLE of_bad ()'); time.sleep(1)")
    table = "SELECT to_regclass('of_bad')::text"
    for phase in ("dump", "load", "migrate", "check", "switch"):
        before = portal.state()
        started = portal.start("upgrade", env=environment)
        said = ""
        while not re.search(rf"^{phase}\b.* …", said, re.MULTILINE):
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
