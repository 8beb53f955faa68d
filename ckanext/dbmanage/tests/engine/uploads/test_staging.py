"""Uploads are backed up once, checked, and brought back with the databases."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.errors import Damaged, Refused
from ckanext.dbmanage.engine.redis.maintenance import Maintenance
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.engine.uploads.folders import folders_of
from ckanext.dbmanage.engine.uploads.listing import Listing, checked
from ckanext.dbmanage.engine.uploads.staging import room

from ...support.portal import UPLOADS, Portal, refused
from ...support.waiting import end_group, wait_until

LAST = "resources/upl/oad/-5"


def listed(path: Path) -> list[dict]:
    text = (path / "files.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def objects(portal: Portal) -> list[Path]:
    return [p for p in (portal.repository / "objects").rglob("*") if p.is_file()]


# --------------------------------------------------------------------- the backup


def test_every_upload_is_listed_and_stored_once(portal: Portal) -> None:
    (portal.storage / "resources" / "upl" / "oad" / "twin").write_bytes(b"a,b\n1,2\n")
    (portal.storage / "webassets").mkdir()
    (portal.storage / "webassets" / "made-anew.css").write_text("")
    path = portal.backup()
    lines = listed(path)
    assert {line["path"]: line["sha256"] for line in lines} == portal.uploads()
    for line in lines:
        status = (portal.storage / line["path"]).stat()
        assert line["size"] == status.st_size and line["inode"] == status.st_ino
        content = portal.repository / "objects" / line["sha256"][:2] / line["sha256"]
        assert hashlib.sha256(content.read_bytes()).hexdigest() == line["sha256"]
        assert content.stat().st_mode & 0o777 == 0o600
    assert len(objects(portal)) == UPLOADS + 1  # the twin is one of the five contents
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["files"]["count"] == UPLOADS + 2
    assert manifest["files"]["missing"] == 0


def test_unchanged_uploads_are_not_read_again(portal: Portal) -> None:
    portal.backup()
    upload = portal.storage / LAST
    # the same content by another name of its disk: times tell, nothing is read
    status = upload.stat()
    before = {p: p.stat().st_mtime_ns for p in objects(portal)}
    manifest = json.loads((portal.backup() / "manifest.json").read_text())
    assert manifest["files"]["read"] == 0
    assert {p: p.stat().st_mtime_ns for p in objects(portal)} == before
    # one byte changed, size and time of change as they were: ctime tells
    upload.write_bytes(upload.read_bytes().replace(b"1", b"7"))
    os.utime(upload, ns=(status.st_atime_ns, status.st_mtime_ns))
    path = portal.backup()
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["files"]["read"] == 1
    assert {line["path"]: line["sha256"] for line in listed(path)} == portal.uploads()


def test_a_content_that_is_gone_is_stored_again(portal: Portal) -> None:
    portal.backup()
    shutil.rmtree(portal.repository / "objects")
    portal.backup()
    assert len(objects(portal)) == UPLOADS + 1
    portal.module("verify", "latest")
    # and one that was changed, as soon as its upload is read again
    content = max(objects(portal), key=lambda p: p.stat().st_size)
    content.write_bytes(b"X" * content.stat().st_size)
    portal.module("verify", "latest", code=1)
    (portal.storage / LAST).touch()
    portal.backup()
    portal.module("verify", "latest")


def test_links_special_files_and_missing_uploads_are_named(portal: Portal) -> None:
    resources = portal.storage / "resources"
    (resources / "link").symlink_to("/etc/passwd")
    (resources / "directory-link").symlink_to("/etc")
    os.mkfifo(resources / "pipe")
    with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(resources):
        unix.bind("socket")  # the path of a socket has at most 107 bytes
    (portal.storage / LAST).unlink()
    done = portal.module("backup", code=1)  # for the directory
    path = portal.repository / done.stdout.strip()
    for name in ("link", "directory-link", "pipe", "socket"):
        assert f"resources/{name}' is" in done.stderr
    assert f"'{LAST}' is named by the database, but the disk lacks it" in done.stderr
    odd = {line["path"]: line for line in listed(path) if "sha256" not in line}
    assert odd[LAST] == {"path": LAST, "missing": True}
    assert odd["resources/link"]["refused"] == "a link"
    portal.module("verify", "latest")
    assert "missing" in portal.module("backups", "latest").stdout


def test_a_file_that_changes_meanwhile_is_read_again(portal: Portal) -> None:
    """Grown, replaced by a link, deleted: while the backup reads thousands of others."""
    upload = portal.storage / "resources" / "zzz"
    upload.mkdir()
    for number in range(3000):
        (upload / f"{number:05}").write_bytes(os.urandom(2000))
    process = portal.start("backup")
    wait_until(lambda: list(portal.repository.glob(".*objects.partial/*/*")))
    os.kill(process.pid, signal.SIGSTOP)
    grown, gone, linked = upload / "02990", upload / "02991", upload / "02992"
    grown.write_bytes(b"grown")
    gone.unlink()
    linked.unlink()
    linked.symlink_to("/etc/passwd")
    os.kill(process.pid, signal.SIGCONT)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    lines = {line["path"]: line for line in listed(portal.repository / out.strip())}
    assert lines["resources/zzz/02990"]["size"] == 5
    assert "resources/zzz/02991" not in lines
    assert lines["resources/zzz/02992"] == {
        "path": "resources/zzz/02992", "refused": "a link",
    }  # fmt: skip
    portal.module("verify", "latest")


def test_a_file_that_never_holds_still_is_named(portal: Portal) -> None:
    upload = portal.storage / "resources" / "log"
    upload.write_bytes(b"long enough to be caught" * 2_000_000)
    writer = subprocess.Popen(
        ["sh", "-c", 'while :; do echo line >>"$0"; done', upload]
    )
    try:
        done = portal.module("backup")
    finally:
        writer.kill()
        writer.wait()
    assert "changed whenever it was read" in done.stderr
    portal.module("verify", "latest")


def test_a_storage_elsewhere_is_said_loudly(portal: Portal, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "sub").mkdir(parents=True)
    (other / "sub" / "file").write_text("elsewhere")
    portal.write(
        **{
            "ckan.files.storage.archive.type": "ckan:fs",
            "ckan.files.storage.archive.path": str(other),
            "ckan.files.storage.cloud.type": "file_keeper:s3",
            "ckan.files.storage.cloud.bucket": "b",
        }
    )
    done = portal.module("backup")
    assert "the storage 'cloud' (file_keeper:s3) is on no local disk" in done.stderr
    path = portal.repository / done.stdout.strip()
    assert "@archive/sub/file" in [line["path"] for line in listed(path)]
    assert "cloud" in portal.module("backups", "latest").stdout
    (other / "sub" / "file").write_text("changed")
    portal.module("restore", "latest", "--only", "files", "--yes", "--no-backup")
    assert (other / "sub" / "file").read_text() == "elsewhere"


def test_the_disk_is_full_while_contents_are_written(
    portal: Portal, small_disk
) -> None:
    disk = small_disk("4M")
    portal.write(**{"ckanext.dbmanage.repository": str(disk / "backups")})
    (portal.storage / "resources" / "big").write_bytes(os.urandom(6_000_000))
    done = portal.module("backup", code=1)
    assert "No space left" in done.stderr and "nothing of it was kept" in done.stderr
    assert not list((disk / "backups").glob("*/*"))
    assert not list((disk / "backups").glob(".*.partial"))


# --------------------------------------------------------------------- the restore


@pytest.mark.smoke
def test_uploads_come_back_with_the_databases(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    mode = (portal.storage / "resources").stat().st_mode
    portal.damage()
    damaged = portal.state()
    done = portal.module("restore", "latest", "--yes")
    assert portal.state() == before
    assert (portal.storage / "resources").stat().st_mode == mode
    # what was replaced is in the backup that the restore took
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert portal.state() == damaged
    assert "restored database and datastore and files" in done.stdout


def test_uploads_alone(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    oids = portal.oids()
    portal.damage()
    portal.module("restore", "latest", "--only", "files", "--yes")
    assert portal.uploads() == before["uploads"]
    assert portal.oids() == oids
    assert portal.state() != before
    taken = portal.backups()[0]
    assert taken["parts"] == ["files"]
    portal.module("undo", "--yes")
    assert portal.uploads() != before["uploads"]


def test_times_survive(portal: Portal) -> None:
    upload = portal.storage / LAST
    os.utime(upload, (1_600_000_000, 1_600_000_000.5))
    portal.backup()
    upload.unlink()
    portal.module("restore", "latest", "--only", "files", "--yes", "--no-backup")
    assert upload.stat().st_mtime == 1_600_000_000.5


def test_a_mount_and_a_link_stay_where_they_are(portal: Portal, small_disk) -> None:
    """`resources` on a disk of its own, `storage` a link to yet another."""
    disk, other = small_disk("20M"), small_disk("20M")
    before = portal.uploads()
    for name, place in (("resources", disk), ("storage", other)):
        shutil.copytree(portal.storage / name, place / name)
        shutil.rmtree(portal.storage / name)
    (portal.storage / "resources").mkdir()
    subprocess.run(
        ["mount", "--bind", disk / "resources", portal.storage / "resources"],
        check=True,
    )
    (portal.storage / "storage").symlink_to(other / "storage")

    def uploads() -> dict[str, str]:
        return {
            str(Path(top, name).relative_to(portal.storage)): hashlib.sha256(
                Path(top, name).read_bytes()
            ).hexdigest()
            for top, _, names in os.walk(portal.storage, followlinks=True)
            for name in names
            if "dbmanage" not in top and ".dbm" not in top
        }

    try:
        assert uploads() == before
        portal.backup()
        (portal.storage / LAST).write_bytes(b"damaged")
        shutil.rmtree(other / "storage" / "uploads")
        portal.module("restore", "latest", "--no-backup", "--yes")
        assert uploads() == before
        portal.module("undo", "--yes")
        assert uploads() != before
        portal.module("undo", "--yes")
        assert uploads() == before
        assert os.path.ismount(portal.storage / "resources")
        assert (portal.storage / "storage").is_symlink()
    finally:
        subprocess.run(["umount", portal.storage / "resources"], check=True)


def test_a_link_to_what_is_another_s_is_not_followed(portal: Portal) -> None:
    """CKAN's user must not be able to make root rename what is not CKAN's."""
    other = portal.directory / "other"
    other.mkdir()
    (other / "secret").write_text("secret")
    os.chown(other, 1234, 1234)
    (portal.storage / "link").symlink_to(other)
    done = portal.module("backup", code=1)
    assert "'link' is a link: not included" in done.stderr
    portal.module("restore", "latest", "--only", "files", "--yes", "--no-backup")
    assert sorted(other.iterdir()) == [other / "secret"]
    assert (portal.storage / "resources").stat().st_uid == 0
    assert (portal.storage / "link").is_symlink()


@pytest.mark.smoke
def test_a_changed_content_is_found_before_anything_is_touched(portal: Portal) -> None:
    path = portal.backup()
    (line,) = [line for line in listed(path) if line["path"] == LAST]
    content = portal.repository / "objects" / line["sha256"][:2] / line["sha256"]
    content.chmod(0o600)
    whole = content.read_bytes()
    content.write_bytes(whole[:-1] + b"X")
    done = portal.module("verify", "latest", code=1)
    assert LAST in done.stdout and "was changed" in done.stdout
    assert LAST in refused(portal, "latest")
    content.unlink()
    assert LAST in portal.module("verify", "latest", code=1).stdout
    content.symlink_to("/etc/passwd")
    assert "not a plain file" in portal.module("verify", "latest", code=1).stdout
    assert LAST in refused(portal, "latest")
    assert not list(portal.storage.glob(".dbm_*"))


def test_no_room_is_said_before_anything_is_touched(portal: Portal, small_disk) -> None:
    (portal.storage / "resources" / "big").write_bytes(os.urandom(3_000_000))
    portal.backup()
    disk = small_disk("1M")
    portal.write(
        **{
            "ckanext.dbmanage.repository": str(portal.repository),
            "ckan.storage_path": str(disk),
        }
    )
    done = portal.module("restore", "latest", "--yes", code=1)
    assert "are free: make room" in done.stderr
    assert not list(disk.iterdir())


def test_one_upload_is_fetched_by_its_path(portal: Portal, tmp_path: Path) -> None:
    path = portal.backup()
    whole = (portal.storage / LAST).read_bytes()
    (portal.storage / LAST).unlink()
    done = portal.module("backups", "latest", "--fetch", LAST, text=False)
    assert done.stdout == whole
    out = tmp_path / "out.csv"
    portal.module("backups", path.name, "--fetch", LAST, "-O", str(out))
    assert out.read_bytes() == whole and out.stat().st_mode & 0o777 == 0o600
    done = portal.module("backups", "latest", "--fetch", "../../etc/passwd", code=1)
    assert "holds no upload" in done.stderr


# ------------------------------------------------------------------ hostile lists


def line(path: str, **facts: object) -> dict:
    about = {"size": 1, "mtime": 1.0, "ctime_ns": 1, "inode": 1}
    return {"path": path} | about | {"sha256": "0" * 64} | facts


@pytest.mark.parametrize(
    "lines",
    [
        [line("/etc/passwd")],
        [line("a/../../b")],
        [line("a//b")],
        [line("./a")],
        [line("a\0b")],
        [line("a" * 5000)],
        [line("/".join(["a"] * 3000))],
        [line("b"), line("a")],
        [line("a"), line("a")],
        [line("a"), line("a/b")],
        [line("dbmanage/backups/x")],
        [line(".dbm_00000000_undo/x")],
        [line("a", sha256="../../../etc/passwd")],
        [line("a", size=-1)],
        [line("a", size=True)],
        [line("a", sha256=None)],
        [{"path": 1}],
        [[]],
        [None],
    ],
)
def test_a_poisoned_list_is_refused(lines: list, tmp_path: Path) -> None:
    path = tmp_path / "files.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(Damaged), path.open("rb") as file:
        list(checked(file))


def test_a_storage_that_is_not_here_has_no_place(tmp_path: Path) -> None:
    path = tmp_path / "files.jsonl"
    content = json.dumps(line("@nosuch/a")).encode() + b"\n"
    path.write_bytes(content)
    sum = hashlib.sha256(content).hexdigest()
    among = folders_of({"": str(tmp_path)}, tmp_path / "repository")
    with pytest.raises(Refused, match="@nosuch"):
        room(Listing(path, len(content), sum), tmp_path, among)


def test_a_poisoned_list_of_a_foreign_backup(portal: Portal) -> None:
    path = portal.backup()
    text = (path / "files.jsonl").read_text()
    (path / "files.jsonl").write_text(
        text.replace('"resources/upl/oad/-1"', '"resources/../../escaped"')
    )
    manifest = json.loads((path / "manifest.json").read_text())
    content = (path / "files.jsonl").read_bytes()
    manifest["contents"]["files.jsonl"] = {
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    written = dumped(sign(manifest, "somebody else's secret", "manifest"))
    (path / "manifest.json").write_bytes(written)
    names = sorted([*manifest["contents"], "manifest.json"])
    (path / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n"
            for name in names
        )
    )
    said = refused(portal, "latest", "--trust")
    assert "line 1 names 'resources/../../escaped'" in said
    assert not list(portal.storage.parent.rglob("escaped"))


@pytest.mark.timeout(300)
def test_a_million_lines_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "files.jsonl"
    with path.open("w") as out:
        for number in range(1_000_000):
            out.write(json.dumps(line(f"resources/{number:07}")) + "\n")
    script = (
        "import resource, sys, pathlib;"
        "from ckanext.dbmanage.engine.uploads import listing;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "file = pathlib.Path(sys.argv[1]).open('rb');"
        "assert sum(1 for _ in listing.checked(file)) == 10 ** 6;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8_000  # KB


# ---------------------------------------------------------------------------- kills


@pytest.mark.parametrize("sign", ["switch", "undo directory"])
def test_killed_between_flag_and_flag_off(portal: Portal, sign: str) -> None:
    """Databases, uploads and flag agree afterwards, or the next command sees to it."""
    before = portal.state()
    portal.backup()
    portal.damage()
    damaged = portal.state()
    keeper = Maintenance(
        portal.options["ckan.redis.url"], make_url(portal.options["sqlalchemy.url"])
    )
    # read-only, draining, away, the renames, the commit, flag off: and the moment
    # that the first folder moves, to within a thousandth of a second
    moments = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
    if sign != "switch":
        moments = (0.0, 0.0, 0.001, 0.002, 0.004, 0.008)
    undo: set[Path] = set()
    for moment in moments:
        process = portal.start("restore", "latest", "--yes", "--no-backup")
        assert process.stderr is not None
        if sign == "switch":
            for said in process.stderr:
                if said.startswith("switch"):
                    break
        else:
            while process.poll() is None and not (
                set(portal.storage.glob(".dbm_*_undo")) - undo
            ):
                pass
        time.sleep(moment)
        end_group(process)
        time.sleep(0.3)  # the server may be at the last statement still
        done = portal.module("prune")  # any command that looks after what was left
        assert portal.state() in (before, damaged), done.stderr
        assert "no restore is half-way" in portal.module("doctor", code=None).stdout
        if portal.state() == before:
            portal.module("undo", "--yes")
        assert portal.state() == damaged
        undo = set(portal.storage.glob(".dbm_*_undo"))
    wait_until(lambda: keeper.status() is None, 13)
