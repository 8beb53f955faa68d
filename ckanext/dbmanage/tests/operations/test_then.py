"""One thing is read out of a backup, by CKAN on a copy of what it needs."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckanext.dbmanage.engine import layout
from ckanext.dbmanage.engine.errors import ToolFailed
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres.database import closing, query
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.engine.restore.parted import Part
from ckanext.dbmanage.operations.context import Portal as Opened
from ckanext.dbmanage.operations.context import find_site
from ckanext.dbmanage.operations.then import Then, open_then, then
from ckanext.dbmanage.portal.config import Options

from ..support.portal import Portal, install_plugin

#: a DataStore table of the template, and the resource that gets its id
TABLE, RESOURCE = "00000000-0000-4000-8000-000000000000", "r-3"


class Heard(Silent):
    """What was warned of."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warned.append(sentence)


@contextmanager
def read(
    portal: Portal, kind: str, *names: str, with_datasets: bool = False
) -> Iterator[tuple[Then, list[str]]]:
    """What the newest backup holds of things, and what was warned of."""
    talk = Heard()
    options = Options(portal.options | {"__file__": str(portal.ini)})
    opened = Opened(options, talk)
    site, repository = find_site(opened, heads=True)
    source = open_then(site, repository, "latest", kind, False, talk)
    op = Operation(site, repository, talk)
    if tracemalloc.is_tracing():  # to read a small file, all that it may have is taken
        tracemalloc.reset_peak()
    with then(opened, op, source, kind, names, with_datasets) as found:
        yield found, talk.warned


@pytest.fixture
def full(portal: Portal) -> Portal:
    """A portal whose third dataset has all that a dataset can have."""
    portal.sql(f"""
        UPDATE resource SET id = '{TABLE}', extras = '{{"datastore_active": true}}'
            WHERE id = '{RESOURCE}';
        INSERT INTO package_member (package_id, user_id, capacity, modified)
            VALUES ('id-3', 'user-2', 'editor', now());
        INSERT INTO member (id, group_id, table_id, state, table_name, capacity)
            VALUES ('m', 'group-1', 'id-3', 'active', 'package', 'public');
        INSERT INTO resource_view (id, resource_id, title, view_type, config, "order")
            VALUES ('v', '{TABLE}', 'A view', 'text_view', '{{}}', 0);
        """)
    portal.sql(
        f"""CREATE INDEX ON "{TABLE}" ("a b");
        COMMENT ON COLUMN "{TABLE}"."a b" IS '{{"label": "A, then B"}}';
        GRANT SELECT ON "{TABLE}" TO datastore_default;
        CREATE VIEW "an alias" AS SELECT * FROM "{TABLE}";
        ALTER TABLE "{TABLE}" OWNER TO ckan_default;
        ALTER VIEW "an alias" OWNER TO ckan_default""",
        "datastore",
    )
    return portal


def test_a_dataset_is_what_it_was(full: Portal) -> None:
    full.backup()
    full.damage()
    before = full.state()
    _, repository = full.engine()
    with (
        repository.lock("another"),
        read(full, "dataset", "dataset-3") as (found, warned),
    ):
        (thing,) = found.things
        assert (thing.kind, thing.id, thing.name) == ("dataset", "id-3", "dataset-3")
        assert [each["id"] for each in thing.record["resources"]] == [TABLE, "upload-3"]
        assert thing.record["tags"][0]["name"] == "air quality"
        assert thing.record["groups"][0]["name"] == "group-1"
        assert thing.around["package_member"][0]["user_id"] == "user-2"
        assert thing.around["resource_view"][0]["title"] == "A view"
        needs = {(kind, name) for kind, _, name in thing.needs}
        assert needs >= {("organization", "org-1"), ("group", "group-1")}
        assert needs >= {("user", "user-1"), ("user", "user-2")}
        (path,) = thing.uploads
        with found.open_upload(path) as file:
            assert file.read() == b"a,b\n1,2\n" * 3
        assert thing.tables == [TABLE] and found.rows == {TABLE: 50}
        assert found.store
        with closing(found.store.connect()) as connection:
            tables = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v')"
            own = f"{tables} AND relnamespace = 'public'::regnamespace ORDER BY 1"
            assert query(connection, own) == [(TABLE,), ("an alias",)]
            name = f'public."{TABLE}"'
            told = (
                "SELECT count(*), (SELECT count(*) FROM pg_index WHERE indrelid = %s"
                "::regclass), col_description(%s::regclass, 3),"
                f" has_table_privilege('datastore_default', %s, 'SELECT') FROM {name}"
            )
            assert query(connection, told, name, name, name) == [
                (50, 2, '{"label": "A, then B"}', True)
            ]
        assert not found.lacking and not warned
        main = {name for name in full.copies() if name.endswith("_scratch")}
        assert len(main) == 2
    assert full.state() == before and not full.copies()


def test_no_rows_of_others_are_loaded(full: Portal) -> None:
    """A plugin's rows come along where they name the dataset."""
    full.sql(
        "CREATE TABLE plugins (source text PRIMARY KEY);"
        "CREATE TABLE plugin (dataset text REFERENCES package (id), n int,"
        " source text REFERENCES plugins (source));"
        "ALTER TABLE plugins OWNER TO ckan_default;"
        "ALTER TABLE plugin OWNER TO ckan_default;"
        "INSERT INTO plugins VALUES ('near'), ('far');"
        "INSERT INTO plugin VALUES ('id-3', 1, 'near'), ('id-4', 2, 'far')"
    )
    full.backup()
    with read(full, "dataset", "id-3"):
        (main,) = (
            name
            for name in full.copies()
            if query_of(full, name, "SELECT to_regclass('public.package')::text")
        )
        for table, wanted in (
            ("package", [("id-3",)]),
            ("resource", [(TABLE,), ("upload-3",)]),
            ("plugin", [("id-3",)]),
            ("plugins", [("near",)]),
            ('"group"', [("group-1",), ("org-1",)]),
        ):
            first = f"SELECT t::text, * FROM {table} t ORDER BY 1"
            rows = query_of(full, main, first)
            assert [row[1:2] for row in rows] == wanted, table


def query_of(portal: Portal, name: str, statement: str) -> list[tuple]:
    live = portal.site().main.named(name)
    with closing(live.connect()) as connection:
        query(connection, "SET search_path = public")
        return [row for row in query(connection, statement) if row[0]]


def test_an_organization_comes_with_its_datasets(portal: Portal) -> None:
    """What only a plugin that is gone knows stays behind, and that is told."""
    portal.sql(
        "CREATE TABLE gone_alembic_version (version_num text);"
        "ALTER TABLE gone_alembic_version OWNER TO ckan_default;"
        "INSERT INTO gone_alembic_version VALUES ('a1');"
        "UPDATE package SET type = 'gone' WHERE id = 'id-2';"
        "UPDATE package SET owner_org = NULL WHERE id NOT IN ('id-1', 'id-2');"
        "UPDATE package SET state = 'deleted' WHERE id = 'id-1';"
        "UPDATE \"group\" SET state = 'deleted' WHERE id = 'org-1'"
    )
    portal.backup()
    portal.sql("DELETE FROM member; DELETE FROM \"group\" WHERE id = 'org-1'")
    with read(portal, "organization", "org-1", with_datasets=True) as (found, warned):
        assert [thing.name for thing in found.things] == ["org-1", "dataset-2"]
        assert found.things[1].record["type"] == "gone"
        assert list(found.uploads) == [
            "resources/upl/oad/-2",
            "storage/uploads/group/logo 東.png",
        ]
    assert [each for each in warned if "deleted in backup" in each]
    assert [each for each in warned if "gone_alembic_version" in each]


def test_a_user_and_a_group_are_what_they_were(portal: Portal) -> None:
    portal.sql(
        "UPDATE \"user\" SET password = 'a-hash' WHERE id = 'user-2';"
        "INSERT INTO member (id, group_id, table_id, state, table_name, capacity)"
        " VALUES ('m', 'group-1', 'user-2', 'active', 'user', 'editor')"
    )
    portal.backup()
    with read(portal, "user", "user-2") as (found, _):
        (user,) = found.things
        assert user.record["fullname"] == "Usér 2"
        assert user.record["password_hash"] == "a-hash"
        assert user.needs == [("group", "group-1", "group-1")]
    portal.sql("UPDATE \"user\" SET password = 'another', fullname = '\x1b[31mX'")
    said = portal.module("restore", "latest", "--user=user-2", "--preview")
    assert "fullname: now “?[31mX”, then “Usér 2”" in said.stdout
    assert "password_hash: now “…”, then “…”" in said.stdout
    assert "hash'" not in said.stdout and "another" not in said.stdout


def test_a_dataset_of_an_older_ckan_is_read_by_the_newest(old: Portal) -> None:
    old.backup()
    with read(old, "dataset", "dataset-3") as (found, _):
        extras = {
            each["key"]: each["value"] for each in found.things[0].record["extras"]
        }
        assert extras == {f"key {n}": "v" for n in (1, 2, 3)}


def test_a_hook_that_fails_is_named(portal: Portal) -> None:
    code = """
import ckan.plugins as p
class Bad(p.SingletonPlugin):
    p.implements(p.IPackageController, inherit=True)
    def after_dataset_show(self, context, dataset):
        raise RuntimeError("no such thing")
"""
    environment = install_plugin(
        portal.directory / "ckanext", "bad", {"plugin.py": code}, "plugin:Bad"
    )
    portal.backup()
    portal.write(**{"ckan.plugins": "dbmanage datastore activity bad"})
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ToolFailed, match=r"reading the dataset(.|\n)*no such thing"),
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        with read(portal, "dataset", "dataset-3"):
            pass
    assert not portal.copies()


def test_a_long_table_is_loaded_in_flat_memory(portal: Portal) -> None:
    portal.sql(
        f"INSERT INTO \"{TABLE}\" (\"a b\") SELECT repeat(md5(g::text), 50)"
        " FROM generate_series(1, 40000) g",
        "datastore",
    )  # fmt: skip
    portal.backup("--only", "datastore")
    with read(portal, "table", f"{TABLE[:7]}1{TABLE[8:]}"):
        pass  # now all is imported
    tracemalloc.start()
    try:
        with read(portal, "table", TABLE) as (found, _):
            assert found.rows == {TABLE: 40050}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20  # of 64 MB of rows


def test_rows_are_found_wherever_a_segment_is_cut(portal: Portal) -> None:
    portal.sql(
        "INSERT INTO system_info (key, value) SELECT 'k' || g,"
        " repeat(md5(g::text), 60) FROM generate_series(1, 6000) g"
    )
    portal.backup("--only", "database")
    site, repository = portal.engine()
    source = open_then(site, repository, "latest", "dataset", False, Silent())
    rows = Part(site, source, "database").rows
    assert len(rows._lines["public.system_info"]) > 1
    keys = [f"k{n}".encode() for n in range(1, 6001)]
    for wanted in (keys, keys[::1000]):  # by all fields, and one by one
        found = rows.having("public.system_info", wanted, ["key"])
        key = rows.place("public.system_info", "key")
        assert [fields[key] for fields in found] == wanted
    assert sum(1 for _ in rows.all("public.system_info")) >= 6000


@pytest.fixture
def backed_up(portal: Portal) -> Portal:
    portal.backup()
    return portal


@pytest.mark.parametrize(
    ("selected", "code", "said"),
    [
        (["--dataset", "datset-12"], 1, "Did you mean dataset-12"),
        (["--dataset", "dataset-1", "--dataset", "\x1b[2J"], 1, "holds no dataset '?[2J'"),
        (["--organization", "group-1"], 1, "holds no organization 'group-1'"),
        (["--table", f"{TABLE[:-1]}9"], 1, f"Did you mean {TABLE}"),
        (["--table", '"; DROP TABLE x; --'], 1, "holds no DataStore table"),
        (["--upload", "../../etc/passwd"], 1, "holds no upload '../../etc/passwd'"),
        (["--upload", "resources/upl/oad/-9"], 1, "Did you mean resources/upl/oad/-"),
        (["--dataset", "a", "--group", "b"], 2, "two kinds of thing"),
        (["--dataset", "a", "--with-datasets"], 2, "is for --organization"),
        (["--table", TABLE, "--as", "b"], 2, "--as is for one dataset"),
        (["--dataset", "a", "--only", "database"], 2, "are for a whole backup"),
        (["--dataset", ""], 2, "names nothing"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(
    backed_up: Portal, selected: list[str], code: int, said: str
) -> None:
    done = backed_up.module("restore", "latest", *selected, "--yes", code=code)
    assert said in " ".join(done.stderr.split())
    assert not backed_up.copies()


def test_a_backup_without_the_part_is_refused(portal: Portal) -> None:
    portal.backup("--only", "files")
    for kind, part in (("dataset", "database"), ("table", "DataStore")):
        done = portal.module("restore", "latest", f"--{kind}=x", "--preview", code=1)
        assert f"holds no {part}, only uploads" in " ".join(done.stderr.split())


def test_a_damaged_piece_is_an_error_where_it_is_needed(portal: Portal) -> None:
    portal.sql(f'DELETE FROM "{TABLE}" WHERE _id = 1', "datastore")
    path = portal.backup()
    lines = (path / layout.SEGMENTS["datastore"]).read_text().splitlines()
    (name,) = (each.split()[0] for each in lines if TABLE in each)
    place = portal.repository / layout.OBJECTS / name[:2] / name
    place.write_bytes(b"x" + place.read_bytes()[1:])
    said = portal.module("restore", "latest", f"--table={TABLE}", "--preview", code=1)
    assert f"its content {name} was changed" in " ".join(said.stderr.split())
    other = f"{TABLE[:7]}1{TABLE[8:]}"
    portal.module("restore", "latest", f"--table={other}", "--preview")


def test_a_backup_of_another_site_needs_trust(
    portal: Portal, tmp_path: Path, make_portal: Callable[..., Portal]
) -> None:
    other = make_portal()
    other.write(SECRET_KEY="another", **{"beaker.session.secret": "another"})
    path = other.backup()
    copy = tmp_path / path.name
    shutil.copytree(path, copy)
    shutil.copytree(other.repository / layout.OBJECTS, tmp_path / layout.OBJECTS)
    selected = ["restore", str(copy), f"--table={TABLE}", "--preview", "--json"]
    assert "--trust" in portal.module(*selected, code=1).stderr
    told = json.loads(portal.module(*selected, "--trust").stdout)
    assert told["things"][0]["tables"] == [
        {"name": TABLE, "then": 50, "now": 50, "changed": False}
    ]
