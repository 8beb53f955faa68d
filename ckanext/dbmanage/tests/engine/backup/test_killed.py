"""Backups and prunes that are killed at any moment leave backups that are whole."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.backup.verify import problems_of
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.repository.prune import prune_backups, unnamed_objects
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.repository.retention import Decision

from ...support.small import Small
from ...support.waiting import wait_until

ROWS = (
    "CREATE TABLE rows AS SELECT n, md5(n::text) AS t FROM generate_series(1, 30000) n"
)
TIMES = 6


def killed(work: Callable[[], object], seconds: float) -> None:
    """Runs this in a process of its own, and kills it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_is_killed_harms_no_backup(small: Callable[[], Small]) -> None:
    made = small()
    made.own(ROWS)
    repository = Repository(made.site.repository, made.site.secrets)

    def back_up() -> None:
        with repository.lock("backup"):
            take.take(Operation(made.site, repository))

    def prune() -> None:
        with repository.lock("prune"):
            chosen = [Decision(b, n % 2 == 1, "") for n, b in enumerate(found)]
            prune_backups(repository, chosen)

    begun = time.monotonic()
    back_up()
    took, chance = time.monotonic() - begun, random.Random(os.getpid())
    for number in range(TIMES):
        made.own(f"UPDATE rows SET t = md5(t) WHERE n % 100 = {number}")
        killed(back_up, chance.uniform(0, took))
        if number % 2:
            back_up()
            found = repository.backups()
            killed(prune, chance.uniform(0, 0.05))
        # the killed one's pg_dump finds out by itself
        wait_until(lambda: not repository.holder())
        with repository.lock("look"):
            left = [p.name for p in Path(made.site.repository).glob(".*.partial")]
        assert not left
        for backup in repository.backups():
            assert problems_of(backup, made.site) == []
    with repository.lock("prune"):
        prune_backups(repository, [])
        assert unnamed_objects(repository, set()).count == 0
    assert not any(problems_of(b, made.site) for b in repository.backups())
