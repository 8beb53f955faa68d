"""Folders of uploads that a backup leaves out, because a link leads to them.

No link is followed that could lead to what is not the site's; what lies behind one is
counted and told, for a portal may keep all its uploads there.
"""

import os
import pwd
import shlex
from contextlib import suppress
from pathlib import Path

from ..report import name_of
from ..repository.backup import MOST_COUNTED, many_files


def count(directory: Path, besides: Path) -> int:
    """The files below a directory, at most 100,000, without those of the repository."""
    found = 0
    for top, names, files in os.walk(directory):
        names[:] = [name for name in names if Path(top, name) != besides]
        found += len(files)
        if found >= MOST_COUNTED:
            return MOST_COUNTED
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
        f"{path!r} is a link to {str(target)!r}{whose}: the {many_files(files)} "
        f"behind it are not included. Have them in place of the link: {mend}"
    )


def above(path: str, files: int) -> str:
    """What is told of a folder that the repository is in."""
    return (
        f"{path!r} holds the repository of backups: the {many_files(files)} beside it "
        f"there are not included. Move them, or set {name_of('repository')} to "
        "another place"
    )
