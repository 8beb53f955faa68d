"""The manual's own commands, run as they stand there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .support.cluster import BIN, query
from .support.manual import commands, run
from .support.portal import Portal, made_by
from .support.web import Web


def test_restore(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    portal.damage()
    restore, maintenance = commands("restore.rst")
    assert "lost" in run(portal, restore)
    assert portal.state() == before
    assert "read-only: by hand" in run(portal, maintenance)


def test_undo(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    portal.damage()
    damaged = portal.state()
    there_and_back, again = commands("undo.rst")
    run(portal, there_and_back)
    assert portal.state() == damaged
    run(portal, again)
    assert portal.state() == before


def test_prove(portal: Portal) -> None:
    (block,) = commands("prove.rst")
    assert "proven" in run(portal, block)


def test_disaster_recovery(portal: Portal, tmp_path: Path) -> None:
    """Neither databases nor uploads nor an index: only the copy and the configuration."""
    before = portal.state()
    portal.backup()
    copy = tmp_path / "copy"
    shutil.copytree(portal.repository, copy)
    for name in portal.names.values():
        query(f'DROP DATABASE "{name}" WITH (FORCE)')
    shutil.rmtree(portal.storage)
    blocks = commands("disaster.rst")
    assert len(blocks) == 3
    for block in blocks:
        run(portal, block, COPY=str(copy), STORAGE=str(portal.storage))
    assert portal.state() == before


def test_recovery_by_hand_with_stock_tools(portal: Portal, tmp_path: Path) -> None:
    path = portal.backup()
    (block,) = commands("recovery.rst")
    url = portal.site().databases["database"].url
    storage = tmp_path / "storage"
    try:
        run(
            portal,
            block,
            BACKUP=str(path),
            WORK=str(tmp_path),
            STORAGE=str(storage),
            PGHOST=str(url.host),
            PGPORT=str(url.port),
            PGUSER=str(url.username),
            PGPASSWORD=str(url.password),
        )
        state = portal.state()
        portal.names = {"database": "recovered", "datastore": "recovered_datastore"}
        portal.storage = storage
        assert portal.state() == state
    finally:
        for name in ("recovered", "recovered_datastore"):
            query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def test_export(portal: Portal, tmp_path: Path) -> None:
    for block in commands("export.rst"):
        run(portal, f"cd {tmp_path}\n{block}")
    lines = (tmp_path / "my_datasets.jsonl").read_text().splitlines()
    assert len(lines) == 36
    assert len((tmp_path / "everything.jsonl").read_text().splitlines()) == 40


def test_upgrading(portal: Portal) -> None:
    made_by(portal, "2.10")
    portal.sql(
        "INSERT INTO package_extra (id, package_id, key, value, state)"
        " VALUES ('e', 'id-1', 'k', 'v', 'active')"
    )
    old = portal.sql("SELECT version_num FROM alembic_version")
    *steps, undo = commands("upgrading.rst")
    said = [run(portal, step) for step in steps]
    assert "the upgrade would work" in said[0] and "upgraded by" in said[1]
    assert portal.sql("SELECT extras FROM package WHERE id = 'id-1'") == [({"k": "v"},)]
    before = portal.directory / "before.ini"
    core = os.environ["CKAN_SOLR_URL"]
    before.write_text(portal.ini.read_text().replace(core, f"{core}_210"))
    run(portal, undo, OLD=f"{BIN.parent.parent}/venv-2.10", OLD_INI=str(before))
    assert portal.sql("SELECT version_num FROM alembic_version") == old


def test_search_index(portal: Portal) -> None:
    for block in commands("search.rst"):
        run(portal, block)
    done = portal.ckan("search-index", "check")
    assert "Packages not indexed = 0" in done.stdout


def test_publish_and_use_the_dumps(
    portal: Portal,
    make_portal: Callable[..., Portal],
    serve: Callable[[Portal], Web],
    tmp_path: Path,
) -> None:
    # ids as CKAN makes them: it takes back no others
    columns = (
        ("group", "id"), ("member", "group_id"), ("member", "table_id"), ("package", "id"),
        ("package", "owner_org"), ("resource", "id"), ("resource", "package_id"),
        ("package_tag", "package_id"),
    )  # fmt: skip
    changes = [f'UPDATE "{t}" SET {c} = md5({c})::uuid::text' for t, c in columns]
    portal.sql("; ".join(["SET session_replication_role = replica", *changes]))
    publish, fetch, load = commands("publish.rst")
    run(portal, publish)
    url = f"http://127.0.0.1:{serve(portal).port}/dump"
    assert "Dataset" in run(portal, f"cd {tmp_path}\n{fetch}", URL=url)
    for block in commands("publish.rst", "python"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", block],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "An organization" in done.stdout and "36" in done.stdout
    other = make_portal()
    other.sql('TRUNCATE package, "group", tag, member, resource CASCADE')
    run(portal, f"cd {tmp_path}\n{load}", URL=url, OTHER_INI=str(other.ini))
    assert other.sql("SELECT count(*) FROM package WHERE state = 'active'") == [(36,)]
