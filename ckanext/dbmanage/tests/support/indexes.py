"""Backups that were never taken, with an index of records each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from ckanext.dbmanage.engine.backup.manifest import write_manifest
from ckanext.dbmanage.engine.backup.records import FIELDS, Writer, format_line
from ckanext.dbmanage.engine.layout import RECORDS
from ckanext.dbmanage.engine.signature import dumped, sign

from .shelf import NOON, SECRET, Shelf

#: lines by kind: of each some of its facts
Lines = Mapping[str, Iterable[Mapping[str, Any]]]


def line(facts: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a line."""
    return dict.fromkeys(FIELDS) | {"state": "active"} | dict(facts)


def written(writer: Writer, lines: Lines) -> dict[str, Any]:
    """Writes the lines; what the manifest says of the index."""
    for kind, every in lines.items():
        into = writer.add(kind)
        for facts in sorted(every, key=lambda each: each["id"]):
            told = line({"kind": kind} | facts)
            row = format_line(told)[:-1]
            texts = (told["id"].encode(), (told["name"] or "").encode(), row)
            into.write(b"\t".join(map(_copied, texts)) + b"\n")
        into.close()
    return writer.finish()


def _copied(text: bytes) -> bytes:
    """As COPY writes it."""
    return text.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\t", b"\\t")


def resign(directory: Path, changes: Callable[[dict[str, Any]], object]) -> None:
    """Signs the manifest of a backup with other facts, as this site itself could."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    del manifest["hmac"]
    changes(manifest)
    for name in ("manifest.json", "SHA256SUMS"):
        (directory / name).unlink()
    write_manifest(directory, sign(manifest, SECRET, "manifest"))


def take_away(directory: Path) -> None:
    """Makes a backup one that never had an index."""
    (directory / RECORDS).unlink()
    resign(directory, lambda manifest: manifest["contents"].pop(RECORDS))


def night(shelf: Shelf, number: int, lines: Lines | None, secret: str = SECRET) -> str:
    """A backup with an index of these lines, or with none; its id."""
    id = shelf.add(NOON + timedelta(days=number))
    directory = shelf.path / id
    manifest = json.loads((directory / "manifest.json").read_bytes())
    del manifest["hmac"]
    if lines is not None:
        with open(directory / RECORDS, "wb") as file:
            manifest["contents"][RECORDS] = written(Writer(file), lines)
    signed = sign(manifest, secret, "manifest")
    (directory / "manifest.json").write_bytes(dumped(signed))
    return id
