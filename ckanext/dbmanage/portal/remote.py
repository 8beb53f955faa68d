"""The other place of the backups, out of the configuration."""

import os
import shlex
import stat
from collections.abc import Mapping

from ..engine.errors import ACCOUNT, Refused
from ..engine.offsite.restic import Place, own_variables
from ..engine.opened import open_plain
from .config import PREFIX, Options

#: bytes of a file of variables
_MOST = 1 << 20


def place(options: Options) -> Place | None:
    """Where backups are copied to; None where nobody has set that up. Raises Refused.

    What the options leave empty, restic's own variables of this process say.
    """
    own = own_variables(os.environ)
    own |= _variables(options.remote_env_file)
    address = options.remote_repository
    if not address and not {"RESTIC_REPOSITORY", "RESTIC_REPOSITORY_FILE"} & set(own):
        return None
    password = options.remote_password_file
    if password:
        read_secret(password, f"{PREFIX}remote.password_file")
    elif not any(name.startswith("RESTIC_PASSWORD") for name in own):
        raise Refused(
            f"{PREFIX}remote.repository is set, but no password: write one into a "
            "file that this user alone may read, and name it in "
            f"{PREFIX}remote.password_file"
        )
    return Place(
        address, password, own, options.remote_env_file, options.remote_limit_upload
    )


def place_at(address: str, password_file: str) -> Place:
    """A place that somebody has named; what is empty, restic's own variables say.

    Raises Refused.
    """
    own = own_variables(os.environ)
    if ":" in "".join(ACCOUNT.findall(address)):
        raise Refused(
            "an address with a password is refused: everybody on this machine can read "
            "it in the list of processes. Write it into a file that this user alone "
            "may read, and name that in the variable RESTIC_REPOSITORY_FILE"
        )
    if not address and not {"RESTIC_REPOSITORY", "RESTIC_REPOSITORY_FILE"} & set(own):
        raise Refused(
            "no other place is named: `--from` names one, as restic writes it"
        )
    if password_file:
        read_secret(password_file, "--password-file")
    elif not any(name.startswith("RESTIC_PASSWORD") for name in own):
        raise Refused(
            "there is no password: write it into a file that this user alone may "
            "read, and name that by `--password-file`"
        )
    return Place(address, password_file, own)


def is_set(options: Options) -> bool:
    """Whether somebody has set another place, rightly or not."""
    try:
        return place(options) is not None
    except Refused:
        return True


def _variables(name: str) -> Mapping[str, str]:
    """The variables of a file with a `NAME=value` on each line. Raises Refused."""
    found: dict[str, str] = {}
    lines = read_secret(name, f"{PREFIX}remote.env_file") if name else ""
    for number, line in enumerate(lines.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line[0] == "#":
            continue
        variable, equals, value = line.partition("=")
        if not equals or not own_variables({variable: value}):
            raise Refused(
                f"{PREFIX}remote.env_file: line {number} of {name} sets no variable "
                "that restic reads"
            )
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[variable] = value[1:-1] if quoted else value
    return found


def read_secret(name: str, option: str) -> str:
    """A file of secrets. Raises Refused where others than its owner may read it.

    What is no path is not shown: it may be the secret itself.
    """
    try:
        with open_plain(os.path.realpath(name), limit=_MOST) as file:
            open_to = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            content = file.read(_MOST)
    except OSError as error:
        shown = f"{name}: " if name.startswith(("/", ".")) else ""
        raise Refused(
            f"{option}: {shown}{error.strerror}. It wants the path of a file with the "
            "secret in it, not the secret"
        ) from None
    if open_to:
        raise Refused(
            f"others may read the file of {option}: `chmod 600 {shlex.quote(name)}`"
        )
    return content.decode("utf-8", "replace")
