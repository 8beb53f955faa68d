"""Figures of another place: a push of what is there already; a portal out of nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from portals import Portal
from tools import (
    BENCH,
    CKAN,
    PG_BIN,
    Missing,
    anew,
    child,
    core_rebuild,
    drop,
    figure,
    psql,
    run,
    sampled,
    say,
    turns,
)

from ckanext.dbmanage.engine.backup import by_hand

from .backups import without_ckan

_THERE, _PASSWORD = BENCH / "there", BENCH / "restic.password"


def _set_up(portal: Portal) -> None:
    """The lines of the manual; and no uploads of other figures."""
    if not shutil.which("restic"):
        raise Missing("apt-get install restic")
    shutil.rmtree(portal.storage / "resources", ignore_errors=True)
    _PASSWORD.write_text("bench\n")
    _PASSWORD.chmod(0o600)
    ini, prefix = Path(portal.ini), "ckanext.dbmanage.remote."
    text = ini.read_text()
    if prefix not in text:
        lines = f"{prefix}repository = {_THERE}\n{prefix}password_file = {_PASSWORD}\n"
        ini.write_text(text.replace("[app:main]\n", f"[app:main]\n{lines}"))


def _restic(script: str) -> float:
    own = f"""set -eu
        export RESTIC_PASSWORD_FILE={_PASSWORD} RESTIC_CACHE_DIR={BENCH}/restic-cache
        """
    return run("bash", "-o", "pipefail", "-c", own + script).seconds


def push(portal: Portal, rounds: int) -> None:
    """100,000 contents that are there already, beside restic alone on the same files."""
    number = 100_000 if portal.datasets == 20_000 else 2_000
    _set_up(portal)
    repository, peer = portal.storage / "dbmanage/backups", BENCH / "peer"
    portal.upload(number // 100, 2_000)
    portal.back_up("--only", "files")
    child(portal, "push")
    portal.back_up("--only", "files")
    small = child(portal, "push")
    say(f"making {number} uploads")
    shutil.rmtree(portal.storage / "resources")
    portal.upload(number, 2_000)
    portal.back_up("--only", "files")
    child(portal, "push")
    _restic(f"restic init -q -r {peer}; cd {repository}; restic backup -q -r {peer} .")
    own = []

    def ours() -> float:
        portal.back_up("--only", "files")
        done = child(portal, "push")
        own.append(done["own"])
        return done["seconds"]

    def theirs() -> float:
        return _restic(f"cd {repository}; restic backup -q -r {peer} .")

    took, plain = turns(rounds, ours, theirs)
    figure("push of what is there, restic alone", took, plain, 15, of=took)
    figure("own memory, a hundredth of it", max(own), small["own"], 1.2, "MB")
    for directory in (portal.storage / "resources", peer, _THERE):
        shutil.rmtree(directory)
    anew(repository)


def recover(portal: Portal, rounds: int) -> None:
    """From nothing to a portal that can be started, and the manual's way by hand.

    The floor is `restic restore` alone.
    """
    _set_up(portal)
    copies, sample = [], sampled(portal.datasets)
    portal.upload(2_000, 100_000)
    name = portal.back_up()
    child(portal, "push")
    ini, kept = Path(portal.ini), Path(portal.ini).read_text()

    def gone() -> None:
        drop(portal.main, portal.datastore)
        shutil.rmtree(portal.storage)
        portal.storage.mkdir()
        ini.unlink(missing_ok=True)

    def ours() -> float:
        gone()
        command = without_ckan(portal)
        command = command[: command.index("backup")]
        return run(
            *command, "recover", "--yes", "--from", str(_THERE), "--password-file",
            str(_PASSWORD),
        ).seconds  # fmt: skip

    def by_the_manual() -> float:
        gone()
        copy, work = BENCH / "copy", BENCH / "work"
        work.mkdir()
        seconds = _restic(f"restic restore -q latest -r {_THERE} --target {copy}")
        copies.append(seconds)
        ini.write_text((copy / "site" / "ckan.ini").read_text())
        variables = f"""export BACKUP={copy}/{name} WORK={work} NEW={portal.main}
            export STORAGE={portal.storage} PATH={PG_BIN}:$PATH
            """
        seconds += _restic(variables + by_hand.COMMANDS)
        portal.set_permissions(CKAN, portal.ini)
        seconds += core_rebuild(portal)
        for directory in (copy, work):
            shutil.rmtree(directory)
        return seconds

    took, hand = turns(rounds, ours, by_the_manual)
    count = psql(portal.main, "SELECT count(*) FROM package")
    say(f"{count} datasets are back, {os.path.getsize(ini)} bytes of ckan.ini")
    name = "from nothing, by hand"
    figure(name, took, hand, 1.0, floor=min(copies), sample=sample)
    assert ini.read_text() == kept
    shutil.rmtree(_THERE)
    shutil.rmtree(portal.storage / "resources")
