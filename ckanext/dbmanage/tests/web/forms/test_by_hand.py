"""The commands that the page and the manual show, run as they stand."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ...support.cluster import BIN, PG_BIN, query
from ...support.cluster import PASSWORD as PASSWORD_OF_CKAN
from ...support.manual import commands, run
from ...support.pages import BACKUPS
from ...support.site import Session, Site


def test_the_manual_s_commands(site: Site, backup: str, token: str) -> None:
    arm, actions = commands("sysadmin.rst")
    # what there is nothing of to undo is not armed
    site.portal.module("restore", backup, "--only", "files", "--yes", "--no-backup")
    run(site.portal, arm)
    assert site.act("dbmanage_status", token)["armed"]["backup"] == "undo"
    answers = run(site.portal, actions)
    made, end = json.JSONDecoder().raw_decode(answers)
    found = json.loads(answers[end:])
    assert {e["state"] for e in found} == {"verified"}
    assert made["kind"] == "backup" and made["arguments"]["note"] == "before import"
    site.act("dbmanage_job_cancel", token, id=made["id"])


def test_what_the_page_shows_restores_beside_the_live_site(
    me: Session, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = site.portal
    backup = portal.backup().name  # other tests have made tokens since theirs
    page = me.ask("GET", f"{BACKUPS}{backup}").text
    (shown,) = re.findall(r'<pre id="cmd-hand"[^>]*>(.*?)</pre>', page, re.DOTALL)
    new = f"recovered_{backup.lower()}"
    names = {"database": new, "datastore": f"{new}_datastore"}
    environment = portal.environment | {"PGPASSWORD": PASSWORD_OF_CKAN}
    environment["PATH"] = f"{BIN}:{PG_BIN}:{os.environ['PATH']}"

    def state() -> dict[str, object]:
        # a visit is noted with its visitor
        return {k: v for k, v in portal.state().items() if k != "database:user"}

    def pasted() -> subprocess.CompletedProcess:
        return subprocess.run(
            ["sh"], input=html.unescape(shown), text=True, capture_output=True,
            cwd=tmp_path, env=environment,
        )  # fmt: skip

    before, oids = state(), portal.oids()
    try:
        done = pasted()
        assert done.returncode == 0, done.stderr
        # once more it ends at once: nothing is overwritten
        assert pasted().returncode != 0
        assert (state(), portal.oids()) == (before, oids)
        monkeypatch.setattr(portal, "names", names)
        monkeypatch.setattr(portal, "storage", tmp_path / backup / "uploads")
        assert state() == before
    finally:
        for name in names.values():
            query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
