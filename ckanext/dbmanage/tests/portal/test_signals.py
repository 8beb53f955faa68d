"""CKAN's signals: who listens hears what ended, and harms nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ckan.lib import signals as core

from ckanext.dbmanage.engine.errors import Busy, DbmanageError
from ckanext.dbmanage.portal import signals

from ..support.portal import Portal, install_plugin

Heard = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What a plugin hears that comes after one that raises."""
    found: Heard = []

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a receiver")

    def receiver(sender: str, **facts: Any) -> None:
        found.append((sender, facts))

    names = (signals.BACKUP, signals.RESTORED, signals.FAILED)
    for each in map(core.ckanext.signal, names):
        each.connect(broken)
        each.connect(receiver)
    yield found
    for each in map(core.ckanext.signal, names):
        each.disconnect(broken)
        each.disconnect(receiver)


def test_a_receiver_that_raises_harms_nothing(heard: Heard) -> None:
    signals.send(signals.BACKUP, "an id", parts=["database"])
    assert heard == [("an id", {"parts": ["database"]})]


def test_a_failure_is_sent_and_raised_that_others_work_is_none(heard: Heard) -> None:
    @signals.failures("backup")
    def work(error: Exception) -> None:
        raise error

    for error in (DbmanageError("disk full"), Busy("not now"), KeyError("secret")):
        with pytest.raises(type(error)):
            work(error)
    assert heard == [
        ("backup", {"error": "disk full"}),
        ("backup", {"error": "KeyError"}),
    ]


_PLUGIN = """
import ckan.plugins as p
from ckan.plugins import toolkit as tk
class Listening(p.SingletonPlugin):
    p.implements(p.ISignal)
    def get_signal_subscriptions(self):
        named = tk.signals.ckanext.signal
        return {
            named("dbmanage:backup"): [self.backup],
            named("dbmanage:restored"): [self.restored],
            named("dbmanage:failed"): [self.failed],
        }
    def backup(self, sender, parts, bytes):
        self.note("backup", sender, *parts)
    def restored(self, sender, what, parts):
        self.note("restored", sender, what, *parts)
    def failed(self, sender, error):
        self.note("failed", sender, error)
    def note(self, *words):
        with open(tk.config["heard"], "a") as file:
            print(*words, file=file)
"""


@pytest.mark.smoke
def test_a_plugin_hears_of_backups_and_restores(portal: Portal) -> None:
    files = {"plugin.py": _PLUGIN}
    root = portal.directory / "plugins"
    environment = install_plugin(root, "listening", files, "plugin:Listening")
    file = portal.directory / "heard"
    portal.write(
        **{"ckan.plugins": "dbmanage datastore activity listening", "heard": str(file)}
    )
    name = portal.db("backup", env=environment).stdout.strip()
    portal.db("restore", name, "--yes", "--no-backup", env=environment)
    portal.write(**{"ckanext.dbmanage.pg_bin": "/nonexistent"})
    portal.db("backup", env=environment, code=1)
    lines = file.read_text().splitlines()
    assert lines[0] == f"backup {name} database datastore files"
    assert lines[1] == f"restored {name} restore database datastore files"
    assert lines[2].startswith("failed backup ") and len(lines) == 3
