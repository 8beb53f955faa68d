"""Figures of nights: the whole one beside its steps, and the page with a year of them."""

from __future__ import annotations

import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portals import Portal
from tools import (
    BENCH,
    CKAN,
    Missing,
    anew,
    child,
    ckan,
    figure,
    pairs,
    psql,
    run,
    turns,
)
from visitors import fetched, free_port, web

_THERE = BENCH / "there"


def nightly(portal: Portal, rounds: int) -> None:
    """A night, with all that there is to do, against its steps one by one."""
    if not shutil.which("restic"):
        raise Missing("apt-get install restic")
    password, ini = BENCH / "restic.password", Path(portal.ini)
    password.write_text("benchmark")
    password.chmod(0o600)
    before, prefix = ini.read_text(), "ckanext.dbmanage."
    more = {
        "remote.repository": _THERE,
        "remote.password_file": password,
        # each night, as its steps do
        "prove_every": 1,
    }
    lines = "".join(f"{prefix}{name} = {value}\n" for name, value in more.items())
    ini.write_text(before.replace("[app:main]\n", f"[app:main]\n{lines}"))
    module = (sys.executable, "-m", "ckanext.dbmanage", "-c", portal.ini)

    def forget() -> None:
        shutil.rmtree(portal.storage / "dbmanage", ignore_errors=True)
        anew(portal.storage / "dbmanage/backups")

    def begin() -> None:
        """The same for both: a first backup, which is there, and public dumps."""
        shutil.rmtree(_THERE, ignore_errors=True)
        forget()
        run(*module, "backup", "-q")
        run(*module, "push", "-q")
        ckan(portal, "db", "publish", "-q")

    def night() -> float:
        begin()
        return run(*module, "nightly", "-q").seconds

    def steps() -> float:
        begin()
        works = (
            ("backup", "-q"), ("verify", "--prove", "-q"), ("push", "-q"),
            ("prune", "-q"), ("prune", "--remote", "-q"),
        )  # fmt: skip
        seconds = sum(run(*module, *work).seconds for work in works)
        return seconds + ckan(portal, "db", "publish", "-q")

    ours, peer = turns(rounds, night, steps)
    figure("a night, the sum of its steps", ours, peer, 1.05)
    ini.write_text(before)
    forget()


def year(portal: Portal, rounds: int) -> None:
    """The sysadmin page with a year of nights, against an empty page of core's."""
    portal.back_up()
    child(portal, "many", "30")
    child(portal, "year")
    psql(portal.main, "UPDATE \"user\" SET sysadmin = true WHERE name = 'user-1'")
    token = run(CKAN, "-c", portal.ini, "user", "token", "add", "user-1", "b", "-q")
    secret = BENCH / "authorization"  # never in an argument
    secret.write_text(f"Authorization: {token.out.split()[-1]}\n")
    with _at_work(portal) as url:

        def page(path: str) -> float:
            asked = f"{url}/ckan-admin/{path}"
            return fetched(asked, "-H", f"@{secret}")[0]

        ours, peer = pairs(rounds, lambda: page("backups/"), lambda: page("trash"))
        figure(
            "page with a year of nights, trash page", ours * 1e3, peer * 1e3, 1.3, "ms"
        )
        # of a million lines of 250 bytes, all are of deeds: it is never begun anew
        journal = portal.storage / "dbmanage/backups/journal.jsonl"
        if rounds > 1:
            line = b'{"event": "done", "what": "export", "x": "' + b"x" * 200 + b'"}\n'
            journal.write_bytes(line * 1_000_000)
            ours, peer = pairs(1, lambda: page("backups/"), lambda: page("trash"))
            figure(
                "the same, a million lines of journal",
                ours * 1e3,
                peer * 1e3,
                1.3,
                "ms",
            )
    secret.unlink()
    anew(portal.storage / "dbmanage/backups")


@contextmanager
def _at_work(portal: Portal) -> Iterator[str]:
    """A web process that answers; its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    with web(portal, port):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError):
                asked = f"{url}/api/3/action/status_show"
                urllib.request.urlopen(asked, timeout=60).close()
                break
            time.sleep(0.2)
        yield url
