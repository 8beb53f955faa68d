"""What the page would refuse is refused when it is armed; and until when it is armed."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.redis.arming import (
    DELETE,
    DOWNLOAD,
    RELEASE,
    RESTORE,
    UNDO,
    Arming,
)
from ckanext.dbmanage.operations.allowed import refused_on_the_web

from ..support.portal import Portal


def test_what_the_page_would_refuse_is_not_armed(portal: Portal) -> None:
    old, new = portal.backup("--only", "files"), portal.backup()
    site, repository = portal.engine()

    def why(name: str, to: str = RESTORE) -> str:
        return refused_on_the_web(site, repository, portal.settings, name, to)

    for name, to in ((old, RESTORE), (old, DELETE), (old, DOWNLOAD), (new, RESTORE)):
        assert why(name.name, to) == ""
    assert why(old.name, RELEASE) == "it is not held"
    portal.module("keep", new.name)
    assert why(new.name, DELETE) == "it is held: stop holding it first"
    with pytest.raises(Refused, match="nothing to undo"):
        why(UNDO)
    with open(new / "datastore.list", "ab") as file:
        file.write(b"x")
    portal.module("verify", new.name, code=1)
    assert "it is damaged: datastore.list" in why(new.name)
    (old / "manifest.json").write_text("{}")
    assert "its manifest cannot be read" in why(old.name)
    said = portal.module("arm", old.name, code=1).stderr
    assert "not armed, for the sysadmin page would refuse it: its manifest" in said
    assert Arming(site).armed() is None
    portal.write(**{"ckanext.dbmanage.web_restore": "never"})
    assert "is `never`; do it here" in why(new.name, DOWNLOAD)


def test_until_when_is_typed_and_told_as_people_do(portal: Portal) -> None:
    id = portal.backup("--only", "files").name
    site, _ = portal.engine()
    soon = now() + timedelta(hours=3)
    for words, told, hours in (
        (["arm", id, "--for", "90m"], "(for 1 hour 30 minutes)", 1.5),
        (["arm", id, "--for", "1d"], "(for 1 day)", 24),
        (["arm", id, "--until", f"{soon:%H:%M}"], f"{soon:%H:%M} UTC (for ", 3),
    ):
        done = portal.module(*words)
        assert re.match(rf"{id}  armed to restore until .* UTC \(for ", done.stdout)
        assert told in done.stdout
        armed = Arming(site).armed()
        assert armed and armed["until"][:13] in {
            f"{now() + timedelta(hours=hours, minutes=minutes):%Y-%m-%dT%H}"
            for minutes in (-1, 0, 1)
        }
    for words, told in (
        (["arm", id, "--for", "1d", "--until", "15:40"], "two ways"),
        (["arm", id, "--for", "40d"], "longer than 30d"),
        (["arm", id, "--for", "soon"], "not a time such as 90s, 30m, 2h or 1d"),
        (["maintenance", "on", "--until", "25:00"], "not a time of the day such as 15"),
    ):
        assert told in portal.module(*words, code=2).stderr
    done = portal.module("maintenance", "on", "--read-only", "--for", "2h")
    assert " UTC (for 2 hours)" in done.stdout or "(for 1 hour 59 m" in done.stdout
    portal.module("maintenance", "off")
