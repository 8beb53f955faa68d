"""The whole night in one, and nights in which something goes wrong."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.engine.errors import Busy, DbmanageError
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations import nightly
from ckanext.dbmanage.operations.context import Portal as Context
from ckanext.dbmanage.operations.nights import (
    FAILED,
    STEPS,
    Night,
    Step,
    nights,
    remember,
)
from ckanext.dbmanage.portal.config import Options

from ..support.cluster import PG_BIN
from ..support.doors import web_server
from ..support.offsite import set_remote, snapshots
from ..support.portal import Portal, slowed
from ..support.shelf import Shelf
from ..support.waiting import wait_until


def _done(portal: Portal, *arguments: str, code: int = 0) -> dict[str, Any]:
    """A night by `python -m`; its report."""
    done = portal.module("nightly", "--json", *arguments, code=code)
    return json.loads(done.stdout)


def _results(report: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["result"] for each in report["steps"]}


def _said(report: dict[str, Any], name: str) -> str:
    return next(e["message"] for e in report["steps"] if e["name"] == name)


def test_a_night_does_all_that_is_set_and_due(portal: Portal, tmp_path: Path) -> None:
    there = str(tmp_path / "there")
    set_remote(portal, there)
    portal.db("publish", "-q")
    report = _done(portal)
    assert _results(report) == dict.fromkeys(STEPS, "done")
    (taken,) = portal.backups()
    assert taken["state"] == "proven" and taken["where"] == ["here", "there"]
    assert report["backup"] == taken["id"] and report["result"] == "done"
    assert {e["backup"] for e in report["steps"][:3]} == {taken["id"]}
    assert len(snapshots(there)) == 1
    # the next one proves nothing, for the proof is of today
    told = portal.db("nightly", "--quiet")
    lines = [line.split() for line in told.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        ["backup", "done"], ["prove", "nothing"], ["push", "done"], ["prune", "done"],
        ["publish", "done"],
    ]  # fmt: skip
    assert "again after 7 nights" in told.stdout and len(snapshots(there)) == 2
    journal = (portal.repository / "journal.jsonl").read_text().splitlines()
    noted = [e for e in map(json.loads, journal) if e.get("what") == "nightly"]
    assert [each["event"] for each in noted] == ["done", "done"]
    assert noted[0]["steps"] == report["steps"]
    _, repository = portal.engine()
    assert [len(each.steps) for each in nights(repository)] == [5, 5]


def test_what_would_run_it_is_shown_and_nothing_is_asked(portal: Portal) -> None:
    shown = portal.module("nightly", "--install")
    assert f"-c {portal.ini} nightly --quiet" in shown.stdout
    assert "nothing was written" in shown.stderr
    told = json.loads(portal.db("nightly", "--install", "--json").stdout)
    assert not told["written"] and all(text in shown.stdout for text in told["files"])
    assert "--yes is for --install" in portal.module("nightly", "--yes", code=2).stderr
    assert not portal.repository.exists()


def test_what_is_not_set_is_nothing_and_no_failure(portal: Portal) -> None:
    portal.write(**{"ckanext.dbmanage.prove_every": "0"})
    report = _done(portal)
    nothing = dict.fromkeys(("prove", "push", "publish"), "nothing")
    assert _results(report) == {"backup": "done", "prune": "done", **nothing}
    assert "prove_every is 0" in _said(report, "prove")


def test_the_steps_after_a_failed_one_run_unless_they_need_it(
    portal: Portal, tmp_path: Path
) -> None:
    set_remote(portal, str(tmp_path / "there"), keep_daily="0")
    portal.write(**{f"ckanext.dbmanage.keep_{r}": "0" for r in ("last", "daily")})
    portal.backup()
    portal.backup()
    bin = portal.options.get("ckanext.dbmanage.pg_bin", "")
    portal.write(**{"ckanext.dbmanage.pg_bin": str(tmp_path)})
    report = _done(portal, code=1)
    assert _results(report) == {
        "backup": "failed", "prove": "skipped", "push": "done", "prune": "done",
        "publish": "nothing",
    }  # fmt: skip
    assert "pg_dump" in _said(report, "backup")
    # no rule keeps the older one, but nothing newer came
    assert "none that is verified goes" in _said(report, "prune")
    assert len(portal.backups()) == len(snapshots(str(tmp_path / "there"))) == 2
    told = portal.module("nightly", code=1)
    assert told.stderr.splitlines()[-1].startswith("Error: failed this night: backup;")
    portal.write(
        **{"ckanext.dbmanage.pg_bin": bin, "ckanext.dbmanage.prove_every": "0"}
    )
    report = _done(portal)
    assert _said(report, "prune").startswith("2 backups forgotten here")


def test_what_was_missed_while_the_place_was_away_is_copied(
    portal: Portal, tmp_path: Path
) -> None:
    portal.write(**{"ckanext.dbmanage.prove_every": "0"})
    set_remote(portal, "rest:http://127.0.0.1:9/portal")
    portal.backup()
    report = _done(portal, code=1)
    assert _results(report)["push"] == "failed"
    assert "nothing at the other place" in _said(report, "prune")
    set_remote(portal, str(tmp_path / "there"))
    report = _done(portal)
    assert _said(report, "push").startswith("3 backups")
    assert len(snapshots(str(tmp_path / "there"))) == 3


def test_a_second_night_is_skipped_and_a_killed_one_is_no_night(
    portal: Portal,
) -> None:
    slowed(portal, "pg_dump")
    first = portal.start("nightly")
    _, repository = portal.engine()
    wait_until(lambda: nights(repository))
    told = portal.db("nightly")
    assert f"nightly, process {first.pid}" in told.stderr and not told.stdout
    assert "this one is skipped" in _done(portal)["message"]
    first.kill()
    first.communicate()
    (killed, *_) = nights(repository)
    assert killed.ended is None and not killed.well
    # a night is known by the second in which it began
    wait_until(lambda: datetime.now(timezone.utc) - killed.begun > timedelta(seconds=1))
    portal.write(**{"ckanext.dbmanage.pg_bin": "/nonexistent"})
    told = portal.module("nightly", "--catch-up", code=1)
    assert "did not end" in told.stderr
    first, second = nights(repository)
    assert first.ended and second.ended is None
    errors = [e.text("error") for e in repository.journal() if e.text("what")]
    assert "the night did not end" in errors


def test_a_night_that_is_ended_says_by_what(portal: Portal) -> None:
    slowed(portal, "pg_dump")
    process = portal.start("nightly")
    _, repository = portal.engine()
    wait_until(lambda: any(portal.repository.glob(".2*Z.partial")))
    process.terminate()
    process.communicate()
    (night,) = nights(repository)
    assert night.ended
    assert [(s.result, s.message) for s in night.steps] == [
        (FAILED, "ended by SIGTERM")
    ]


def _portal(portal: Portal) -> Context:
    return Context(portal.settings, Silent())


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STEPS:
        monkeypatch.setattr(nightly._Doing, f"_{name}", lambda _: ("nothing", "", ""))


def _remembered(portal: Portal, *begun: datetime) -> None:
    _, repository = portal.engine()
    repository.make()
    made = [Night(moment, moment + timedelta(minutes=1)) for moment in begun]
    remember(repository, made[0], made[1:])


@pytest.mark.usefixtures("no_steps")
def test_a_missed_night_is_made_up_and_told(portal: Portal) -> None:
    today = now().replace(microsecond=0)
    _remembered(portal, today - timedelta(days=3, hours=2))
    night = nightly.run_nightly(_portal(portal), catch_up=True)
    assert night.late and night.missed == 2
    with pytest.raises(nightly.NotNow, match="no night is missing"):
        nightly.run_nightly(_portal(portal), catch_up=True)
    assert not nightly.run_nightly(_portal(portal)).late


@pytest.mark.usefixtures("no_steps")
def test_a_night_of_a_clock_that_was_ahead_does_not_count(portal: Portal) -> None:
    today = now().replace(microsecond=0)
    real = today - timedelta(days=1)
    _remembered(portal, today + timedelta(days=365), real)
    night = nightly.run_nightly(_portal(portal))
    assert night.before == real and not night.late
    _, repository = portal.engine()
    assert [each.begun for each in nights(repository)] == [night.begun, real]


@pytest.mark.usefixtures("no_steps")
def test_somebody_is_told_and_fails_no_night(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server() as hook:
        file = portal.directory / "ping.url"
        file.write_text(f"{hook.address}/ping")
        file.chmod(0o600)
        portal.write(**{"ckanext.dbmanage.notify.ping_file": str(file)})
        assert nightly.run_nightly(_portal(portal)).well

        def fail(_: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(nightly._Doing, "_push", fail)
        night = nightly.run_nightly(_portal(portal))
        assert [each.name for each in night.steps] == list(STEPS)
        paths = [each.path.partition("?")[0] for each in hook]
        assert paths == ["/ping/start", "/ping", "/ping/start", "/ping/fail"]
        assert "push: failed" in hook[3].body
    monkeypatch.setattr(nightly._Doing, "_push", lambda _: ("nothing", "", ""))
    assert nightly.run_nightly(_portal(portal)).well


def test_a_night_that_cannot_begin_is_told(portal: Portal) -> None:
    with web_server() as hook:
        file = portal.directory / "ping.url"
        file.write_text(f"{hook.address}/ping")
        file.chmod(0o600)
        here = portal.directory / "a file"
        here.write_text("")
        settings = {"repository": str(here), "notify.ping_file": str(file)}
        portal.write(**{f"ckanext.dbmanage.{k}": v for k, v in settings.items()})
        with pytest.raises(DbmanageError, match="cannot write to the repository"):
            nightly.run_nightly(_portal(portal))
        (told,) = hook
        assert told.path.partition("?")[0] == "/ping/fail"
        assert re.match(r"backup: failed, \d+ s\. cannot write to", told.body)


def test_a_step_waits_for_who_is_at_work_and_then_fails(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly, "PATIENCE", 0.2)
    monkeypatch.setattr(nightly, "_LOOK", 0.05)
    _, repository = portal.engine()
    with repository.lock("a backup by hand"):
        night = nightly.run_nightly(_portal(portal))
    assert [s.name for s in night.failed] == ["backup", "prune"]
    assert "a backup by hand" in night.failed[0].message


def test_nights_are_remembered_for_a_year_and_what_is_no_night_is_none(
    portal: Portal,
) -> None:
    _, repository = portal.engine()
    begun = now().replace(microsecond=0)
    steps = (Step("backup", "done", 1.5, "x" * 1000, "20261123T045500Z"),)
    made = [
        Night(begun - timedelta(days=n), begun - timedelta(days=n), steps)
        for n in range(500)
    ]
    repository.make()
    remember(repository, made[0], made[1:])
    found = nights(repository)
    assert len(found) == 400 and found[0].steps[0].backup == steps[0].backup
    assert len(found[0].steps[0].message) == 400 and not found[-1].steps[0].message
    assert (repository.path / ".nights.json").stat().st_size < 200_000
    repository.memorize(
        "nights", {"nights": [1, [], ["x"] * 5, [None] * 5, ["2020-01-01T00:00:00Z"]]}
    )
    assert nights(repository) == ()
    remember(repository, replace(made[0], ended=None), ())
    (repository.path / ".nights.json").write_text('{"nights": []}')
    assert nights(repository) == ()


def test_a_full_disk_fails_the_backup_and_the_report_is_still_told(
    portal: Portal, small_disk: Any
) -> None:
    disk = small_disk("4m")
    portal.write(**{"ckanext.dbmanage.repository": str(disk / "backups")})
    portal.repository = disk / "backups"
    (disk / "fill").write_bytes(bytes(shutil.disk_usage(disk).free - 40_000))
    report = _done(portal, code=1)
    assert _results(report)["backup"] == "failed"
    assert "space" in _said(report, "backup")
    (disk / "fill").unlink()
    portal.write(**{"ckanext.dbmanage.prove_every": "0"})
    assert _results(_done(portal))["backup"] == "done"


def test_a_disk_that_is_full_amid_a_night_leaves_nothing(
    portal: Portal, small_disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("6m")
    portal.repository = disk / "backups"
    portal.write(**{"ckanext.dbmanage.repository": str(portal.repository)})
    set_remote(portal, str(tmp_path / "there"))
    settings = {**portal.settings.settings, "__file__": str(portal.ini)}
    context = Context(Options(settings), Silent())
    prove = nightly._Doing._prove

    def filled(self: Any) -> Any:
        with open(disk / "fill", "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return prove(self)

    monkeypatch.setattr(nightly._Doing, "_prove", filled)
    night = nightly.run_nightly(context)
    # what makes room works all the same
    results = [(each.name, each.result) for each in night.steps[:4]]
    assert results == list(zip(STEPS, ("done", *[FAILED] * 2, "done"), strict=False))
    assert all(str(portal.repository) in each.message for each in night.failed)
    assert not portal.copies() and not list(portal.repository.glob(".*.partial"))
    (disk / "fill").unlink()
    monkeypatch.setattr(nightly._Doing, "_prove", prove)
    night = nightly.run_nightly(context)
    assert night.well and len(snapshots(str(tmp_path / "there"))) == 2


def test_a_night_that_was_killed_amid_a_proof_leaves_nothing(portal: Portal) -> None:
    slowed(portal, "pg_restore")
    process = portal.start("nightly")
    wait_until(lambda: portal.copies(), 120)
    process.kill()
    process.communicate()
    portal.write(**{"ckanext.dbmanage.pg_bin": str(PG_BIN)})
    report = _done(portal)
    assert _results(report)["prove"] == "done" and report["result"] == "done"
    assert not portal.copies() and not list(portal.repository.glob(".*.partial"))
    assert [each["state"] for each in portal.backups()] == ["proven", "verified"]


def test_sites_that_share_a_repository_are_told_apart(tmp_path: Path) -> None:
    """Their nights would skip one another, and nothing would look wrong."""
    shelf = Shelf(tmp_path / "backups")
    shelf.add(now() - timedelta(days=1))
    with shelf.repository.night():
        with pytest.raises(nightly.NotNow):
            nightly.run_nightly(shelf.portal())
        other = shelf.add(now(), "foreign")
        with pytest.raises(DbmanageError, match=f"{other}.* a repository of its own"):
            nightly.run_nightly(shelf.portal())


def test_a_clock_that_was_set_back_makes_no_night_shorter_than_none() -> None:
    begun = now()
    assert Night(begun, begun - timedelta(hours=1)).seconds == 0


def test_who_only_looks_keeps_nobody_from_a_night(tmp_path: Path) -> None:
    repository = Shelf(tmp_path / "backups").repository
    with repository.night():
        pass
    with open(repository.path / ".nightly", "rb") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        released = threading.Timer(0.1, fcntl.flock, (look, fcntl.LOCK_UN))
        released.start()
        with repository.night(), pytest.raises(Busy), repository.night():
            pass
        released.join()
