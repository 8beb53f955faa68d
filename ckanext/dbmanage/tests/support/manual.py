"""The manual's commands, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import ckanext.dbmanage

from .cluster import BIN, PG_BIN
from .portal import Portal

DOCS = Path(ckanext.dbmanage.__file__).parent.parent.parent / "docs"


def commands(page: str, language: str = "sh") -> list[str]:
    """The blocks of shell commands, or of another language, of a page."""
    text = (DOCS / page).read_text()
    blocks = re.findall(
        rf"( *)\.\. code-block:: {language}\n\n((?:\1    ?.*\n|\n)+?)(?=\n*\1\S|\n*\S|\Z)",
        text,
    )
    assert blocks
    return [textwrap.dedent(block) for _, block in blocks]


def run(portal: Portal, script: str, **variables: str) -> str:
    environment = portal.environment | {"CKAN_INI": str(portal.ini)} | variables
    environment["PATH"] = f"{BIN}:{PG_BIN}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shown() -> list[list[str]]:
    """The commands in the manual's blocks, a line each: the words after `ckan db`.

    Or after `python -m ckanext.dbmanage -c …`; without what is behind a pipe. The list
    of all commands with their help is no part of it.
    """
    found = []
    for page in sorted(DOCS.glob("*.rst")):
        for line in page.read_text().splitlines():
            if page.name != "commands.rst" and (
                match := re.match(r" {4,}(ckan db|python -m ckan\S+ -c \S+) (.*)", line)
            ):
                found.append(shlex.split(match[2].partition(" | ")[0]))
    return found
