"""Root works only where nobody but root could move things meanwhile.

Whoever owns a directory can put a link in the place of what is in it. Root would then
write into, and move things out of, a directory that is none of theirs. Must not know
which command is run: that is handed in.
"""

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from .errors import Refused


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


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"'#{user}'"
