"""`ckan db forget`, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess

from ..support.portal import Portal


def typed(portal: Portal, answers: dict[str, str], *arguments: str) -> str:
    """What a terminal shows; each answer is typed once its question stands there."""
    command = " ".join([*portal.module_command, "forget", *arguments])
    with subprocess.Popen(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=portal.environment | {"PATH": os.environ["PATH"]},
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        said = ""
        for question, answer in answers.items():
            while question not in said:
                assert (more := os.read(process.stdout.fileno(), 1 << 12)), said
                said += more.decode()
            process.stdin.write(f"{answer}\n".encode())
            process.stdin.flush()
        return said + process.stdout.read().decode()


def test_what_is_forgotten_is_asked_for_or_said(portal: Portal) -> None:
    old, middle, newest = (portal.backup().name for _ in range(3))
    done = portal.module("forget", old, code=2)
    assert "--yes" in done.stderr and len(portal.backups()) == 3
    # held, and the newest good one: no --yes is enough
    portal.module("keep", middle)
    done = portal.module("forget", old, middle, "--yes", code=1)
    assert f"backup {middle} stays: it is held" in done.stderr
    done = portal.module("forget", newest, old, "--yes", code=1)
    assert f" -m ckanext.dbmanage forget --newest {newest}`" in done.stderr
    assert len(portal.backups()) == 3
    done = json.loads(portal.module("forget", old, "--yes", "--json").stdout)
    assert done["forgotten"] == [old] and done["bytes"] > 1000

    said = typed(portal, {"Type its ID": "yes"}, newest)
    assert "it is the newest verified one" in said and "Aborted" in said
    assert len(portal.backups()) == 2
    said = typed(portal, {"Type its ID": newest, "[y/N]": "y"}, newest)
    assert f"{newest}  deleted" in said
    portal.module("keep", middle, "--release")
    portal.module("forget", middle, "--yes", "--newest", "-q")
    assert portal.backups() == []
    assert not [p for p in (portal.repository / "objects").rglob("*") if p.is_file()]
    journal = portal.engine()[1].journal()
    done = [e for e in journal if e.event == "done"]
    gone = [e.operation for e in done if e.text("what") == "delete"]
    assert gone == [old, newest, middle]
