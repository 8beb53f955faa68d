"""What the page says of the site's backups: the headline, what is kept, what counts."""

from __future__ import annotations

import re
import shutil
import subprocess

from ckanext.dbmanage.engine.clock import stamp

from ...support.pages import BACKUPS, text
from ...support.site import PASSWORD, SYSADMIN, Session, Site


def test_the_headline_names_what_matters_most_and_links_what_it_counts(
    site: Site, me: Session, backup: str, token: str
) -> None:
    _, repository = site.portal.engine()
    hurt = site.portal.backup("--only", "database").name
    problem = {"time": stamp(), "problems": ["database.list: was changed"]}
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


def test_export_and_publish_are_there_from_the_first_day(
    site: Site, me: Session, token: str
) -> None:
    repository = site.portal.repository
    whole = repository.rename(repository.with_name("elsewhere"))
    try:
        away, refused = (
            me.ask("GET", BACKUPS).text,
            site.act("dbmanage_backup_create", token),
        )
        german = text(me.ask("GET", f"/de{BACKUPS}").text)
        assert not repository.exists()  # not by what was asked for either
        repository.mkdir(mode=0o700)
        (repository / ".anew").touch()
        page = me.ask("GET", BACKUPS).text
    finally:
        subprocess.run(["rm", "-rf", repository], check=True)
        whole.rename(repository)
    assert "No backup yet" in page
    assert "Publish now" in page and "Export as JSON Lines" in page
    # as where its disk is not mounted
    assert "The backups cannot be read." in away and "mount its disk" in away
    assert "No backup yet" not in away and "ist jetzt leer" in german
    assert "was in use until" in str(refused["error"])
