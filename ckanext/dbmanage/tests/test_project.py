"""The project itself: who imports whom, what is documented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckanext.dbmanage import cli
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.directories import (
    public_dir,
    repository_directory,
    sendfile,
)

from .support.imports import PACKAGE, ROOMS


def test_there_is_one_place_that_connects() -> None:
    found = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "tests" not in file.parts and "psycopg2.connect(" in file.read_text()
    ]
    assert found == ["engine/postgres/database.py"]


ROOT = PACKAGE.parent.parent
DOCS = ROOT / "docs"


def test_the_plugin_is_short() -> None:
    assert len((PACKAGE / "plugin.py").read_text().splitlines()) <= 40


def test_option_defaults() -> None:
    """If you change this test, add an entry to the changelog."""
    storage, none = {"ckan.storage_path": "/var/lib/ckan"}, Options({})
    assert repository_directory(Options(storage)) == "/var/lib/ckan/dbmanage/backups"
    assert none.parts == ()
    assert none.jobs == 2
    assert none.pg_bin == ""
    both = {"database": "template0", "datastore": "template0"}
    assert none.scratch_templates == both
    assert none.undo_days == none.prove_every == 7
    assert none.retention == {
        "last": 3, "within": 0, "hours": 0, "days": 7, "weeks": 4, "months": 6,
        "years": 0, "min": 1,
    }  # fmt: skip
    assert none.remote_repository == none.remote_password_file == ""
    assert none.remote_env_file == "" and none.remote_limit_upload == 0
    assert none.remote_retention == {
        "last": 3, "within": 0, "hours": 0, "days": 14, "weeks": 8, "months": 12,
        "years": 0,
    }  # fmt: skip
    assert public_dir(Options(storage)) == Path("/var/lib/ckan/dbmanage/public")
    assert none.public_path == "/dump"
    assert none.public_licence == none.public_contact == ""
    assert sendfile(none) == sendfile(none, backups=True) == ("", "")
    assert none.web_restore == "armed"
    assert "/api/action/status_show" in none.health_paths


def test_what_an_option_was_called_before_still_counts() -> None:
    """Who had set it would else lose backups."""
    before = Options({"ckanext.dbmanage.keep_days": "30"})
    assert before.retention["days"] == 30
    both = {"ckanext.dbmanage.keep_days": "30", "ckanext.dbmanage.keep_daily": "20"}
    assert Options(both).retention["days"] == 20


def test_every_option_is_declared_and_documented() -> None:
    declared = set(
        re.findall(r"- key: (\S+)", (PACKAGE / "config_declaration.yaml").read_text())
    )
    text = "".join(file.read_text() for file in (PACKAGE / "portal").glob("*.py"))
    used = set(re.findall(r'\bPREFIX \+ "([\w.]+)"', text))
    assert declared == {f"ckanext.dbmanage.{name}" for name in used}
    text = "".join(page.read_text() for page in DOCS.glob("*.rst"))
    assert not [name for name in declared if name not in text]


def test_every_command_and_option_is_documented() -> None:
    text = (DOCS / "commands.rst").read_text()
    for command in (each.load() for each in cli.COMMANDS):
        assert command.help and f"ckan db {command.name}" in text
        for parameter in command.params:
            assert parameter.opts[0] in text or parameter.param_type_name == "argument"
    subprocess.run([sys.executable, DOCS / "generate", "--check"], check=True)


PAGES = (*ROOT.glob("*.rst"), *DOCS.glob("*.rst"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_s_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"`[^`]+<([^>`]+)>`_|\.\. image:: (\S+)", page.read_text())
    for target in filter(None, (link or image for link, image in targets)):
        target = target.partition("#")[0]  # a place on it is looked for by bin/docs
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["CONTRIBUTING.rst", "docs/architecture.rst"])
def test_files_and_folders_that_contributors_are_shown_exist(page: str) -> None:
    named = re.findall(r"``([\w.]+/[\w/.]*)``", (ROOT / page).read_text())
    assert len(named) > 15
    assert not [
        name
        for name in named
        if not any((place / name).exists() for place in (ROOT, PACKAGE, DOCS))
    ]


def test_the_recipes_for_contributors_name_what_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.rst").read_text()
    for program, verb in re.findall(r"(bin/services) ([\w-]+)", text):
        assert re.search(rf"(?m)^{verb}[ )|]|\| {verb}\)", (ROOT / program).read_text())
    figures = subprocess.run(
        [ROOT / "bench" / "run", "--help"], check=True, capture_output=True, text=True
    ).stdout
    for name in re.findall(r"bench/run --quick (\w+)", text):
        assert re.search(rf"\b{name}\b", figures)
    table = text[text.index("Where things are") :]
    folders = set(re.findall(r"(?m)^``([\w/]+)/``", table))
    rooms = {room for room in ROOMS if (PACKAGE / room).is_dir()}
    assert rooms - {"logic/action"} <= folders
