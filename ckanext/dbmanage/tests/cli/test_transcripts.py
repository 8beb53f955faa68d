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
from ckanext.dbmanage import cli
from ckanext.dbmanage.cli.columns import taken

from ..support.portal import Portal
from ..support.site import cloned
from ..support.terminal import Seen, place, seen

TRANSCRIPTS = Path(ckanext.dbmanage.__file__).parents[2] / ".services" / "transcripts"
Code = int | tuple[int, ...]
NO = (1, 2)  # somebody said no, or is not there to be asked
#: each command with its main way of ending, everywhere; what changes something is in an
#: order in which the last one leaves what the first one found
EACH: dict[str, Code] = {
    "--help": 0,
    "backups": 0,
    "backups latest": 0,
    "verify {full}": 0,
    "restore {full} --preview": 0,
    "restore {full}": NO,
    "undo": NO,
    "prune --dry-run": 0,
    "doctor": (0, 1),
    "maintenance on --read-only --for 1m": 0,
    "maintenance status": 0,
    "maintenance off": 0,
    "backup --note {now}": 0,
    "keep latest": 0,
    "keep latest --release": 0,
    "arm latest": 0,
    "forget {newest} --newest --yes": 0,
    "dump {file} --yes": 0,
    "load {file} --yes --no-backup": 0,
    "export organizations": 0,
    "publish": 0,
    "reindex --changed": 0,
    "worker --burst": 0,
    "upgrade": 0,
    "clean --yes": 0,
    "init": 0,
    "restore {full} --only database --yes": 0,
    "undo --yes": 0,
    "undo --yes --note again": 0,
    "prune": 0,
}
#: the other ways of ending, on the narrowest terminal and in a pipe
OTHERS: dict[str, Code] = {
    "restore --help": 0,
    "nonsense": 2,
    "verify --nonsense": 2,
    "backups nonsense": 1,
    "backups {foreign}": 0,
    "backups --json": 0,
    "backups latest --fetch nosuch": 1,
    "verify {damaged}": 1,
    "backups {damaged}": 0,
    "verify {foreign}": 1,
    "verify --all --quiet": 1,
    "verify {full} --prove": 0,
    "restore nonsense --yes": 1,
    "restore {damaged} --yes": 1,
    "restore {foreign} --yes": 1,
    "restore {plain} --yes": 1,
    "load ./nosuch.dump --yes": 1,
    "dump /nosuch/portal.dump": 1,
    "dump {file}": NO,
    "keep nonsense": 1,
    "forget latest --yes": 1,
    "forget {held} --yes": 1,
    "forget {damaged}": NO,
    "arm {damaged}": 1,
    "arm undo": 0,
    "maintenance on --for 1x": 2,
    "maintenance on --until 25:00": 2,
    "doctor --nagios": (0, 1, 2),
    "metrics": 0,
    "notify": 1,
    "notify --test": 1,
    "doctor --json": (0, 1),
    "doctor --fix --preview": (0, 1),
    "export organizations -O {records} --yes": 0,
    "export nonsense": 2,
    "reindex": 0,
    "reindex --deep": 0,
    "upgrade --rehearse": 0,
    "upgrade --rehearse --in-place": 2,
    "clean": NO,
}
#: where nothing was done yet, and where PostgreSQL does not answer
FRESH: dict[str, Code] = {
    "backups": 0, "verify": 1, "restore latest --yes": 1, "undo --yes": 1,
    "prune": 0, "arm undo": 1, "doctor": (0, 1),
}  # fmt: skip
DOWN: dict[str, Code] = {
    "backup": 1, "backups": 0, "restore latest --yes": 1, "undo --yes": 1,
    "dump ./x.dump": 1, "upgrade": 1, "doctor": 1, "doctor --nagios": 2,
}  # fmt: skip
#: what core and rq write, and what Prometheus reads line by line
NOT_OURS = ("init", "worker", "metrics")
NEEDS_CKAN = {str(each.name) for each in cli.COMMANDS if each.needs_ckan}
PROGRESS = re.compile(r"^\d+/\d+ .*\d %|. %|.Error: ")


@pytest.fixture(scope="module")
def portal(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portal]:
    """A portal whose backups have notes in other scripts, one of them a long one."""
    with cloned(template, tmp_path_factory.mktemp("transcripts")) as made:
        full = made.backup("--note", "a long note on why this was taken " * 3, "--keep")
        foreign = made.repository / "20200101T000000Z"
        shutil.copytree(full, foreign)
        plain = made.directory / "plain.sql"
        plain.write_text("--\n-- PostgreSQL database dump\n--\nSET x = 1;\n")
        made.known = {
            "full": full.name, "held": full.name,
            "foreign": foreign.name, "plain": str(plain), "now": "before the night",
            "file": str(made.directory / "portal.dump"),
            "records": str(made.directory / "organizations.jsonl.gz"),
        }  # fmt: skip
        yield made


@pytest.mark.parametrize("where", ["40", "80", "200", "pipe", "C", "cron"])
def test_what_a_command_writes_can_be_read(portal: Portal, where: str) -> None:
    TRANSCRIPTS.mkdir(parents=True, exist_ok=True)
    for old in TRANSCRIPTS.glob(f"*.{where}.txt"):
        old.unlink()
    wrong = []
    with place(portal, where):
        for name, code in EACH.items():
            wrong += looked(portal, where, name, code, "")
        if where in ("40", "pipe"):
            damaged(portal)
            for name, code in OTHERS.items():
                wrong += looked(portal, where, name, code, "")
    assert wrong == []


def damaged(portal: Portal) -> None:
    """Adds a backup that is damaged, for the commands that come next."""
    made = portal.backup("--only", "database", "--note", "für Köln, 東京" * 3)
    dump = made / "database.list"
    dump.write_bytes(dump.read_bytes()[:-1] + b"?")
    portal.known["damaged"] = made.name


@pytest.mark.parametrize("where", ["40", "pipe"])
def test_where_nothing_was_done_or_can_be(
    portal: Portal,
    template: Portal,
    tmp_path_factory: pytest.TempPathFactory,
    where: str,
) -> None:
    with cloned(template, tmp_path_factory.mktemp("fresh")) as fresh:
        fresh.known = {}
        wrong = [
            w for each in FRESH.items() for w in looked(fresh, where, *each, "fresh")
        ]
        down = fresh.url("database").replace(f":{fresh.site().main.url.port}/", ":9/")
        fresh.write(**{"sqlalchemy.url": down})
        wrong += [
            w for each in DOWN.items() for w in looked(fresh, where, *each, "down")
        ]
    assert wrong == []


def looked(portal: Portal, where: str, name: str, code: Code, of: str) -> Iterator[str]:
    """Runs a command, leaves what it wrote, and says what is wrong with that."""
    words = []
    for word in name.split():
        if word == "{newest}":
            word = portal.backups()[0]["id"]
        words.append(word.format(**portal.known) if "{" in word else word)
    needs_ckan = name.split()[0] in NEEDS_CKAN
    ckan = needs_ckan or where in ("80", "cron")
    shown = seen(portal, where, *words, ckan=ckan)
    stem = re.sub(r"\W+", "_", f"{of} {name}").strip("_")
    said = f"$ {'ckan db' if ckan else 'python -m …'} {' '.join(words)}\n".encode()
    path = TRANSCRIPTS / f"{stem}.{where}.txt"
    path.write_bytes(said + shown.written + f"[exit {shown.code}]\n".encode())
    for fault in faults(words, code, where, shown):
        yield f"{of} {name}: {fault}"


def faults(words: list[str], code: Code, where: str, shown: Seen) -> Iterator[str]:
    """What is wrong with what a command wrote, for whoever reads it there."""
    if shown.code not in (code if isinstance(code, tuple) else (code,)):
        yield f"ended with {shown.code}: {shown.text[-500:]}"
    if "Traceback" in shown.text or "\ufffd" in shown.text:
        yield "shows what is no text for people"
    if shown.text and not shown.text.endswith("\n"):
        yield "does not end its last line"
    if not where.isdigit():
        odd = {c for c in shown.text if not (c.isprintable() or c == "\n")}
        if odd:
            yield f"has {odd}, which is for a terminal"
    elif words[0] not in NOT_OURS:
        yield from (f"stays: {s}" for s in shown.screen if PROGRESS.search(s))
        # click says by itself what is wrong usage, in columns of its own
        if shown.code != 2 and "--help" not in words:
            wide = [each for each in shown.lines if is_broken(each, int(where))]
            yield from (f"is wider than the terminal: {line}" for line in wide)


def is_broken(line: str, columns: int) -> bool:
    """Whether a terminal breaks a line that could have been broken between words.

    One word may be too long, a path or a command in backticks; and what stands indented
    below a message may be a command, and a record is one line.
    """
    words = re.findall(r"(?:`[^`]*`|[^\s`]|`)+", line)
    return (
        taken(line) > columns
        and len(words) > 1
        and not line.startswith(("  ", "{", "[{"))
    )
