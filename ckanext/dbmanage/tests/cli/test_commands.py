"""The commands are known without their modules."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ckanext.dbmanage import cli


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda each: each.name)
def test_the_list_says_what_the_help_says(command: cli.Lazy) -> None:
    loaded = command.load()
    assert loaded.name == command.name and loaded.help
    for width in (20, 45, 200):
        short = command.get_short_help_str(width)
        assert short == loaded.get_short_help_str(width)
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0 and " ".join(command.help.split()) in " ".join(  # type: ignore[union-attr]
        done.output.split()
    )


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
