"""Public dumps, made and fetched."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.records import published
from ckanext.dbmanage.web.dump_files import DumpFiles

from .portal import Portal

GZ, ZST = "datasets.jsonl.gz", "datasets.jsonl.zst"


def folder(portal: Portal) -> Path:
    return portal.storage / "dbmanage" / "public"


def unpacked(content: bytes) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["gzip", "-dc"], input=content, capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_whole(directory: Path) -> published.Published | None:
    found = published.read(directory)
    assert found is None or published.damaged(directory, found) == []
    return found


def fabricate(directory: Path, text: str, moment: datetime | None = None) -> None:
    """Publishes files of some content, as `publish` does."""
    with published.writing(directory) as upcoming:
        files = []
        for name in published.NAMES:
            content = f"{name} {text}\n".encode() * 2000
            (upcoming / name).write_bytes(content)
            sum = hashlib.sha256(content).hexdigest()
            size = len(content)
            files.append(
                published.File(name, name.partition(".")[0], 3, 0, size, size, sum,
                               "2026-01-02T03:04:05Z")
            )  # fmt: skip
        snapshot = (moment or datetime.now(timezone.utc)).strftime(
            "%Y-%m-%dT%H:%M:%S.%fZ"
        )
        about = {"title": "T <b>", "url": "http://x/dump/", "snapshot": snapshot,
                 "published": "2026-01-02T03:04:05Z", "licence": None}  # fmt: skip
        published.commit(directory, files, about)


class Client:
    """Asks the middleware without a server; what is not its own is answered 299."""

    def __init__(self, directory: Path, **options: str) -> None:
        def other(_: dict, start: Callable) -> list[bytes]:
            start("299 Not Ours", [])
            return [b"page"]

        settings = {"ckanext.dbmanage.public_dir": str(directory)} | {
            f"ckanext.dbmanage.{k}": v for k, v in options.items()
        }
        self.app = DumpFiles(other, Options(settings))

    def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "SERVER_NAME": "x",
                   "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
                   "wsgi.errors": io.StringIO()}  # fmt: skip
        environ |= {f"HTTP_{k.upper()}": v for k, v in headers.items()}
        got: list[Any] = []
        body = self.app(environ, lambda *a: got.append(a))
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        return int(got[0][0][:3]), dict(got[0][1]), content


#: what stands where a date should, and what no date can be
NO_DATES = [
    "Sat, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Sat, 99999999999999999999 Jan 2000 00:00:00 GMT",
    "Sat, 01 Jan 2000 99999999999999999999:00:00 GMT",
    "Sat, 01 Jan 2000 00:00:00 +99999999999999999999",
    "Sat, 01 Jan 2000 00:00:00 -999999999", "Sat, 32 Jan 2000 00:00:00 GMT",
    f"Sat, 01 Jan {'9' * 5000} 00:00:00 GMT", "x", "Sat, 99 Jan", "\x00", ", ,", "\xff",
]  # fmt: skip

HOSTILE = [
    "..", "../x", "../../etc/passwd", "%2e%2e/index.json", "..%2f..", "%252e%252e%252fx", "..\\x",
    "\x00", f"{GZ}\x00", f"{GZ}/", f"./{GZ}", f"//{GZ}", f"a/../{GZ}", "\uff0e\uff0e/x",
    "\u2024\u2024/x", "\u2025/x", ".lock", ".next", f".next/{GZ}", ".next/", "users.jsonl.gz",
    "database.dump", "x.sql", "datasets.jsonl", f"{GZ}.", f"{GZ.upper()}", "index.json/x", "/",
    "~", "con", "a" * 5000, "\udcff", "index.json\n", " index.json", "%00", "SHA256SUMS%20",
]  # fmt: skip


def lines_of(directory: Path) -> dict[str, dict[str, Any]]:
    """The published datasets by name, the same in both files."""
    found = unpacked((directory / GZ).read_bytes())
    packed = subprocess.run(
        ["zstd", "-dc", directory / ZST], capture_output=True, check=True
    )
    assert found == [json.loads(line) for line in packed.stdout.splitlines()]
    return {each["name"]: each for each in found}


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
