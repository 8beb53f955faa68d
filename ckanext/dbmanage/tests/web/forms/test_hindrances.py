"""What hinders a restore is said before anything is typed, and done."""

from __future__ import annotations

import html
import subprocess

import redis
import rq

from ...support.cluster import query
from ...support.pages import BACKUPS, ROLE, text
from ...support.site import PASSWORD, TITLE, Session, Site


def test_what_hinders_a_restore_is_said_before_anything_is_typed(
    site: Site, me: Session, backup: str, token: str
) -> None:
    path = f"{BACKUPS}{backup}/restore"
    site.portal.db("arm", backup)
    page = me.ask("GET", path).text
    assert "no worker runs" in page and "<fieldset disabled>" in page
    words = {"confirm": TITLE, "password": PASSWORD}
    answer = me.post(path, **words)
    assert answer.status_code == 400 and "no worker runs" in answer.text
    assert " db worker" in answer.text
    shown = site.act("dbmanage_backup_show", token, id=backup, parts=["files"])
    assert [" db worker`" in each for each in shown["blockers"]] == [True]
    # an armed restore is not used up by what was refused
    assert site.act("dbmanage_status", token)["armed"]["backup"] == backup
    assert "asked" not in [
        e["event"] for e in site.journal if e.get("what") == "restore"
    ]
    site.paused_worker()
    try:
        assert "<fieldset disabled>" not in me.ask("GET", path).text
        job = site.act("dbmanage_publish", token)
        answer = me.post(path, **words)
        assert f"another job is under way, publish {job['id']}" in answer.text
        site.act("dbmanage_job_cancel", token, id=job["id"])
        _, repository = site.portal.engine()
        with repository.lock("a test"):
            assert "in use by a test, process" in text(me.ask("GET", path).text)
        query(f"ALTER ROLE {ROLE} NOCREATEDB")
        answer = me.post(path, **words)
        query(f"ALTER ROLE {ROLE} CREATEDB")
        assert f"ALTER ROLE {ROLE} CREATEDB;" in html.unescape(answer.text)
        assert site.act("dbmanage_status", token)["armed"]["backup"] == backup
        # now nothing does; a second click finds the first one's job
        made = [me.post(path, **words).headers["Location"] for _ in range(2)]
        assert made[0] == made[1]
        known = site.act("dbmanage_job_show", token, id=made[0].rpartition("/")[2])
        assert known["kind"] == "restore" and known["until"]
        assert site.act("dbmanage_status", token)["armed"] is None
        site.act("dbmanage_job_cancel", token, id=known["id"])
    finally:
        site.stop()


def test_a_worker_that_takes_other_jobs_is_no_worker(
    site: Site, me: Session, token: str
) -> None:
    """As who runs `ckan jobs worker`, and waits for what that never takes."""
    client = redis.Redis.from_url(site.portal.options["ckan.redis.url"])
    name = f"ckan:{site.portal.options['ckan.site_id']}:default"
    others = rq.Worker([rq.Queue(name, connection=client)], connection=client)
    others.register_birth()
    try:
        worker = site.act("dbmanage_status", token)["worker"]
        assert (worker["count"], worker["others"]) == (0, 1)
        page = me.ask("GET", BACKUPS).text
        assert "1 worker of this site runs, but takes other jobs only." in page
        assert worker["command"] in page
        job = site.act("dbmanage_publish", token)["id"]
        page = me.ask("GET", f"{BACKUPS}job/{job}").text
        assert worker["command"] in page and "takes other jobs only" in page
        site.act("dbmanage_job_cancel", token, id=job)
    finally:
        others.register_death()


def test_a_backup_that_does_not_fit_names_one_that_does(
    site: Site, me: Session, backup: str
) -> None:
    foreign = site.portal.repository / "20200101T000000Z"
    subprocess.run(["cp", "-a", site.portal.repository / backup, foreign], check=True)
    try:
        page = me.ask("GET", f"{BACKUPS}{foreign.name}/restore").text
        assert "cannot be restored here" in page
        assert f"The newest that can be restored: {backup}" in page
    finally:
        subprocess.run(["rm", "-r", foreign], check=True)
