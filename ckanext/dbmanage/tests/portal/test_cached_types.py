"""A running site goes on after a switch."""

from __future__ import annotations

import json
import subprocess
import urllib.request

import pytest

from ..support import forked
from ..support.cluster import BIN, free_port
from ..support.portal import Portal
from ..support.waiting import wait_until


@pytest.mark.smoke
def test_a_running_site_serves_the_datastore_after_the_switch(portal: Portal) -> None:
    """Without a look at each new connection it answers 500 for ever."""
    port = free_port()
    log = open(portal.directory / "web.log", "w")  # noqa: SIM115
    web = forked.start(
        [BIN / "ckan", "-c", portal.ini, "run", "-H", "127.0.0.1", "-p", str(port), "-r"],
        env=portal.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/api/3/action/datastore_search?resource_id="
    url += "00000001-0000-4000-8000-000000000000"

    def rows() -> int:
        with urllib.request.urlopen(url, timeout=300) as answer:  # noqa: S310
            return len(json.load(answer)["result"]["records"])

    def up() -> bool:
        try:
            return rows() == 50
        except OSError:
            return False

    try:
        # the table's resource has to be known, for its permissions
        portal.sql(
            "UPDATE resource SET id = '00000001-0000-4000-8000-000000000000',"
            " extras = '{\"datastore_active\": true}' WHERE id = 'r-1'"
        )
        portal.sql("ALTER TYPE json OWNER TO postgres", "datastore")
        portal.sql(
            "CREATE TYPE nested AS (json json, extra text); ALTER TYPE nested OWNER TO ckan_default;"
            ' ALTER TABLE "00000001-0000-4000-8000-000000000000" ADD n nested',
            "datastore",
        )
        wait_until(up)
        portal.backup()
        for _ in range(2):
            portal.module("restore", "latest", "--yes", "--no-backup")
            assert rows() == 50
    finally:
        web.terminate()
        web.wait()
        log.close()
