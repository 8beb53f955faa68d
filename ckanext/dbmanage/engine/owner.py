"""Whose files these are: where root may work, and what this user may not read.

Root works only where nobody but root could move things meanwhile. Whoever owns a
directory can put a link in the place of what is in it. Root would then write into, and
move things out of, a directory that is none of theirs. Must not know which command is
run: that is handed in.
"""

import os
import pwd
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from .errors import Refused
from .layout import DENIED


def refuse_root(places: Iterable[str | Path], command: str) -> None:
    """Refuses to let root write where a directory on the way is another user's.

    `command` is what is to be run as that user instead. Raises Refused.
    """
    if os.geteuid() == 0 and (found := foreign(places)):
        directory, user = found
        raise Refused(
            f"this runs as root, and {directory} belongs to the user {user}, who could "
            "lead root elsewhere by a link; nothing was touched. Run it as that user:\n"
            f"  sudo -u {user} {command}"
        )


def foreign(places: Iterable[str | Path]) -> tuple[Path, str] | None:
    """The first directory on the way to these that is not root's, and whose it is.

    The user as sudo takes it: `#1234`, in quotes, for one without a name.
    """
    for place in places:
        real = Path(os.path.realpath(place))
        for directory in (*reversed(real.parents), real):
            try:
                owner = directory.stat().st_uid
            except FileNotFoundError:
                break  # it will be made by root
            if owner != 0:
                return directory, _name(owner)
    return None


def closed(paths: Iterable[Path]) -> Path | None:
    """The first of these files and directories that this user may not read.

    What is not there, a link or a device is none of them.
    """
    for path in paths:
        try:
            mode = path.lstat().st_mode
        except PermissionError:
            return path.parent
        except OSError:
            continue
        needed = os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)
        plain = stat.S_ISDIR(mode) or stat.S_ISREG(mode)
        if plain and not os.access(path, needed, effective_ids=True):
            return path
    return None


def why_closed(path: Path, root: Path) -> str:
    """That something below the directory `root` cannot be read, and what mends that.

    Whoever owns `root` is to own what is in it; the command can be pasted.
    """
    user, owner, reader = _owner(path), _owner(root), os.geteuid()
    said = (
        f"{DENIED} the user {_name(reader)}: {path} belongs to the user {_name(user)}"
    )
    if user == reader:
        return (
            f"{said}, and is closed to them: `chmod -R u+rwX {shlex.quote(str(path))}`"
        )
    if user == owner:
        return f"{said}: run this as that user"
    who = [_name(each).strip("'#") for each in (user, owner)]
    line = ["sudo", "chown", "-R", f"--from={who[0]}", who[1], str(root)]
    return f"{said}: `{shlex.join(line)}`"


def _owner(path: Path) -> int:
    """The user that a path belongs to; one that cannot be looked at is root's."""
    try:
        return path.lstat().st_uid
    except OSError:
        return 0


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"'#{user}'"
