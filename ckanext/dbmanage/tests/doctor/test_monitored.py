"""What a monitor reads: one line by its protocol, whatever happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckanext.dbmanage.doctor.examine import CHECKS, examine
from ckanext.dbmanage.doctor.finding import HINT, OK, PROBLEM, Check, Finding, Found
from ckanext.dbmanage.doctor.monitored import Report, monitored
from ckanext.dbmanage.engine.errors import DbmanageError
from ckanext.dbmanage.operations.context import find_site
from ckanext.dbmanage.operations.watched import look

from ..support.watched import WatchedSite

WELL = Finding("rights", OK, "copies can be made")
HINTED = Finding("proof", HINT, "no | backup was\nproven")
BAD = Finding("backups", PROBLEM, "backup 1 is damaged")
UNSEEN = Finding("repository", PROBLEM, "may not be read", known=False)


@pytest.fixture
def site(tmp_path: Path) -> WatchedSite:
    made = WatchedSite(tmp_path)
    made.add(2)
    return made


def told(site: WatchedSite, *found: Finding) -> Report:
    options = site.portal.options
    return monitored(found, look(options, *find_site(site.portal)))


@pytest.mark.parametrize(
    ("found", "word", "code"),
    [
        ([WELL], "OK - 1 checks", 0),
        ([WELL, HINTED], "WARNING - proof: no / backup was proven", 1),
        ([HINTED, UNSEEN], "UNKNOWN - repository: may not be read", 3),
        ([UNSEEN, HINTED, BAD], "CRITICAL - backups: backup 1 is damaged", 2),
    ],
)
def test_the_worst_decides(
    site: WatchedSite, found: list[Finding], word: str, code: int
) -> None:
    report = told(site, *found)
    line, _, figures = report.line.partition(" | ")
    assert (line, report.code) == (f"DBMANAGE {word}", code)
    assert figures and report.line.isprintable() and report.line.count("|") == 1


def test_figures_have_units_and_limits(site: WatchedSite) -> None:
    figures = told(site, HINTED, BAD).line.partition(" | ")[2].split()
    found = dict(each.split("=") for each in figures)
    assert re.fullmatch(r"72\d\ds;93600;604800;0", found["backup_age"])
    assert re.fullmatch(r"72\d\ds;2678400;;0", found["proof_age"])
    assert re.fullmatch(r"\d+B;;\d+:;0;\d+", found["free"])
    assert found["problems"] == "1;;0;0" and found["hints"] == "1;0;;0"


def test_a_check_that_cannot_look_is_no_problem_of_the_site(
    site: WatchedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(error: Exception) -> Check:
        def check(*_: object) -> Found:
            raise error
            yield OK, ""

        return check

    closed = DbmanageError("cannot read it")
    closed.__cause__ = PermissionError()
    checks = {
        "broken": raising(KeyError("x")),
        "closed": raising(closed),
        "down": raising(DbmanageError("no server")),
    }
    monkeypatch.setattr("ckanext.dbmanage.doctor.examine.CHECKS", checks)
    found = examine(site.portal, *find_site(site.portal))
    assert {each.name: each.known for each in found} == {
        "broken": False, "closed": False, "down": True,
    }  # fmt: skip
    assert CHECKS and told(site, *found).code == 2
    assert told(site, *found[:2]).code == 3


@pytest.mark.parametrize("text", [None, "[app:main]\nsqlalchemy.url = x:pass%word@\n"])
def test_a_configuration_that_cannot_be_read_is_unknown(
    tmp_path: Path, text: str | None
) -> None:
    ini = tmp_path / "ckan.ini"
    if text:
        ini.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ckanext.dbmanage", "-c", ini,
         "doctor", "--nagios"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3 and done.stdout.startswith("DBMANAGE UNKNOWN - ")
    assert "word" not in done.stderr
