"""A repository of small backups that were never taken."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ckanext.dbmanage.engine.layout import FORMAT, LIST
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.engine.repository import prune, retention
from ckanext.dbmanage.engine.repository.prune import Pruned
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.operations.context import Portal
from ckanext.dbmanage.portal.config import Options

from .uploads import write_lines

SECRET = "portal-secret-5fd1"
NONE = dict.fromkeys(("last", "hours", "days", "weeks", "months", "years"), 0) | {
    "min": 1
}
NOON = datetime(2020, 11, 30, 12)
DUMP = {"bytes": 0, "stored": 0, "added": 0}


class Shelf:
    """A repository whose backups are made up, with real manifests and states."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.repository = Repository(str(path), (SECRET,))
        self.path = path
        self.objects = path / "objects"

    def portal(self, **options: str) -> Portal:
        """Its site, of which no server answers."""
        settings = {
            "SECRET_KEY": SECRET,
            "ckan.storage_path": str(self.path.parent),
            "sqlalchemy.url": f"postgresql://a@127.0.0.1:9/{secrets.token_hex(4)}",
            "ckanext.dbmanage.repository": str(self.path),
        }
        return Portal(Options(settings | options), Silent(), actor={"user": "user-1"})

    def add(
        self,
        time: datetime,
        state: str = "verified",
        uploads: list[bytes] | None = None,
        keep: bool = False,
    ) -> str:
        """A backup of a time: verified, unverified, damaged or foreign; its id."""
        name = f"{time:%Y%m%dT%H%M%SZ}"
        directory = self.path / name
        directory.mkdir(mode=0o700)
        (directory / "database.list").write_bytes(b"")
        contents = {"database.list": measured(b"")}
        if uploads is not None:
            lines = [self.line(n, u) for n, u in enumerate(uploads)]
            lines.append(dumped_line({"path": "uploads/gone", "missing": True}))
            contents[LIST] = measured(write_lines(directory / LIST, lines))
        manifest = {
            "format": FORMAT,
            "id": name,
            "databases": {"database": {"rows": {}, "migrations": {}, "dump": DUMP}},
            "contents": contents,
            "files": {"included": uploads is not None, "bytes": 0, "added": 0},
        }
        secret = "another" if state == "foreign" else SECRET
        (directory / "manifest.json").write_bytes(
            dumped(sign(manifest, secret, "manifest"))
        )
        backup = self.repository.find(name)
        problems = ["database.list: was changed (checksum)"] * (state == "damaged")
        if state in ("verified", "damaged"):
            backup.remember(verified={"time": "now", "problems": problems})
        if keep:
            backup.remember(keep=True)
        assert backup.describe()["state"] == state
        return name

    def line(self, number: int, content: bytes) -> bytes:
        """A line of a list; the content becomes an object."""
        digest = hashlib.sha256(content).hexdigest()
        directory = self.objects / digest[:2]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / digest).write_bytes(content)
        return dumped_line({"path": f"uploads/{number}", "sha256": digest})

    def daily(self, days: int, **options: Any) -> list[str]:
        """A backup a day until `NOON`, the newest first."""
        return [self.add(NOON - timedelta(days=n), **options) for n in range(days)]

    def decide(self, **policy: int) -> dict[str, str]:
        """The reasons by id of what is kept; those of what is not begin with `-`."""
        found = retention.decide(self.repository.backups(), NONE | policy)
        assert [d.backup.id for d in found] == self.ids()
        return {d.backup.id: "-" * d.forget + d.reason for d in found}

    def kept(self, **policy: int) -> list[str]:
        return [i for i, r in self.decide(**policy).items() if not r.startswith("-")]

    def prune(self, **policy: int) -> Pruned:
        with self.repository.lock("prune"):
            found = retention.decide(self.repository.backups(), NONE | policy)
            return prune.prune_backups(self.repository, found)

    def ids(self) -> list[str]:
        return [backup.id for backup in self.repository.backups()]

    def stored(self) -> set[bytes]:
        """The contents of the objects."""
        found = self.objects.glob("??/" + "?" * 64)
        return {path.read_bytes() for path in found if path.is_file()}


def measured(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def dumped_line(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
