"""What was verified is what is used: lists, contents and archives that are swapped."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.archive.unpack import unpack
from ckanext.dbmanage.engine.backup import downloads
from ckanext.dbmanage.engine.errors import Changed, Damaged
from ckanext.dbmanage.engine.layout import LIST
from ckanext.dbmanage.engine.objects import add_objects, object_path
from ckanext.dbmanage.engine.report import Progress
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.uploads import capture, contents
from ckanext.dbmanage.engine.uploads.folders import Folder, folders_of
from ckanext.dbmanage.engine.uploads.listing import Listing, compare, of
from ckanext.dbmanage.engine.uploads.moves import moves_of
from ckanext.dbmanage.engine.uploads.staging import room, stage

from ...support.portal import Portal
from ...support.uploads import lines_of, write_lines


class Store:
    """A storage, a repository of contents, and lists of both; no database."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.storage = directory / "storage"
        self.storage.mkdir()
        self.objects = directory / "repository" / "objects"
        self.objects.parent.mkdir()
        self.number = 0

    def put(self, path: str, content: bytes) -> None:
        place = self.storage / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    @property
    def among(self) -> list[Folder]:
        return folders_of({"": str(self.storage)}, self.objects.parent)

    def take(
        self, previous: Listing | None = None, **options
    ) -> tuple[capture.Taken, Listing]:
        self.number += 1
        staged = self.directory / f"staged{self.number}"
        staged.mkdir()
        path = self.directory / f"{self.number}-{LIST}"
        found = capture.take(
            self.among, self.objects, path, staged, previous=previous, **options
        )
        add_objects(staged, self.objects)
        return found

    def stage(self, listed: Listing) -> Path:
        moves = moves_of(self.among, "0000abcd", "token")
        stage(listed, self.objects, self.among, moves)
        return self.storage / moves[0].scratch


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def swapped(listed: Listing, old: bytes, new: bytes) -> None:
    """Another list in its place, each line as well-formed as before."""
    lines = lines_of(listed.path)
    assert any(old in line for line in lines)
    other = listed.path.with_name("other")
    write_lines(other, [line.replace(old, new) for line in lines])
    other.replace(listed.path)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def test_a_list_that_was_swapped_lays_nothing_down_that_counts(store: Store) -> None:
    store.put("resources/a", b"mine")
    store.put("resources/b", b"evil")
    _, listed = store.take()
    swapped(listed, digest(b"mine"), digest(b"evil"))
    for use in (
        lambda: store.stage(listed),
        lambda: room(listed, store.objects, store.among),
        lambda: compare(store.among, listed),
        lambda: contents.fetch(listed, store.objects, "resources/a", io.BytesIO()),
    ):
        with pytest.raises(Damaged, match=r"files\.jsonl\.zst: was changed"):
            use()
    assert "was changed" in "".join(contents.problems(listed, store.objects))


def test_a_fetch_writes_nothing_of_a_swapped_list_or_content(store: Store) -> None:
    store.put("resources/a", b"mine")
    store.put("resources/b", b"evil")
    _, listed = store.take()
    place = object_path(store.objects, digest(b"mine").decode())
    place.write_bytes(b"evil")
    out = io.BytesIO()
    with pytest.raises(Damaged, match="resources/a"):
        contents.fetch(listed, store.objects, "resources/a", out)
    place.write_bytes(b"mine")
    swapped(listed, digest(b"mine"), digest(b"evil"))
    with pytest.raises(Damaged):
        contents.fetch(listed, store.objects, "resources/a", out)
    assert out.getvalue() == b""


def test_the_list_before_is_read_once_and_its_lines_count_when_it_was_whole(
    store: Store,
) -> None:
    """Else the next signed backup would name a content that no upload ever had."""
    store.put("resources/a", b"mine")
    store.put("resources/b", b"evil")
    _, listed = store.take()
    taken, again = store.take(listed)
    assert taken.read == 0
    # between the look that found it whole and its use
    swapped(listed, digest(b"mine"), digest(b"evil"))
    taken, again = store.take(listed)
    named = {line["path"]: line["sha256"] for line in again.lines()}
    assert named["resources/a"] == digest(b"mine").decode()
    assert (taken.read, taken.count) == (2, 2)
    for odd in (b"null\n", b"[" * 70_000, b'{"path": 1}\n', b""):
        listed.path.write_bytes(odd)
        assert [line["path"] for line in store.take(listed)[1].lines()] == [
            "resources/a",
            "resources/b",
        ]
    listed.path.unlink()
    assert store.take(listed)[0].count == 2


def test_the_sum_of_a_list_is_of_what_was_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another list in its place before it is summed up must not be signed."""
    store.put("resources/a", b"mine")
    store.put("resources/b", b"evil")
    reread = capture._reread

    def swapping(staged: Path, progress: Progress) -> int:
        size = reread(staged, progress)
        path = store.directory / f"1-{LIST}"
        swapped(Listing(path, 0, ""), digest(b"mine"), digest(b"evil"))
        return size

    monkeypatch.setattr(capture, "_reread", swapping)
    _, listed = store.take()
    with pytest.raises(Changed):
        list(listed.lines())


def test_a_list_that_is_no_plain_file_is_not_waited_for(store: Store) -> None:
    store.put("resources/a", b"mine")
    _, listed = store.take()
    kept = listed.path.rename(listed.path.with_name("kept"))
    listed.path.symlink_to(kept)
    with pytest.raises(OSError, match="is a link"):
        list(listed.lines())
    listed.path.unlink()
    import os

    os.mkfifo(listed.path)
    with pytest.raises(OSError, match="plain file"):
        list(listed.lines())
    assert store.take(listed)[0].count == 1


@pytest.fixture
def two(portal: Portal) -> tuple[Portal, Backup]:
    portal.backup()
    from ckanext.dbmanage.engine.repository.repository import Repository
    from ckanext.dbmanage.portal.site import build_site

    site = build_site(portal.settings)
    return portal, Repository(site.repository, site.secrets).find("latest")


def test_a_tar_breaks_off_at_what_is_not_the_backup_s(
    two: tuple[Portal, Backup],
) -> None:
    _, found = two

    def whole() -> bytes:
        entries = list(downloads.entries(found))
        size = sum(512 + e.size + -e.size % 512 for e in entries) + 1024
        tar, read = downloads.Tar(lambda: iter(entries), 0, size), b""
        while chunk := tar.read():
            read += chunk
        assert len(read) == size
        return read

    whole()
    for path, wrong in [
        (found.path / "SHA256SUMS", OSError),
        (found.path / "database.list", Damaged),
        (next(p for p in found.objects.rglob("*") if p.is_file()), OSError),
    ]:
        content = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(wrong, match="is not what it was|names no segment"):
            whole()
        path.write_bytes(content)
    swapped(of(found), b'"size": 8,', b'"size": 9,')
    with pytest.raises(Damaged):
        whole()


def test_a_fetch_looks_at_the_list_and_the_signature(
    two: tuple[Portal, Backup], tmp_path: Path
) -> None:
    portal, found = two
    out = tmp_path / "X"
    other = tmp_path / "X.partial"
    other.write_text("somebody's")
    path = "resources/upl/oad/-5"
    portal.module("backups", "latest", "--fetch", path, "-O", str(out))
    assert out.read_bytes() == (portal.storage / path).read_bytes()
    assert other.read_text() == "somebody's"
    listed = of(found)
    sums = {each["path"]: each["sha256"].encode() for each in listed.lines()}
    swapped(listed, sums[path], sums["resources/upl/oad/-4"])
    done = portal.module("backups", "latest", "--fetch", path, code=1)
    assert done.stdout == "" and "files.jsonl.zst: was changed" in done.stderr
    assert other.read_text() == "somebody's"
    # a manifest that says so too is nobody's word
    manifest = json.loads((found.path / "manifest.json").read_text())
    manifest["contents"][LIST]["sha256"] = hashlib.sha256(
        listed.path.read_bytes()
    ).hexdigest()
    (found.path / "manifest.json").write_text(json.dumps(manifest))
    done = portal.module("backups", "latest", "--fetch", path, code=1)
    assert done.stdout == "" and "is not signed" in done.stderr
    assert "--only files --trust" in done.stderr


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_what_is_loaded_is_what_was_verified(tmp_path: Path, suffix: str) -> None:
    import zstandard

    pack = zstandard.compress if suffix else bytes
    good, evil = pack(b"PGDMP good"), pack(b"PGDMP evil")
    packed = tmp_path / f"database.dump{suffix}"
    inside = tmp_path / "inside"
    inside.mkdir()
    packed.write_bytes(good)
    sum = hashlib.sha256(good).hexdigest()
    plain = unpack(File(packed, sum), inside, lambda *_: None)
    assert plain.parent == inside and plain.read_bytes() == b"PGDMP good"
    plain.unlink()
    packed.write_bytes(evil)
    with pytest.raises(Damaged, match="was changed"):
        unpack(File(packed, sum), inside, lambda *_: None)
