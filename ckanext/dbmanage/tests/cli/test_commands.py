"""The commands are known without their modules."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ckan.cli import db as core
from click.testing import CliRunner

from ckanext.dbmanage import cli

from ..support.portal import Portal


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda each: each.name)
def test_the_list_says_what_the_help_says(command: cli.Lazy) -> None:
    loaded = command.load()
    assert loaded.name == command.name and loaded.help
    first = loaded.help.partition("\n\n")[0].strip()
    for width in (20, 45, 200):
        assert command.get_short_help_str(width) == command.help == first
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0 and " ".join(command.help.split()) in " ".join(  # type: ignore[union-attr]
        done.output.split()
    )


@pytest.mark.parametrize("width", [40, 80])
def test_every_summary_ends(width: int) -> None:
    """Core's too; and at 80 columns ours on their line."""
    cli.extend_core()
    done = CliRunner().invoke(core.db, ["--help"], terminal_width=width)
    shown = done.output.partition("Commands:")[2]
    assert "Take a" in shown and "..." not in shown
    if width == 80:
        for command in cli.COMMANDS:
            assert f"{command.name:18}  {command.help}\n" in shown


def test_an_id_is_completed_by_the_shell(portal: Portal) -> None:
    name = portal.backup().name

    def completed(*words: str) -> list[str]:
        line = ["ckan", "-c", str(portal.ini), "db", *words]
        done = portal.ckan(
            env={
                "_CKAN_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(line),
                "COMP_CWORD": str(len(line) - 1),
            }
        )
        return done.stdout.split()

    for verb in ("backups", "verify", "keep", "arm", "restore"):
        assert completed(verb, "20") == [f"plain,{name}"]
    assert completed("restore", "l") == ["plain,latest"]
    assert completed("restore", "./20") == ["file,./20"]
    portal.repository.rename(portal.repository.with_name("away"))
    portal.repository.write_text("no directory")
    assert completed("verify", "20") == []


def test_what_is_shown_of_a_backup_is_for_people(portal: Portal) -> None:
    portal.backup("--keep")
    shown = portal.module("backups", "latest").stdout
    assert "{" not in shown and "None" not in shown
    about = dict(line.split(maxsplit=1) for line in shown.splitlines()[:10])
    assert about["held"] == "yes" and about["size"].endswith(" kB")
    assert [part.split()[0] for part in about["parts"].split(", ")] == [
        "database", "DataStore", "uploads",
    ]  # fmt: skip


def test_the_list_of_commands_imports_none_of_them() -> None:
    """Nor CKAN, in the one place that needs none to start."""
    script = (
        "import json, runpy, sys\n"
        "sys.argv = ['dbmanage', '--help']\n"
        "try: runpy.run_module('ckanext.dbmanage', run_name='__main__')\n"
        "except SystemExit: print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    *shown, modules = done.stdout.splitlines()
    assert any("Take a backup" in line for line in shown), done.stderr
    own = [m for m in json.loads(modules) if m.startswith(("ckanext.db", "ckan."))]
    assert own == ["ckanext.dbmanage", "ckanext.dbmanage.cli"]


def test_a_word_is_completed_from_the_command_itself() -> None:
    from click.shell_completion import ShellComplete

    import ckanext.dbmanage.__main__ as module

    complete = ShellComplete(module.main, {}, "ckan", "_CKAN_COMPLETE")
    known = {item.value for item in complete.get_completions(["backup"], "--")}
    assert {"--note", "--only", "--json"} <= known
    named = {item.value: item.help for item in complete.get_completions([], "back")}
    assert named["backup"] == "Take a backup, check it, and print its id."


def test_a_terminal_of_few_letters_shows_the_rest_as_question_marks(
    portal: Portal,
) -> None:
    portal.backup("--only", "files", "--note", "東京")
    for words in (("backups",), ("forget", "--help"), ("verify",)):
        done = portal.module(*words, env={"PYTHONIOENCODING": "latin-1"})
        assert done.stderr.isascii() and done.stdout.isascii()
        assert words != ("backups",) or " ??\n" in done.stdout


def test_python_m_says_where_the_other_commands_are(portal: Portal) -> None:
    done = portal.module("reindex", code=2)
    assert done.stderr.endswith(
        "Error: reindex runs CKAN's own code: `ckan db reindex`\n"
    )
    said = portal.module("keep", "nonsense", code=1).stderr
    assert " -m ckanext.dbmanage backup` takes the first\n" in said
