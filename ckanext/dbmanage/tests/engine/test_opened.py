"""What is no plain file in a repository: links, pipes, devices, directories."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.backup import downloads
from ckanext.dbmanage.engine.backup.verify import problems_of
from ckanext.dbmanage.engine.disk import make_directories, write_file
from ckanext.dbmanage.engine.errors import Busy, DbmanageError, Refused
from ckanext.dbmanage.engine.opened import open_plain, read_plain
from ckanext.dbmanage.engine.repository import prune, retention
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.records import published

SECRET = "portal-secret-5fd1"
ID = "20261123T045500Z"
SITE = Site("site", "", "", {}, (SECRET,))
#: whoever waits for a pipe waits for ever
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one backup that holds nothing."""
    path = tmp_path / "backups"
    (path / ID).mkdir(parents=True)
    manifest = {
        "format": 2, "id": ID, "databases": {}, "contents": {},
        "files": {"included": False},
    }  # fmt: skip
    signed = dumped(sign(manifest, SECRET, "manifest"))
    (path / ID / "manifest.json").write_bytes(signed)
    digest = hashlib.sha256(signed).hexdigest()
    (path / ID / "SHA256SUMS").write_text(f"{digest}  manifest.json\n")
    found = Repository(str(path), (SECRET,))
    found.find(ID).remember(verified={"time": "now", "problems": []})
    return found


def link(path: Path) -> None:
    """To the same content elsewhere, so that only the link is wrong."""
    other = path.parent.parent / "elsewhere"
    other.write_bytes(path.read_bytes() if path.exists() else b"precious\n")
    path.unlink(missing_ok=True)
    path.symlink_to(other)


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return replace


STRANGE = [
    pytest.param(link, id="link"),
    pytest.param(instead(os.mkfifo), id="pipe"),
    pytest.param(instead(lambda path: path.symlink_to("/dev/zero")), id="device"),
    pytest.param(instead(Path.mkdir), id="directory"),
]


@pytest.mark.parametrize("strange", STRANGE)
def test_a_manifest_that_is_no_plain_file_is_damaged(
    repository: Repository, strange: Callable[[Path], None]
) -> None:
    strange(repository.path / ID / "manifest.json")
    found = repository.find(ID)
    assert found.describe()["state"] == "damaged"
    (problem,) = problems_of(found, SITE)
    assert problem.startswith("manifest.json: is ")
    (decision,) = retention.decide([found], dict.fromkeys(
        ("last", "days", "weeks", "months", "min"), 0))  # fmt: skip
    assert not decision.forget


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_known_of_a_backup_is_no_plain_file(
    repository: Repository, strange: Callable[[Path], None]
) -> None:
    state = repository.path / "state" / f"{ID}.json"
    strange(state)
    found = repository.find(ID)
    assert found.state() == {} and found.describe()["state"] == "unverified"


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", [".lock", "journal.jsonl"])
def test_nothing_is_written_to_what_is_no_plain_file(
    repository: Repository, name: str, strange: Callable[[Path], None]
) -> None:
    strange(repository.path / name)
    outside = repository.path.parent / "elsewhere"
    raised = pytest.raises((DbmanageError, OSError))
    with raised as failure, repository.lock("backup"):
        repository.record("x", "switch", pairs=[])
    assert name in str(failure.value)
    assert not outside.exists() or outside.read_bytes() == b"precious\n"
    assert repository.holder() == ""


@pytest.mark.parametrize("name", ["state", "exports", "objects"])
def test_a_directory_of_the_repository_is_no_link(
    repository: Repository, name: str, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    kept = (f"{ID}.json", f"{ID}.html", "datasets.jsonl.gz", ".datasets.partial",
            f".{ID}.json.1.partial")  # fmt: skip
    for file in kept:
        (theirs / file).write_text("precious")
    place = repository.path / name
    if place.exists():
        place.rename(tmp_path / "before")
    place.symlink_to(theirs)
    found = repository.find(ID)
    if name == "state":
        with pytest.raises(DbmanageError, match="no link to another"):
            found.remember(keep=True)
        with pytest.raises(OSError):
            write_file(place / f"{ID}.html", b"new")
    elif name == "exports":
        assert downloads.exports(repository) == []
        with pytest.raises(Refused):
            downloads.open_download(repository, "", "datasets.jsonl.gz")
        with pytest.raises(DbmanageError, match="no link"), repository.exports():
            pass
    forget = retention.Decision(found, True, "test")
    with repository.lock("prune"):
        prune.prune_backups(repository, [forget])
    assert {file.name: file.read_text() for file in theirs.iterdir()} == dict.fromkeys(
        kept, "precious"
    )


@pytest.mark.parametrize("strange", STRANGE)
def test_a_marker_is_a_plain_file(
    repository: Repository, strange: Callable[[Path], None]
) -> None:
    repository.mark("reindex", True)
    assert repository.marked("reindex")
    strange(repository.path / ".reindex")
    assert not repository.marked("reindex")
    repository.mark("reindex", False)


@pytest.mark.parametrize("strange", STRANGE)
def test_the_lock_of_the_public_dumps(
    tmp_path: Path, strange: Callable[[Path], None]
) -> None:
    directory = tmp_path / "public"
    directory.mkdir()
    strange(directory / ".lock")
    with pytest.raises(OSError), published.writing(directory):
        pass


def test_a_bound_on_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_plain(path, 10)
    assert read_plain(path, 11) == b"x" * 11
    with pytest.raises(OSError, match="not a plain file"):
        open_plain("/dev/zero")


def test_the_lock_still_works_and_says_whose_it_is(repository: Repository) -> None:
    with repository.lock("backup"):
        other = Repository(str(repository.path), (SECRET,))
        assert other.holder().startswith("backup, process ")
        with pytest.raises(Busy, match="is in use: backup"), other.lock("undo"):
            pass
    assert repository.holder() == ""


# ------------------------------------------------------------------- what an id is


def test_an_id_is_looked_up_in_the_repository_alone(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planted = tmp_path / ID
    planted.mkdir()
    for file in (repository.path / ID).iterdir():
        (planted / file.name).write_bytes(file.read_bytes())
    for name in (ID, "latest", "oldest"):
        (tmp_path / name).exists() or (tmp_path / name).symlink_to(planted)
        source = open_source(SITE, repository, name)
        assert source.backup and source.backup.path == repository.path / ID
    source = open_source(SITE, repository, f"./{ID}")
    assert source.backup and source.backup.path == planted
    (tmp_path / "a.dump").write_text("not this one")
    with pytest.raises(Refused, match=r"no backup 'a.dump' .* write ./a.dump"):
        open_source(SITE, repository, "a.dump")
    with pytest.raises(Refused, match="is not an archive"):
        open_source(SITE, repository, "./a.dump")


def test_digits_of_other_scripts_are_no_ids(repository: Repository) -> None:
    for name in ("٢٠٢٦١١٢٤T٠٤٥٥٠٠Z", "２０２６１１２４T045500Z"):
        (repository.path / name).mkdir()
        with pytest.raises(Refused):
            repository.find(name)
    assert repository.names() == [ID]


# --------------------------------------------------------------------------- modes


def test_no_directory_is_open_to_the_world_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        below = tmp_path / "a" / "dbmanage"
        found = Repository(str(below / "backups"), (SECRET,))
        with found.exports():
            found.mark("x", True)
        with published.writing(below / "public"):
            new = (below / "public" / ".next").stat().st_mode & 0o777
        make_directories(tmp_path / "b" / "c")
    finally:
        os.umask(before)
    assert new == 0o755
    for path in (tmp_path / "a", *(tmp_path / "a").rglob("*"), tmp_path / "b"):
        if path.is_dir():
            private = found.path in (path, *path.parents)
            assert oct(path.stat().st_mode & 0o777) == ("0o700" if private else "0o755")
        else:
            assert oct(path.stat().st_mode & 0o777) == "0o600"
