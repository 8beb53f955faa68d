"""A repository with two hosts, a wrong clock, another's backups."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from ...support.portal import UPLOADS, Portal, fill
from ...support.waiting import wait_until


def test_what_another_site_wrote_breaks_no_listing(portal: Portal) -> None:
    path = portal.backup()
    for manifest in (
        {"format": 1, "files": {"bytes": "x", "included": True}, "versions": [1]},
        {"format": 1, "databases": {"database": []}, "note": "a\x1b[2Jb"},
    ):
        (path / "manifest.json").write_text(json.dumps(manifest))
        for arguments in (["backups"], ["backups", "latest"], ["backups", "--json"]):
            assert "\x1b" not in portal.module(*arguments).stdout
        done = portal.module("doctor", code=1)
        assert "Traceback" not in done.stderr and "there is no verified" in done.stdout
    deep = '{"format": 1, "hmac": "x", "a": ' + "[" * 990 + "]" * 990 + "}"
    (path / "manifest.json").write_text(deep)
    portal.module("backups")


def test_the_clock_set_back(portal: Portal) -> None:
    """Ids go up whatever the clock says: the newest backup is the last."""
    path = portal.backup()
    future = path.with_name("20991231T235959Z")
    path.rename(future)
    done = portal.module("backup")
    assert done.stdout.strip() == "21000101T000000Z"
    assert "the clock stands before the newest backup" in done.stderr
    assert portal.backups()[0]["id"] == "21000101T000000Z"
    assert "has a time in the future" in portal.module("doctor", code=1).stdout


def test_two_hosts_with_one_repository(
    make_portal: Callable[..., Portal], tmp_path: Path
) -> None:
    """One at a time; contents are shared; each knows its own backups."""
    place = str(tmp_path / "shared")
    one = make_portal({"ckanext.dbmanage.repository": place})
    two = make_portal({"ckanext.dbmanage.repository": place, "SECRET_KEY": "two-99"})
    fill(one, 100_000)
    busy = one.start("backup")
    lock = Path(place) / ".lock"
    wait_until(lambda: lock.exists() and f"process {busy.pid} " in lock.read_text())
    os.kill(busy.pid, signal.SIGSTOP)
    done = two.module("backup", code=1)
    assert f"is in use: backup, process {busy.pid} of " in done.stderr
    os.kill(busy.pid, signal.SIGCONT)
    _, said = busy.communicate(timeout=120)
    assert busy.returncode == 0, said
    two.module("backup")
    contents = [p for p in (tmp_path / "shared" / "objects").rglob("*") if p.is_file()]
    assert len(contents) == UPLOADS + 1
    by_state = {b["state"] for b in json.loads(one.module("backups", "--json").stdout)}
    assert by_state == {"verified", "foreign"}
    one.module("prune")  # another site's are left alone, and so are their contents
    two.module("verify", "latest")
