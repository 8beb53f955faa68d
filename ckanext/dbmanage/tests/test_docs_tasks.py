"""The manual's pages by what has happened: their commands, run as they stand there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from .support.manual import commands, run
from .support.portal import Portal


def test_getting_started(portal: Portal) -> None:
    said = "".join(run(portal, block) for block in commands("start.rst"))
    (proven,) = [each["id"] for each in portal.backups() if each["state"] == "proven"]
    assert proven in said


def test_the_disk_is_full(portal: Portal) -> None:
    before = portal.backup().name
    said = "".join(run(portal, block) for block in commands("disk.rst"))
    # the one that was there counts for the rules, and the last line takes another
    assert before in said and len(portal.backups()) == 2


def test_the_backup_is_too_slow(portal: Portal) -> None:
    for block in commands("slow.rst"):
        run(portal, block)
    assert portal.backups()


def test_somebody_deleted_many_datasets(portal: Portal, tmp_path: Path) -> None:
    backup = portal.backup().name
    gone = "id IN ('id-7', 'id-8', 'id-9')"
    portal.sql(f"UPDATE package SET state = 'deleted' WHERE {gone}")
    names = str(portal.repository / "exports" / f"preview-{backup}.jsonl")
    for block in commands("many.rst"):
        run(portal, f"cd {tmp_path}\n{block}", BACKUP=backup, NAMES=names)
    states = portal.sql(f"SELECT DISTINCT state FROM package WHERE {gone}")
    assert states == [("active",)]


def test_a_backup_is_damaged(portal: Portal) -> None:
    portal.backup()
    said = "".join(run(portal, block) for block in commands("damaged.rst"))
    new, old = portal.backups()
    assert new["id"] in said and old["id"] in said


def test_a_move_to_a_new_server(portal: Portal) -> None:
    portal.db("reindex")
    backup, look = commands("server.rst")
    run(portal, backup)
    (taken,) = portal.backups()
    assert taken["keep"] and taken["note"] == "moving to another server"
    portal.db("maintenance", "off")
    portal.db("verify", "--prove")
    run(portal, f"{look.strip()} || true")  # which is 1 as long as anything is not well


def test_after_a_break_in(portal: Portal) -> None:
    backup = portal.backup().name
    closed, *others = commands("security.rst")
    run(portal, closed)
    status = json.loads(portal.db("maintenance", "status", "--json").stdout)
    assert status["level"] != "off"
    for block in others:
        run(portal, block, BACKUP=backup, REPOSITORY=str(portal.repository))


def test_fifty_portals(portal: Portal, tmp_path: Path) -> None:
    portal.backup()
    portal.db("reindex")
    for name in ("new/a", "metrics"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(portal.ini, tmp_path / "new/a/ckan.ini")
    places = {"METRICS": tmp_path / "metrics", "NEW": tmp_path / "new"}
    known = {name: str(path) for name, path in places.items()}
    for block in commands("hosts.rst"):
        run(portal, block, ALL=str(portal.ini), **known)
    assert list((tmp_path / "metrics").iterdir())


def test_a_test_portal(
    portal: Portal, make_portal: Callable[..., Portal], tmp_path: Path
) -> None:
    backup = portal.backup().name
    secret = "another" * 5
    other = make_portal(
        {"ckan.site_id": "x", "SECRET_KEY": secret, "beaker.session.secret": secret}
    )
    other.damage()
    shutil.copytree(portal.repository, tmp_path / "copy")
    for block in commands("test-portal.rst"):
        script = block.replace("db doctor", "db doctor || true")
        run(other, script, COPY=str(tmp_path / "copy" / backup))
    assert other.sql("SELECT count(*) FROM package") == portal.sql(
        "SELECT count(*) FROM package"
    )
