"""Lines of records to be imported."""

from __future__ import annotations

import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .portal import Portal


def an_id(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))


def dataset(name: str, **more: Any) -> bytes:
    record = {"id": an_id(name), "name": name, "owner_org": an_id("org"), **more}
    return json.dumps(record).encode()


def put(portal: Portal, lines: list[bytes], name: str = "some.jsonl") -> str:
    """A file of these lines."""
    file = portal.directory / name
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(file)
