"""Jobs that are cancelled, that die, and that are of another portal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ..support.cluster import PG_BIN
from ..support.portal import Portal, slowed
from ..support.site import SYSADMIN, TITLE, Site
from ..support.waiting import wait_until
from ..support.web import Web


def test_cancel_leaves_nothing_behind(site: Site) -> None:
    token, portal = site.api_token(), site.portal
    id = portal.backup().name
    slowed(portal)
    site.start_worker()
    before = sorted(p.name for p in portal.repository.iterdir())
    there, rows_before = portal.copies(), site.rows
    portal.db("arm", id)
    for name, data, phase in (
        ("dbmanage_backup_create", {"note": "later"}, "dump"),
        ("dbmanage_backup_verify", {"id": id, "prove": True}, "load"),
        ("dbmanage_restore", {"id": id, "confirm": TITLE}, "load"),
    ):
        job = site.act(name, token, **data)

        def under_way(id: str = job["id"], phase: str = phase) -> bool:
            return site.act("dbmanage_job_show", token, id=id)["phase"] == phase

        wait_until(under_way)
        time.sleep(0.5)
        asked = site.act("dbmanage_job_cancel", token, id=job["id"])
        assert asked.get("state") == "running", asked
        done = site.ended(token, job["id"])
        assert done["state"] == "cancelled", done
        assert sorted(p.name for p in portal.repository.iterdir()) == before
        assert portal.copies() == there
    assert site.rows == rows_before
    assert site.act("dbmanage_backup_show", token, id=id)["state"] == "verified"
    status = site.act("dbmanage_status", token)
    assert status["failed"] is None and not status["half_way"]
    left = [k for k in site.keys if b"once:" in k or b":alive" in k]
    assert not left


def test_a_worker_that_dies_is_shown_and_locks_nobody_out(site: Site) -> None:
    worked, token = site, site.api_token()
    slowed(site.portal)
    site.start_worker()
    job = worked.act("dbmanage_backup_create", token)
    wait_until(lambda: worked.act("dbmanage_job_show", token, id=job["id"])["phase"])
    assert worked.worker is not None
    pid = worked.worker.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)
    worked.worker.wait()

    def lost() -> bool:
        shown = worked.act("dbmanage_job_show", token, id=job["id"])
        return shown["state"] == "lost"

    wait_until(lost)
    status = worked.act("dbmanage_status", token)
    assert status["worker"]["count"] == 0 and status["jobs"] == []
    page = worked.session(SYSADMIN).ask("GET", "/ckan-admin/backups/").text
    assert "No worker runs." in page and status["worker"]["command"] in page
    worked.portal.write(**{"ckanext.dbmanage.pg_bin": str(PG_BIN)})
    assert worked.portal.backup().is_dir()
    assert not list(worked.portal.repository.glob(".*.partial"))
    worked.start_worker()
    again = worked.act("dbmanage_backup_create", token)
    assert again["id"] != job["id"]
    assert worked.ended(token, again["id"])["state"] == "done"


def test_portals_on_one_redis_do_not_mix(
    make_portal: Callable[..., Portal], serve: Callable[[Portal], Web]
) -> None:
    sites = [Site(make_portal({"ckan.site_id": "default"}), serve) for _ in range(2)]
    tokens = [site.api_token() for site in sites]
    jobs = [
        site.act("dbmanage_backup_create", token)
        for site, token in zip(sites, tokens, strict=True)
    ]
    commands = [
        site.act("dbmanage_status", token)["worker"]["command"]
        for site, token in zip(sites, tokens, strict=True)
    ]
    assert commands[0] != commands[1]
    try:
        sites[0].start_worker()
        assert sites[0].ended(tokens[0], jobs[0]["id"])["state"] == "done"
        (other,) = sites[1].act("dbmanage_job_list", tokens[1])
        assert other["id"] == jobs[1]["id"] and other["state"] == "queued"
        assert sites[1].act("dbmanage_status", tokens[1])["worker"]["count"] == 0
        missing = sites[1].act("dbmanage_job_show", tokens[1], id=jobs[0]["id"])
        assert not missing["success"]
    finally:
        sites[0].stop()
