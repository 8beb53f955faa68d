"""A switch under traffic: who reads and who writes meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from ..support.cluster import superuser
from ..support.portal import Portal
from ..support.web import Web


def test_visitors_of_a_restore_and_an_undo(
    portal: Portal, serve: Callable[[Portal], Web]
) -> None:
    """No error page for anybody: pages, the API and the DataStore answer or wait."""
    portal.sql(
        "UPDATE resource SET id = '00000001-0000-4000-8000-000000000000',"
        " extras = '{\"datastore_active\": true}' WHERE id = 'r-1'"
    )
    web = serve(portal)
    portal.backup()
    search = "/api/3/action/datastore_search?resource_id="
    paths = [
        "/dataset/dataset-2",
        f"{search}00000001-0000-4000-8000-000000000000",
        "/api/3/action/package_show?id=dataset-3",
    ]
    for path in paths:
        assert web.ask(path).status == 200
    answers: list[tuple[float, str, int, str]] = []
    script = (
        "import http.client, json, sys, time\n"
        "paths, port = json.loads(sys.argv[1]), int(sys.argv[2])\n"
        "while True:\n"
        " for path in paths:\n"
        "  c = http.client.HTTPConnection('127.0.0.1', port, timeout=300)\n"
        "  c.request('GET', path); a = c.getresponse(); b = a.read().decode()\n"
        "  print(json.dumps([time.time(), path, a.status, b[:200]]), flush=True)\n"
        "  c.close(); time.sleep(0.02)\n"
    )
    visitors = [
        subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(paths), str(web.port)],
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        time.sleep(1)
        for command in (
            ["restore", "latest", "--yes", "--no-backup"],
            ["undo", "--yes"],
            ["undo", "--yes"],
        ):
            portal.module(*command)
            time.sleep(1)
    finally:
        for visitor in visitors:
            visitor.terminate()
            out, _ = visitor.communicate()
            answers += [json.loads(each) for each in out.splitlines()]
    statuses = {each[2] for each in answers}
    assert statuses <= {200, 503}, [a for a in answers if a[2] not in (200, 503)][:3]
    assert 503 in statuses  # the switch was seen
    for path in paths:
        assert web.ask(path).status == 200


def test_writes_meanwhile_and_sessions_that_stay_are_named(portal: Portal) -> None:
    portal.backup()
    idle = superuser(portal.names["database"])
    idle.close()
    process = portal.start("restore", "latest", "--yes", "--no-backup")
    assert process.stderr is not None
    said = ""
    for each in process.stderr:
        said += each
        if each.startswith("load"):
            process.send_signal(signal.SIGSTOP)  # or it may have switched by then
            break
    import psycopg2

    writer = psycopg2.connect(portal.url("database"), application_name="a-harvester")
    with writer.cursor() as cursor:
        cursor.execute("UPDATE package SET title = 'late' WHERE id = 'id-1'")
        writer.commit()
        cursor.execute("SELECT 1")  # idle in transaction: it never ends by itself
    process.send_signal(signal.SIGCONT)
    said += process.communicate(timeout=300)[1]
    writer.close()
    assert process.returncode == 0, said
    assert "application 'a-harvester'" in said and "ended" in said
    assert "1 rows of database: public.package were written" in said
    assert portal.sql("SELECT title FROM package WHERE id = 'id-1'") != [("late",)]
    portal.module("undo", "--yes")
    assert portal.sql("SELECT title FROM package WHERE id = 'id-1'") == [("late",)]
