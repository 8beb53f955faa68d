"""Each command and each option is in the manual, and is used there or by a test."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from ckanext.dbmanage import cli

from .support.cluster import PASSWORD
from .support.manual import DOCS, ROOT, blocks, pages, shown, shown_in
from .support.portal import Portal

#: what is said beside the words of the manual, where nobody is there to be asked
_UNASKED = (
    "load --yes --no-backup -q", "clean --yes -q", "prune -q", "arm -q", "forget --yes",
    "undo --yes", "worker --burst", "dump --yes",
)  # fmt: skip
#: what the manual writes for the id of a backup
_IDS = ("$BACKUP", "$ID", "20261123T045500Z")
_THINGS = {"--dataset", "--organization", "--group", "--user", "--table", "--upload"}
#: in this order, for the last leave nothing
_ORDER = (
    "backup", "backups", "verify", "dump", "export", "import", "keep", "arm", "load",
    "restore", "undo", "upgrade", "maintenance", "nightly", "doctor", "metrics",
    "worker", "prune", "forget", "clean", "init",
)  # fmt: skip
#: what only a test with more than a portal can run, and where it is
_ELSEWHERE = {"notify": "tests/cli/test_watch.py, with doors"}
#: programs in blocks that no test runs, and why
_NOT_RUN = {
    "sudo": "it asks for root, and changes the machine",
    "sudoedit": "it opens an editor",
    "systemctl": "it asks systemd, which does not run here",
    "for": "it sets up systemd for many portals; tests/test_project.py reads the units",
    "pip": "it asks a package index",
    "restic": "it is of another server; tests/operations/test_offsite.py runs it on a disk",
    "rest-server": "it is a program of another server",
    "ckanapi": "tests/web/forms/test_by_hand.py runs it as the page of sysadmins has it",
    "findmnt": "it is about a disk of its own",
    "df": "it is about a disk of its own",
    "chmod": "it is about a file below /etc",
    "date": "it only shows the time",
    "export": "each test opens the shell so",
    "command": "it only shows a path",
    "ckan": "it names the configuration of CKAN's package, which is not here",
    "python": "it only shows a version",
    "eval": "tests/cli/test_completion.py runs it in each shell",
    "docker": "there is no Docker here; tests/test_docker.py runs the lines of the image",
    "echo": "it is about a file of ckan-docker",
    "cd ": "it is where pip puts the units; tests/test_release.py looks there",
    "mkdir": "it is about a new machine",
    "cp": "it is about a new machine",
    "bin/": "it is how these tests are run",
    "bench/": "it takes minutes; tests/test_bench.py runs it",
    ".services/": "it is how these tests are run",
}
#: how a block begins that is none for a shell: a line of a file, a tree, an answer
_NO_SHELL = re.compile(
    r"# where |pg_dump \d+ cannot |[\w.-]+ = |[\w.]+=|\[|<|\{|\d{8}T|\w+ \w+, id |location |CREATE DATABASE"
    r"|ID  |[0-9a-f]{8}  "
)


def _by_hand() -> Iterator[tuple[str, str]]:
    """The page and the text of each block for a shell that no test runs as a script."""
    tests = [f.read_text() for f in Path(__file__).parent.rglob("test_*.py")]
    run = set(re.findall(r'commands\("([\w-]+\.rst)"', "".join(tests)))
    for page in (*pages(), ROOT / "CONTRIBUTING.rst"):
        for language, text in blocks(page):
            unnamed = language == "" and not _NO_SHELL.match(text)
            if unnamed or (language == "sh" and page.name not in run):
                yield page.name, text


def test_each_block_for_a_shell_is_run_or_says_why_not() -> None:
    unknown, used = [], set()
    for page, text in _by_hand():
        # a line that goes on, and what is amid a loop, belong to the line before
        for line in re.sub(r"\\\n|[|&]\n|\n +|\ndone.*", " ", text).splitlines():
            ours = {words[0] for words in shown_in(line)}
            why = {name for name in _NOT_RUN if line.startswith(name)}
            used |= ours | why
            if not why and not (ours and ours <= {*_ORDER, *_ELSEWHERE}):
                unknown += [f"{page}: {line}"] if line.strip("# ") else []
    unknown = [each for each in unknown if not _NO_SHELL.match(each.split(": ", 1)[1])]
    assert not unknown, "run these in a test, or say in _NOT_RUN why nobody can"
    over = {*_NOT_RUN, *_ORDER, *_ELSEWHERE} - used
    assert not over, f"no page has these any more: {over}"


def test_the_commands_that_no_page_runs_as_a_script(
    portal: Portal, tmp_path: Path
) -> None:
    """Each line of the manual for a command, one after the other."""
    table = "00000001-0000-4000-8000-000000000000"
    portal.sql(
        "UPDATE package SET name = 'parks' WHERE id = 'id-7';"
        "UPDATE package SET name = 'trees' WHERE id = 'id-8';"
        f"UPDATE resource SET id = '{table}' WHERE id = 'r-7'"
    )
    backup, other, third = (portal.backup() for _ in range(3))
    portal.sql("UPDATE package SET state = 'deleted' WHERE name IN ('parks', 'trees')")
    portal.db("dump", str(tmp_path / "from_sql.dump"))  # what plain SQL was made into
    (tmp_path / "datasets.refused.jsonl").touch()  # nothing was refused
    shutil.copytree(portal.repository, tmp_path / "copy")
    known = {
        **dict(zip(_IDS, (backup.name, other.name, third.name), strict=True)),
        "$RESOURCE": table, "$UPLOAD": "resources/upl/oad/-1",
        "$COPY": str(tmp_path / "copy" / backup.name), "$SOURCE": "./portal.dump",
        "/var/lib/node_exporter/ckan.prom": "ckan.prom",
    }  # fmt: skip
    for part, default in (("database", "ckan"), ("datastore", "datastore")):
        address = portal.url(part).replace(f":{PASSWORD}@", "@")
        known[f"postgresql://$LIVE/{default}_default"] = address
    # once, whichever pages show it
    lines = dict.fromkeys(
        tuple(words) for _, text in _by_hand() for words in shown_in(text)
    )
    unasked = {line.split()[0]: line.split()[1:] for line in _UNASKED}
    for name in _ORDER:
        own = [words for words in lines if words[0] == name]
        assert own, name
        for words in own:
            if name == "forget":  # each line that shows it takes one away
                known |= dict.fromkeys(_IDS, portal.backup().name)
            given = [known.get(word, word) for word in words]
            more = unasked.get(name, [])
            if name == "restore":
                whole = not _THINGS & {*words}
                more = ["--yes", *["--no-backup"] * whole]
            if (
                "--as" in words
            ):  # for a name that is taken: tests/operations/test_things.py
                continue
            code = None if name == "doctor" else 0
            env = {"PGPASSWORD": PASSWORD} if name == "load" else {}
            portal.db(*given, *more, cwd=tmp_path, text=False, code=code, env=env)
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
