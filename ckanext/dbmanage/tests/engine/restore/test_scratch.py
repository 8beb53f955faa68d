"""Databases of ours, and those that only look like ours."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable

import pytest

from ckanext.dbmanage.engine.restore.scratch import _locale

from ...support.cluster import query
from ...support.portal import Portal
from ...support.small import CKAN, Made
from ...support.waiting import wait_until


def test_names_that_look_like_ours_survive(portal: Portal) -> None:
    # of no other test, one of which may drop what stands in its journal
    n = secrets.token_hex(4)
    theirs = {f"x{n}_scratch", f"dbm_0{n}_undo", f"dbm_{n}_undo", f"dbm_{n}_scratch"}
    for name in theirs:
        query(f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0')
    try:
        portal.backup()
        # a journal that names them, as a hostile or mistaken one would
        pair = {
            "part": "database", "live": portal.names["database"], "token": "0" * 32,
            "scratch": f"dbm_{n}_scratch", "undo": f"dbm_{n}_undo",
            "site": portal.options["ckan.site_id"],
        }  # fmt: skip
        other = pair | {"scratch": f"x{n}_scratch", "undo": f"dbm_0{n}_undo"}
        live = pair | {
            "scratch": portal.names["datastore"],
            "undo": portal.names["datastore"],
        }
        _, repository = portal.engine()
        for number, one in enumerate((pair, other, live)):
            repository.record(f"old{number}", "create", pair=one)
            repository.record(f"old{number}", "switch", pairs=[one])
            repository.record(f"old{number}", "switched", parts=["database"])
        before = portal.state()
        portal.module("restore", "latest", "--yes", "--no-backup")
        portal.module("restore", "latest", "--yes", "--no-backup")
        portal.backup()
        assert {r[0] for r in query("SELECT datname FROM pg_database")} >= theirs
        assert portal.state() == before
    finally:
        for name in theirs:
            query(f'DROP DATABASE IF EXISTS "{name}"')


@pytest.mark.smoke
def test_one_way_back_is_kept(portal: Portal) -> None:
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    first = portal.copies()
    assert len(first) == 2 and all(name.endswith("_undo") for name in first)
    portal.module("restore", "latest", "--yes", "--no-backup")
    second = portal.copies()
    assert len(second) == 2 and not first & second


def test_two_portals_of_one_role_do_not_touch_each_other(make_portal) -> None:
    one, two = make_portal(), make_portal()
    one.backup(), two.backup()
    state = one.state()
    busy = one.start("restore", "latest", "--yes", "--no-backup")
    try:
        wait_until(lambda: "create" in (one.repository / "journal.jsonl").read_text()
                   if (one.repository / "journal.jsonl").exists() else False)  # fmt: skip
        for _ in range(2):
            two.backup()
            two.module("restore", "latest", "--yes", "--no-backup")
    finally:
        out, err = busy.communicate(timeout=300)
    assert busy.returncode == 0, err
    assert one.state() == state


def test_two_at_once_in_one_repository(portal: Portal) -> None:
    portal.backup()
    lock = portal.repository / ".lock"
    for _ in range(5):
        busy = portal.start("backup")
        who = str(busy.pid)
        while who not in lock.read_text() and busy.poll() is None:
            time.sleep(0.005)
        busy.send_signal(signal.SIGSTOP)
        done = portal.module("backup", code=None)
        busy.send_signal(signal.SIGCONT)
        _, said = busy.communicate(timeout=300)
        assert busy.returncode == 0, said
        if done.returncode:  # else the first one had already ended
            break
    assert f"is in use: backup, process {busy.pid} of " in done.stderr
    portal.backup()


def test_what_a_database_is_like_is_kept(make: Callable[..., Made]) -> None:
    icu = make().version in (14, 15)
    options = "IS_TEMPLATE true"
    if icu and make().version == 15:
        options += " LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LC_COLLATE 'C'"
    made = make(options)
    made.sql(CKAN, "ckan_default")
    kept = (
        "SELECT encoding, datcollate, datctype, datistemplate,"
        " to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale'"
        " FROM pg_database d WHERE datname = current_database()"
    )
    before = made.sql(kept)
    with made.copy(made.backup()) as name:
        assert made.cluster.sql(kept, name) == before
    assert not made.cluster.sql("SELECT 1 FROM pg_database WHERE datname ~ '^dbm_'")


def test_the_order_of_sorting_is_kept(make: Callable[..., Made]) -> None:
    """These servers are built without ICU, so that this looks at what is sent."""
    connection = make().cluster.connect()
    like = {"encoding": 6, "datlocprovider": "i", "datlocale": "de"}
    like |= {"daticurules": "& a < 'g'"}
    sent = " ".join(each.as_string(connection) for each in _locale(connection, like))
    connection.close()
    assert ("ICU_RULES '& a < ''g'''" in sent) == (connection.server_version >= 160000)
