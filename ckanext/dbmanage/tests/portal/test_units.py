"""What runs the night by itself: units, cron lines, and when the next one is due."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations import install
from ckanext.dbmanage.operations.context import Portal
from ckanext.dbmanage.portal import timer, units
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.units import NAME, Place

from ..support.manual import ROOT

PACKAGE = Place(
    "www-data",
    "/usr/lib/ckan/default/bin/python",
    "/etc/ckan/default/ckan.ini",
    ("/var/lib/ckan", "-/var/log/ckan"),
)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    storage = tmp_path / "storage"
    storage.mkdir()
    ini = tmp_path / "ckan.ini"
    ini.write_text("")
    return Options({"ckan.storage_path": str(storage), "__file__": str(ini)})


def _plan(options: Options, directory: Path) -> install.Plan:
    return install.plan_install(Portal(options, Silent()), directory)


def test_what_is_shipped_is_what_is_written_for_ckan_s_package() -> None:
    shipped = ROOT / "contrib/systemd"
    assert (shipped / f"{NAME}.service").read_text() == PACKAGE.service()
    assert (shipped / f"{NAME}.timer").read_text() == PACKAGE.timer()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_finds_no_fault_in_the_units_and_little_exposed(
    options: Options, tmp_path: Path
) -> None:
    files = _plan(options, tmp_path).files
    assert [Path(name).name for name in files] == [f"{NAME}.service", f"{NAME}.timer"]
    for name, text in files.items():
        Path(name).write_text(text)
    for arguments in (
        ("verify", "--man=no", *files),
        # of 100; what runs as nobody in particular, with nothing, has some 10
        ("security", "--offline=true", "--threshold=25", next(iter(files))),
    ):
        done = subprocess.run(
            ["systemd-analyze", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(tmp_path) not in done.stderr, done.stderr


def test_what_is_written_is_for_this_site_user_and_python(options: Options) -> None:
    place = units.place_of(options)
    assert place.ini == options.text("__file__")
    storage = str(Path(options.storage_path).resolve())
    # the repository and the dumps stand in it
    assert place.writes == (storage, "-/var/log/ckan")
    service = place.service()
    assert f"-m ckanext.dbmanage -c {place.ini} nightly --quiet\n" in service
    assert f"ReadWritePaths={storage} -/var/log/ckan\n" in service
    os.chown(storage, 65534, 65534)
    assert "User=nobody\n" in units.place_of(options).service()


def test_root_runs_no_configuration_of_another_user(options: Options) -> None:
    os.chown(options.text("__file__"), 65534, 65534)
    with pytest.raises(Refused, match="another user's configuration as root"):
        units.place_of(options)


def test_a_directory_as_the_other_place_may_be_written_to(
    options: Options, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    password.chmod(0o600)
    remote = "ckanext.dbmanage.remote."
    more = {
        f"{remote}repository": "/srv/copies",
        f"{remote}password_file": str(password),
    }
    place = units.place_of(Options({**options.settings, **more}))
    # that disk may be away for a night, which is a night all the same
    assert place.writes[0] == "-/srv/copies"
    assert place.writes[1] == str(Path(options.storage_path).resolve())


@pytest.mark.parametrize("text", ["/a\nExecStartPre=+/bin/sh", "/a\tb", "/a\u2028b"])
def test_no_option_breaks_out_of_its_line(text: str) -> None:
    place = Place("www-data", "/p", "/i", (text,))
    with pytest.raises(Refused, match="letters that no unit"):
        place.service()
    with pytest.raises(Refused, match="letters that no unit"):
        Place("www-data", "/p", text, ()).cron()


def test_odd_letters_of_a_path_stay_what_they_are() -> None:
    place = Place("u", "/p", '/a b/100% "$x".ini', ("/c d/%i",))
    assert '-c "/a b/100%% \\"$$x\\".ini" nightly' in place.service()
    assert 'ReadWritePaths="/c d/%%i"\n' in place.service()
    assert place.is_own(place.service())
    assert r"100\%" in place.cron()


def test_two_sites_of_a_host_have_units_of_their_own(
    options: Options, tmp_path: Path
) -> None:
    for name, text in _plan(options, tmp_path).files.items():
        Path(name).write_text(text)
    assert list(_plan(options, tmp_path).files) == [
        str(tmp_path / f"{NAME}.{kind}") for kind in ("service", "timer")
    ]
    other = tmp_path / "zweites portal" / "ckan.ini"
    other.parent.mkdir()
    other.write_text("")
    theirs = Options({**options.settings, "__file__": str(other)})
    plan = _plan(theirs, tmp_path)
    assert f"{NAME}-zweites-portal-ckan.timer" in plan.commands[1]
    assert not install.install(plan)  # no systemd runs here
    written = tmp_path / f"{NAME}-zweites-portal-ckan.service"
    assert f'"{other}"' in written.read_text()
    assert written.stat().st_mode & 0o777 == 0o644


#: a `crontab` that keeps what it is given
_CRONTAB = """#!/bin/sh
case $1 in
  -l) cat {file} 2>/dev/null || {{ echo "no crontab for me" >&2; exit 1; }};;
  -) cat >{file};;
esac
"""


def test_a_crontab_gets_these_lines_once_and_keeps_its_own(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, program = tmp_path / "crontab.txt", tmp_path / "crontab"
    program.write_text(_CRONTAB.format(file=file))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    plan = _plan(options, tmp_path)
    assert not plan.files and plan.cron.count("nightly") == 2
    assert install.install(plan) and file.read_text() == plan.cron
    own = "5 4 * * *  df -h\n"
    older = "0 1 * * *  python -m ckanext.dbmanage -c {} nightly\n"
    file.write_text(own + older.format(plan.place.ini) + older.format("/other.ini"))
    install.install(plan)
    install.install(plan)
    assert file.read_text() == own + older.format("/other.ini") + plan.cron
    other = Place(plan.place.user, plan.place.python, "/third.ini", ())
    install.install(install.Plan(other, {}, other.cron(), ()))
    assert file.read_text().endswith(plan.cron + other.cron())


# -- when the next one is due


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server's clock in Berlin, at a moment that is given."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()

    def at(*moment: int) -> None:
        there = datetime(*moment, tzinfo=timezone.utc)  # type: ignore[misc]
        monkeypatch.setattr(timer, "now", lambda: there)

    yield at
    monkeypatch.undo()
    time.tzset()


def test_the_timer_is_of_the_wall_s_clock_and_clocks_are_set(berlin: Any) -> None:
    """As `systemd-analyze calendar` says it."""
    berlin(2026, 3, 27, 12)
    assert timer.due(2, 30) == datetime(2026, 3, 28, 1, 30, tzinfo=timezone.utc)
    # at 02:00 it is 03:00: there is no 02:30 that night
    berlin(2026, 3, 28, 12)
    assert timer.due(2, 30) == datetime(2026, 3, 30, 0, 30, tzinfo=timezone.utc)
    assert timer.due(4, 30) == datetime(2026, 3, 29, 2, 30, tzinfo=timezone.utc)
    # at 03:00 it is 02:00 again: the first of the two
    berlin(2026, 10, 24, 12)
    assert timer.due(2, 30) == datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    berlin(2026, 10, 25, 0, 45)
    assert timer.due(2, 30) == datetime(2026, 10, 26, 1, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin", "Europe/Lisbon", "Europe/Helsinki", "Atlantic/Azores",
        "America/New_York", "America/Santiago", "Asia/Beirut", "Pacific/Auckland",
        "Australia/Lord_Howe", "America/Nuuk",
    ],
)  # fmt: skip
def test_no_clock_skips_the_hour_of_the_night(zone: str) -> None:
    """On such a day a timer of systemd would do nothing."""
    for days in range(366):
        day = datetime(2026, 1, 1, units.HOUR, units.MINUTE) + timedelta(days=days)
        there = day.replace(tzinfo=ZoneInfo(zone)).astimezone(timezone.utc)
        shown = there.astimezone(ZoneInfo(zone))
        assert (shown.hour, shown.minute) == (units.HOUR, units.MINUTE), day


def test_the_next_night_is_that_of_the_timer_that_is_enabled_for_this_site(
    options: Options, tmp_path: Path, berlin: Any
) -> None:
    berlin(2026, 11, 27, 12)
    wants = tmp_path / "timers.target.wants"
    wants.mkdir()
    assert timer.next_night(options, tmp_path) is None
    for name, text in _plan(options, tmp_path).files.items():
        Path(name).write_text(text)
    assert timer.next_night(options, tmp_path) is None  # not enabled
    (wants / f"{NAME}.timer").symlink_to(tmp_path / f"{NAME}.timer")
    due = datetime(2026, 11, 28, 3, 30, tzinfo=timezone.utc)
    assert timer.next_night(options, tmp_path) == due
    other = Options({**options.settings, "__file__": "/etc/ckan/other/ckan.ini"})
    assert timer.next_night(other, tmp_path) is None
    # of a template
    service = PACKAGE.service().replace("/default/ckan", "/%i/ckan")
    (tmp_path / f"{NAME}@.service").write_text(service)
    (wants / f"{NAME}@other.timer").write_text(PACKAGE.timer())
    assert timer.next_night(other, tmp_path) == due
    (wants / f"{NAME}@other.timer").write_text("OnCalendar=Mon..Fri 04:30\n")
    assert timer.next_night(other, tmp_path) is None
    (wants / f"{NAME}@other.timer").write_text("OnCalendar=*-*-* 04:65\n")
    assert timer.next_night(other, tmp_path) is None


@pytest.mark.parametrize(
    ("directory", "text", "hour"),
    [
        (f"{NAME}.timer.d", "OnCalendar=\nOnCalendar=*-*-* 23:15\n", 22),
        (f"{NAME}.timer.d", "OnCalendar=23:15\n", 22),  # as well as at 04:30
        (f"{NAME}.timer.d", "RandomizedDelaySec=4h\n", 3),
        (f"{NAME}.timer.d", "OnCalendar=hourly\n", None),
        (f"{NAME}@.timer.d", "OnCalendar=\nOnCalendar=*-*-* 23:15\n", 3),
    ],
)
def test_the_next_night_is_where_the_timer_was_edited_to(
    options: Options,
    tmp_path: Path,
    berlin: Any,
    directory: str,
    text: str,
    hour: int | None,
) -> None:
    berlin(2026, 11, 27, 12)
    for name, whole in _plan(options, tmp_path).files.items():
        Path(name).write_text(whole)
    wants, edited = tmp_path / "timers.target.wants", tmp_path / directory
    wants.mkdir()
    edited.mkdir()
    (wants / f"{NAME}.timer").symlink_to(tmp_path / f"{NAME}.timer")
    (edited / "override.conf").write_text(f"[Timer]\n{text}")
    due = timer.next_night(options, tmp_path)
    assert (due and due.hour) == hour
