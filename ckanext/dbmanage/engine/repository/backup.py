"""One backup in its repository, and what is learned of it later."""

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import owner
from ..clock import is_future, is_stamp, parse_id, parse_stamp
from ..disk import own_directory, regular_files, write_file
from ..errors import Denied
from ..layout import FORMAT, MANIFEST, SEGMENTS, UNSIGNED
from ..signature import dumped, read_json, sign, signed_by

#: files that are counted behind a link; it may lead to all of the disk
MOST_COUNTED = 100_000


def why_partial(about: Mapping[str, Any]) -> str:
    """Why a backup does not hold all uploads that it could; empty when it does.

    `about` is what its manifest says of the uploads.
    """
    folders, linked = about.get("folders") or 0, about.get("linked") or 0
    if not folders and not linked:
        return ""
    return (
        f"{folders} folders of uploads with {many_files(about.get('behind') or 0)}, "
        f"and {linked} uploads that are links, were left out: "
        + "; ".join(about.get("left_out") or about.get("examples") or ())
    )


def many_files(files: int) -> str:
    return f"{'more than ' if files >= MOST_COUNTED else ''}{files} files"


class Backup:
    """One backup: an immutable directory and what is known of it.

    `manifest` is `{}` when the file cannot be read as one of ours; only `signed` says
    that its fields are this site's own words. `objects` is where the contents of its
    uploads lie, beside those of other backups.
    """

    def __init__(self, path: Path, secrets: tuple[str, ...], state: Path | None = None):
        self.path = path
        self.objects = path.parent / "objects"
        self._secrets = secrets
        self._state = state
        document = None
        with suppress(OSError):
            document = read_json(path / MANIFEST)
        known = document if isinstance(document, dict) else {}
        self.readable = known.get("format") == FORMAT
        self.manifest: dict[str, Any] = known if self.readable else {}
        own = signed_by(document, secrets, "manifest")
        # in the repository under another id a copy would pass for a newer backup
        named = state is None or self.manifest.get("id") == path.name
        self.signed = self.readable and own and named

    @property
    def id(self) -> str:
        """The directory's name, which is the time it was begun."""
        return self.path.name

    @property
    def future(self) -> bool:
        """Whether its id is of the future: a clock was wrong when it was taken."""
        with suppress(ValueError):
            return is_future(parse_id(self.id))
        return False

    @property
    def closed(self) -> str:
        """Why this user may not read all of it, and what mends that; empty if it may.

        Uploads are not looked at: reading them tells.
        """
        paths = [self.path, *([self._state] if self._state else [])]
        found = owner.closed(paths)
        if found is None:
            with suppress(OSError):
                found = owner.closed(map(self.path.joinpath, os.listdir(self.path)))
        return owner.why_closed(found, self.path.parent) if found else ""

    def refuse_closed(self) -> None:
        """Raises Denied for one that this user may not read."""
        if why := self.closed:
            raise Denied(f"backup {self.id}", why)

    @property
    def moment(self) -> datetime | None:
        """When it was begun, as it says itself; None where it does not."""
        with suppress(ValueError, TypeError):
            return parse_stamp(self.manifest.get("created", ""))
        return None

    @property
    def parts(self) -> list[str]:
        """The parts it holds, `database` first, `files` last; others are none."""
        databases = self.manifest.get("databases")
        known = databases if isinstance(databases, dict) else {}
        found = [part for part in SEGMENTS if part in known]
        return [*found, "files"] if self.files.get("included") else found

    @property
    def files(self) -> dict[str, Any]:
        """What the manifest says of the uploads, `{}` when it says nothing."""
        files = self.manifest.get("files")
        return files if isinstance(files, dict) else {}

    @property
    def bytes(self) -> int:
        """What it holds: its own files, and its objects (stored once over all)."""
        own = regular_files(self.path).values()
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in own)
        uploads = self.files.get("bytes", 0)
        stored = sum(dump["stored"] for dump in self._dumps.values())
        return size + stored + (uploads if isinstance(uploads, int) else 0)

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each part, as its manifest says."""
        found = {part: dump["stored"] for part, dump in self._dumps.items()}
        return found | ({"files": self.files["bytes"]} if self._has_uploads else {})

    @property
    def added(self) -> dict[str, int]:
        """The bytes that each part added to the objects, as its manifest says."""
        found = {part: dump["added"] for part, dump in self._dumps.items()}
        return found | ({"files": self.files["added"]} if self._has_uploads else {})

    @property
    def _dumps(self) -> dict[str, dict[str, int]]:
        if not self.signed:  # nobody knows what it says
            return {}
        return {p: about["dump"] for p, about in self.manifest["databases"].items()}

    @property
    def _has_uploads(self) -> bool:
        return self.signed and self.files["included"]

    def state(self) -> dict[str, Any]:
        """What was learned of it after it was made; `{}` when that is not ours."""
        document = self._read_state()
        own = signed_by(document, self._secrets, "state")
        return document if own and document.get("id") == self.id else {}

    def _read_state(self) -> dict[str, Any]:
        """What stands in the file, whoever wrote it."""
        document = None
        if self._state is not None:
            with suppress(OSError):
                document = read_json(self._state)
        return document if isinstance(document, dict) else {}

    def remember(self, **facts: Any) -> None:
        """Adds to what is known of it. Without a place for that it does nothing."""
        if self._state is None or not self._secrets:
            return
        own_directory(self._state.parent)
        document = self.state()
        # signed with a secret that is not known any more: a hold must not be lost
        if not document and self._read_state().get("keep") is True:
            document = {"keep": True}
        document = document | facts | {"id": self.id}
        write_file(self._state, dumped(sign(document, self._secrets[0], "state")))

    def describe(self) -> dict[str, Any]:
        """The backup as `backups --json` prints it."""
        known, closed = self.state(), self.closed
        verified = known.get("verified") or {}
        proved = known.get("proved") or {}
        problems = [closed] if closed else verified.get("problems") or []
        if closed:
            state = "unreadable"
        elif not self.readable or any(UNSIGNED not in problem for problem in problems):
            state = "damaged"
        elif not self.signed:
            state = "foreign"
        elif proved and not proved.get("problems"):
            state = "proven"
        else:
            state = "verified" if verified else "unverified"
        return {
            "id": self.id,
            "path": str(self.path),
            "state": state,
            "future": self.future,
            "verified": self._moment(verified),
            "proved": self._moment(proved),
            "parts": self.parts,
            "bytes": 0 if closed else self.bytes,
            "sizes": self.sizes,
            "added": self.added,
            "created": self.manifest.get("created"),
            "seconds": self.manifest.get("seconds"),
            "reason": self.manifest.get("reason"),
            "note": self.manifest.get("note"),
            "keep": bool(known.get("keep")),
            "versions": self.manifest.get("versions"),
            "problems": problems or proved.get("problems") or [],
            "files": self.files,
        }

    def _moment(self, known: Mapping[str, Any]) -> str | None:
        """When something was learned; if a clock was wrong then, when it was taken."""
        time, created = known.get("time"), self.manifest.get("created")
        if isinstance(time, str) and is_stamp(time) and is_future(parse_stamp(time)):
            return created if isinstance(created, str) else None
        return time
