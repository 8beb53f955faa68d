"""`metrics` and `notify` as they are typed, while CKAN works and while it does not."""

from __future__ import annotations

import re

import pytest

from ..support.doors import mail_server, silent_server, web_server
from ..support.portal import Portal


@pytest.mark.smoke
def test_people_are_told_whether_ckan_starts_or_not(portal: Portal) -> None:
    with mail_server() as mails, web_server() as hook:
        ping = portal.directory / "ping"
        ping.write_text(f"{hook.address}/secret-5ec2e7")
        ping.chmod(0o600)
        portal.write(
            **{
                "smtp.server": mails.address,
                "smtp.mail_from": "ckan@portal.test",
                "smtp.starttls": "false",
                "ckan.site_title": "Open Data",
                "ckanext.dbmanage.notify.email": "ops@portal.test",
                "ckanext.dbmanage.notify.ping_file": str(ping),
            }
        )
        done = portal.db("notify", "--test")
        assert done.stdout == "e-mail ops@portal.test: took it\nping: took it\n"
        assert hook[0].path == "/secret-5ec2e7/log"
        portal.backup("--only", "database")
        failing = {"ckanext.dbmanage.pg_bin": "/nonexistent"}
        before = {option: portal.options.get(option, "") for option in failing}
        portal.write(**failing)
        portal.module("backup", code=1)
        url = portal.options["sqlalchemy.url"]
        portal.write(**{"sqlalchemy.url": re.sub(r":\d+/", ":1/", url)})
        done = portal.module("notify")
        assert "was told: [portal.test] The last backup failed. And" in done.stdout
        assert "told before: The last backup failed." in portal.module("notify").stderr
        assert portal.module("notify", "--quiet").stderr == ""
        portal.write(**{"sqlalchemy.url": url, **before})
        portal.backup()
        portal.db("notify")
        mails.refuses = "451 later"
        done = portal.module("notify", "--test", code=1)
        assert "SMTPRecipientsRefused 451" in done.stdout and "1 door " in done.stderr
        assert "secret-5ec2e7" not in done.stdout + done.stderr
    failed = "The last backup failed."
    told = [
        "This is a test",
        f"{failed} And 1 more.",
        f"Well again: {failed} And 1 more.",
    ]
    assert mails.subjects == [f"[portal.test] {each}" for each in told]
    assert {mail["From"] for mail in mails} == {"Open Data <ckan@portal.test>"}
    journal = (portal.repository / "journal.jsonl").read_text()
    assert '"notify"' in journal and "secret-5ec2e7" not in journal
    portal.write(**{"ckanext.dbmanage.notify.email": ""})
    assert "nobody is told" in portal.module("notify", code=1).stderr


@pytest.mark.smoke
def test_metrics_are_printed_and_written_while_the_database_is_away(
    portal: Portal,
) -> None:
    portal.backup("--only", "database")
    printed = portal.db("metrics").stdout
    assert re.search(r"(?m)^ckan_dbmanage_backups\{.*verified.*\} 1.0$", printed)
    assert re.search(r"(?m)^ckan_dbmanage_build_info\{ckan=\"2", printed)
    with silent_server() as address:
        port = address.partition(":")[2]
        urls = {k: v for k, v in portal.options.items() if v.startswith("postgresql")}
        portal.write(**{k: re.sub(r":\d+/", f":{port}/", v) for k, v in urls.items()})
        path = portal.directory / "ckan.prom"
        path.write_text("before")
        assert portal.module("metrics", "--textfile", str(path)).stdout == ""
    assert path.stat().st_mode & 0o777 == 0o644
    assert "backup_size_bytes" in path.read_text()
    assert [each.name for each in path.parent.glob("*ckan.prom*")] == ["ckan.prom"]
    done = portal.module("metrics", "--textfile", str(path.with_suffix("")), code=1)
    assert ".prom" in done.stderr and not path.with_suffix("").exists()
