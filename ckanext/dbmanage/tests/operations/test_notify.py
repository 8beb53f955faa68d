"""Who is told: once, and when all is well again; whatever the doors do."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from ckanext.dbmanage.doctor.checks import told
from ckanext.dbmanage.doctor.finding import OK, PROBLEM
from ckanext.dbmanage.engine.clock import now, stamp
from ckanext.dbmanage.engine.errors import Busy, Refused
from ckanext.dbmanage.engine.redis.client import key_of
from ckanext.dbmanage.operations.context import find_site
from ckanext.dbmanage.operations.messages import ADVICE, PAGE, titled
from ckanext.dbmanage.operations.nights import (
    Night,
    Step,
    killed,
    nights,
    remember,
)
from ckanext.dbmanage.operations.notify import Telling, run_notify, try_doors
from ckanext.dbmanage.operations.safety import SENTENCES
from ckanext.dbmanage.portal import doors

from ..support.doors import Hook, Mails, mail_server, silent_server, web_server
from ..support.imports import PACKAGE
from ..support.watched import WatchedSite


@pytest.fixture
def mails() -> Iterator[Mails]:
    with mail_server() as made:
        yield made


@pytest.fixture
def hook() -> Iterator[Hook]:
    with web_server() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, mails: Mails, monkeypatch: pytest.MonkeyPatch) -> WatchedSite:
    """A site whose last backup is two days old, and one who is told by mail."""
    made = WatchedSite(tmp_path)
    made.options["ckanext.dbmanage.notify.email"] = "ops@data.test"
    made.options["smtp.server"] = mails.address
    made.add(50)
    _configure(made, monkeypatch)
    return made


def _configure(site: WatchedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """CKAN's mailer reads CKAN's own configuration, which pytest has started."""
    from ckan.common import config

    for option in ("smtp.server", "smtp.mail_from", "ckan.site_title"):
        if option in site.options:
            monkeypatch.setitem(config, option, site.options[option])


def text_of(mail: Any) -> str:
    return mail.get_content()


def test_a_state_is_told_once_and_its_end_once(site: WatchedSite, mails: Mails) -> None:
    for _ in range(2):
        found, _ = run_notify(site.portal)
        assert [each.state for each in found] == ["overdue"]
    (mail,) = mails
    assert mail["Subject"] == "[data.test] A backup is overdue."
    assert mail["To"] == "ops@data.test"
    text = text_of(mail)
    assert "Since: " in text and " db backup\n" in text and "https://data.test" in text
    assert "ckan db" not in text.replace("/ckan db", "")  # as it is pasted here
    site.add(0.1)
    for _ in range(2):
        run_notify(site.portal)
    assert mails.subjects[1:] == ["[data.test] Well again: A backup is overdue."]


def test_what_grows_worse_is_told_again(site: WatchedSite, mails: Mails) -> None:
    run_notify(site.portal)
    newest = site.shelf.repository.find("latest")
    newest.path.rename(newest.path.with_name("20200101T000000Z"))
    site.add(24 * 9)
    run_notify(site.portal)
    assert len(mails) == 2 and "overdue" in mails.subjects[1]


def test_people_are_told_in_the_site_s_language(
    site: WatchedSite, mails: Mails
) -> None:
    site.options["ckan.locale_default"] = "de"
    run_notify(site.portal)
    assert mails.subjects == ["[data.test] Eine Sicherung ist überfällig."]
    assert "Seit: " in text_of(mails[0]) and "Since" not in text_of(mails[0])


def test_a_door_that_failed_is_told_the_next_time_and_no_other(
    site: WatchedSite, mails: Mails, hook: Hook
) -> None:
    url = hook.address.replace("http", "json") + "/token-7f3a"
    site.options["ckanext.dbmanage.notify.apprise_file"] = site.secret(
        "urls", f"# who\n{url}\n"
    )
    mails.refuses = "550 5.7.1 we know your token-7f3a"
    _, answers = run_notify(site.portal)
    said = {each.door: each.error for each in answers}
    assert said == {
        "e-mail ops@data.test": "the mail server: SMTPRecipientsRefused 550",
        "Apprise 1 (json)": "",
    }
    mails.refuses = ""
    _, answers = run_notify(site.portal)
    assert [each.door for each in answers] == ["e-mail ops@data.test"]
    assert len(mails) == len(hook) == 1
    sent = json.loads(hook[0].body)
    assert sent["title"] == mails.subjects[0] and "What to do: " in sent["message"]
    journal = (site.shelf.path / "journal.jsonl").read_text()
    assert "SMTPRecipientsRefused" in journal and "token-7f3a" not in journal


def test_no_door_holds_up_another_or_what_calls_it(
    site: WatchedSite, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "LIMIT", 3.0)
    hangs = "no answer in 3 seconds"
    hook.hangs = True
    url = hook.address.replace("http", "json")
    site.options["ckanext.dbmanage.notify.apprise_file"] = site.secret("urls", url)
    site.options["ckanext.dbmanage.notify.ping_file"] = site.secret(
        "ping", f"{hook.address}/ping"
    )
    with silent_server() as address:
        site.options["smtp.server"] = address
        _configure(site, monkeypatch)
        said = {each.door: each.error for each in try_doors(site.portal)}
        assert said["e-mail ops@data.test"] == said["Apprise 1 (json)"] == hangs
        Telling(site.portal).end(_night(Step("backup", "failed", 1, "disk full")))
    for name in ("e-mail ops@data.test", "Apprise 1 (json)"):
        assert f"{name} was not told: {hangs}" in site.heard.warned
    # the answer of a ping is its status; what comes after that nobody waits for
    assert [each.path for each in hook if "ping" in each.path] == [
        "/ping/log", "/ping/fail",
    ]  # fmt: skip


def test_a_mail_server_that_is_away(
    site: WatchedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.options["smtp.server"] = "127.0.0.1:9"
    _configure(site, monkeypatch)
    (answer,) = run_notify(site.portal)[1]
    assert answer.error == "the mail server: Connection refused"


def _night(*steps: Step) -> Night:
    return Night(now(), now(), steps)


def test_a_night_pings_at_its_start_its_end_and_its_failure(
    site: WatchedSite, hook: Hook, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And what the URL is stands nowhere."""
    secret = "5ec2e7-uuid"
    caplog.set_level(logging.DEBUG)
    name = site.secret("ping", f"{hook.address}/{secret}?create=1\n")
    del site.options["ckanext.dbmanage.notify.email"]
    site.options["ckanext.dbmanage.notify.ping_file"] = name
    telling = Telling(site.portal)
    telling.start()
    telling.end(_night(Step("backup", "done", 12.4, "5 MB")))
    telling.end(_night(Step("push", "failed", 1, "no\nway")))
    hook.status = 500
    telling.start()
    hook.status = 404
    assert try_doors(site.portal)[0].error == "it answered 404"
    assert [each.path for each in hook] == [
        f"/{secret}{way}?create=1" for way in ("/start", "", "/fail", "/start", "/start", "/log")
    ]  # fmt: skip
    assert hook[1].body == "backup: done, 12 s. 5 MB"
    assert hook[2].body == "push: failed, 1 s. no way"
    assert site.heard.warned == ["the ping URL was not told: it answered 500"]
    site.options["ckanext.dbmanage.notify.ping_file"] = site.secret(
        "bad", f"ftp://{secret}"
    )
    Telling(site.portal).start()
    Path(name).chmod(0o640)
    site.options["ckanext.dbmanage.notify.ping_file"] = name
    Telling(site.portal).start()
    assert f"`chmod 600 {name}`" in site.heard.warned[-1]
    out, err = capfd.readouterr()
    said = [*site.heard.warned, caplog.text, out, err]
    said += [file.read_text() for file in site.shelf.path.glob("*.jsonl")]
    assert secret not in "".join(said)


def test_a_failed_step_is_told_at_the_end_of_the_night(
    site: WatchedSite, mails: Mails
) -> None:
    site.add(1)
    night = _night(Step("backup", "done", 3), Step("push", "failed", 1, "no way there"))
    Telling(site.portal).end(night)
    assert mails.subjects == ["[data.test] The last copy to the other place failed."]
    assert "Why: no way there" in text_of(mails[0])
    # the journal knows it, and the next night that goes well ends it
    steps = [vars(each) for each in night.steps]
    site.record("nightly", "failed", steps=steps)
    run_notify(site.portal)
    site.record("nightly", "done", steps=[steps[0], steps[1] | {"result": "done"}])
    run_notify(site.portal)
    assert len(mails) == 2 and mails.subjects[1].startswith("[data.test] Well again: ")


def test_what_the_journal_does_not_know_is_not_well_again(
    site: WatchedSite, mails: Mails
) -> None:
    """As on a disk that is full, or was mounted anew to be read only."""
    site.add(1)
    Telling(site.portal).end(_night(Step("backup", "failed", 3, "no space left")))
    run_notify(site.portal)
    assert mails.subjects == ["[data.test] The last backup failed."]
    later = stamp(now() + timedelta(seconds=2))  # stamps are of whole seconds
    site.shelf.repository.record("x", "done", what="backup", time=later)
    run_notify(site.portal)
    assert mails.subjects[1] == "[data.test] Well again: The last backup failed."


def test_a_night_was_killed_until_one_after_it_has_ended(
    site: WatchedSite, mails: Mails
) -> None:
    site.add(1)
    repository, begun = site.shelf.repository, now().replace(microsecond=0)
    first, second = Night(begun - timedelta(days=1)), Night(begun)
    remember(repository, first, ())
    run_notify(site.portal)
    with repository.night():
        remember(repository, second, [first])
        run_notify(site.portal)
    run_notify(site.portal)  # that one was killed too
    assert mails.subjects == ["[data.test] Last night did not come to its end."]
    known = nights(repository)
    remember(repository, replace(second, ended=now()), [first])
    assert killed(repository, known) is None  # it has ended while somebody looked
    run_notify(site.portal)
    assert mails.subjects[1].startswith("[data.test] Well again: Last night did")


def test_what_was_told_is_known_while_the_repository_is_away(
    site: WatchedSite, mails: Mails
) -> None:
    run_notify(site.portal)
    away = site.shelf.path.with_name("away")
    site.shelf.path.rename(away)
    run_notify(site.portal)
    run_notify(site.portal)
    assert not site.shelf.path.exists()  # no directory is made where a disk belongs
    assert "No backup yet." in mails.subjects[1] and len(mails) == 2
    away.rename(site.shelf.path)
    run_notify(site.portal)
    # what nobody could see was not well meanwhile
    assert mails.subjects[2] == "[data.test] Well again: No backup yet."
    assert "Still so: A backup is overdue." in text_of(mails[2])
    assert "Well again" not in text_of(mails[1])


def test_one_of_the_two_places_is_enough(site: WatchedSite, mails: Mails) -> None:
    run_notify(site.portal)
    server = redis.Redis(port=int(os.environ["DBMANAGE_REDIS_PORT"]), db=2)
    key = key_of(site.portal.options.databases["database"].url, "told")
    found = server.get(key)
    assert b"ops@" not in found
    server.delete(key)
    run_notify(site.portal)
    (site.shelf.path / ".told.json").unlink()
    server.set(key, found)
    run_notify(site.portal)
    assert len(mails) == 1
    server.delete(key)


def test_who_is_alone_tells(site: WatchedSite) -> None:
    with site.shelf.repository.telling(), pytest.raises(Busy):
        run_notify(site.portal)


def test_a_time_in_the_future_is_said_to_be_that(
    site: WatchedSite, mails: Mails
) -> None:
    """The clock was a year ahead, and is right again."""
    site.add(-365 * 24)
    found, _ = run_notify(site.portal)
    assert [each.state for each in found] == ["overdue", "future"]
    assert "Backups with a date in the future: 1 of 2." in text_of(mails[0])


def test_a_file_of_secrets_that_others_may_read_is_refused(
    site: WatchedSite, mails: Mails
) -> None:
    """And who is told by mail is told all the same."""
    name = site.secret("urls", "json://127.0.0.1:9/token")
    Path(name).chmod(0o644)
    site.options["ckanext.dbmanage.notify.apprise_file"] = name
    _, answers = run_notify(site.portal)
    assert [bool(each.error) for each in answers] == [False, True] and len(mails) == 1
    assert f"chmod 600 {name}" in answers[1].error
    site.options["ckanext.dbmanage.notify.apprise_file"] = site.secret("none", "#\n")
    assert "has no URL" in try_doors(site.portal)[1].error
    bad = site.secret("bad", "nosuch://token-7f3a\ntoken-7f3a")
    site.options["ckanext.dbmanage.notify.apprise_file"] = bad
    assert "token" not in try_doors(site.portal)[1].error
    bad = site.secret("bad", "nosuch://token-7f3a")
    assert "knows no such URL" in try_doors(site.portal)[1].error


def test_nobody_to_tell_is_said(site: WatchedSite) -> None:
    del site.options["ckanext.dbmanage.notify.email"]
    for refused in (run_notify, try_doors):
        with pytest.raises(Refused, match=r"notify\.email"):
            refused(site.portal)


def test_the_manual_has_an_entry_for_each_message() -> None:
    lines = (PACKAGE.parents[1] / PAGE).read_text().splitlines()
    titles = [
        a for a, b in zip(lines, lines[1:], strict=False) if b and not b.strip("~")
    ]
    assert titles == [titled(state) for state in SENTENCES if state in ADVICE]


def test_the_doctor_says_what_is_set_up_wrong(site: WatchedSite) -> None:
    bad = site.secret("urls", "no url")
    site.options["ckanext.dbmanage.notify.apprise_file"] = bad
    where = find_site(site.portal)
    ((state, text),) = told(site.portal, *where)
    assert state == PROBLEM and text.startswith("Apprise: ") and bad in text
    site.options["ckanext.dbmanage.notify.apprise_file"] = ""
    assert list(told(site.portal, *where)) == [
        (OK, "e-mail ops@data.test would be told")
    ]
    site.options["ckanext.dbmanage.notify.ping_file"] = "/nonexistent"
    with pytest.raises(Refused, match=r"ping_file: /nonexistent: No such file"):
        list(told(site.portal, *where))


def test_mail_that_nothing_would_send_is_no_mail(
    site: WatchedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CKAN's mailer says nothing of it."""
    site.options["smtp.server"] = ""
    _configure(site, monkeypatch)
    assert run_notify(site.portal)[1][0].error == "smtp.server is not set"
