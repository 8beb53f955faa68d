"""Signatures and sums: canonical JSON, HMAC, streams that are hashed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from .opened import read_plain


class Tally:
    """A file that is read once by somebody else, and what went through."""

    def __init__(self, file: IO[bytes], read: Callable[[int], None]) -> None:
        self._file, self._told = file, read
        self.digest, self.size = hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self.digest.update(chunk)
        self.size += len(chunk)
        self._told(len(chunk))
        return chunk


class Written:
    """What was written through it: `bytes`, and `sha256` in hexadecimal."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.bytes = 0

    def write(self, content: Any) -> int:
        """Writes, and counts."""
        self._digest.update(content)
        self.bytes += len(content)
        self._file.write(content)
        return len(content)

    def flush(self) -> None:
        """What compressors call."""
        self._file.flush()

    @property
    def sha256(self) -> str:
        """The sum of all that was written."""
        return self._digest.hexdigest()


#: of a repository's own JSON files; 5,000 tables make a manifest of half a megabyte
_MAX_JSON = 64 << 20


def dumped(document: Mapping[str, Any]) -> bytes:
    """The one way a document of ours stands on the disk, so that each byte counts."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True)
    return text.encode() + b"\n"


def sign(document: Mapping[str, Any], secret: str, purpose: str) -> dict[str, Any]:
    """The document with an `hmac` of the rest, by a key derived for the purpose."""
    unsigned = {key: value for key, value in document.items() if key != "hmac"}
    return unsigned | {"hmac": _signature(unsigned, secret, purpose)}


def signed_by(document: Any, secrets: tuple[str, ...], purpose: str) -> bool:
    """Whether one of the secrets signed the document."""
    if not isinstance(document, dict) or not isinstance(document.get("hmac"), str):
        return False
    unsigned = {key: value for key, value in document.items() if key != "hmac"}
    try:
        given = document["hmac"].encode()
        return any(
            hmac.compare_digest(given, _signature(unsigned, secret, purpose).encode())
            for secret in secrets
            if secret
        )
    except (RecursionError, ValueError):  # nested too deep, or no text
        return False


def derived_key(secret: str, purpose: str) -> bytes:
    words = f"ckanext-dbmanage {purpose}".encode()
    return hmac.digest(secret.encode(), words, "sha256")


def _signature(document: Mapping[str, Any], secret: str, purpose: str) -> str:
    key = derived_key(secret, purpose)
    return hmac.new(key, dumped(document), hashlib.sha256).hexdigest()


def read_own(path: Path) -> bytes:
    """All of one of a repository's own small files. Raises OSError as `read_plain`."""
    return read_plain(path, _MAX_JSON)


def read_json(path: Path) -> Any:
    """A JSON file of ours, None when it is none. Raises OSError as `read_plain`."""
    content = read_own(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
