"""A backup of another user's: not damaged, never touched, and in nobody's way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.cli.output import verdict
from ckanext.dbmanage.engine.errors import Denied, Refused
from ckanext.dbmanage.engine.layout import LIST
from ckanext.dbmanage.engine.objects import object_path
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.engine.uploads import contents
from ckanext.dbmanage.engine.uploads.listing import Listing
from ckanext.dbmanage.operations import retain
from ckanext.dbmanage.operations.allowed import unfit
from ckanext.dbmanage.operations.backup import verify_backups
from ckanext.dbmanage.operations.context import Portal, find_site
from ckanext.dbmanage.operations.prune import run_prune

from ..support.shelf import NOON, Shelf

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="is about two users")
OWNER = 33  # www-data
AsOwner = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that another user can come to; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shelf(place: Path) -> Shelf:
    """Four backups of CKAN's user, and one of root's among them."""
    shelf = Shelf(place / "backups")
    for days in range(5):
        shelf.add(NOON - timedelta(days=days), uploads=[b"%d" % days])
    return shelf


@pytest.fixture
def theirs(shelf: Shelf) -> str:
    return shelf.ids()[1]


@pytest.fixture
def as_owner(place: Path, shelf: Shelf, theirs: str) -> AsOwner:
    """CKAN's user at work in a repository of theirs."""
    subprocess.run(["chown", "-R", str(OWNER), place], check=True)
    subprocess.run(["chown", "-R", "0", shelf.path / theirs], check=True)

    @contextmanager
    def made() -> Iterator[None]:
        os.seteuid(OWNER)
        try:
            yield
        finally:
            os.seteuid(0)

    return made


@pytest.fixture
def portal(shelf: Shelf) -> Portal:
    return shelf.portal()


def test_it_is_listed_with_the_line_that_mends_it(
    shelf: Shelf, theirs: str, as_owner: AsOwner
) -> None:
    with as_owner():
        told = [each.describe() for each in shelf.repository.backups()]
    states = ["verified", "unreadable", "verified", "verified", "verified"]
    assert [each["state"] for each in told] == states
    (problem,) = told[1]["problems"]
    assert problem.startswith("cannot be read by the user www-data: ")
    assert f"{theirs} belongs to the user root" in problem
    line = re.findall(r"`(.+)`", problem)[0]
    assert line == f"sudo chown -R --from=root www-data {shelf.path}"
    subprocess.run(line.removeprefix("sudo ").split(), check=True)
    with as_owner():
        assert shelf.repository.find(theirs).describe()["state"] == "verified"


@pytest.mark.parametrize("what", ["manifest.json", "state", "database.list"])
def test_one_closed_file_is_enough(
    shelf: Shelf, theirs: str, as_owner: AsOwner, what: str
) -> None:
    path = shelf.path / theirs
    subprocess.run(["chown", "-R", str(OWNER), path], check=True)
    file = path / what if what != "state" else shelf.path / "state" / f"{theirs}.json"
    os.chown(file, 0, 0)
    file.chmod(0o600)
    with as_owner():
        found = shelf.repository.find(theirs)
        assert found.describe()["state"] == "unreadable"
        with pytest.raises(Denied, match=re.escape(str(file))):
            found.refuse_closed()


def test_who_it_is_closed_to_though_it_is_their_own(
    shelf: Shelf, as_owner: AsOwner
) -> None:
    name = shelf.ids()[0]
    (shelf.path / name).chmod(0)
    with as_owner():
        why = shelf.repository.find(name).closed
    assert f"`chmod -R u+rwX {shelf.path / name}`" in why


def test_verifying_all_goes_on_and_calls_it_no_damage(
    shelf: Shelf, theirs: str, as_owner: AsOwner, portal: Portal
) -> None:
    with as_owner():
        found = {
            b.id: verdict(p, False) for b, p in verify_backups(portal, None, False)
        }
        journal = shelf.repository.journal()
    assert list(found) == shelf.ids() and found[theirs] == "cannot be read"
    # the others are no true archives
    assert {v for name, v in found.items() if name != theirs} == {"damaged"}
    said = {e.operation: e.event for e in journal if e.text("what") == "verify"}
    assert said.pop(theirs) == "failed" and set(said.values()) == {"found damage"}
    # and nothing bad is remembered of it
    assert shelf.repository.find(theirs).describe()["state"] == "verified"


def test_an_upload_that_is_closed_is_no_damage_either(
    shelf: Shelf, as_owner: AsOwner, portal: Portal
) -> None:

    found = shelf.repository.find("latest")
    listing = Listing(found.path / LIST, 0, "")
    content = next(shelf.objects.rglob("?" * 64))
    content.chmod(0)
    facts = {"path": "a", "sha256": content.name, "size": content.stat().st_size}
    assert object_path(shelf.objects, content.name) == content
    for mode in (0o700, 0):  # the content, then its directory
        content.parent.chmod(mode)
        type(listing).lines, lines = (lambda _: iter([facts])), type(listing).lines
        try:
            with as_owner(), pytest.raises(PermissionError):
                list(contents.problems(listing, shelf.objects))
        finally:
            type(listing).lines = lines


def test_nothing_deletes_it_or_counts_it(
    shelf: Shelf, theirs: str, as_owner: AsOwner, portal: Portal
) -> None:
    with as_owner():
        decided = shelf.decide(last=2)
        assert decided[theirs].startswith("cannot be read by the user www-data")
        assert decided[theirs].endswith("; never touched")
        # not one of the two that are kept
        assert [i for i, why in decided.items() if why == "the last 2"] == [
            shelf.ids()[0], shelf.ids()[2],
        ]  # fmt: skip
        for act in (
            lambda: retain.forget(portal, [theirs], newest=[theirs]),
            lambda: retain.keep(portal, theirs, kept=True),
        ):
            with pytest.raises((Refused, Denied), match="chown -R --from=root"):
                act()
        site, repository = find_site(portal)
        with pytest.raises(Denied, match="chown"):
            open_source(site, repository, theirs)
        assert "cannot be read by" in unfit(portal.options, repository.find(theirs))
        pruned = shelf.prune(last=2)
    assert len(pruned.forgotten) == 2 and theirs in shelf.ids()
    # what it names is not known, so no content goes
    assert theirs in pruned.objects.problem and "chown" in pruned.objects.problem


def test_root_changes_nothing_in_the_storage_of_another_user(
    shelf: Shelf, theirs: str, as_owner: AsOwner, portal: Portal
) -> None:
    before = sorted((p, p.lstat().st_mtime_ns) for p in shelf.path.rglob("*"))
    for act in (
        lambda: retain.forget(portal, [theirs]),
        lambda: retain.keep(portal, theirs, kept=True),
        lambda: run_prune(portal, dry_run=False),
        lambda: list(verify_backups(portal, theirs, False)),
    ):
        with pytest.raises(Refused, match="sudo -u www-data "):
            act()
    assert sorted((p, p.lstat().st_mtime_ns) for p in shelf.path.rglob("*")) == before
