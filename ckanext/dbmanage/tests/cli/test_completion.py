"""Commands, options, choices and ids are completed in bash, zsh and fish, at once."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.offsite.look import Seen, remember

from ..support.cluster import BIN
from ..support.portal import LOGGING, Portal
from ..support.waiting import wait_until

#: an id that is only at the other place
THERE = "20260101T000000Z"
_SOURCE = "_CKAN_COMPLETE={}_source python -Im ckanext.dbmanage"
#: how each shell tells what it would complete, as the key Tab does, without a terminal
ASK = {
    "bash": "COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1));"
    ' _ckan_completion ckan; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": "complete -C '{line}'",
}


@pytest.fixture(scope="module")
def shared(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portal]:
    """A portal with two backups, whose databases are gone by now."""
    portal = Portal(tmp_path_factory.mktemp("completion"), f"com{os.getpid()}")
    portal.become(template)
    portal.backup()
    portal.backup("--only", "files")
    seen = Seen("2026-11-23T04:55:00Z", "/there", "id", [THERE])
    remember(portal.engine()[1], seen)
    portal.drop()
    yield portal


def ids(portal: Portal) -> list[str]:
    """The newest first."""
    return sorted((each.name for each in portal.repository.glob("2*Z")), reverse=True)


def asked(portal: Portal, shell: str, line: str, ini: str = "") -> list[str]:
    """What a shell completes a line to, whose last word is unfinished; a line each.

    In a directory of its own, in which nothing may appear; nor may anything be said.
    """
    place = portal.directory / "place"
    place.mkdir(exist_ok=True)
    if shell == "bash":  # a word of its own, though nothing is typed of it yet
        line = re.sub(r" $", ' ""', line)
    lines = portal.directory / f"lines.{shell}"
    if not lines.exists():
        source = ["sh", "-c", _SOURCE.format(shell)]
        lines.write_bytes(subprocess.check_output(source, env=portal.environment))
    script = f". {lines}; {ASK[shell].format(line=line)}"
    done = subprocess.run(
        [shell, *(["--norc"] if shell == "bash" else ["--no-config"]), "-c", script],
        env=portal.environment | {"CKAN_INI": ini or str(portal.ini), "HOME": str(place)},
        cwd=place, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr and done.returncode in (0, 1), done.stderr
    # fish keeps notes of its own
    assert [each.name for each in place.iterdir() if each.name[0] != "."] == []
    return [each for each in done.stdout.splitlines() if each]


def words(portal: Portal, shell: str, line: str) -> list[str]:
    """The same, without what is said of each."""
    return [each.partition("\t")[0] for each in asked(portal, shell, line)]


@pytest.mark.smoke
@pytest.mark.parametrize("shell", ASK)
def test_commands_options_choices_and_ids(shared: Portal, shell: str) -> None:
    newest, oldest = ids(shared)
    for line, wanted in {
        "ckan db pu": ["publish", "pull", "push"],
        "ckan db restore --t": ["--table", "--trust"],
        "ckan db backup --only d": ["database", "datastore"],
        "ckan db keep ": [newest, oldest, "latest", "oldest"],
    }.items():
        assert words(shared, shell, line) == wanted


def test_what_is_known_of_a_line_counts(shared: Portal) -> None:
    newest, oldest = ids(shared)
    for line, wanted in {
        f"ckan db forget {oldest} 2": [newest],
        "ckan db restore 2": [newest, oldest, THERE],
        f"ckan -c {shared.ini} db dump x --from o": ["oldest"],
        "ckan db pending-migrations --a": ["--apply"],
        "ckan user s": ["setpass", "show"],
    }.items():
        assert words(shared, "bash", line) == wanted
    assert {"db", "user", "search-index"} <= {*words(shared, "bash", "ckan ")}
    assert {"backup", "version"} <= {*words(shared, "bash", "ckan db ")}


def test_an_id_is_told_with_its_age_and_size(shared: Portal) -> None:
    newest, oldest = asked(shared, "fish", "ckan db verify 2")
    assert re.fullmatch(
        rf"{ids(shared)[0]}\t(\d+ \w+ ago|just now), \d[\d.]* \w+", newest
    )
    assert newest.split("\t")[1] != oldest.split("\t")[1]
    elsewhere = asked(shared, "fish", "ckan db pull 2")
    assert [each.endswith("ago, at the other place") for each in elsewhere] == [True]
    told = asked(shared, "fish", "ckan db backup --on")
    assert told == [
        "--only\tOnly this part: database, datastore or files (the uploads). May be repeated."
    ]


def test_nothing_is_said_and_nothing_written(shared: Portal, tmp_path: Path) -> None:
    """No database is there; a file of a logger's would be made by whoever looks."""
    log, ini = tmp_path / "ckan.log", tmp_path / "logs.ini"
    handler = LOGGING.replace("StreamHandler", "FileHandler")
    lines = [f"{k} = {v.replace('%', '%%')}" for k, v in shared.options.items()]
    ini.write_text(
        "[app:main]\n"
        + "\n".join(lines)
        + handler.replace("(sys.stderr,)", f"('{log}',)")
    )
    before = {path: path.stat().st_mtime_ns for path in shared.directory.rglob("*")}
    assert len(asked(shared, "bash", "ckan db keep 2", str(ini))) == 2
    assert not log.exists()
    broken = tmp_path / "broken.ini"
    broken.write_text("no section")
    for file in ("/nowhere.ini", str(broken)):
        assert asked(shared, "bash", "ckan db keep 2", file) == []
    own = {p: t for p, t in before.items() if "place" not in p.parts}
    assert {path: path.stat().st_mtime_ns for path in own} == own


def test_no_application_is_made(shared: Portal) -> None:
    """Nor is core imported, where an option of ours is wanted."""
    script = (
        "import os, sys, json\n"
        "from ckanext.dbmanage.cli.completion import answer\n"
        "answer('zsh_complete')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    for line, no in (
        ("ckan db keep 2", "ckan.config.middleware"),
        ("ckan db keep --", "ckan"),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True,
            env=shared.environment | {"COMP_WORDS": line, "COMP_CWORD": "3"},
        )  # fmt: skip
        modules = json.loads(done.stdout.splitlines()[-1])
        assert "click" in modules and no not in modules, done.stderr


@contextmanager
def terminal(portal: Portal, *command: str) -> Iterator[Callable[[str, str], None]]:
    """A shell at a terminal: types keys, and waits for what stands there then."""
    ours, theirs = pty.openpty()
    known = portal.environment | {"TERM": "dumb", "HOME": str(portal.directory)}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=known,
        cwd=portal.directory, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def types(keys: str, wanted: str) -> None:
        os.write(ours, keys.encode())
        shown = b""

        def there() -> bool:
            nonlocal shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 1 << 16)
            return bool(re.search(wanted.encode(), shown, re.DOTALL))

        wait_until(there)

    try:
        yield types
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_key_is_pressed(shared: Portal, shell: str) -> None:
    newest, oldest = ids(shared)
    options = ["--norc", "-i"] if shell == "bash" else ["-f", "-i"]
    with terminal(shared, shutil.which(shell) or shell, *options) as types:
        if shell == "zsh":
            types("autoload -Uz compinit && compinit -u -D; echo $((40 + 2))\n", "42")
        types(f'eval "$({_SOURCE.format(shell)})"; echo is $((0 + $?))\n', "is 0")
        types("ckan db restore --previ\t", "--preview ")
        types("\x15ckan db keep old\t", "oldest ")
        types("\x15ckan db history organ\t", "organization ")
        if shell == "zsh":  # it tells more than the words
            types("\x15ckan db verify 2\t\t", f"{newest} +-- .* ago, .*{oldest} +-- ")


def test_the_shells_are_those_of_the_manual() -> None:
    page = (Path(__file__).parents[4] / "docs" / "shell.rst").read_text()
    for shell in ("bash", "zsh", "fish"):
        assert shutil.which(shell), f"bin/services install brings {shell}"
        assert _SOURCE.format(shell).replace("-Im", "-m") in page
    assert (BIN / "ckan").exists()
