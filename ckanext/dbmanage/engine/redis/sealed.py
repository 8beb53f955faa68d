"""What stands in Redis and is acted upon: signed, read as hostile, used up for good.

Everybody who can write to Redis can put anything there, take anything away, and bring
back what was there before. So what counts is signed with the site's secret, each under
the key it stands at; and what is good once is noted as used beside the backups, where
Redis cannot forget it. Must not know what the documents say.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..clock import now, stamp
from ..disk import create_file, own_directory
from ..opened import open_directory
from ..signature import sign, signed_by

_PURPOSE = "redis"
_MARK = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ-[0-9A-Za-z-]+", re.ASCII)


def loaded(found: bytes | None) -> Any:
    """The JSON of a value of Redis; None when it is none, or nested too deep."""
    with suppress(ValueError, RecursionError):
        return json.loads(found or b"null")
    return None


def seal(key: str, document: Mapping[str, Any], secrets: tuple[str, ...]) -> str:
    """A document for one key of Redis, signed."""
    return json.dumps(sign({**document, "key": key}, secrets[0], _PURPOSE))


def unseal(
    key: str, found: bytes | None, secrets: tuple[str, ...]
) -> dict[str, Any] | None:
    """The document of a key, None for anything that this site did not write there."""
    document = loaded(found)
    if signed_by(document, secrets, _PURPOSE) and document.get("key") == key:
        return {k: v for k, v in document.items() if k not in ("key", "hmac")}
    return None


def _mark(repository: Path, token: str, until: str) -> Path:
    # both were signed by this site, yet nothing of Redis becomes a path as it is
    name = f"{until}-{token}"
    if not all(c.isascii() and (c.isalnum() or c in "-:") for c in name):
        raise ValueError("not a token of ours")
    return repository / "state" / "used" / name


def used_at(repository: Path, token: str, until: str) -> str | None:
    """When what is good once, until a moment, was used, or None. Raises OSError."""
    with suppress(FileNotFoundError, NotADirectoryError):
        made = os.lstat(_mark(repository, token, until)).st_mtime
        return stamp(datetime.fromtimestamp(made, timezone.utc))
    return None


def use(repository: Path, token: str, until: str) -> bool:
    """Notes that it is used, on the disk; False when it was before.

    Whoever makes the mark is the one who has it, over all processes and hosts. Raises
    OSError, and DbmanageError for a link in a directory's place.
    """
    mark = _mark(repository, token, until)
    own_directory(mark.parent.parent)
    with open_directory(own_directory(mark.parent)) as used:
        # what nobody could use any more needs no mark; another host's clock may be late
        limit = stamp(now() - timedelta(days=1))
        for old in filter(_MARK.fullmatch, os.listdir(used)):
            if old < limit:
                with suppress(FileNotFoundError):
                    os.unlink(old, dir_fd=used)
        try:
            create_file(mark.name, used).close()
        except FileExistsError:
            return False
        os.fsync(used)
    return True
