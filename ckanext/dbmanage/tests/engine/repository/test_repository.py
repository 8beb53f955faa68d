"""A repository with two hosts, a wrong clock, another's backups."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from ckanext.dbmanage.engine.clock import now, parse_id

from ...support.cluster import superuser
from ...support.portal import Portal
from ...support.waiting import wait_until


def test_what_another_site_wrote_breaks_no_listing(portal: Portal) -> None:
    path = portal.backup()
    for manifest in (
        {"format": 2, "files": {"bytes": "x", "included": True}, "versions": [1]},
        {"format": 2, "databases": {"database": []}, "note": "a\x1b[2Jb"},
        {"format": 2, "databases": {"x\n20260101T000000Z  proven": {}}},
    ):
        (path / "manifest.json").write_text(json.dumps(manifest))
        for arguments in (["backups"], ["backups", "latest"], ["backups", "--json"]):
            said = portal.module(*arguments).stdout
            assert "\x1b" not in said and "20260101T000000Z" not in said
        done = portal.module("doctor", code=1)
        assert "Traceback" not in done.stderr and "there is no verified" in done.stdout
    deep = '{"format": 2, "hmac": "x", "a": ' + "[" * 990 + "]" * 990 + "}"
    (path / "manifest.json").write_text(deep)
    portal.module("backups")


def test_the_clock_that_was_wrong_once(portal: Portal) -> None:
    """A backup of the future is shown as that, and the next one is of now."""
    path = portal.backup()
    future = path.with_name("20991231T235959Z")
    path.rename(future)
    done = portal.module("backup")
    name = done.stdout.strip()
    assert abs(parse_id(name) - now()) < timedelta(minutes=1)
    assert "20991231T235959Z has a date in the future" in done.stderr
    newest, ahead = portal.backups()
    assert (newest["id"], newest["future"]) == (name, False)
    assert (ahead["id"], ahead["future"]) == (future.name, True)
    assert "foreign, in the future" in portal.module("backups").stdout
    assert portal.module("backups", "latest").stdout.splitlines()[0].endswith(name)
    assert "has a date in the future" in portal.module("doctor", code=1).stdout
    portal.module("forget", future.name, "--yes")
    assert "in the future" not in portal.module("doctor").stdout


def test_two_hosts_with_one_repository(
    make_portal: Callable[..., Portal], tmp_path: Path
) -> None:
    """One at a time; contents are shared; each knows its own backups."""
    place = str(tmp_path / "shared")
    one = make_portal({"ckanext.dbmanage.repository": place})
    two = make_portal({"ckanext.dbmanage.repository": place, "SECRET_KEY": "two-99"})
    with closing(superuser(one.names["database"])) as holding:
        holding.autocommit = False
        holding.cursor().execute("LOCK TABLE tag")  # its dump waits for that
        busy = one.start("backup")
        lock = Path(place) / ".lock"
        wait_until(lambda: lock.exists() and f"process {busy.pid} " in lock.read_text())
        done = two.module("backup", code=1)
        assert f"is in use: backup, process {busy.pid} of " in done.stderr
    _, said = busy.communicate(timeout=300)
    assert busy.returncode == 0, said
    (first,) = one.backups()
    about = json.loads(two.module("backup", "--json").stdout)
    # of two portals with the same uploads each content is stored once
    assert about["added"]["files"] == 0 < first["added"]["files"]
    by_state = {b["state"] for b in json.loads(one.module("backups", "--json").stdout)}
    assert by_state == {"verified", "foreign"}
    one.module("prune")  # another site's are left alone, and so are their contents
    two.module("verify", "latest")
