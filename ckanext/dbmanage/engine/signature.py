"""Signatures and sums: canonical JSON, HMAC, streams that are hashed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .opened import read_plain

_CHUNK = 1 << 20


class Hashed:
    """A file that is read, or written, through a digest.

    `bytes` went through, and `sha256` is the sum of them; `told` is called with the
    number of each step's bytes.
    """

    def __init__(self, file: Any, told: Callable[[int], None] = lambda _: None) -> None:
        self._file, self._told = file, told
        self._digest, self.bytes = hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, none at the end."""
        return self._counted(self._file.read(size))

    def readline(self, size: int = -1) -> bytes:
        """A line, or the first `size` bytes of it."""
        return self._counted(self._file.readline(size))

    def read_rest(self) -> Hashed:
        """Reads to the end; returns itself."""
        while self.read(_CHUNK):
            pass
        return self

    def write(self, content: Any) -> int:
        """Writes all of it; returns its length."""
        self._file.write(self._counted(content))
        return len(content)

    def flush(self) -> None:
        """What compressors call."""
        self._file.flush()

    def _counted(self, chunk: Any) -> Any:
        self._digest.update(chunk)
        self.bytes += len(chunk)
        self._told(len(chunk))
        return chunk

    @property
    def sha256(self) -> str:
        """The sum of what went through, in hexadecimal."""
        return self._digest.hexdigest()


#: of a repository's own JSON files; 5,000 tables make a manifest of half a megabyte
_MAX_JSON = 64 << 20


def dumped(document: Mapping[str, Any]) -> bytes:
    """The one way a document of ours stands on the disk, so that each byte counts."""
    return _indented(document, "\n").encode() + b"\n"


def _indented(value: Any, line: str) -> str:
    """What `json.dumps(value, indent=1, sort_keys=True)` gives, in a tenth of the time.

    With an indent the `json` of Python itself is not the fast one; it is with any
    separator. A year's backups have 365 manifests with a row for each table.
    """
    inner = f"{line} "
    separators = (f",{inner}", ": ")
    if not isinstance(value, (dict, list, tuple)) or not value:
        return json.dumps(value)
    every = value.values() if isinstance(value, dict) else value
    if not any(isinstance(each, (dict, list, tuple)) for each in every):
        flat = json.dumps(value, sort_keys=True, separators=separators)
        return f"{flat[0]}{inner}{flat[1:-1]}{line}{flat[-1]}"
    if isinstance(value, dict):
        named = sorted(value.items())
        items = [f"{_key(key)}: {_indented(each, inner)}" for key, each in named]
        return f"{{{inner}{separators[0].join(items)}{line}}}"
    items = [_indented(each, inner) for each in value]
    return f"[{inner}{separators[0].join(items)}{line}]"


def _key(key: Any) -> str:
    return json.dumps({key: 0})[1:-4]


def sign(document: Mapping[str, Any], secret: str, purpose: str) -> dict[str, Any]:
    """The document with an `hmac` of the rest, by a key derived for the purpose."""
    return {**document, "hmac": _signature(document, secret, purpose)}


def signed_by(document: Any, secrets: tuple[str, ...], purpose: str) -> bool:
    """Whether one of the secrets signed the document."""
    if not isinstance(document, dict) or not isinstance(document.get("hmac"), str):
        return False
    try:
        given = document["hmac"].encode()
        return any(
            hmac.compare_digest(given, _signature(document, secret, purpose).encode())
            for secret in secrets
            if secret
        )
    except (RecursionError, ValueError):  # nested too deep, or no text
        return False


def derived_key(secret: str, purpose: str) -> bytes:
    """A key for one purpose, from which nobody learns the secret."""
    words = f"ckanext-dbmanage {purpose}".encode()
    return hmac.digest(secret.encode(), words, "sha256")


def _signature(document: Mapping[str, Any], secret: str, purpose: str) -> str:
    unsigned = {key: value for key, value in document.items() if key != "hmac"}
    return hmac.digest(derived_key(secret, purpose), dumped(unsigned), "sha256").hex()


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
