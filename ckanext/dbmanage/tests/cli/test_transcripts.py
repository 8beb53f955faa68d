"""Each command as it is seen: on terminals of three widths, in a pipe, from cron.

Each leaves a transcript in `.services/transcripts/`, to be read by people.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckanext.dbmanage

from ..support.portal import Portal
from ..support.site import cloned
from ..support.terminal import Seen, seen

TRANSCRIPTS = Path(ckanext.dbmanage.__file__).parents[2] / ".services" / "transcripts"
#: commands that change nothing that another one shows, and how each may end
COMMANDS: dict[str, int | tuple[int, ...]] = {
    "backups": 0,
    "backups latest": 0,
    "backups nonsense": 1,
    "verify": 0,
    "prune --dry-run": 0,
    "restore latest --preview": 0,
    "restore latest": (1, 2),  # somebody said no, or is not there to be asked
    "undo": (1, 2),
    "maintenance status": 0,
    "doctor": (0, 1),
    "doctor --nagios": (0, 1, 2),
    "backup --only files": 0,
    "keep latest": 0,
    "forget latest": (1, 2),
    "arm latest": 0,
    "maintenance on --read-only --for 1m": 0,
    "maintenance off": 0,
    "dump /nosuch/portal.dump": 1,
    "load ./nosuch.dump": (1, 2),
    "clean": (1, 2),
    "upgrade": (0, 2),  # what is typed without CKAN, in a pipe, has not all
    "init": (0, 2),
    "export organizations": (0, 2),
    "reindex --changed": (0, 2),
    "worker --burst": (0, 2),
    "--help": 0,
    "restore --help": 0,
    "nonsense": 2,
    "verify --nonsense": 2,
}
#: what most people look at: seen everywhere, the others at 80 columns and in a pipe
MOST = ("backups", "backups latest", "backups nonsense", "verify", "prune --dry-run")
#: what is one line for each thing, by the columns that are enough for it
LISTS = {"backups": 40, "prune --dry-run": 40, "restore latest --preview": 80}


@pytest.fixture(scope="module")
def portal(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portal]:
    """A portal whose backups have notes in other scripts, one of them a long one."""
    shutil.rmtree(TRANSCRIPTS, ignore_errors=True)
    with cloned(template, tmp_path_factory.mktemp("transcripts")) as made:
        made.backup("--only", "database", "--note", "vor dem Import für Köln, 東京")
        made.backup("--note", "a long note on why this was taken " * 3, "--keep")
        yield made


def left(where: str, name: str, shown: Seen) -> None:
    TRANSCRIPTS.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"\W+", "_", name).strip("_")
    path = TRANSCRIPTS / f"{stem}.{where}.txt"
    path.write_bytes(shown.written + f"[exit {shown.code}]\n".encode())


@pytest.mark.parametrize("where", ["40", "80", "200", "pipe", "C", "cron"])
def test_what_a_command_writes_can_be_read(portal: Portal, where: str) -> None:
    wrong = []
    for name, code in COMMANDS.items():
        if where not in ("80", "pipe") and name not in MOST:
            continue
        shown = seen(portal, where, *name.split())
        left(where, name, shown)
        wrong += [f"{name}: {fault}" for fault in faults(name, code, where, shown)]
    assert wrong == []


def faults(
    name: str, code: int | tuple[int, ...], where: str, shown: Seen
) -> Iterator[str]:
    """What is wrong with what a command wrote, for whoever reads it there."""
    if shown.code not in (code if isinstance(code, tuple) else (code,)):
        yield f"ended with {shown.code}"
    if "Traceback" in shown.text or "\ufffd" in shown.text:
        yield "shows what is no text for people"
    if where.isdigit():
        wide = [line for line in shown.lines if len(line) > int(where)]
        if int(where) >= LISTS.get(name, 1000) and wide:
            yield f"a line is wider than the terminal: {wide[0]}"
    elif odd := {c for c in shown.text if not (c.isprintable() or c == "\n")}:
        yield f"has {odd}, which is for a terminal"
