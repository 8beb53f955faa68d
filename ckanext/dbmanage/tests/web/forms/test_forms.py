"""The forms of the sysadmin page, as a browser without a script sees them."""

from __future__ import annotations

from contextlib import closing

import psycopg2
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.maintenance import Maintenance

from ...support.pages import BACKUPS, boxes, text
from ...support.site import PASSWORD, TITLE, Session, Site


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
