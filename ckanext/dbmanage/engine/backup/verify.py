"""A backup is read again, byte by byte."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import zstandard

from .. import layout
from ..archive.contents import limit, read_contents
from ..archive.unpack import read_to_end
from ..clock import stamp
from ..disk import is_regular, regular_files
from ..errors import DbmanageError
from ..layout import MANIFEST, SUMS, UNSIGNED
from ..opened import open_plain
from ..report import Progress
from ..repository.backup import Backup
from ..signature import Hashed, dumped, read_own
from ..site import Site
from ..uploads import objects
from ..uploads.listing import of
from .manifest import sums_of, well_formed
from .together import Ended, Together

_CHUNK = 1 << 18


def verify_backup(
    backup: Backup, site: Site, progress: Progress = lambda *_: None
) -> list[str]:
    """What is wrong with a backup, a sentence for each; the result is remembered."""
    problems = problems_of(backup, site, progress)
    with suppress(OSError):
        backup.remember(verified={"time": stamp(), "problems": problems})
    return problems


def problems_of(
    backup: Backup,
    site: Site,
    progress: Progress = lambda *_: None,
    *,
    foreign: bool = False,
    structure: bool = True,
    uploads: bool = True,
) -> list[str]:
    """Reads every byte of a backup and names each file that is not what it was.

    Files against the manifest's sizes and checksums, the manifest against its
    signature (not with `foreign`), each archive to its end, its tables against the
    manifest (neither without `structure`), the content of each upload against its
    checksum (not without `uploads`).
    """
    try:
        there = regular_files(backup.path)
        written = read_own(backup.path / MANIFEST)
    except OSError as error:
        return [f"{Path(error.filename).name}: {error.strerror}"]
    manifest = backup.manifest
    sums = b""
    with suppress(OSError):
        sums = read_own(backup.path / SUMS)
    if not well_formed(manifest) or dumped(manifest) != written:
        return [f"{MANIFEST}: was changed or is not a manifest"]
    if not backup.signed:
        line = f"{hashlib.sha256(written).hexdigest()}  {MANIFEST}\n".encode()
        if line not in sums:
            return [f"{MANIFEST}: was changed (its checksum is not the one in {SUMS})"]
    contents = manifest["contents"]
    expected = {MANIFEST, SUMS, *contents}
    problems = []
    if not backup.signed and not foreign:
        problems.append(
            f"{MANIFEST}: {UNSIGNED} with this site's secret: another site's, or "
            "forged, or a copy under another name, or SECRET_KEY was changed (then add "
            "the old one to SECRET_KEY_FALLBACKS)"
        )
    problems += [f"{n!r}: does not belong here" for n in sorted(set(there) - expected)]
    problems += [f"{name}: is missing" for name in sorted(expected - set(there))]
    for name in sorted(expected & set(there)):
        if not is_regular(there[name]):
            problems.append(f"{name}: is not a plain file")
    if SUMS in there and sums != sums_of(manifest, written):
        problems.append(f"{SUMS}: was changed (it does not agree with the manifest)")
    readable = [n for n in contents if n in there and is_regular(there[n])]
    total = sum(contents[n]["bytes"] for n in readable)
    total += backup.files.get("bytes", 0) if uploads else 0
    work = Together("verify", total, progress)
    found = work.run(
        {
            name: functools.partial(
                _check, backup, name, site.pg_bin, structure, work.count
            )
            for name in readable
        }
    )
    problems += [problem for name in readable for problem in found[name]]
    if uploads and layout.LIST in readable and not found[layout.LIST]:
        problems += objects.problems(of(backup), backup.objects, work.count)
    return problems


def _check(
    backup: Backup, name: str, pg_bin: str, structure: bool, read: Callable[[int], None]
) -> list[str]:
    about = backup.manifest["contents"][name]
    problem = ""
    try:
        with open_plain(backup.path / name) as file:
            hashed = Hashed(file, read)
            if structure and name != layout.LIST:
                try:
                    most = 0 if backup.signed else limit(about["bytes"])
                    read_to_end(hashed, name, pg_bin, most)
                except Ended:
                    raise
                except (DbmanageError, zstandard.ZstdError) as error:
                    problem = f"{name}: the archive cannot be read to its end: {error}"
            hashed.read_rest()
    except OSError as error:
        return [f"{name}: {error.strerror}"]
    if hashed.bytes != about["bytes"]:
        return [f"{name}: has {hashed.bytes} bytes, not {about['bytes']}"]
    if hashed.sha256 != about["sha256"]:
        return [f"{name}: was changed (checksum)"]
    if problem or not structure or name == layout.LIST:
        return [problem] if problem else []
    return _missing_tables(backup, name.split(".")[0], name)


def _missing_tables(backup: Backup, part: str, name: str) -> list[str]:
    with open_plain(backup.path / name) as file:
        contents = read_contents(file, name)
    held = {f"{e.schema}.{e.name}" for e in contents.entries if e.kind == "TABLE DATA"}
    return [
        f"{name}: holds no rows of table {table}, which the manifest counts"
        for table in sorted(set(backup.manifest["databases"][part]["rows"]) - held)
    ]
