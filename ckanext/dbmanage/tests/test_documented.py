"""Each command and each option is in the manual, and is used there or by a test."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

from ckanext.dbmanage import cli

from .support.manual import DOCS, shown
from .support.portal import Portal

#: what is said beside the words of the manual, where nobody is there to be asked
_UNASKED = ("load --yes --no-backup -q", "clean --yes -q", "prune -q", "arm -q")
#: in this order, for the last leave nothing
_UNRUN = ("keep", "dump", "load", "arm", "prune", "clean", "init")


def test_the_commands_that_no_page_runs_as_a_script(
    portal: Portal, tmp_path: Path
) -> None:
    """Each line of the manual for a command, one after the other."""
    portal.backup()
    portal.db("dump", str(tmp_path / "from_sql.dump"))  # what plain SQL was made into
    unasked = {line.split()[0]: line.split()[1:] for line in _UNASKED}
    for name in _UNRUN:
        # once, whichever pages show it
        lines = dict.fromkeys(
            tuple(words)
            for words in shown()
            # what has a variable, and these, have tests of their own
            if words[0] == name
            and not {"--remote", "$BACKUP"} & {*words}
            and "://" not in words[-1]
        )
        assert lines
        for words in lines:
            more = unasked.get(name, [])
            portal.db(*words, *more, cwd=tmp_path, text=False)
    assert portal.sql("SELECT count(*) FROM package") == [(0,)]


def test_quiet_says_nothing_but_results_and_warnings(portal: Portal) -> None:
    for line in (
        "backup --keep -q",
        "verify -q",
        "restore latest --yes --no-backup -q",
        "undo --yes -q",
        "upgrade -q",
        "export groups --jobs 1 -q",
        "publish --fresh --jobs 1 -q",
        "reindex --jobs 1 -q",
    ):
        told = portal.db(*line.split()).stderr.splitlines()
        assert not [each for each in told if not each.startswith(("Warning", " "))], (
            line
        )
    assert portal.backups()[0]["keep"]
    (decided,) = json.loads(portal.db("prune", "--json").stdout)["backups"]
    assert not decided["forget"] and decided["reason"] == "held"
    status = portal.db("maintenance", "status", "--json").stdout
    assert json.loads(status) == {"level": "off"}


def _words_together() -> list[set[str]]:
    """The words of each line of the manual, and of each call or list in the tests."""
    found = [set(words) for words in shown()]
    for file in Path(__file__).parent.rglob("*.py"):
        # these are not commands
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        tree, said = ast.parse(file.read_text()), set[int]()
        for node in ast.walk(tree):
            if isinstance(node, documented) and ast.get_docstring(node):
                said.add(id(node.body[0].value))  # type: ignore[attr-defined]
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in said:
                    found += [set(line.split()) for line in node.value.splitlines()]
            elif isinstance(node, (ast.Call, ast.List)):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                found.append({t for t in texts if isinstance(t, str)})
    return found


def _wanted(command: click.Command) -> Iterator[tuple[str, set[str]]]:
    """What is to be used of a command, itself and each of its options and choices.

    Each with the words any of which shows that.
    """
    from ckan.cli.jobs import worker  # whose own options `ckan db worker` takes

    yield str(command.name), set()
    for parameter in (each for each in command.params if each not in worker.params):
        if isinstance(parameter, click.Option):
            yield parameter.opts[0], {*parameter.opts, *parameter.secondary_opts}
        if isinstance(parameter.type, click.Choice):
            others = {str(each) for each in parameter.type.choices} - {
                parameter.default
            }
            yield from ((each, {each}) for each in sorted(others))


def test_each_command_and_option_is_in_the_manual_and_is_run() -> None:
    """Run by the manual, a block of which shows each command, or by another test."""
    together, blocks = _words_together(), {words[0] for words in shown()}
    listing = (DOCS / "commands.rst").read_text()
    title = r"^(?:ckan db|python -m ckanext.dbmanage) "
    found = re.findall(rf"(?ms){title}(\S+)\n-+\n(.*?)(?={title}|\Z)", listing)
    listed = dict(found)
    every = (*cli.COMMANDS, cli.RECOVER)
    assert list(listed) == [each.name for each in every]
    unshown, unlisted, unrun = [], [], []
    for command in (each.load() for each in every):
        name = str(command.name)
        unshown += [] if name in blocks else [name]
        # core's `init` is an alias of its `upgrade`, and here too
        alias = "upgrade" if name == "init" else name
        for what, words in _wanted(command):
            unlisted += [] if what in listed[name] else [f"{name} {what}"]
            if not any(
                alias in said and (not words or words & said) for said in together
            ):
                unrun.append(f"{name} {what}")
    assert not unshown, "no block of a page shows these"
    assert not unlisted, "docs/commands.rst lacks these: run docs/generate"
    assert not unrun, "neither the manual nor a test uses these"
