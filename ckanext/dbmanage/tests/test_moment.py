"""The manual's page about one portal of many, run with Debian's pgBackRest."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .support.cluster import Cluster, free_port
from .support.manual import commands, run
from .support.portal import Portal
from .support.small import BINS


def as_postgres(block: str, **variables: str) -> None:
    done = subprocess.run(
        Cluster._as_user("sh", "-eu", "-c", block),
        env=os.environ | variables, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


@pytest.mark.skipif(not BINS[15].exists(), reason="Debian's pgBackRest is for its own")
def test_at(
    portal: Portal, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    assert shutil.which("pgbackrest"), "bin/services install"
    repo, side, conf = (
        tmp_path / "repo",
        tmp_path / "side",
        tmp_path / "pgbackrest.conf",
    )
    push = f"pgbackrest --config={conf} --stanza=main archive-push %p"
    live = make_cluster(
        "-k", str(tmp_path), "-c", "fsync=off", "-c", "archive_mode=on",
        "-c", f"archive_command={push}", bin=BINS[15],
    )  # fmt: skip
    conf.write_text(
        f"[global]\nrepo1-path={repo}\nstart-fast=y\ncompress-type=zst\n"
        "process-max=2\nlog-level-file=off\n"
        f"lock-path={tmp_path}/lock\n[main]\npg1-path={live.data}\npg1-user=postgres\n"
        f"pg1-port={live.port}\npg1-socket-path={tmp_path}\n"
    )
    live.sql("ALTER ROLE ckan_default PASSWORD 'of-that-moment'")
    for part in portal.names:
        live.copy(portal, part)
    name = portal.names["database"]
    live.sql("CREATE DATABASE neighbour")
    live.sql("CREATE TABLE saved (a int); INSERT INTO saved VALUES (1)", "neighbour")
    before, beside, back, away = commands("moment.rst")
    as_postgres(before, PGBACKREST_CONFIG=str(conf))
    time.sleep(1.1)  # pgBackRest counts in seconds
    count = "SELECT count(*) FROM package WHERE state = 'active'"
    # after the copy, so that only the log has it
    live.sql("UPDATE package SET title = 'of 14:02' WHERE name = 'dataset-1'", name)
    ((moment,),) = live.sql("SELECT clock_timestamp()::text")
    ((good,),) = live.sql(count, name)
    live.sql("UPDATE package SET state = 'deleted', title = 'gone'", name)
    live.sql("INSERT INTO saved VALUES (2)", "neighbour")
    port = str(free_port())
    variables = {
        "SIDE": str(side), "REPO": str(repo), "TIME": moment, "PORT": port,
        "PGBACKREST_CONFIG": str(conf), "PATH": f"{BINS[15]}:{os.environ['PATH']}",
    }  # fmt: skip
    try:
        as_postgres(beside, **variables)
        run(
            portal, back,
            ROLE="ckan_default", NAME=name, PORT=port, PGPASSWORD="of-that-moment",
        )  # fmt: skip
    finally:
        if (side / "data" / "postmaster.pid").exists():
            as_postgres(away, **variables)
    assert live.sql(count, name) == [(good,)] != [(0,)]
    title = "SELECT title FROM package WHERE name = 'dataset-1'"
    assert live.sql(title, name) == [("of 14:02",)]
    assert live.sql("SELECT a FROM saved ORDER BY 1", "neighbour") == [(1,), (2,)]
