"""A restore whose sessions are ended, or that meets a deadlock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import ToolFailed
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres.locks import lock_key
from ckanext.dbmanage.engine.restore import restore, switch

from ...support.cluster import query
from ...support.heard import Heard
from ...support.rows import SLOW_IN_COPIES
from ...support.small import Small
from ...support.waiting import wait_until

KILL = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "


def restored(made: Small) -> tuple[Small, Callable[[], Any], Heard]:
    """A site that was written to since its backup, and what restores that."""
    made.own("CREATE TABLE earlier AS SELECT 1 AS a")
    source = made.backup()
    made.own("DROP TABLE earlier")
    heard = Heard()
    op = Operation(made.site, made.repository, heard)

    def run() -> Any:
        with made.repository.lock("restore"):
            return restore.restore_backup(op, source)

    return made, run, heard


def is_back(made: Small) -> bool:
    return query("SELECT to_regclass('public.earlier') IS NOT NULL", made.name) == [
        (True,)
    ]


def test_what_is_cut_off_while_it_loads_is_loaded_into_another_copy(
    small: Callable[..., Small],
) -> None:
    made = small()
    made.own(SLOW_IN_COPIES.replace("60", "4"))
    _, run, heard = restored(made)
    ours = f"shobj_description(datid, 'pg_database') LIKE '%{made.name}%'"
    cut = threading.Thread(
        target=wait_until,
        args=(lambda: query(f"{KILL} {ours} AND query LIKE 'COPY%' LIMIT 1"),),
    )
    cut.start()
    run()
    cut.join()
    assert is_back(made)
    assert "into a copy did not work, and is tried again: " in "\n".join(heard.warned)
    left = f"SELECT 1 FROM pg_database WHERE datname ~ 'scratch' AND {ours.replace('datid', 'oid')}"
    assert not query(left)


def cut_off(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[Any], Any], times: int
) -> None:
    """Has something happen in the switch, right before its COMMIT."""
    rename, done = switch._rename_pair, []

    def renamed(site: Any, connection: Any, *arguments: Any) -> None:
        rename(site, connection, *arguments)
        if len(done) < times:
            done.append(before(connection))

    monkeypatch.setattr(switch, "_rename_pair", renamed)


def test_a_switch_that_is_cut_off_is_made_again(
    small: Callable[..., Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run, heard = restored(small())
    cut_off(monkeypatch, lambda c: query(f"{KILL} pid = {c.info.backend_pid}"), 1)
    run()
    assert is_back(made)
    assert "the switch did not work, and is tried again: " in "\n".join(heard.warned)


def test_a_switch_is_not_made_again_without_the_lock(
    small: Callable[..., Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run, _ = restored(small())
    key = lock_key("live", made.name)
    holder = (
        "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
        f" AND (classid::bigint << 32 | objid::bigint) = {key})"
    )
    cut_off(
        monkeypatch,
        lambda c: query(f"{KILL} pid = {c.info.backend_pid} OR {holder}"), 1,
    )  # fmt: skip
    with pytest.raises(ToolFailed) as failed:
        run()
    assert "the restore failed, and the live site is untouched: " in str(failed.value)
    assert "was lost" in str(failed.value)
    assert not is_back(made)


def test_what_does_not_pass_in_time_is_told_as_what_it_is(
    small: Callable[..., Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run, heard = restored(small())
    monkeypatch.setattr("ckanext.dbmanage.engine.postgres.again.WAITS", (0.1, 0.1))
    cut_off(monkeypatch, lambda c: query(f"{KILL} pid = {c.info.backend_pid}"), 9)
    with pytest.raises(ToolFailed) as failed:
        run()
    said = str(failed.value)
    assert said.startswith("the restore failed, and the live site is untouched: ")
    assert "terminating connection due to administrator command" in said
    assert len([w for w in heard.warned if "tried again" in w]) == 2
    assert not is_back(made)
