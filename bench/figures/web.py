"""Figures of pages and of files that are served, against CKAN's pages and nginx."""

from __future__ import annotations

import json
import os
import sys
import time

from portals import Portal, random_file
from tools import BENCH, CKAN, child, ckan, figure, needs_nginx, pairs, psql, run, turns
from visitors import Visitors, fetched, resident, served

#: bytes of the largest download, and of the upload in the archive of all
LARGE, UPLOAD = 2 << 30, 1 << 30


def middleware(portal: Portal, rounds: int) -> None:
    """What the look at the key costs, against a page and against an API's answer."""
    ours = child(portal, "middleware")["seconds"]
    with Visitors(portal) as visitors:
        time.sleep(20)
    peer = visitors.median("/dataset/")
    figure("a look at the key, against a page", ours * 1e3, peer * 1e3, 0.01, "ms")


def downloaded(url: str, expected: int, *options: str) -> float:
    """Seconds of a download of that many bytes or more."""
    seconds, size = fetched(url, *options)
    if size < expected:
        sys.exit(f"bench: {url} sent {size} bytes")
    return seconds


@needs_nginx
def serving(portal: Portal, rounds: int) -> None:
    """A file of 100 MB: through CKAN alone, by nginx, and by both."""
    child(portal, "publish")
    public = portal.storage / "dbmanage/public"
    with served(portal, "/dump/", public, "X-Accel-Redirect /sent") as at:

        def fetch(url: str) -> float:
            return downloaded(f"{url}/dump/datasets.jsonl.gz", 100_000_000)

        alone, accel, peer = turns(
            10, *(lambda url=url: fetch(url) for url in (at.ckan, at.accel, at.static))
        )
    figure("100 MB through CKAN alone, nginx", alone * 1e3, peer * 1e3, 2, "ms")
    figure("100 MB with X-Accel-Redirect, nginx", accel * 1e3, peer * 1e3, 1.05, "ms")


@needs_nginx
def page(portal: Portal, rounds: int) -> None:
    """The sysadmin page: the list, a download of 2 GB, what a poll asks for."""
    repository = portal.storage / "dbmanage/backups"
    upload = portal.storage / "resources/abc/def/a-gigabyte"
    upload.parent.mkdir(parents=True, exist_ok=True)
    random_file(upload, UPLOAD >> 20)
    whole = portal.back_up()
    (large,) = (p for p in repository.glob("objects/*/*") if p.stat().st_size >> 30)
    child(portal, "many", "500")
    psql(portal.main, "UPDATE \"user\" SET sysadmin = true WHERE name = 'user-1'")
    token = run(CKAN, "-c", portal.ini, "user", "token", "add", "user-1", "b", "-q")
    secret = BENCH / "authorization"  # never in an argument
    secret.write_text(f"Authorization: {token.out.split()[-1]}\n")
    mine = ("-H", f"@{secret}")
    exports = repository / "exports"
    exports.mkdir(mode=0o700, exist_ok=True)
    random_file(exports / "datasets.jsonl.gz", LARGE >> 20)
    accelerated = "X-Accel-Redirect /public /sent"
    with served(portal, "/files/", repository, accelerated) as at:

        def trash() -> float:
            url = f"{at.ckan}/ckan-admin/trash"
            return fetched(url, *mine)[0]

        def backups() -> float:
            url = f"{at.ckan}/ckan-admin/backups/"
            return fetched(url, *mine)[0]

        def anew() -> float:
            os.utime(repository / "state")  # as after a backup: all is read anew
            return fetched(f"{at.ckan}/ckan-admin/backups/", *mine)[0]

        def link(site: str, **of: str) -> str:
            if backup_id := of.get("id"):  # an operator allows each
                ckan(portal, "db", "arm", backup_id, "--to", "download")
            answer = run(
                "curl", "-sf", *mine, "-H", "Content-Type: application/json",
                "-d", json.dumps(of or {"file": "datasets.jsonl.gz"}),
                f"{site}/api/3/action/dbmanage_backup_download",
            ).out  # fmt: skip
            url = json.loads(answer)["result"]["url"]
            return f"{site}/{url.split('/', 3)[3]}"

        def static(path: str, expected: int) -> float:
            return downloaded(f"{at.static}/files/{path}", expected, *mine)

        ours, peer = pairs(rounds, backups, trash)
        figure("list of 500, trash page", ours * 1e3, peer * 1e3, 1.3, "ms")
        ours, peer = turns(rounds, anew, trash)
        figure("list of 500 read anew", ours * 1e3, peer * 1e3, 30, "ms")
        psql(
            portal.main,
            """UPDATE package SET state = 'deleted' WHERE id IN
              (SELECT id FROM package ORDER BY id LIMIT 100)""",
        )
        ours, peer = pairs(rounds, backups, trash)
        figure("list of 500, 100 in the trash", ours * 1e3, peer * 1e3, 1.3, "ms")
        # the others have answered nothing yet, CKAN alone many times
        run("curl", "-s", "-o", "/dev/null", *mine, link(at.accel))
        before = resident(at.process.pid)
        alone, accel, peer = turns(
            rounds,
            lambda: downloaded(link(at.ckan), LARGE, *mine),
            lambda: downloaded(link(at.accel), LARGE, *mine),
            lambda: static("exports/datasets.jsonl.gz", LARGE),
        )
        grown = resident(at.process.pid, "VmHWM") - before
        tar, peer_tar = turns(
            rounds,
            lambda: downloaded(link(at.ckan, id=whole, file="all.tar"), UPLOAD, *mine),
            lambda: static(str(large.relative_to(repository)), UPLOAD),
        )
        tar_grown = resident(at.process.pid, "VmHWM") - before
    figure("all.tar of 1 GB, nginx a file of 1 GB", tar, peer_tar, 2)
    figure("memory grown by all.tar too", tar_grown, before, 32, "MB", of=tar_grown)
    figure("2 GB through CKAN alone, nginx", alone, peer, 2)
    figure("2 GB with X-Accel-Redirect, nginx", accel, peer, 1.05)
    figure("memory of CKAN's process, grown by", grown, before, 32, "MB", of=grown)
    asked = child(portal, "poll")
    statements = asked["ours"]
    figure(
        "SQL of a poll, of an empty page",
        statements,
        asked["peer"],
        2,
        "",
        of=statements,
    )
    secret.unlink()
    upload.unlink()


def metrics(portal: Portal, rounds: int) -> None:
    """What Prometheus is told once CKAN runs, against its own client with nothing read."""
    portal.back_up()
    child(portal, "many", "20")  # what the policy of the defaults keeps
    ours, peer = turns(
        max(rounds, 3), *(
            lambda what=what: child(portal, "watch")[what] * 1e3
            for what in ("seconds", "peer")
        ),
    )  # fmt: skip
    figure("metrics of 20 backups, once CKAN runs", ours, peer, 50, "ms", of=ours)
