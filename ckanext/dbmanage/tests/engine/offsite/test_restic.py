"""restic as a program: missing, too old, hanging; its words hide secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Refused, ToolFailed
from ckanext.dbmanage.engine.offsite import restic as tool
from ckanext.dbmanage.engine.offsite.restic import Place, at, own_variables


def _program(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "restic"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="`apt-get install restic`"), at(Place("x")):
        pass


@pytest.mark.parametrize("said", ["restic 0.12.1 compiled with go1.17", "hello", ""])
def test_it_is_too_old(
    said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _program(tmp_path, f"echo '{said}'", monkeypatch)
    with pytest.raises(Refused, match=r"install restic 0\.14 or newer"), at(Place("x")):
        pass


def test_it_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = "[ $1 = version ] && echo restic 0.14.0 && exit; trap '' INT; sleep 60"
    _program(tmp_path, script, monkeypatch)
    monkeypatch.setattr(tool, "ANSWER", 1)
    with at(Place("x")) as restic, pytest.raises(ToolFailed, match="does not answer"):
        restic.opened()


def test_secrets_are_in_no_argument_and_in_no_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = (
        "[ $1 = version ] && echo restic 0.14.0 && exit\n"
        f'echo "$@" >>{tmp_path}/arguments\n'
        'echo "Fatal: bad $AWS_SECRET_ACCESS_KEY at $(cat $RESTIC_REPOSITORY_FILE)" >&2\n'
        'echo "Fatal: $RESTIC_PASSWORD https://other:pass5word@host/x" >&2; exit 1'
    )
    _program(tmp_path, script, monkeypatch)
    address = "rest:https://me:hidden1@backup.example.org/portal"
    secrets = {"AWS_SECRET_ACCESS_KEY": "hidden2", "RESTIC_PASSWORD": "hidden3"}
    environment = own_variables(os.environ) | secrets
    with at(Place(address, environment=environment)) as restic:
        with pytest.raises(ToolFailed) as told:
            restic.run("snapshots")
        assert restic.place.shown == "rest:https://…@backup.example.org/portal"
        assert restic.place.by_hand("unlock") == "restic unlock"
    said = str(told.value) + (tmp_path / "arguments").read_text() + repr(restic.place)
    assert "hidden" not in said and "pass5word" not in said
    assert "Fatal: bad …" in said


def test_the_environment_is_made_of_what_restic_knows() -> None:
    known = {"AWS_ACCESS_KEY_ID": "a", "RCLONE_CONFIG": "b", "https_proxy": "c"}
    assert (
        own_variables(known | {"CKAN_SQLALCHEMY_URL": "d", "PGPASSWORD": "e"}) == known
    )


def test_a_limit_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _program(
        tmp_path,
        f'case " $* " in *" version "*) echo restic 0.14.0; exit;; esac\n'
        f'echo "$@" >{tmp_path}/arguments',
        monkeypatch,
    )
    with at(Place("x", limit_upload=512)) as restic:
        restic.run("snapshots")
    assert "--limit-upload 512" in (tmp_path / "arguments").read_text()
