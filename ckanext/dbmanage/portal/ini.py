"""CKAN's configuration file: read as CKAN does, or without believing it.

CKAN's own reader runs what a file says of loggers. One that came from elsewhere is read
by `untrusted` until somebody has confirmed that it is to be run.
"""

import os
import re
from collections.abc import Iterator, Mapping
from configparser import (
    MAX_INTERPOLATION_DEPTH,
    BasicInterpolation,
    ConfigParser,
    InterpolationError,
)
from configparser import Error as IniError
from pathlib import Path
from typing import Any

from ..engine.clock import who
from ..engine.errors import ACCOUNT, Refused
from ..engine.printable import one_line
from .config import PREFIX

_SECTION = "app:main"
#: options whose values are shown; any other may hold a secret
_SHOWN = (
    "ckan.site_id", "ckan.site_url", "ckan.site_title", "ckan.plugins",
    "ckan.storage_path", "solr_url", f"{PREFIX}repository",
)  # fmt: skip
_LETTERS = 100
_REFERENCE = re.compile(r"%\(([^)]+)\)s")
#: letters of all values; a file of a million may ask for any number
_MOST = 1 << 22


def loaded(ini: str | None) -> dict[str, Any]:
    """The settings of a file, as CKAN has them; without one, of where CKAN looks.

    Raises CkanConfigurationException, Refused.
    """
    from ckan.cli import load_config
    from ckan.exceptions import CkanConfigurationException

    try:
        found = load_config(ini)
    except CkanConfigurationException:
        raise
    except Exception as error:  # of a line, or of a logger; its words may hold a secret
        raise Refused(_unread(ini, error)) from None
    return _with_environment(found)


def _unread(ini: str | None, error: Exception) -> str:
    """Why a configuration file cannot be read, without what stands in it."""
    path = os.path.abspath(os.path.expanduser(ini or os.environ.get("CKAN_INI", "")))
    try:
        if os.path.isfile(path):  # CKAN takes one that it may not read for an empty one
            open(path).close()
    except OSError as closed:
        error = closed
    if isinstance(error, PermissionError):
        file = one_line(error.filename or path)
        return f"{who()} may not read {file}: run this as CKAN's user"
    if isinstance(error, OSError):
        return f"{one_line(error.filename or path)}: {error.strerror}"
    what = type(error).__name__
    option = getattr(error, "option", "")
    line = f", at {one_line(option)[:_LETTERS]}" if option else ""
    return (
        f"CKAN's configuration file {one_line(path)} cannot be read ({what}{line}). Is "
        "it CKAN's? `-c FILE` names another one"
    )


def untrusted(text: str, path: Path) -> dict[str, Any]:
    """The settings of a file that is to stand at `path`; nothing in it is run.

    Raises Refused.
    """
    settings = _read(text, path)
    if settings.get("use", "").startswith("config:"):
        raise Refused(
            "the ckan.ini of the backup is built on another file, which did not go "
            f"along. Write both anew, {path.name} as {path}, and run this again"
        )
    return _with_environment(settings)


class _Bounded(BasicInterpolation):
    """Lets no file grow: a value may name others any number of times, and these too."""

    _size = 0

    def before_get(
        self, parser: Any, section: str, option: str, value: str, defaults: Any
    ) -> str:
        """As configparser's. Raises its errors."""
        self._count(option, value, defaults, 0)
        return super().before_get(parser, section, option, value, defaults)

    def _count(self, option: str, value: str, known: Any, depth: int) -> None:
        self._size += len(value)
        if self._size > _MOST or depth > MAX_INTERPOLATION_DEPTH:
            raise InterpolationError(option, _SECTION, "its value has no end")
        for name in _REFERENCE.findall(value):
            self._count(name, known.get(name) or "", known, depth + 1)


def _read(text: str, path: Path) -> dict[str, str]:
    parser = ConfigParser(interpolation=_Bounded())
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    own = {k: v for k, v in os.environ.items() if k.startswith("CKAN_")}
    own |= {"here": str(path.parent), "__file__": str(path)}
    try:
        parser.read_dict({"DEFAULT": {k: v.replace("%", "%%") for k, v in own.items()}})
        parser.read_string(text)
        return dict(parser.items(_SECTION))
    except (IniError, ValueError) as error:  # whose words hold the lines
        raise Refused(
            f"the text of {path.name} cannot be read ({type(error).__name__})"
        ) from None


def _with_environment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """CKAN itself does this only when it starts: the environment wins."""
    from ckan.config.environment import CONFIG_FROM_ENV_VARS

    own = {option: os.environ.get(v) for option, v in CONFIG_FROM_ENV_VARS.items()}
    return dict(settings) | {option: value for option, value in own.items() if value}


def differing(here: str, there: str, path: Path) -> Iterator[str]:
    """The options that two files have otherwise, a line for each, without secrets.

    Raises Refused.
    """
    one, other = _read(here, path), _read(there, path)
    for option in sorted(one.keys() | other.keys()):
        values = one.get(option), other.get(option)
        if values[0] == values[1]:
            continue
        name = one_line(option)[:_LETTERS]
        if values[0] is None:
            yield f"{name} is not set here, and was set there"
        elif values[1] is None:
            yield f"{name} is set here, and was not set there"
        elif option in _SHOWN:
            is_, was = (
                one_line(ACCOUNT.sub("…@", v or ""))[:_LETTERS] or "empty"
                for v in values
            )
            yield f"{name} is {is_} here, and was {was}"
        else:
            yield f"{name} has another value"


def with_repository(text: str, directory: str) -> str:
    """A file that keeps the backups in this directory."""
    line = f"{PREFIX}repository = {directory.replace('%', '%%')}"
    option = re.compile(
        rf"^{re.escape(PREFIX)}repository\s*[=:].*$(\n[ \t]+\S.*$)*", re.MULTILINE
    )
    if option.search(text):
        return option.sub(lambda _: line, text, count=1)
    section = re.compile(rf"^\[{_SECTION}\].*$", re.MULTILINE)
    return section.sub(lambda found: f"{found[0]}\n{line}", text, count=1)
