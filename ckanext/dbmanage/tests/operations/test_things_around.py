"""One thing comes back into a portal that is not what it was then."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..support import forked
from ..support.portal import BIN, Portal
from ..support.things import ID, NAME, act, lines, purge, rich, seen

_TAGGED = f"""
INSERT INTO vocabulary (id, name) VALUES ('voc', 'genre');
INSERT INTO tag (id, name, vocabulary_id) VALUES ('tag-v', 'jazz', 'voc');
INSERT INTO package_tag (id, package_id, tag_id, state)
    VALUES ('pt-v', '{ID}', 'tag-v', 'active');
"""


@pytest.fixture
def full(portal: Portal) -> Portal:
    rich(portal)
    return portal


@pytest.mark.parametrize("heir", ["", "new"])
def test_a_vocabulary_that_is_gone_is_made_again(full: Portal, heir: str) -> None:
    full.sql(_TAGGED)
    full.backup()
    purge(full)
    full.sql("DELETE FROM package_tag WHERE tag_id = 'tag-v'")
    full.sql("DELETE FROM tag WHERE id = 'tag-v'; DELETE FROM vocabulary")
    if heir:
        full.sql(f"INSERT INTO vocabulary (id, name) VALUES ('{heir}', 'genre')")
    done = full.db("restore", "latest", "--dataset", NAME, "--yes")
    said = " ".join(done.stderr.split())
    assert ("the vocabulary 'genre' was gone: it is made again" in said) != bool(heir)
    assert full.sql("SELECT id, name FROM vocabulary") == [(heir or "voc", "genre")]
    tags = act(full, ("package_show", {"id": ID}))[0]["tags"]
    found = [each["vocabulary_id"] for each in tags if each["name"] == "jazz"]
    assert found == [heir or "voc"]
    if not heir:  # as the warning says
        full.db("undo", "--yes")
        assert full.sql(f"SELECT FROM package WHERE id = '{ID}'") == []
        assert full.sql("SELECT id FROM vocabulary") == [("voc",)]


def test_a_licence_that_is_not_known_any_more_comes_back(full: Portal) -> None:
    full.sql(f"UPDATE package SET license_id = 'gone-1.0' WHERE id = '{ID}'")
    full.backup()
    purge(full)
    full.db("restore", "latest", "--dataset", NAME, "--yes")
    shown = act(full, ("package_show", {"id": ID}))[0]
    assert shown["license_id"] == "gone-1.0"


@pytest.mark.parametrize("other", [NAME, "dataset-5"])
def test_of_two_at_once_each_is_done_or_refused(full: Portal, other: str) -> None:
    full.ckan("search-index", "rebuild", ID)
    full.backup()
    before = lines(seen(full))
    purge(full)
    other_id = other.replace("dataset", "id")
    if other != NAME:
        act(full, ("dataset_purge", {"id": other_id}))
    names = (NAME, other)
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda name: _restore(full, name), names))
    assert 0 in [each.returncode for each in both]
    for done, name in zip(both, names, strict=True):
        if done.returncode:
            assert "is in use: restore" in " ".join(done.stderr.split()), done.stderr
            assert _restore(full, name).returncode == 0
    rows = full.sql(f"SELECT name FROM package WHERE id = '{other_id}'")
    assert rows == [(other,)]
    assert lines(seen(full)) == before


def _restore(portal: Portal, name: str) -> subprocess.CompletedProcess:
    words = ["db", "restore", "latest", "--dataset", name, "--yes"]
    return forked.run(
        [str(BIN / "ckan"), "-c", str(portal.ini), *words],
        env=portal.environment,
        stdin=subprocess.DEVNULL,
        text=True,
    )
