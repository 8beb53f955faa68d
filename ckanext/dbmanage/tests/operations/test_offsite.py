"""Backups to another place and back, as an operator does it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.clock import id_stamp, parse_id
from ckanext.dbmanage.engine.offsite.look import remember, remembered

from ..support.offsite import SECRET, packs, restic, served, set_remote, snapshots
from ..support.portal import Portal


def _journal(portal: Portal) -> list[dict[str, object]]:
    text = (portal.repository / "journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_there_and_back(portal: Portal, tmp_path: Path) -> None:
    before, there = portal.state(), str(tmp_path / "there")
    set_remote(portal, there)
    assert [each["where"] for each in portal.backups()] == []
    first = portal.backup().name
    assert portal.backups()[0]["where"] == ["here"]
    told = portal.module("push")
    assert f"{first}  copied" in told.stdout
    assert "Write down" in told.stderr and there in told.stderr
    assert "stages: push, compare" in told.stderr
    again = portal.module("push", "--json")
    assert json.loads(again.stdout) == []
    portal.backup("--only", "database")
    listed = portal.module("backups")
    where = [re.split(r" {2,}", line)[1] for line in listed.stdout.splitlines()]
    assert where == ["WHERE", "here", "here, there"]
    assert f"there: {there}, as seen" in listed.stderr
    (shown,) = snapshots(there)
    assert shown["hostname"] == portal.options["ckan.site_id"]
    # API tokens and sessions hang on what is in there
    along = restic(there, "dump", "latest", "/site/ckan.ini")
    assert along == portal.ini.read_text()
    assert not (portal.repository / "site").exists()
    done = [e for e in _journal(portal) if e.get("what") == "push"]
    assert [e["event"] for e in done] == ["took", "done"]
    assert done[1]["operation"] == first

    shutil.rmtree(portal.repository)
    portal.damage()
    ini = portal.ini.read_bytes()
    told = portal.module("restore", first, "--yes", "--no-backup")
    assert "stages: pull, verify" in told.stderr
    assert portal.state() == before
    assert portal.ini.read_bytes() == ini
    shown = json.loads(portal.module("backups", first, "--json").stdout)
    assert shown[0]["where"] == ["here", "there"]
    assert "pull" in {e.get("what") for e in _journal(portal)}


def test_what_is_only_there_is_listed(portal: Portal, tmp_path: Path) -> None:
    set_remote(portal, str(tmp_path / "there"))
    first = portal.backup("--only", "files").name
    portal.module("push", first)
    # somebody who has the password adds another one of the same id and time
    moment = snapshots(str(tmp_path / "there"))[0]["time"]
    forged = ["--time", moment[:19].replace("T", " "), "--tag", f"dbmanage,{first}"]
    host = ["--host", portal.options["ckan.site_id"]]
    restic(str(tmp_path / "there"), "backup", str(portal.ini), *forged, *host)
    shutil.rmtree(portal.repository)
    found = json.loads(portal.module("backups", "--remote", "--json").stdout)
    assert [(each["id"], each["where"]) for each in found] == [(first, ["there"])]
    # nobody is asked anew
    set_remote(portal, str(tmp_path / "nowhere"))
    assert f"{first}  there  remote" in portal.module("backups").stdout
    set_remote(portal, str(tmp_path / "there"))
    # whichever of the two restic names first
    assert portal.module("pull", "latest", "--quiet").stdout.strip() == first
    assert portal.backups()[0]["state"] == "verified"


def test_a_copy_that_was_bad_once_is_looked_at_when_there_is_no_other(
    portal: Portal, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    set_remote(portal, str(there))
    first = portal.backup().name
    portal.module("push", "--quiet")
    _, repository = portal.engine()
    (shown,) = snapshots(str(there))
    seen = remembered(repository)
    remember(repository, replace(seen, bad=[str(shown["id"])], whole={}))
    shutil.rmtree(portal.repository / first)
    assert portal.module("pull", first, "--quiet").stdout.strip() == first


def test_a_backup_under_another_id_is_not_proven_and_pushes_none_out(
    portal: Portal, tmp_path: Path
) -> None:
    """Who may write there signs nothing, but finds what was signed before."""
    there, made = tmp_path / "there", tmp_path / "made"
    set_remote(portal, str(there))
    first = portal.backup().name
    portal.module("push")
    later = parse_id(first) + timedelta(seconds=1)
    shutil.copytree(portal.repository, made)
    (made / first).rename(made / id_stamp(later))
    restic(
        str(there), "backup", id_stamp(later), "objects", "--host",
        portal.options["ckan.site_id"], "--tag", "dbmanage", "--tag", id_stamp(later),
        "--time", f"{later:%Y-%m-%d %H:%M:%S}", cwd=made,
    )  # fmt: skip
    failed = portal.module("verify", "--remote", id_stamp(later), "--prove", code=1)
    assert "not proven at the other place" in failed.stdout
    assert "secret for this id" in failed.stdout
    shutil.rmtree(portal.repository / first)
    said = portal.module("prune", "--remote", "--dry-run").stdout.splitlines()
    told = {line.split()[0]: line for line in said}
    assert "never touched" in told[id_stamp(later)]
    assert "never touched" not in told[first]


def test_verified_and_proven_there(portal: Portal, tmp_path: Path) -> None:
    there = tmp_path / "there"
    set_remote(portal, str(there))
    first = portal.backup().name
    portal.module("push")
    for options in ([], ["--sample", "50%"], ["--sample", "50%"], ["--prove"]):
        said = portal.module("verify", "--remote", *options).stdout
        word = "proven" if options == ["--prove"] else "verified"
        assert said == f"{first}  {word} at the other place\n"
    for pack in packs(there):
        pack.unlink()
    failed = portal.module("verify", "--remote", code=1)
    assert failed.stdout.startswith(f"{first}  damaged at the other place\n")
    events = [e["event"] for e in _journal(portal) if e.get("what") == "verify"]
    assert events[-1] == "found damage"
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("Error: ")
    assert not portal.copies()


def test_two_sites_of_one_name(
    make_portal: Callable[..., Portal], tmp_path: Path
) -> None:
    one, two = make_portal(), make_portal({"SECRET_KEY": "another one"})
    two.write(**{"ckan.site_id": one.options["ckan.site_id"]})
    for portal in (one, two):
        set_remote(portal, str(tmp_path / "there"))
        portal.backup("--only", "files")
    one.module("push")
    for command in (["push"], ["prune", "--remote"]):
        said = two.module(*command, code=1).stderr
        assert "not signed by this site" in said and "a repository of its own" in said
    assert len(snapshots(str(tmp_path / "there"))) == 1


def test_a_place_that_is_gone(portal: Portal, tmp_path: Path) -> None:
    """An empty mount point is no reason to begin anew on the disk below it."""
    there = tmp_path / "there"
    set_remote(portal, str(there))
    portal.backup("--only", "files")
    portal.module("push")
    shutil.rmtree(there)
    said = portal.module("push", code=1).stderr
    assert "Is its disk there?" in said and not there.exists()
    assert _journal(portal)[-1]["event"] == "failed"
    command = said.partition("push again: `")[2].partition("`")[0]
    assert os.system(f"{command} >/dev/null") == 0  # noqa: S605
    assert "copied" in portal.module("push").stdout


def test_a_place_that_appends_only(portal: Portal, tmp_path: Path) -> None:
    with served(tmp_path, "--append-only") as address:
        set_remote(portal, address, keep_daily="0", keep_weekly="0", keep_monthly="0")
        portal.write(**{"ckanext.dbmanage.remote.keep_last": "1"})
        ids = []
        for _ in range(2):
            ids.append(portal.backup("--only", "files").name)
        portal.module("push")
        portal.module("forget", ids[0], "--yes")
        done = portal.module("prune", "--remote")
        assert f"{ids[0]}  keep    kept there: the place lets nobody" in done.stdout
        assert json.loads(portal.module("prune", "--remote", "--json").stdout) == {
            "backups": [
                {"id": ids[1], "forget": False, "reason": "the last 1, it is here too"},
                {"id": ids[0], "forget": True, "reason": "no rule"},
            ],
            "kept_there": True,
        }
    assert len(snapshots(str(tmp_path / "portal"))) == 2


def test_nothing_is_deleted_while_a_backup_is_copied(portal: Portal) -> None:
    name = portal.backup("--only", "files").name
    _, repository = portal.engine()
    with repository.sending("push"):
        for command in (["prune"], ["forget", name, "--newest", "--yes"]):
            said = portal.module(*command, code=1).stderr
            assert "is in use: push, process" in said
        portal.backup("--only", "files")


def test_secrets_that_others_may_read_are_refused(
    portal: Portal, tmp_path: Path
) -> None:
    assert "no other place is set" in portal.module("push", code=1).stderr
    set_remote(portal, str(tmp_path / "there"))
    password = portal.directory / "restic.password"
    password.chmod(0o640)
    assert f"`chmod 600 {password}`" in portal.module("push", code=1).stderr
    password.chmod(0o600)
    variables = tmp_path / "restic.env"
    variables.write_text("AWS_SECRET_ACCESS_KEY=hidden\nLD_PRELOAD=/x.so\n")
    variables.chmod(0o600)
    portal.write(**{"ckanext.dbmanage.remote.env_file": str(variables)})
    said = portal.module("push", code=1).stderr
    assert "line 2 of" in said and "hidden" not in said and "/x.so" not in said


def test_restic_s_own_variables(portal: Portal, tmp_path: Path) -> None:
    portal.backup("--only", "files")
    own = {"RESTIC_REPOSITORY": str(tmp_path / "there"), "RESTIC_PASSWORD": SECRET}
    assert "copied" in portal.module("push", env=own).stdout
    text = (portal.repository / "journal.jsonl").read_text()
    assert SECRET not in text
    assert SECRET not in (portal.repository / ".remote.json").read_text()


@pytest.mark.parametrize("command", ["push", "pull", "prune"])
def test_killed_at_any_moment(portal: Portal, tmp_path: Path, command: str) -> None:
    chance = random.Random(command)
    there = str(tmp_path / "there")
    set_remote(portal, there, keep_daily="0", keep_weekly="0", keep_monthly="0")
    ids = [portal.backup("--only", "files").name for _ in range(2)]
    portal.module("push", ids[0])
    if command != "push":
        portal.module("push")
        shutil.rmtree(portal.repository / ids[0])
    arguments = {"push": [], "pull": [ids[0]], "prune": ["--remote"]}[command]
    for _ in range(int(os.environ.get("DBMANAGE_KILLS", "2"))):
        with portal.start(command, *arguments) as process:
            time.sleep(chance.uniform(0.2, 4))
            process.send_signal(signal.SIGKILL)
    names = {each["id"] for each in portal.backups() if each["where"] != ["there"]}
    assert names <= set(ids)
    portal.module(command, *arguments)
    portal.module("push")
    assert "verified" in portal.module("verify", "--remote", "--sample", "100%").stdout
    assert not list(portal.repository.glob(".*.partial"))
    assert not (portal.repository / "site").exists()
    if command == "pull":
        assert portal.module("verify", ids[0]).stdout == f"{ids[0]}  verified\n"
