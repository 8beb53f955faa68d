"""What others wrote moves no cursor and forges no line, wherever it is printed."""

from __future__ import annotations

import ast
import json
import os
import secrets
from pathlib import Path

import click
import pytest
import redis
from click.testing import CliRunner

import ckanext.dbmanage
from ckanext.dbmanage.cli.base import Command
from ckanext.dbmanage.cli.output import Talk, echo
from ckanext.dbmanage.cli.repository import backups
from ckanext.dbmanage.cli.site import doctor
from ckanext.dbmanage.engine.errors import Damaged, Refused
from ckanext.dbmanage.engine.printable import one_line, printable, sentence
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.jobs.worker import Log

PACKAGE = Path(ckanext.dbmanage.__file__).parent
#: what clears a screen, goes back on a line, turns the reading, and is no text at all
HOSTILE = (
    "x\x1b[2J\x1b[31m\r\nOK       backups  all is well\u202e\x9b1m\udc80\x07\u2028y"
)


@pytest.mark.parametrize("shown", [one_line, sentence, printable])
def test_what_is_shown_is_printable(shown: object) -> None:
    text = shown(HOSTILE)  # type: ignore[operator]
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "[31m" in text and text.encode()  # it is there, and it is text
    for plain in ("Größe 東京 é \u0627", "", "a  b"):
        assert printable(plain) == plain
    assert one_line(None) == "" and one_line(0) == "0" and one_line("a\t\n b") == "a b"
    assert sentence("a\nb\n  c") == "a\n  b\n  c"


def test_nothing_is_printed_but_by_the_one_who_prints() -> None:
    """By a name of click's, or of Python's; what a parent process or a shell reads is none of it."""
    allowed = {
        ("output.py", "echo"), ("output.py", "secho"), ("isolated.py", "print"),
        ("then.py", "print"), ("completion.py", "echo"),
    }  # fmt: skip
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if "tests" in file.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("click.echo", "click.secho", "print", "sys.stdout.write"):
                found.add((file.name, name.rpartition(".")[2]))
    assert found <= allowed, found - allowed


def test_sentences_warnings_and_phases(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(quiet=False)
    talk.say(HOSTILE)
    talk.warn(HOSTILE)
    talk.progress(HOSTILE, 0, 1)
    echo(HOSTILE.replace("\n", ""))
    out, err = capsys.readouterr()
    for line in (out + err).split("\n"):
        assert line.isprintable() or not line
        assert not line.startswith("OK")


def _failing(error: Exception) -> click.Command:
    def run() -> None:
        raise error

    return Command("fails", callback=run)


@pytest.mark.parametrize(
    "error",
    [
        Refused(HOSTILE),
        Damaged(HOSTILE, [HOSTILE]),
        OSError(2, HOSTILE, HOSTILE),
        click.ClickException(HOSTILE),
        click.UsageError(HOSTILE),
    ],
)
def test_a_failure_is_told_in_lines_of_its_own(error: Exception) -> None:
    done = CliRunner().invoke(_failing(error))
    assert done.exit_code == (2 if isinstance(error, click.UsageError) else 1)
    lines = done.output.split("\n")
    assert all(line.isprintable() for line in lines), done.output
    assert not [line for line in lines if line.startswith("OK")]


def test_notes_problems_and_findings_of_a_backup(tmp_path: Path) -> None:
    """Signed or not: a note is what somebody wrote."""
    settings = {
        "SECRET_KEY": "a secret", "ckan.storage_path": str(tmp_path),
        "sqlalchemy.url": f"postgresql://a@127.0.0.1:9/{secrets.token_hex(4)}",
        "ckanext.dbmanage.repository": str(tmp_path / "backups"),
    }  # fmt: skip
    place = tmp_path / "backups" / "20261101T030000Z"
    place.mkdir(parents=True, mode=0o700)
    dump = dict.fromkeys(("bytes", "stored", "added"), 0)
    manifest = {
        "format": 2, "id": place.name, "note": HOSTILE, "reason": HOSTILE,
        "created": HOSTILE, "seconds": 1.0, "versions": {HOSTILE: [HOSTILE]},
        "databases": {"database": {"rows": {HOSTILE: 7}, "dump": dump}}, "contents": {},
        "files": {"included": True, "count": 1, "bytes": 1, "added": 1, "missing": 1,
                  "refused": 0, "examples": [HOSTILE], "not_included": [HOSTILE]},
    }  # fmt: skip
    signed = sign(manifest, "a secret", "manifest")
    (place / "manifest.json").write_bytes(dumped(signed))
    repository = Repository(str(tmp_path / "backups"), ("a secret",))
    repository.find(place.name).remember(verified={"time": "x", "problems": [HOSTILE]})
    for arguments in ([], [place.name]):
        done = CliRunner().invoke(
            backups, arguments, obj=type("O", (), {"config": settings})()
        )
        assert done.exit_code == 0, (done.output, done.exception)
        lines = done.output.split("\n")
        assert all(line.isprintable() for line in lines), done.output
        assert not [line for line in lines if line.startswith("OK")]
        assert "all is well" in done.output
    done = CliRunner().invoke(
        backups, ["--json"], obj=type("O", (), {"config": settings})()
    )
    assert json.loads(done.output)[0]["note"] == HOSTILE and "\x1b" not in done.output


@pytest.mark.parametrize("form", [[], ["--nagios"]])
def test_a_finding_is_one_line(tmp_path: Path, form: list[str]) -> None:
    served = str(tmp_path / "storage" / f"|{HOSTILE}")
    settings = {
        "SECRET_KEY": "a secret", "ckan.storage_path": str(tmp_path),
        "sqlalchemy.url": "postgresql://a@127.0.0.1:9/b",
        "ckanext.dbmanage.repository": served,
    }  # fmt: skip
    done = CliRunner().invoke(doctor, form, obj=type("O", (), {"config": settings})())
    assert done.exit_code == (3 if form else 1), (done.output, done.exception)
    (line, end) = done.output.split("\n")
    assert line.isprintable() and "all is well" in line and not end
    assert "|" not in line or not form  # what follows it are figures, to a monitor


def test_the_log_of_a_job() -> None:
    server = redis.Redis(port=int(os.environ["DBMANAGE_REDIS_PORT"]), db=2)
    key = f"test:{secrets.token_hex(8)}"
    log = Log(server, key, ("a secret",))
    log.say(HOSTILE)
    log.warn(HOSTILE)
    lines = server.lrange(f"{key}:log", 0, -1)
    server.delete(key, f"{key}:log")
    assert len(lines) == 2
    for line in lines:
        time, _, text = line.decode().partition("\t")
        assert time.endswith("Z") and text.isprintable()
