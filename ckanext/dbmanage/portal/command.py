"""Commands as they are typed on this machine, so that each that is shown can be pasted.

Messages name them as the manual does, `ckan db …`. Before somebody reads a message, the
`ckan` in it becomes what stands for it here: to who has typed a command, how it was
typed; to who sits at a browser, all that the server's shell needs.
"""

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Container
from itertools import pairwise
from pathlib import Path

from .config import Options

#: core's groups whose commands messages name, in backticks or on a line; our verbs
_NAMED = re.compile(
    r"(`|^ *)ckan (?=(?:db|jobs|datastore|search-index) )(?:db (\w+))?", re.MULTILINE
)
_PACKAGE = str(__package__).rpartition(".")[0]


def pasted(text: str, ckan: str, module: str = "", verbs: Container[str] = ()) -> str:
    """A message with `ckan` written as it is typed here, `ckan db` as `module` where
    that has the verb.
    """

    def written(found: re.Match[str]) -> str:
        before, verb = found.groups()
        if module and verb and verb in verbs:
            return f"{before}{module} {verb}"
        return f"{before}{ckan} " + (f"db {verb}" if verb else "")

    return _NAMED.sub(written, text)


def typed() -> str:
    """`ckan`, as who has typed this command types the next one."""
    return _typed(_program())


def typed_module() -> str:
    """`python -m`, where this command was typed so: CKAN itself may not start there.

    Empty where it was not.
    """
    begun = getattr(sys.modules["__main__"], "__package__", "")
    return _typed(sys.executable, "-m", _PACKAGE) if begun == _PACKAGE else ""


def _typed(program: str, *more: str) -> str:
    words = [] if not _by_sudo() else ["sudo", "-u", _user()]
    name = Path(program).name
    found = shutil.which(name)
    # an environment's Python is a link to one that knows nothing of it
    real = os.path.abspath if more else os.path.realpath
    same = found and real(found) == real(program)
    # sudo looks for programs in a path of its own
    words += [name if same and not words else program, *more]
    ini = _given(sys.argv[1:])
    if ini and os.path.abspath(ini) != os.path.abspath(os.environ.get("CKAN_INI", "")):
        words += ["-c", ini]
    return shlex.join(words)


def on_server(options: Options) -> str:
    """`ckan`, as anybody types it in the server's shell: its user, path and site."""
    words = ["sudo", "-u", _user()] if shutil.which("sudo") else []
    words.append(_program())
    if ini := options.text("__file__"):
        words += ["-c", ini]
    return shlex.join(words)


def _program() -> str:
    beside = Path(sys.prefix, "bin", "ckan")  # the program may be uwsgi
    return str(beside) if beside.exists() else shutil.which("ckan") or "ckan"


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"


def _by_sudo() -> bool:
    """Whether sudo ran this very command, and not a shell in which it was typed."""
    words = os.environ.get("SUDO_COMMAND", "").split()
    return any(Path(w).name in ("ckan", "ckanext.dbmanage") for w in words)


def _given(words: list[str]) -> str:
    """The configuration file that was given, empty when CKAN looks for it itself."""
    for word, after in pairwise([*words, ""]):
        if word in ("-c", "--config"):
            return after
        if word.startswith("--config="):
            return word.partition("=")[2]
    return ""
