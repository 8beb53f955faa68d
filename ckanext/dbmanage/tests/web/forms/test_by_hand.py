"""The forms and answers of the sysadmin page, as a browser without a script sees them.

All tests share one site; each leaves it as it was.
"""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import redis
import rq
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.clock import stamp
from ckanext.dbmanage.engine.redis.client import key_of
from ckanext.dbmanage.engine.redis.maintenance import Maintenance

from ..support.cluster import BIN, PG_BIN, SUPERUSER, query
from ..support.cluster import PASSWORD as PASSWORD_OF_CKAN
from ..support.manual import commands, run
from ..support.portal import Portal, install_plugin
from ..support.site import PASSWORD, SYSADMIN, TITLE, Session, Site, hosted, own_redis

#: each of them is of a site that has a backup, also when it runs alone
pytestmark = pytest.mark.usefixtures("backup")
BACKUPS = "/ckan-admin/backups/"
#: what `ckanext.dbmanage.admin_url` connects as, so that it may lose a right
ROLE = f"forms_{secrets.token_hex(3)}"
#: signs in by a cookie of its own, as a plugin for single sign-on does
SSO = """
import ckan.plugins as p
from ckan import model
from ckan.common import request
from flask import current_app

class Plugin(p.SingletonPlugin):
    p.implements(p.IAuthenticator, inherit=True)

    def identify(self):
        if name := request.cookies.get("sso"):
            user = model.User.get(name)
            current_app.login_manager._update_request_context_with_user(user)
"""


@pytest.fixture(scope="module")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        found = install_plugin(
            directory / "sso", "sso", {"__init__.py": SSO}, "__init__:Plugin"
        )
        patch.setenv("PYTHONPATH", found["PYTHONPATH"], prepend=os.pathsep)
        at = f"{SUPERUSER.host}:{SUPERUSER.port}"
        options = {
            "ckan.plugins": "dbmanage datastore activity sso",
            "ckanext.dbmanage.sendfile": "X-Accel-Redirect /public /inside",
            "ckanext.dbmanage.admin_url": f"postgresql://{ROLE}:other@{at}/postgres",
        }
        query(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD 'other'")
        query(f"GRANT ckan_default TO {ROLE}")
        try:
            with own_redis() as (server, address):
                options["ckan.redis.url"] = address
                with hosted(template, directory, **options) as made:
                    made.redis = server
                    yield made
        finally:
            query(f"DROP ROLE {ROLE}")


@pytest.fixture(scope="module")
def backup(site: Site) -> str:
    return site.portal.backup().name


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    return site.api_token()


@pytest.fixture(scope="module")
def me(site: Site) -> Session:
    return site.session(SYSADMIN)


def text(page: str) -> str:
    """What a person reads of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def boxes(page: str) -> dict[str, bool]:
    """The boxes for parts, and whether they are ticked."""
    found = re.findall(r'name="parts" value="(\w+)"( checked)?', page)
    return {part: bool(ticked) for part, ticked in found}


# ------------------------------------------------------------------------- forgeries


def test_a_cookie_is_not_enough_for_the_api(
    site: Site, me: Session, token: str
) -> None:
    """Whatever cookie signs somebody in: a browser sends it for any other site too."""
    path = "/api/3/action/dbmanage_maintenance_update"
    sso = site.session()
    sso.cookies.set("sso", SYSADMIN)
    for browser in (me, sso):
        assert browser.ask("GET", "/api/3/action/dbmanage_status").status_code == 200
        for kind in ("json", "data"):
            answer = browser.ask("POST", path, **{kind: {"level": "read-only"}})
            assert answer.status_code == 403 and "CSRF" in answer.text, answer.text
        answer = browser.ask(
            "POST", path, json={"level": "off"}, headers={"Authorization": token}
        )
        assert answer.status_code == 200, answer.text
    assert site.act("dbmanage_maintenance_show", token) == {"level": "off"}


def test_a_form_that_is_sent_too_late_says_what_to_do(site: Site, me: Session) -> None:
    came = {"Referer": f"{site.base}{BACKUPS}journal"}
    late = me.ask("POST", f"{BACKUPS}new", data={"note": "x"}, headers=came)
    assert late.status_code == 400 and "was open for too long" in late.text
    assert f'href="{BACKUPS}journal"' in late.text
    gone = site.session().ask("POST", f"{BACKUPS}new", data={"note": "x"}, headers=came)
    assert gone.status_code in (400, 403) and "You were signed out" in gone.text
    assert f"/user/login?came_from={BACKUPS}journal" in gone.text.replace("%2F", "/")
    for answer in (late, gone):
        assert "Nothing was done" in answer.text
    elsewhere = {"Referer": "http://evil.test/ckan-admin/backups/x"}
    late = me.ask("POST", f"{BACKUPS}new", data={}, headers=elsewhere)
    assert "evil" not in late.text


def test_security_headers_stand_on_refusals_too(site: Site, me: Session) -> None:
    user = site.session("user-3")
    for browser, method, path, status in (
        (me, "GET", "", 200),
        (me, "GET", "20200101T000000Z", 404),
        (me, "GET", "job/x", 404),
        (me, "GET", "job/x/live", 404),
        (me, "GET", "file/x/y", 404),
        (me, "POST", "new", 400),
        (me, "PUT", "new", 405),
        (user, "GET", "", 403),
        (site.session(), "GET", "", 302),
        (site.session(), "GET", "job/x/live", 403),
    ):
        answer = browser.ask(method, BACKUPS + path)
        assert answer.status_code == status, (path, answer.status_code)
        if status == 405:  # no route of ours, so core's own answer
            continue
        headers = answer.headers
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Referrer-Policy"] == "same-origin", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["Cache-Control"] == "no-store, private", path


# ----------------------------------------------------------------------------- parts


def test_parts_that_are_left_out_stay_out(
    site: Site, me: Session, backup: str, token: str
) -> None:
    path = f"{BACKUPS}{backup}/restore"
    assert all(boxes(me.ask("GET", path).text).values())
    answer = me.post(path, boxes="1", parts="files", confirm="wrong", password="no")
    assert answer.status_code == 400
    left = {"database": False, "datastore": False, "files": True}
    assert boxes(answer.text) == left
    none = me.post(path, boxes="1", confirm=TITLE, password=PASSWORD)
    assert none.status_code == 400 and "Choose at least one part" in none.text
    assert not any(boxes(none.text).values())
    refused = site.act("dbmanage_restore", token, id=backup, parts=[], preview=True)
    assert "Choose at least one part" in str(refused["error"]["parts"])
    empty = me.post(f"{BACKUPS}new", boxes="1", note="nothing")
    assert "Choose at least one part" in me.ask("GET", empty.headers["Location"]).text
    assert site.act("dbmanage_job_list", token) == []

    made = me.post(f"{path.rpartition('/')[0]}/preview", boxes="1", parts="files")
    job = made.headers["Location"].rpartition("/")[2]
    shown = site.act("dbmanage_job_show", token, id=job)
    assert shown["arguments"] == {"id": backup, "parts": ["files"]}
    site.act("dbmanage_job_cancel", token, id=job)
    assert boxes(me.ask("GET", f"{path}?boxes=1&parts=files").text) == left


# ----------------------------------------------------------------------- what hinders


def test_the_headline_names_what_matters_most_and_links_what_it_counts(
    site: Site, me: Session, backup: str, token: str
) -> None:
    _, repository = site.portal.engine()
    hurt = site.portal.backup("--only", "database").name
    problem = {"time": stamp(), "problems": ["database.dump.zst: was changed"]}
    repository.find(hurt).remember(verified=problem)
    try:
        status, page = site.act("dbmanage_status", token), me.ask("GET", BACKUPS).text
        assert (status["state"], status["damaged"]) == ("damaged", 1)
        assert status["headline"]["colour"] == "red"
        assert status["headline"]["text"] == "Damaged backups: 1 of 2."
        (said,) = re.findall(r"<strong>(Damaged backups: .*?)</strong>", page)
        assert re.findall(r'href="([^"]+)"', said) == [
            f"{BACKUPS}?state=damaged#list-h", f"{BACKUPS}#list-h",
        ]  # fmt: skip
        assert "Protected." not in page and "is-bad" in page
        german = text(me.ask("GET", f"/de{BACKUPS}").text)
        assert re.search(r"Beschädigte Sicherungen: 1 von 2\b", german)
    finally:
        site.portal.module("forget", hurt, "--yes")
    assert "Damaged" not in site.act("dbmanage_status", token)["headline"]["text"]


def test_what_is_kept_is_what_a_timer_keeps(site: Site, me: Session) -> None:
    _, repository = site.portal.engine()
    repository.record("prune", "done", what="prune", by_itself=False)
    page = text(me.ask("GET", BACKUPS).text)
    assert "would keep: the last 3, 7 daily" in page and "Kept: " not in page
    site.portal.module("prune", "-q")  # as cron does, without a terminal
    page = text(me.ask("GET", BACKUPS).text)
    assert "Kept: the last 3, 7 daily" in page and "would keep" not in page


def test_the_newest_good_backup_is_deleted_with_the_words_for_that_alone(
    site: Site, me: Session, token: str
) -> None:
    id = site.portal.backup().name
    path = f"{BACKUPS}{id}/delete"
    site.arm(id, "delete")
    assert "This is the newest good backup" in text(me.ask("GET", path).text)
    answer = me.post(path, password=PASSWORD)
    assert answer.status_code == 400 and "newest-err" in answer.text
    answer = me.post(path, password=PASSWORD, newest="1")
    assert answer.status_code == 302, answer.text
    listed = site.act("dbmanage_backup_list", token)
    assert id not in [each["id"] for each in listed]


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


def test_what_an_operation_holds_is_not_ended_from_the_page(
    site: Site, me: Session, token: str
) -> None:
    url = make_url(site.portal.options["sqlalchemy.url"])
    keeper = Maintenance(site.portal.options["ckan.redis.url"], url)
    with keeper.held("restore", "a test", print) as to:
        to("read-only")
        page = me.ask("GET", BACKUPS).text
        assert "ends it by itself" in page and "Let people save again" not in page
        for level in ("off", "away", "read-only"):
            refused = site.act("dbmanage_maintenance_update", token, level=level)
            assert "an operation holds" in str(refused["error"]), refused
        assert site.act("dbmanage_maintenance_show", token)["held"] is True
    assert site.act("dbmanage_maintenance_show", token) == {"level": "off"}
    me.post(f"{BACKUPS}maintenance", level="read-only")
    assert "Let people save again" in me.ask("GET", BACKUPS).text
    me.post(f"{BACKUPS}maintenance", level="off")
    assert site.act("dbmanage_maintenance_show", token) == {"level": "off"}


def test_rows_that_cannot_be_counted_in_time_are_no_error(
    site: Site, me: Session, backup: str, token: str
) -> None:
    with closing(psycopg2.connect(site.portal.url("database"))) as other:
        other.cursor().execute("LOCK TABLE resource IN ACCESS EXCLUSIVE MODE")
        answer = me.ask("GET", f"{BACKUPS}{backup}?compare=1")
        shown = site.act("dbmanage_backup_show", token, id=backup, compare=True)
    assert answer.status_code == 200 and "took too long for a page" in answer.text
    assert "Count what a restore would change" in answer.text
    assert shown["differing"] is None


def test_only_whole_backups_count(site: Site, me: Session, token: str) -> None:
    known = site.act("dbmanage_status", token)
    half = site.portal.backup("--only", "database").name
    after = site.act("dbmanage_status", token)
    assert after["newest"]["id"] == known["newest"]["id"]
    assert after["count"] == known["count"] + 1
    # what the page shows, in order, and what it needs to say
    assert [night["id"] for night in after["nights"]][-1] == half
    assert len(after["nights"]) == after["count"]
    assert after["wanted"] == ["database", "datastore", "files"]
    assert after["retention"]["min"] == 1 and after["undo_days"] == 7
    listed = site.act("dbmanage_backup_list", token)
    newest = {each["id"]: each["newest"] for each in listed}
    assert "newest verified" in newest[half]
    assert "newest verified" in newest[known["newest"]["id"]]
    # the newest whole one is asked for, though a newer one is there
    refused = site.act("dbmanage_backup_delete", token, id=known["newest"]["id"])
    assert "newest verified" in str(refused["error"]["newest"])
    assert site.act("dbmanage_backup_show", token, id=known["newest"]["id"])["newest"]
    for name in ("delete", "keep"):
        for id in ("latest", "oldest"):
            refused = site.act(f"dbmanage_backup_{name}", token, id=id)
            assert "by its id" in str(refused["error"]), refused
    whole = site.portal.backup().name
    site.arm(half, "delete")
    assert site.act("dbmanage_backup_delete", token, id=half) == {"id": half}
    again = site.act("dbmanage_backup_delete", token, id=half)
    assert again["error"]["__type"] == "Not Found Error"
    assert site.act("dbmanage_status", token)["newest"]["id"] == whole
    # one without a folder of uploads is no whole one
    other = site.portal.directory / "elsewhere"
    other.mkdir()
    (other / "upload").write_text("x")
    link = site.portal.storage / "resources" / "elsewhere"
    link.symlink_to(other)
    partly = site.portal.module("backup", code=1).stdout.strip()
    link.unlink()
    assert site.act("dbmanage_status", token)["newest"]["id"] == whole
    page = text(me.ask("GET", BACKUPS + partly).text)
    assert (
        "This backup does not hold all uploads" in page
        and "the 1 files behind it" in page
    )
    shutil.rmtree(site.portal.repository / partly)


# --------------------------------------------------------------------------- journal


def test_who_did_what_from_where_is_in_the_journal(site: Site, me: Session) -> None:
    # the newest good one could not be deleted
    backup, _ = site.portal.backup().name, site.portal.backup()
    proxied = {"X-Forwarded-For": "203.0.113.7, <b>10.0.0.1</b>"}
    me.headers.update(proxied)
    try:
        at = f"{BACKUPS}{backup}"
        me.post(f"{at}/keep")
        site.arm(backup, "release")
        me.post(f"{at}/release", password=PASSWORD)
        me.post(f"{at}/download", file="all.tar", password="wrong")
        me.post(f"{BACKUPS}maintenance", level="read-only")
        me.post(f"{BACKUPS}maintenance", level="off")
        for path, data in (("export", {"kind": "users"}), ("publish", {})):
            made = me.post(BACKUPS + path, **data).headers["Location"]
            page = me.ask("GET", made).text
            assert "for 203.0.113.7, &lt;b&gt;10.0.0.1" in page, text(page)
            me.post(f"{made}/cancel")
        site.arm(backup, "delete")
        me.post(f"{at}/delete", password=PASSWORD)
    finally:
        me.headers.pop("X-Forwarded-For")
    lines = [e for e in site.journal if e.get("forwarded") and e.get("what")]
    done = [(e["what"], e["event"]) for e in lines]
    for wanted in (
        ("keep", "done"), ("release", "done"), ("download", "refused"),
        ("maintenance read-only", "asked"), ("maintenance off", "asked"),
        ("export", "asked"), ("publish", "asked"), ("cancel", "asked"),
        ("delete", "done"),
    ):  # fmt: skip
        assert wanted in done, (wanted, done)
    for line in lines:
        assert line["user"] == SYSADMIN and line["address"] == "127.0.0.1"
        assert line["forwarded"].startswith("203.0.113.7")
    (wrong,) = (e for e in lines if e["event"] == "refused")
    assert wrong["error"] == "That is not your password"
    page = me.ask("GET", f"{BACKUPS}journal").text
    assert "(127.0.0.1, for 203.0.113.7, <b>" not in text(page) + page
    assert "for 203.0.113.7" in text(page) and "Saving paused" in page


def test_many_guesses_at_once_are_all_counted(
    site: Site, me: Session, token: str
) -> None:
    id = site.act("dbmanage_status", token)["newest"]["id"]
    client = redis.Redis.from_url(site.portal.options["ckan.redis.url"])
    wrong = key_of(make_url(site.portal.options["sqlalchemy.url"]), "armed:wrong")
    client.delete(wrong)
    form = me.token(f"{BACKUPS}{id}/download")
    answers: list[str] = []

    def guess() -> None:
        data = form | {"file": "all.tar", "password": "guess"}
        answers.append(me.ask("POST", f"{BACKUPS}{id}/download", data=data).text)

    threads = [threading.Thread(target=guess) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("in an hour" in answer for answer in answers) == 6
    right = me.post(f"{BACKUPS}{id}/download", file="all.tar", password=PASSWORD)
    assert "in an hour" in right.text
    client.delete(wrong)
    site.arm(id, "download")
    right = me.post(f"{BACKUPS}{id}/download", file="all.tar", password=PASSWORD)
    assert right.status_code == 200, right.text


# ----------------------------------------------------------------------------- others


def test_export_and_publish_are_there_from_the_first_day(
    site: Site, me: Session
) -> None:
    whole = site.portal.repository.with_name("elsewhere")
    site.portal.repository.rename(whole)
    try:
        page = me.ask("GET", BACKUPS).text
    finally:
        subprocess.run(["rm", "-rf", site.portal.repository], check=True)
        whole.rename(site.portal.repository)
    assert "No backup yet" in page
    assert "Publish now" in page and "Export as JSON Lines" in page


def test_a_link_that_expires_under_way_is_not_found(
    site: Site, me: Session, token: str
) -> None:
    id = site.act("dbmanage_status", token)["newest"]["id"]
    client = redis.Redis.from_url(site.portal.options["ckan.redis.url"])
    url = make_url(site.portal.options["sqlalchemy.url"])
    for key in client.scan_iter(key_of(url, "link:*")):
        client.delete(key)
    site.arm(id, "download")
    page = me.post(f"{BACKUPS}{id}/download", file="all.tar", password=PASSWORD).text
    found = re.search(rf'{BACKUPS}file/[^"]+', page)
    assert found, text(page)
    (key,) = client.scan_iter(key_of(url, "link:*"))
    client.delete(key)
    assert me.ask("GET", found[0]).status_code == 404
    assert not client.exists(key)


def test_the_manual_s_commands(site: Site, backup: str, token: str) -> None:
    arm, actions = commands("sysadmin.rst")
    # what there is nothing of to undo is not armed
    site.portal.module("restore", backup, "--only", "files", "--yes", "--no-backup")
    run(site.portal, arm)
    assert site.act("dbmanage_status", token)["armed"]["backup"] == "undo"
    answers = run(site.portal, actions)
    made, end = json.JSONDecoder().raw_decode(answers)
    found = json.loads(answers[end:])
    assert {e["state"] for e in found} == {"verified"}
    assert made["kind"] == "backup" and made["arguments"]["note"] == "before import"
    site.act("dbmanage_job_cancel", token, id=made["id"])


def test_the_web_server_in_front_sends_single_files(
    site: Site, me: Session, token: str
) -> None:
    id = site.act("dbmanage_status", token)["newest"]["id"]

    def link(file: str) -> str:
        site.arm(id, "download")
        page = me.post(f"{BACKUPS}{id}/download", file=file, password=PASSWORD).text
        found = re.search(rf'{BACKUPS}file/[^"]+', page)
        assert found, text(page)
        return found[0]

    path = link("database.dump.zst")
    answer = me.ask("GET", path)
    assert answer.headers["X-Accel-Redirect"] == f"/inside/{id}/database.dump.zst"
    assert answer.content == b"" and answer.status_code == 200
    assert f"{id}-database.dump.zst" in answer.headers["Content-Disposition"]
    again = me.ask("GET", path)
    assert again.status_code == 410 and "X-Accel-Redirect" not in again.headers
    # made while it is sent, so by CKAN itself
    whole = me.ask("GET", link("all.tar"))
    assert "X-Accel-Redirect" not in whole.headers and len(whole.content) > 10_000


def test_error_pages_tell_nothing(site: Site, me: Session) -> None:
    """Nothing of passwords, addresses of servers, or code, whatever is away."""
    name = site.portal.names["database"]
    secret = (
        make_url(site.portal.url("database")).password or "", "portal-secret",
        str(SUPERUSER.port), "Traceback", "psycopg2", "sqlalchemy", "site-packages",
    )  # fmt: skip
    paths = ("", "latest", "latest/restore", "journal", "tables", "job/x", "job/x/live")

    def look(status: int) -> str:
        pages = []
        for path in paths:
            answer = me.ask("GET", BACKUPS + path)
            assert answer.status_code < 600
            # the commands of a restore by hand name the server that they are for
            rest = re.sub(
                '<section aria-labelledby="hand-h">.*?</section>', "", answer.text,
                flags=re.DOTALL,
            )  # fmt: skip
            assert not [s for s in secret if s in rest], path
            pages.append((path, answer.status_code, text(answer.text)))
        answer = me.ask("GET", "/api/3/action/dbmanage_status")
        assert not [s for s in secret if s in answer.text]
        assert status in [code for _, code, _ in pages], pages
        return pages[0][2]

    server = site.redis
    assert server is not None
    server.send_signal(signal.SIGSTOP)
    try:
        page = look(200)
        assert "Redis does not answer" in page and "Recent activity" in page
    finally:
        server.send_signal(signal.SIGCONT)
    query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
          "postgres", name)  # fmt: skip
    try:
        look(500)
    finally:
        query(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert "Redis" not in look(200)


# ------------------------------------------------------------------- restore by hand


def test_what_the_page_shows_restores_beside_the_live_site(
    me: Session, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = site.portal
    backup = portal.backup().name  # other tests have made tokens since theirs
    page = me.ask("GET", f"{BACKUPS}{backup}").text
    (shown,) = re.findall(r'<pre id="cmd-hand"[^>]*>(.*?)</pre>', page, re.DOTALL)
    new = f"recovered_{backup.lower()}"
    names = {"database": new, "datastore": f"{new}_datastore"}
    environment = portal.environment | {"PGPASSWORD": PASSWORD_OF_CKAN}
    environment["PATH"] = f"{BIN}:{PG_BIN}:{os.environ['PATH']}"

    def state() -> dict[str, object]:
        # a visit is noted with its visitor
        return {k: v for k, v in portal.state().items() if k != "database:user"}

    def pasted() -> subprocess.CompletedProcess:
        return subprocess.run(
            ["sh"], input=html.unescape(shown), text=True, capture_output=True,
            cwd=tmp_path, env=environment,
        )  # fmt: skip

    before, oids = state(), portal.oids()
    try:
        done = pasted()
        assert done.returncode == 0, done.stderr
        # once more it ends at once: nothing is overwritten
        assert pasted().returncode != 0
        assert (state(), portal.oids()) == (before, oids)
        monkeypatch.setattr(portal, "names", names)
        monkeypatch.setattr(portal, "storage", tmp_path / backup / "uploads")
        assert state() == before
    finally:
        for name in names.values():
            query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
