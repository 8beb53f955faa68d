"""A site that is watched: backups of any age, and people who are told."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from ckanext.dbmanage.engine.clock import now, stamp
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.operations.context import Portal

from .heard import Heard
from .shelf import SECRET, Shelf


class WatchedSite:
    """A repository with backups that were never taken; no database answers."""

    def __init__(self, directory: Path) -> None:
        self.shelf = Shelf(directory / "backups")
        self.directory = directory
        self.options = {
            "ckan.site_url": "https://data.test",
            "ckan.site_title": "Open Data",
            "ckan.redis.url": f"redis://127.0.0.1:{os.environ['DBMANAGE_REDIS_PORT']}/2",
            "ckanext.dbmanage.parts": "database",
            "smtp.mail_from": "ckan@data.test",
        }
        self.heard = Heard()
        # one moment for all: two that are told apart by hours differ by just these
        self._now = now()
        # one site for all: what Redis holds is found by the database's name
        self._portal = self.shelf.portal(**self.options)

    @property
    def portal(self) -> Portal:
        settings = {**self._portal.options.settings, **self.options}
        return Portal(type(self._portal.options)(settings), self.heard)

    def add(self, hours: float, proven: bool = True) -> Backup:
        """A backup of so many hours ago; one of the future with less than none."""
        moment = self._now - timedelta(hours=hours)
        found = self.shelf.repository.find(self.shelf.add(moment))
        about = {"created": stamp(moment), "seconds": 2.5, "reason": "manual"}
        signed = sign(found.manifest | about, SECRET, "manifest")
        (found.path / "manifest.json").write_bytes(dumped(signed))
        known = {"time": stamp(moment), "problems": []}
        found.remember(verified=known, **({"proved": known} if proven else {}))
        return self.shelf.repository.find(found.id)

    def secret(self, name: str, text: str) -> str:
        """A file that only its owner may read."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def record(self, what: str, event: str, **facts: Any) -> None:
        self.shelf.repository.record("x", event, what=what, **facts)
