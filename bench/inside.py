"""What runs in a process of its own: it calls our code, or CKAN's, and prints JSON.

    inside.py NAME ckan.ini [ARGUMENT...]

CKAN's models and application are imported by the functions that measure them: the
memory of a restore is that of the engine.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckan.cli import load_config
from shelves import crowd, many, nights, opened, sift, year
from tools import quiet

from ckanext.dbmanage.engine import signature
from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.backup.databases import dump_all, snapshot
from ckanext.dbmanage.engine.backup.segmented import Segmented
from ckanext.dbmanage.engine.layout import RECORDS
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.engine.restore.preflight import preflight
from ckanext.dbmanage.engine.restore.restore import restore_backup
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.operations.context import Portal
from ckanext.dbmanage.operations.offsite import run_push
from ckanext.dbmanage.portal.config import Options, current
from ckanext.dbmanage.portal.directories import public_dir
from ckanext.dbmanage.portal.migrate import prepare


def application(ini: str) -> Any:
    """CKAN's Flask application."""
    from ckan.config.middleware import make_app

    made: Any = make_app(load_config(ini))
    return made._wsgi_app


# ------------------------------------------------------------ backup, restore


def dump(ini: str, indexed: str = "", *parts: str) -> dict[str, Any]:
    """Seconds and bytes of a dump of the main database, or of some parts.

    With the index of their records where that is `indexed`, and its bytes.
    """
    _, site, repository = opened(ini)
    site = site if indexed else replace(site, indexed={})
    with (
        repository.lock("benchmark"),
        repository.partial("benchmark") as partial,
        ExitStack() as stack,
    ):
        begun, sources, into = time.monotonic(), {}, {}
        for part in parts or ("database",):
            source = snapshot(site, site.databases[part])
            sources[part] = stack.enter_context(source)
            into[part] = Segmented(partial, partial, None)
        _, contents = dump_all(site, sources, partial, into, lambda *_: None)
        seconds = time.monotonic() - begun
    return {
        "seconds": seconds,
        "bytes": sum(each.stored for each in into.values()),
        "index": contents.get(RECORDS, {}).get("bytes"),
    }


class _Marks(Silent):
    """A listener that notes when a phase begins."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress


def restore(ini: str, backup_id: str, file: str = "", *parts: str) -> dict[str, Any]:
    """Seconds of a restore by phase, the switch left out of the sum.

    With a file the dump comes out of that and not out of segments.
    """
    options, site, repository = opened(ini)
    marks: list[tuple[str, float]] = []

    def progress(phase: str, *_: int) -> None:
        if not marks or marks[-1][0] != phase:
            marks.append((phase, time.monotonic()))

    with repository.lock("benchmark"):
        source = open_source(site, repository, backup_id, parts=parts)
        if file:
            source = replace(source, archives={p: File(Path(file)) for p in parts})
        preflight(site, repository, source)
        progress("begin")
        operation = Operation(site, repository, _Marks(progress))
        done = restore_backup(operation, source, prepare(options))
        progress("end")
    phases: dict[str, float] = {}
    for (phase, begun), (_, ended) in zip(marks, marks[1:], strict=False):
        phases[phase] = phases.get(phase, 0) + ended - begun
    return {
        "seconds": sum(s for phase, s in phases.items() if phase != "switch"),
        "phases": phases,
        "replaced": [database.name for database in done.replaced.databases.values()],
    }


def push(ini: str) -> dict[str, Any]:
    """Seconds of a push of what is missing there, and this process's own peak, MB."""
    portal = Portal(Options(load_config(ini)), Silent())
    begun = time.monotonic()
    for each in run_push(portal):
        assert not each.error, each.error
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.monotonic() - begun, "own": own}


def watch(ini: str) -> dict[str, Any]:
    """Seconds of the metrics in a process in which CKAN runs, the first time.

    `peer` are those of Prometheus's client for as many gauges of nothing.
    """
    from ckanext.dbmanage.operations.context import Portal
    from ckanext.dbmanage.operations.metrics import METRICS, metrics

    app, options = application(ini), Options(load_config(ini))
    gc.collect()  # what CKAN's start has left is a tenth of a second, in its course
    begun = time.monotonic()
    text = metrics(Portal(options, Silent(), app))
    seconds = time.monotonic() - begun
    assert b"ckan_dbmanage_backups{" in text
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    begun, registry = time.monotonic(), CollectorRegistry()
    for each in METRICS.values():
        Gauge(each.whole, each.help, registry=registry).set(1)
    generate_latest(registry)
    return {"seconds": seconds, "peer": time.monotonic() - begun}


# ------------------------------------------------------------ records, search index


def action(ini: str) -> dict[str, Any]:
    """Seconds of one `package_show` without the search index."""
    from ckan import model
    from ckan.logic import get_action

    with application(ini).test_request_context():
        names = get_action("package_list")({"user": ""}, {"limit": 600})
        begun = 0.0
        for number, name in enumerate(names):
            if number == 100:
                begun = time.perf_counter()
            get_action("package_show")({"user": "", "use_cache": False}, {"id": name})
            model.Session.expunge_all()
        return {"seconds": (time.perf_counter() - begun) / (len(names) - 100)}


def index(ini: str, part: str, of: str, number: str) -> None:
    """Indexes every second dataset, or each, of that many by core's own functions."""
    from ckan import model
    from ckan.lib import search

    with application(ini).test_request_context():
        ids = [row[0] for row in model.Session.query(model.Package.id).order_by("id")]
        own = ids[: int(number)][int(part) :: int(of)]
        search.rebuild(package_ids=own, defer_commit=True, quiet=True)
        search.commit()


def documents(ini: str) -> dict[str, Any]:
    """A hash of all stored documents, and their number."""
    digest, after, number = hashlib.sha256(), "*", 0
    while True:
        query = "/select?q=*:*&rows=500&sort=index_id+asc&wt=json&fl=*&cursorMark="
        found = ask_solr(ini, query + urllib.parse.quote(after))
        for document in found["response"]["docs"]:
            for name in ("_version_", "indexed_ts"):
                document.pop(name, None)
            digest.update(json.dumps(document, sort_keys=True).encode())
            number += 1
        if found["nextCursorMark"] == after:
            return {"documents": digest.hexdigest(), "number": number}
        after = found["nextCursorMark"]


def replay(ini: str) -> dict[str, Any]:
    """Seconds of sending documents that were made before, stored fields or not.

    They go in batches of 250 from two threads, with one commit at the end: no rebuild
    can be faster.
    """
    batches = list(ready(ini))
    quiet()
    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(ask_solr, ini, "/update", b) for b in batches]:
            done.result()
    ask_solr(ini, "/update?commit=true", b"[]")
    return {"seconds": time.perf_counter() - begun}


def ready(ini: str) -> Iterator[bytes]:
    """Bodies of requests with all documents, 250 in each, as they are sent."""
    from ckan import model
    from ckan.lib.search.common import make_connection

    from ckanext.dbmanage.records.documents import Writer

    with application(ini).test_request_context():
        write, solr = Writer(current(), False), make_connection()
        ids = sorted(row[0] for row in model.Session.query(model.Package.id))
        for n in range(0, len(ids), 250):
            made, _ = write.documents([(each, "") for each in ids[n : n + 250]])
            yield json.dumps([solr._build_json_doc(each) for each in made]).encode()


def ask_solr(ini: str, path: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(
        f"{load_config(ini)['solr_url']}{path}",
        body,
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


# ------------------------------------------------------------ pages


def publish(ini: str) -> None:
    """Publishes a file of a little over 100 MB."""
    from ckanext.dbmanage.records import published

    directory, moment = public_dir(Options(load_config(ini))), "2026-01-01T00:00:00"
    with published.writing(directory) as upcoming:
        files = []
        for name in published.NAMES:
            size = 101_000_000 if name == "datasets.jsonl.gz" else 1000
            with open(upcoming / name, "wb") as file:
                written = signature.Hashed(file)
                written.write(os.urandom(size))
            kind, sum = name.partition(".")[0], written.sha256
            files.append(
                published.File(name, kind, 1, 0, size, size, sum, f"{moment}Z")
            )
        about = {"snapshot": f"{moment}.000000Z", "published": f"{moment}Z"}
        published.commit(directory, files, about)


def middleware(ini: str) -> dict[str, Any]:
    """Seconds a request that finds no key costs, the best of some."""
    from ckanext.dbmanage.web.maintenance import MaintenanceMiddleware

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/dataset/", "SCRIPT_NAME": ""}
    asked = MaintenanceMiddleware(lambda *_: [], Options(load_config(ini)))
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(200):
            asked(environ, lambda *_: None)
        best = min(best, (time.perf_counter() - begun) / 200)
    return {"seconds": best}


def poll(ini: str) -> dict[str, Any]:
    """SQL statements of a look at a running job, and of CKAN's own start page of admins."""
    from ckan import model
    from ckan.lib.jobs import job_from_id
    from sqlalchemy import event

    from ckanext.dbmanage.jobs.queue import Jobs
    from ckanext.dbmanage.jobs.worker import Running

    app = application(ini)
    jobs = Jobs(Options(load_config(ini)))
    with app.test_request_context():
        job = jobs.enqueue("publish", {}, {"user": "user-1"})
    client, asked = app.test_client(), []
    with app.test_request_context():
        reader: Any = model.User.get("user-1")
    with client.session_transaction() as session:  # as a browser, signed in
        session["_user_id"] = reader.id
    event.listen(
        model.meta.engine, "before_cursor_execute", lambda *a: asked.append(a[2])
    )
    found, page = {}, b""
    running = Running(jobs, job)
    assert running.begin()
    with running.at_work():  # as a worker has it
        running.log.progress("dump", 1 << 20, 1 << 30)
        for name, path in (
            ("peer", "/ckan-admin/config"),
            ("ours", f"/ckan-admin/backups/job/{job['id']}/live"),
        ):
            client.get(path)  # fills what is cached
            asked.clear()
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.status)
            found[name], page = len(asked), answer.data
    assert b"progress" in page
    job_from_id(job["id"]).delete()
    return found


WORKS = {
    work.__name__: work
    for work in (
        dump, restore, many, nights, crowd, sift, action, index, documents, replay,
        publish, middleware, poll, watch, push, year,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(WORKS[sys.argv[1]](*sys.argv[2:]) or {}))
