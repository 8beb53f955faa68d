"""Passwords are seen nowhere."""

from __future__ import annotations

import time
from pathlib import Path

from .support.cluster import PASSWORD
from .support.portal import Portal


def test_passwords_are_seen_nowhere(portal: Portal, role) -> None:
    """Not in argv, not in output, logs or manifest, while it works and when it fails."""
    import threading

    secret = "p@ss:w/o%r#d ü'\"\\\uff21\uff22"
    name = role("dbm_secret", "CREATEDB IN ROLE ckan_default", secret)
    portal.write(
        **{
            "sqlalchemy.url": portal.url("database", name, secret),
            "ckan.datastore.write_url": portal.url("datastore", name, secret),
        }
    )
    needles = [secret.encode(), b"p@ss:w", b"p%40ss", PASSWORD.encode()]
    seen: list[bytes] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = line.read_bytes()
                except OSError:
                    continue
                seen.extend(n for n in needles if n in text)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = [portal.module("backup")]
        said.append(portal.module("restore", "latest", "--yes"))
        said.append(portal.module("dump", str(portal.directory / "d.dump")))
        portal.sql("CREATE TABLE unreadable (a int)")
        said.append(portal.module("backup", code=1))
    finally:
        stop.set()
        watcher.join()
    assert seen == []
    texts = [d.stdout.encode() + d.stderr.encode() for d in said]
    texts += [
        f.read_bytes()
        for f in portal.repository.rglob("*")
        if f.suffix in (".json", ".jsonl")
    ]
    assert not [n for n in needles for text in texts if n in text]
