"""What the manual shows can be pasted, is said once, and quotes what is said."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from ckanext.dbmanage import cli

from .support.imports import PACKAGE
from .support.manual import DOCS, ROOT, blocks, pages, shown_in
from .support.portal import Portal

#: what lines of shell begin with, here
_PROGRAMS = (
    "ckan", "ckanapi", "python", "sudo", "systemctl", "curl", "cd", "cp", "mkdir",
    "export", "command", "grep", "df", "bin/", "bench/", "psql", "$OLD/",
)  # fmt: skip
PAGES = [*pages(), ROOT / "CONTRIBUTING.rst"]
UNITS = sorted(file for file in (ROOT / "contrib").rglob("*") if file.is_file())


def _lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [each for each in joined.splitlines() if each.startswith(_PROGRAMS)]


def _refused(text: str) -> list[str]:
    """The commands of this extension in a text that click would refuse."""
    known = {each.name: each for each in (*cli.COMMANDS, cli.RECOVER)}
    found = []
    for name, *words in shown_in(text):
        if name not in known:
            found.append(f"{name}: there is no such command")
            continue
        try:
            known[name].load().make_context(name, list(words))
        except click.UsageError as error:
            if "does not exist" not in error.message:  # a file of the reader's
                found.append(f"{name} {' '.join(words)}: {error.message}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_can_be_pasted(page: Path) -> None:
    """No dots, no words in capitals to be replaced; each variable is told of."""
    text, problems = page.read_text(), []
    for language, block in blocks(page):
        if language == "python":
            continue
        problems += _refused(block)
        for line in _lines(block):
            told = line.partition("  #")[0]
            if re.search(
                r"…|<\w+>|/path/to| (ID|FILE|DIR|NAME|PATH|KIND)\b(?!=)", told
            ):
                problems.append(f"{line}: has a word to be replaced")
            problems += [
                f"{line}: ${variable} is not told of"
                for variable in re.findall(r"\$\{?([A-Z_]+)", told)
                if f"``{variable}``" not in text
                and variable not in ("CKAN_INI", "PATH")
                and f"{variable}=" not in block
            ]
    assert not problems


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_and_cron_lines_call_what_there_is(file: Path) -> None:
    assert not _refused(file.read_text())
    if file.suffix != ".timer":
        assert shown_in(file.read_text())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_with_commands_leads_to_the_shell_for_them(page: Path) -> None:
    if page.name != "shell.rst" and any(shown_in(text) for _, text in blocks(page)):
        assert "shell.rst>`_" in page.read_text()


def test_one_user_one_configuration_one_hour() -> None:
    """In the manual, in all units, and on the pages of the site."""
    texts = [file.read_text() for file in [*PAGES, *UNITS]]
    texts += [file.read_text() for file in PACKAGE.glob("templates/**/*.html")]
    everything = "\n".join(texts)
    users = re.findall(r"User=([\w-]+)|sudo -u ([\w-]+)|\* +(\S+)  ckan db", everything)
    # the last two are PostgreSQL's, and who runs SQL that nobody vouches for
    assert {"".join(user) for user in users} <= {"www-data", "postgres", "nobody"}
    assert set(re.findall(r"[^\s=]+/ckan(?= -c| db)", everything)) <= {
        "/usr/lib/ckan/default/bin/ckan", "$OLD/bin/ckan",
    }  # fmt: skip
    inis = set(re.findall(r"\s-c (\S+\.ini)", everything))
    assert inis == {"/etc/ckan/default/ckan.ini"}
    nightly = re.findall(r"\b\d+ +\d+ +\* +\* .*|OnCalendar=.*\d.*", everything)
    assert len(nightly) >= 3
    assert not [each for each in nightly if "30 4 " not in each and "04:30" not in each]


def _messages() -> str:
    """All texts in the code, with … where a value comes; a line each."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        if "tests" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    str(each.value) if isinstance(each, ast.Constant) else "…"
                    for each in node.values
                ]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


def test_the_messages_in_troubleshooting_are_ours() -> None:
    """Quoted as they are said; the first section is what others say."""
    page = (DOCS / "troubleshooting.rst").read_text()
    titles = re.findall(r"(?m)^(.+)\n(-{4,}|~{4,})$", page)
    first, *sections = [title for title, line in titles if line[0] == "-"]
    assert "CKAN" in first and sections
    assert titles[1][0] == "``No such command 'backup'``"
    quoted = [
        title.strip("`")
        for title, line in titles[[t for t, _ in titles].index(sections[0]) :]
        if line[0] == "~" and title.startswith("``")
    ]
    assert len(quoted) > 25
    messages = _messages()
    assert not [each for each in quoted if each not in messages]


def test_the_chapter_has_the_headings_of_cores_own() -> None:
    page = (DOCS / "database-management.rst").read_text()
    assert re.findall(r"(?m)^(.+)\n[=\-`]{4,}$", page) == [
        "Database Management",
        "Initialization",
        "Cleaning",
        "Import and Export",
        "Dumping and Loading databases to/from a file",
        "Exporting Datasets to JSON Lines",
        "Exporting User Accounts to JSON Lines",
        "Upgrading",
    ]


def test_the_quick_start_ends_with_a_proven_backup(portal: Portal) -> None:
    steps = [s for _, text in blocks(ROOT / "README.rst") for s in shown_in(text)]
    assert [each[0] for each in steps] == ["doctor", "backup", "verify"]
    lacking = "there is no verified backup"
    assert lacking in portal.db(*steps[0], code=1).stdout
    name = portal.db(*steps[1]).stdout.strip()
    assert portal.db(*steps[2]).stdout == f"{name}  proven\n"
    assert lacking not in portal.db(*steps[0], code=None).stdout
