"""Uploads are backed up once, and read until they hold still."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from ...support.portal import UPLOADS, Portal
from ...support.uploads import LAST, listed, objects
from ...support.waiting import wait_until


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
    os.setpriority(os.PRIO_PROCESS, process.pid, 19)  # so that we are not too late
    wait_until(lambda: list(portal.repository.glob(".*objects.partial/*/*")))
    os.kill(process.pid, signal.SIGSTOP)
    grown, gone, linked = upload / "02990", upload / "02991", upload / "02992"
    grown.write_bytes(b"grown")
    gone.unlink()
    linked.unlink()
    linked.symlink_to("/etc/passwd")
    os.kill(process.pid, signal.SIGCONT)
    out, said = process.communicate(timeout=300)
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
        process = portal.start("backup")
        # whoever writes has its turn before the one that reads
        os.setpriority(os.PRIO_PROCESS, process.pid, 19)
        _, said = process.communicate(timeout=300)
    finally:
        writer.kill()
        writer.wait()
    assert process.returncode == 0 and "changed whenever it was read" in said
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
