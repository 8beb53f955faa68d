"""The manifest of a backup: what it says, and its shape."""

import hashlib
import os
from pathlib import Path
from typing import Any

from .. import layout, words
from ..archive.segments import Segments
from ..disk import create_file
from ..errors import Refused
from ..layout import FORMAT, MANIFEST, SEGMENTS, SUMS
from ..report import name_of
from ..repository.backup import Backup
from ..signature import dumped
from ..site import Site
from . import records


def manifest_of(site: Site, id: str) -> dict[str, Any]:
    """What every manifest says of the backup and of the site."""
    return {
        "format": FORMAT,
        "id": id,
        "site": {"id": site.id, "url": site.url},
        "versions": dict(site.versions),
        "secrets": {"api_tokens": fingerprint(site.token_secret)},
    }


def fingerprint(secret: str) -> str:
    """What tells one secret from another without telling the secret."""
    # slow on purpose: a short secret must not be guessed from its fingerprint
    salt = b"ckanext-dbmanage fingerprint"
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 100_000).hex()[:32]


def write_manifest(partial: Path, manifest: dict[str, Any]) -> None:
    for name, content in (
        (MANIFEST, dumped(manifest)),
        (SUMS, sums_of(manifest, dumped(manifest))),
    ):
        with create_file(partial / name) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def sums_of(manifest: dict[str, Any], written: bytes) -> bytes:
    """The content of SHA256SUMS; `written` is the manifest as it stands on the disk."""
    sums = {name: about["sha256"] for name, about in manifest["contents"].items()}
    sums[MANIFEST] = hashlib.sha256(written).hexdigest()
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()


def well_formed(manifest: dict[str, Any]) -> bool:
    """Whether every field that is read later has its shape."""
    try:
        contents, databases = manifest["contents"], manifest["databases"]
        uploads = manifest["files"]
        return (
            set(contents) - {layout.RECORDS}
            == {SEGMENTS[part] for part in databases}
            | ({layout.LIST} if uploads["included"] else set())
            and (not uploads["included"] or isinstance(uploads["bytes"], int))
            and all(
                isinstance(about["bytes"], int) and isinstance(about["sha256"], str)
                for about in contents.values()
            )
            and (
                layout.RECORDS not in contents
                or records.well_formed(contents[layout.RECORDS])
            )
            and all(
                isinstance(about["dump"][key], int)
                for about in databases.values()
                for key in ("bytes", "stored", "added")
            )
            and all(
                isinstance(rows, int)
                for about in databases.values()
                for rows in about["rows"].values()
            )
            and all(
                isinstance(revision, str)
                for about in databases.values()
                for revisions in about["migrations"].values()
                for revision in revisions
            )
        )
    except (KeyError, TypeError, AttributeError):
        return False


def segments_of(backup: Backup, part: str, *staged: Path) -> Segments:
    """The dump of a part. Raises Refused when the backup has none.

    New objects may still be `staged`.
    """
    name = SEGMENTS[part]
    about = backup.manifest["contents"].get(name)
    if about is None:
        raise Refused(
            f"backup {backup.id} holds no {name_of(part)}, only "
            f"{words.parts(backup.parts)}"
        )
    places = (*staged, backup.objects)
    return Segments(backup.path / name, about["bytes"], about["sha256"], places)
