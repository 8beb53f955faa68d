"""One thing comes back into the live portal, and goes again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ..support import forked
from ..support.portal import Portal, install_plugin
from ..support.things import (
    ALIAS,
    ID,
    NAME,
    RESOURCE,
    act,
    file_of,
    lines,
    purge,
    rich,
    seen,
)

SHOWN = ("package_show", {"id": ID})


@pytest.fixture
def full(portal: Portal) -> Portal:
    rich(portal)
    portal.ckan("search-index", "rebuild", ID)
    portal.backup()
    return portal


def bring(portal: Portal, *arguments: str, code: int = 0) -> str:
    """`ckan db restore latest … --yes`: what it said."""
    done = portal.db("restore", "latest", *arguments, "--yes", code=code)
    return done.stdout if code == 0 else " ".join(done.stderr.split())


def source(portal: Portal) -> str:
    return f"backup {portal.backups()[0]['id']}"


@pytest.mark.smoke
def test_what_was_purged_comes_back_whole_and_goes_again(full: Portal) -> None:
    before = lines(seen(full))
    purge(full)
    gone, state = lines(seen(full)), full.state()
    assert NAME in bring(full, "--dataset", NAME)
    assert lines(seen(full)) == before
    done = full.db("undo", "--yes")
    assert done.stdout == f"the dataset {NAME} is gone again ({source(full)})\n"
    assert lines(seen(full)) == gone
    now = full.state()
    assert {k for k, v in state.items() if now[k] != v} <= {"database:activity"}
    assert "is there again" in full.db("undo", "--yes").stdout
    assert lines(seen(full)) == before
    assert not [*full.storage.glob(".dbm_*_scratch")]


def test_what_was_changed_is_put_back_and_the_change_is_kept(full: Portal) -> None:
    before = lines(seen(full))
    full.sql(
        "DELETE FROM resource_view WHERE id = 'view-1'; DELETE FROM package_member"
    )
    full.sql(
        f'DROP VIEW public."{ALIAS}"; UPDATE public."{RESOURCE}" SET _id = -_id;'
        f'COMMENT ON COLUMN public."{RESOURCE}"._id IS NULL',
        "datastore",
    )
    file_of(full).write_bytes(b"overwritten")
    (resource, upload) = act(full, SHOWN)[0]["resources"]
    changed = {"id": ID, "title": "Oh", "private": False, "groups": []}
    act(full, ("package_patch", changed | {"resources": [resource | {"name": "Oh"}]}))
    full.sql(
        f"UPDATE package SET name = 'renamed' WHERE id = '{ID}'",
    )
    after = lines(seen(full))
    bring(full, "--dataset", ID)
    assert lines(seen(full)) == before
    full.db("undo", "--yes")
    assert lines(seen(full)) == after


@pytest.mark.parametrize(
    ("taking", "said"),
    [
        (
            f"UPDATE package SET name = '{NAME}' WHERE id = 'id-4'",
            f"the name '{NAME}' is taken by another dataset, with the id id-4: give "
            "the one that comes back another name, with --as NAME",
        ),
        (
            f"UPDATE resource SET id = '{RESOURCE}' WHERE id = 'r-5'",
            f"the resource {RESOURCE} belongs to the dataset 'dataset-5' now",
        ),
        (
            "UPDATE \"group\" SET state = 'deleted' WHERE id = 'org-1'",
            f"the dataset '{NAME}' needs the organization 'org-1' (id org-1), which is "
            "not there any more. First bring that back: `ckan db restore latest "
            "--organization org-1`",
        ),
    ],
)
def test_what_others_have_now_is_refused(full: Portal, taking: str, said: str) -> None:
    purge(full)
    full.sql(taking)
    state = full.state()
    assert said in bring(full, "--dataset", ID, code=1)
    assert full.state() == state
    assert not [*full.storage.glob(".dbm_*")] and not _schemas(full)


def test_another_table_with_the_name_of_an_alias_is_refused(full: Portal) -> None:
    purge(full)
    full.sql(f'CREATE TABLE public."{ALIAS}" (a int)', "datastore")
    state = full.state()
    assert f"the name {ALIAS!r} is taken by another table or alias" in bring(
        full, "--dataset", NAME, code=1
    )
    now = full.state()
    assert now == state
    assert not [*full.storage.glob(".dbm_*")] and not _schemas(full)


def test_a_name_that_is_taken_comes_back_as_another(full: Portal) -> None:
    purge(full)
    full.sql(f"UPDATE package SET name = '{NAME}' WHERE id = 'id-4'")
    bring(full, "--dataset", ID, "--as", "the-old-one")
    names = full.sql(f"SELECT name FROM package WHERE id IN ('{ID}', 'id-4')")
    assert sorted(names) == [(NAME,), ("the-old-one",)]


HOOK = """
import ckan.plugins as p
class Hook(p.SingletonPlugin):
    p.implements(p.IPackageController, inherit=True)
    def after_dataset_create(self, context, data):
        raise ValueError("not on a Friday")
"""


def test_a_hook_that_raises_turns_all_back(full: Portal) -> None:
    purge(full)
    full.write(**{"ckan.plugins": "dbmanage datastore activity hook"})
    root = full.directory / "ckanext"
    environment = install_plugin(root, "hook", {"plugin.py": HOOK}, "plugin:Hook")
    state = full.state()
    done = full.db(
        "restore", "latest", "--dataset", NAME, "--yes", code=1, env=environment
    )
    assert "not on a Friday" in " ".join(done.stderr.split())
    assert full.state() == state
    assert not [*full.storage.glob(".dbm_*")] and not _schemas(full)


def test_without_solr_it_is_there_and_the_index_follows(full: Portal) -> None:
    purge(full)
    solr = full.options["solr_url"]
    full.write(solr_url="http://127.0.0.1:9/solr/none")
    done = full.db("restore", "latest", "--dataset", NAME, "--yes")
    assert "It is done all the same" in done.stderr
    full.write(solr_url=solr)
    full.db("undo", "--yes")
    full.db("undo", "--yes")
    assert seen(full)["found"] == [NAME]


def _schemas(portal: Portal) -> list[tuple]:
    return portal.sql(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dbm%'", "datastore"
    )


def test_a_backup_has_nothing_of_what_stands_beside(full: Portal) -> None:
    purge(full)
    bring(full, "--dataset", NAME)
    full.db("undo", "--yes")
    assert _schemas(full)
    path = full.backup()
    rows = json.loads((path / "manifest.json").read_text())["databases"]["datastore"]
    assert not [name for name in rows["rows"] if name.startswith("dbm_")]
    full.write(**{"ckanext.dbmanage.undo_days": "0"})
    full.db("prune")
    assert not _schemas(full) and not [*full.storage.glob(".dbm_*")]
    assert not [*full.repository.glob(".thing-*")]


# -- smaller and larger things


def test_a_table_alone_comes_back(full: Portal) -> None:
    before = seen(full)
    act(full, ("package_patch", {"id": ID, "title": "Newer"}))
    full.sql(f'DROP TABLE public."{RESOURCE}" CASCADE', "datastore")
    full.sql(f"UPDATE resource SET extras = '{{}}' WHERE id = '{RESOURCE}'")
    bring(full, "--table", RESOURCE)
    after = seen(full)
    assert (after["rows"], after["schema"]) == (before["rows"], before["schema"])
    shown = act(full, SHOWN)[0]
    assert shown["title"] == "Newer"
    assert shown["resources"][0]["datastore_active"]
    full.db("undo", "--yes")
    assert not act(full, SHOWN)[0]["resources"][0].get("datastore_active")


def test_a_file_alone_comes_back(full: Portal) -> None:
    before = full.uploads()
    path = full.storage / "resources" / "upl" / "oad" / "-2"
    path.write_bytes(b"overwritten")
    after = full.uploads()
    bring(full, "--upload", "resources/upl/oad/-2")
    assert full.uploads() == before
    full.db("undo", "--yes")
    assert full.uploads() == after


def test_an_organization_comes_back_with_its_datasets(full: Portal) -> None:
    before = _organization(full)
    names = [f"id-{i}" for i in range(1, 41)]
    full.sql("DELETE FROM package_member")
    act(full, *[("dataset_purge", {"id": each}) for each in names])
    act(full, ("organization_purge", {"id": "org-1"}))
    state = _organization(full)
    bring(full, "--organization", "org-1", "--with-datasets")
    assert _organization(full) == before
    full.db("undo", "--yes")
    assert _organization(full) == state


def _organization(portal: Portal) -> list:
    shown = [
        portal.sql(f"SELECT {columns} ORDER BY 1, 2, 3")
        for columns in (
            'id, name, title, state, image_url FROM "group"',
            "group_id, table_id, capacity FROM member WHERE state = 'active'",
            "id, name, owner_org, state, private FROM package",
            "package_id, user_id, capacity FROM package_member",
            "id, package_id, url FROM resource",
        )
    ]
    return [*shown, portal.state()["uploads"]]


def test_a_user_comes_back_with_the_password(full: Portal) -> None:
    columns = "id, name, fullname, email, password, state, sysadmin"
    user = f"SELECT {columns} FROM \"user\" WHERE name = 'user-2'"
    full.sql("UPDATE \"user\" SET password = 'a hash' WHERE name = 'user-2'")
    full.backup()
    before, members = full.sql(user), full.sql("SELECT * FROM package_member")
    full.sql("DELETE FROM package_member; DELETE FROM \"user\" WHERE name = 'user-2'")
    bring(full, "--user", "user-2")
    assert full.sql(user) == before
    assert [m[:3] for m in full.sql("SELECT * FROM package_member")] == [
        m[:3] for m in members
    ]
    full.db("undo", "--yes")
    assert full.sql(user) == []


# -- killed

_KILL = """
import importlib, os, signal, sys
where, name, when = sys.argv[1:4]
del sys.argv[1:4]
module = importlib.import_module("ckanext.dbmanage." + where)
owner = module
*path, last = name.split(".")
for each in path:
    owner = getattr(owner, each)
before = getattr(owner, last)
def killing(*arguments, **options):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    found = before(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, last, killing)
from ckan.cli.cli import ckan
sys.argv[0] = "ckan"
ckan()
"""
#: where a command is killed, and whether all is as it was then afterwards
_STEPS = [
    ("engine.postgres.beside", "make", "after", False),
    ("engine.uploads.exchanged", "lay_down", "after", False),
    ("records.bring", "Bringing.put", "after", False),
    ("engine.postgres.beside", "exchange", "before", False),
    ("engine.uploads.exchanged", "forward", "before", False),
    ("engine.uploads.exchanged", "forward", "after", False),
    ("records.bring", "Bringing.commit", "before", False),
    ("records.bring", "Bringing.commit", "after", True),
]


def killed(portal: Portal, where: str, name: str, when: str, *words: str) -> None:
    done = forked.run(
        [sys.executable, "-c", _KILL, where, name, when, "-c", str(portal.ini), "db",
         *words, "--yes"],
        env=portal.environment, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr


def test_killed_anywhere_it_is_as_before_or_as_it_was_then(full: Portal) -> None:
    then = _all(full)
    purge(full)
    before = _all(full)
    for where, name, when, on in _STEPS:
        killed(full, where, name, when, "restore", "latest", "--dataset", NAME)
        said = full.module("prune").stderr
        assert _all(full) == (then if on else before), (where, name, when)
        assert not [*full.storage.glob(".dbm_*_scratch")], (where, name, when)
        assert on == ("has been completed" in said), said
    assert NAME in full.sql("SELECT name FROM package WHERE id = 'id-3'")[0]
    full.db("undo", "--yes")
    assert _all(full) == before
    assert len(_schemas(full)) == 1


def test_a_killed_undo_is_done_or_can_be_done_again(full: Portal) -> None:
    then = _all(full)
    purge(full)
    before = _all(full)
    bring(full, "--dataset", NAME)
    for where, name, when, on in _STEPS[3:]:
        killed(full, where, name, when, "undo")
        full.module("prune")
        assert _all(full) == (before if on else then), (where, name, when)
    full.db("undo", "--yes")
    assert _all(full) == then


def _all(portal: Portal) -> list:
    state = portal.state()
    return [
        portal.sql(f"SELECT name, title, private FROM package WHERE id = '{ID}'"),
        portal.sql(
            "SELECT id, name, url FROM resource WHERE package_id = 'id-3'"
            " AND state = 'active' ORDER BY 1"
        ),
        portal.sql("SELECT id, resource_id FROM resource_view ORDER BY id"),
        state["uploads"],
        {k: v for k, v in state.items() if k.startswith("datastore:")},
    ]
