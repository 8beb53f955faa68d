"""The links to files of a backup: by whom, for how long, and who sends them."""

from __future__ import annotations

import re
import threading

import redis
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.client import key_of

from ...support.pages import BACKUPS, text
from ...support.site import PASSWORD, Session, Site


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

    path = link("database.list")
    answer = me.ask("GET", path)
    assert answer.headers["X-Accel-Redirect"] == f"/inside/{id}/database.list"
    assert answer.content == b"" and answer.status_code == 200
    assert f"{id}-database.list" in answer.headers["Content-Disposition"]
    again = me.ask("GET", path)
    assert again.status_code == 410 and "X-Accel-Redirect" not in again.headers
    # made while it is sent, so by CKAN itself
    whole = me.ask("GET", link("all.tar"))
    assert "X-Accel-Redirect" not in whole.headers and len(whole.content) > 10_000
