"""The maintenance in Redis, beside what else a process says to Redis."""

from __future__ import annotations

import os
import secrets

from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.client import connect
from ckanext.dbmanage.engine.redis.maintenance import READ_ONLY, Maintenance


def test_a_job_keeps_its_connection_when_a_maintenance_ends() -> None:
    """All of a process share one client: who closes it cuts off a job's heartbeat."""
    url = f"redis://127.0.0.1:{os.environ['DBMANAGE_REDIS_PORT']}/2"
    site = make_url(f"postgresql://ckan@db.test/{secrets.token_hex(6)}")
    keeper = Maintenance(url, site)
    with connect(url).pipeline() as heartbeat:
        heartbeat.watch(f"{keeper.key}:alive")  # so that it holds its connection
        before = heartbeat.execute_command("CLIENT ID")
        with keeper.held("a restore", "a backup", print) as to:
            to(READ_ONLY)
            assert (keeper.status() or {})["level"] == READ_ONLY
        assert keeper.status() is None
        assert heartbeat.execute_command("CLIENT ID") == before
