"""Folders of uploads that a backup leaves out, because a link leads to them.

No link is followed that could lead to what is not CKAN's; what lies behind one is
counted and told, for a portal may keep all its uploads there.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

#: files that are counted behind a link; it may lead to all of the disk
_MOST = 100_000


def count(directory: Path, besides: Path) -> int:
    """The files below a directory, at most 100,000, without those of the repository."""
    found = 0
    for top, names, files in os.walk(directory):
        names[:] = [name for name in names if Path(top, name) != besides]
        found += len(files)
        if found >= _MOST:
            return _MOST
    return found


def sentence(path: str, place: Path, files: int) -> str:
    """What is told of a link to a directory, and what mends it."""
    target, whose = place.resolve(), ""
    with suppress(OSError, KeyError):
        whose = f", which belongs to {pwd.getpwuid(target.stat().st_uid).pw_name}"
    link, real = shlex.quote(str(place)), shlex.quote(str(target))
    mend = f"rm {link} && mv {real} {link}"
    if "/" not in path:
        mend = f"rm {link} && mkdir {link} && mount --bind {real} {link}"
    return (
        f"{path!r} is a link to {str(target)!r}{whose}: the {_many(files)} behind it "
        f"are not included. Have them in place of the link: {mend}"
    )


def above(path: str, files: int) -> str:
    """What is told of a folder that the repository is in."""
    return (
        f"{path!r} holds the repository of backups: the {_many(files)} beside it there "
        "are not included. Move them, or set ckanext.dbmanage.repository to another "
        "place"
    )


def told(about: Mapping[str, Any]) -> str:
    """Why a backup does not hold all uploads that it could; empty when it does.

    `about` is what its manifest says of the uploads.
    """
    folders, linked = about.get("folders") or 0, about.get("linked") or 0
    if not folders and not linked:
        return ""
    return (
        f"{folders} folders of uploads with {_many(about.get('behind') or 0)}, and "
        f"{linked} uploads that are links, were left out: "
        + "; ".join(about.get("left_out") or about.get("examples") or ())
    )


def _many(files: int) -> str:
    return f"{'more than ' if files >= _MOST else ''}{files} files"
