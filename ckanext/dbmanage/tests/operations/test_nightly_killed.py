"""Nights that are killed, and the ones after them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from ckanext.dbmanage.operations.nights import STEPS, nights

from ..support.offsite import set_remote
from ..support.portal import Portal, slowed
from ..support.waiting import end_group, wait_until


def _stopping(portal: Portal, verb: str) -> tuple[dict[str, str], Path]:
    """A restic that comes to no end of this; the environment, and its process id."""
    bin, pid = portal.directory / "bin", portal.directory / "restic.pid"
    bin.mkdir()
    (bin / "restic").write_text(
        f'#!/bin/sh\ncase " $* " in *" {verb} "*) echo $$ > "{pid}.new"\n'
        f'mv "{pid}.new" "{pid}"; set -- --limit-upload 1 "$@";; esac\n'
        f'exec "{shutil.which("restic")}" "$@"\n'
    )
    (bin / "restic").chmod(0o755)
    return {"PATH": f"{bin}:{os.environ['PATH']}"}, pid


@pytest.mark.parametrize("step", ["backup", "push"])
def test_the_night_after_a_killed_one_does_all(
    portal: Portal, tmp_path: Path, step: str
) -> None:
    """Killed in a proof: see test_nightly.py."""
    there = tmp_path / "there"
    set_remote(portal, str(there))
    portal.write(**{"ckanext.dbmanage.prove_every": "0"})
    portal.db("publish", "-q")
    kept = portal.backup().name
    env, pid = _stopping(portal, "backup") if step == "push" else ({}, None)
    bin = portal.options.get("ckanext.dbmanage.pg_bin", "")
    if step == "backup":
        slowed(portal, "pg_dump")
    process = portal.start("nightly", env=env)
    wait_until(
        {
            "backup": lambda: any(portal.repository.glob(".2*Z.partial")),
            "push": lambda: pid and pid.exists() and any((there / "locks").iterdir()),
        }[step]
    )
    end_group(process)
    if pid:  # restic is in a group of its own
        with suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)
    _, repository = portal.engine()
    (killed,) = nights(repository)
    assert killed.ended is None and len(killed.steps) == STEPS.index(step)
    portal.write(**{"ckanext.dbmanage.pg_bin": bin})
    done = portal.module("nightly", "--json")
    assert "did not end" in done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert {each["name"]: each["result"] for each in steps} == {
        **dict.fromkeys(STEPS, "done"), "prove": "nothing"
    }  # fmt: skip
    backups = portal.backups()
    assert kept in {each["id"] for each in backups}
    assert all(each["where"] == ["here", "there"] for each in backups)
    assert not portal.copies()
    assert not list(portal.repository.glob(".*.partial"))
