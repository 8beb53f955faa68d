"""Whose key the maintenance is, and that it outlives nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import redis

from ckanext.dbmanage.engine.redis.maintenance import AWAY, READ_ONLY, Maintenance

from ...support.maintenance import keeper
from ...support.portal import Portal
from ...support.waiting import wait_until

_HOLDER = """
import os, time
from sqlalchemy.engine import make_url
from ckanext.dbmanage.engine.redis.maintenance import AWAY, Maintenance
site = make_url(os.environ["DATABASE"])
with Maintenance(os.environ["REDIS"], site).held("restore", "r", print) as to:
    to(AWAY)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_key_outlives_its_owner_by_seconds_only(
    make_portal: Callable[..., Portal],
) -> None:
    owners = []
    for portal in (make_portal(), make_portal()):
        # no password in an argument: another test looks at those of every process
        own = {"REDIS": portal.options["ckan.redis.url"],
               "DATABASE": portal.options["sqlalchemy.url"]}  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER], stdout=subprocess.PIPE, text=True,
            env=os.environ | own,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        owners.append((keeper(portal), process))

    def left(asked: Maintenance) -> float:
        return (asked.status() or {"seconds_left": 0})["seconds_left"]

    ends = zip(owners, (signal.SIGTERM, signal.SIGKILL), strict=True)
    for (asked, process), number in ends:
        assert f"process {process.pid}" in (asked.status() or {})["owner"]
        wait_until(lambda asked=asked: left(asked) < 11)
        wait_until(lambda asked=asked: left(asked) >= 11)  # renewed
        process.send_signal(number)
        process.communicate()
    for asked, _ in owners:
        assert left(asked) <= 12
        wait_until(lambda asked=asked: asked.status() is None)


def test_whose_key_it_is(portal: Portal) -> None:
    one, told = keeper(portal), []
    one.on(READ_ONLY, 1000)
    with one.held("restore", "reference", told.append) as to:
        assert (one.status() or {})["level"] == READ_ONLY
        to(READ_ONLY)
        to(AWAY)
        assert (one.status() or {})["reason"] == "restore"
        said = portal.module("maintenance", "on", code=1).stderr
        assert "an operation holds the maintenance" in said
        assert (one.status() or {})["reason"] == "restore"
    # the operator's own comes back, with the time it had left
    status = one.status() or {}
    assert status["reason"] == "by hand" and 900 < status["seconds_left"] <= 1000
    one.on(AWAY, 1000)
    with one.held("restore", "", told.append) as to:
        to(READ_ONLY)
        assert (one.status() or {})["level"] == AWAY
    with one.held("restore", "", told.append) as to:
        to(AWAY)
        one.on(AWAY, 500, "somebody else")
    assert (one.status() or {})["reason"] == "somebody else"
    assert one.off() and not one.off() and not told
    # what a killed restore left neither decides nor comes back
    left = json.dumps({"level": AWAY, "token": "of another", "reason": "killed"})
    with redis.Redis.from_url(portal.options["ckan.redis.url"]) as client:
        client.set(one.key, left, ex=60)
    with one.held("restore", "", told.append) as to:
        to(READ_ONLY)
        assert (one.status() or {})["level"] == READ_ONLY
    assert one.status() is None


def test_the_key_s_name_holds_no_secret(portal: Portal) -> None:
    client = redis.Redis.from_url(portal.options["ckan.redis.url"])
    try:
        keeper(portal).on(AWAY, 5)
        for key in client.scan_iter("dbmanage:*", _type="string"):
            kept = f"{key} {client.get(key)}"
            assert os.environ["DBMANAGE_CKAN_PASSWORD"] not in kept
            assert portal.names["database"] not in kept
    finally:
        keeper(portal).off()
        client.close()
