"""Ctrl-C: what is true then is said, and nothing half-done is left, whatever ran."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage import cli
from ckanext.dbmanage.cli.base import Command
from ckanext.dbmanage.engine.redis.maintenance import Maintenance
from ckanext.dbmanage.engine.report import Silent, Standing
from ckanext.dbmanage.operations.context import Portal as Site
from ckanext.dbmanage.operations.prune import run_prune
from ckanext.dbmanage.operations.retain import forget

from ..support import forked
from ..support.cluster import BIN, superuser
from ..support.portal import Portal, slowed
from ..support.published import folder, is_whole

NOTHING = "Nothing live was changed"


def test_a_signal_is_answered_by_every_command_but_the_worker() -> None:
    """Which ends as core's does: after the job that it is at."""
    others = [each for each in cli.COMMANDS if not isinstance(each.load(), Command)]
    assert [each.name for each in others] == ["worker"]


def test_what_is_owed_is_told_once_something_is_done() -> None:
    standing = Standing(made=["backup 1 is there"], owed=["the index is old"])
    assert standing.sentence() == f"{NOTHING}; backup 1 is there."
    standing.done = "The restore is done"
    said = "The restore is done; backup 1 is there; the index is old."
    assert standing.sentence() == said


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, which who was started in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Ended(Silent):
    """Whoever watches presses Ctrl-C when a stage begins."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def progress(self, phase: str, done: int, total: int) -> None:
        if phase == self._stage:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("stage", ["forget", "remove", "drop"])
def test_what_is_forgotten_is_gone_whole(portal: Portal, stage: str) -> None:
    for number in range(3):
        (portal.storage / "resources" / "only").write_text(f"in backup {number}")
        portal.backup("--only", "files")
    taken = [each["id"] for each in portal.backups()]
    portal.write(**{"ckanext.dbmanage.keep_last": "1"})
    talk = _Ended(stage)
    site = Site(portal.settings, talk)
    with pytest.raises(KeyboardInterrupt):
        if stage == "forget":
            forget(site, taken[1:])
        else:
            run_prune(site, dry_run=False)
    left = [each["id"] for each in portal.backups()]
    gone = 1 if stage == "forget" else 2
    assert len(left) == 3 - gone and set(left) < set(taken)
    assert not list(portal.repository.glob(".*.partial"))
    said = "`ckan db backups`" if stage == "forget" else "`ckan db prune` goes on"
    assert said in talk.standing.sentence()
    for each in left:
        portal.module("verify", each)
    portal.module("prune")
    objects = list((portal.repository / "objects").rglob("?" * 64))
    assert len(objects) == len(portal.uploads())


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a Solr that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/solr/none"


def ended(portal: Portal, stage: str, *words: str, env: Any = None) -> str:
    """What a command says that Ctrl-C ends in a stage, in which it waits."""
    process = forked.start(
        [BIN / "ckan", "-c", portal.ini, "db", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=portal.environment | (env or {}),
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line == f"{stage} …\n":
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1, [*seen, said]
    assert "Traceback" not in said
    told = said.splitlines()[-1]
    assert told.startswith("Error: ended by Ctrl-C. ")
    site = portal.site()
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    assert keeper.status() is None
    assert not [name for name in portal.copies() if name.endswith("_scratch")]
    assert not list(portal.repository.glob(".*.partial"))
    return told.removeprefix("Error: ended by Ctrl-C. ")


def test_a_dump(portal: Portal) -> None:
    slowed(portal, "pg_dump")
    target = portal.directory / "x.dump"
    assert ended(portal, "dump", "dump", str(target)) == (
        f"{NOTHING}; {target} was not written."
    )
    said = ended(portal, "dump", "dump", "-")
    assert said == f"{NOTHING}; what was written to stdout is not whole."
    assert not list(portal.directory.glob("*.dump*")), "a partial file"


def test_what_reads_records(portal: Portal, tmp_path: Path) -> None:
    """The old set stays published, the old file stays, the index is what it may be."""
    portal.db("publish", "-q")
    before = is_whole(folder(portal))
    target = tmp_path / "d.jsonl"
    target.write_text("")
    portal.sql("UPDATE package SET metadata_modified = now()")
    with closing(superuser(portal.names["database"])) as holding:
        holding.autocommit = False
        holding.cursor().execute("LOCK TABLE package_tag")
        words = ("export", "datasets", "--fresh", "-O", str(target))
        said = ended(portal, "datasets", *words)
        assert said == f"{NOTHING}; {target} was not written."
        assert ended(portal, "datasets", "publish", "--fresh") == f"{NOTHING}."
        assert ended(portal, "index", "reindex") == (
            "The database was not changed; the search index may be partly old, partly "
            "new: `ckan db reindex`."
        )
    assert [path.name for path in tmp_path.glob("*d.jsonl*")] == ["d.jsonl"]
    assert target.read_text() == "" and is_whole(folder(portal)) == before
    assert not (folder(portal) / ".next").exists()


def test_a_proof_and_a_load(portal: Portal) -> None:
    file = portal.directory / "x.dump"
    portal.module("dump", str(file))
    portal.backup("--only", "database")
    slowed(portal, "pg_restore")
    before = portal.state()
    assert ended(portal, "load database", "verify", "--prove") == f"{NOTHING}."
    words = ("load", str(file), "--yes")
    assert ended(portal, "load database", *words) == f"{NOTHING}."
    assert portal.state() == before
    assert [each["state"] for each in portal.backups()] == ["verified"]


def test_an_undo(portal: Portal, silence: str) -> None:
    portal.backup("--only", "database")
    portal.damage()
    portal.module("restore", "latest", "--yes", "--no-backup")
    oids = portal.oids()
    with closing(superuser(portal.names["database"])) as busy:
        busy.autocommit = False  # the switch waits for a long transaction
        busy.cursor().execute("SELECT pg_sleep(1.1)")
        assert ended(portal, "switch", "undo", "--yes") == f"{NOTHING}."
        assert portal.oids() == oids
    portal.write(solr_url=silence, solr_timeout="8")
    assert ended(portal, "index", "undo", "--yes") == (
        "The undo is done; `ckan db undo` goes back; searches may show the old state: "
        "`ckan db reindex --changed`."
    )
    assert portal.oids() != oids


def test_an_upgrade(portal: Portal, bad: Callable[[str], dict[str, str]]) -> None:
    env = bad("op.execute('CREATE TABLE of_bad ()'); time.sleep(20)")
    before = portal.state()
    for words, said in (
        ((), f"{NOTHING}; backup ID is there."),
        (("--in-place",), (
            "Some migrations may be in the live database: `ckan db upgrade --in-place` "
            "goes on, a restore of the backup goes back; backup ID is there; searches "
            "may show the old state: `ckan db reindex --changed`."
        )),
    ):  # fmt: skip
        told = ended(portal, "migrate", "upgrade", *words, env=env)
        newest = portal.backups()[0]["id"]
        assert told.replace(newest, "ID") == said
        assert portal.state() == before and not portal.copies()


def test_a_clean(portal: Portal, silence: str) -> None:
    portal.write(solr_url=silence, solr_timeout="8")
    told = ended(portal, "index", "clean", "--yes")
    (taken,) = portal.backups()
    assert told == (
        "CKAN's tables are gone; `ckan db init` creates new ones; backup "
        f"{taken['id']} is there; searches still show what was there: `ckan "
        "search-index clear`."
    )
    lines = (portal.repository / "journal.jsonl").read_text()
    assert '"what": "clean"' in lines or '"what":"clean"' in lines
