"""Why a record is refused, for people."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..engine.errors import summary_of
from .incoming import Unfit

#: letters of a reason, at most
_MOST = 1000


def reasons(error: BaseException) -> str:
    """Why a record is refused: each field with what CKAN says of it."""
    if isinstance(error, Unfit):
        return str(error)
    found = getattr(error, "error_dict", None)
    text = ""
    if isinstance(found, dict):
        with suppress(RecursionError):
            text = "; ".join(_by_field(found, ""))
    text = text or summary_of(error)
    return text if len(text) < _MOST else f"{text[:_MOST]} …"


def _by_field(found: Any, path: str) -> Iterator[str]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _by_field(value, f"{path}.{key}" if path else str(key))
    elif isinstance(found, list) and any(isinstance(e, (dict, list)) for e in found):
        for number, value in enumerate(found, 1):
            yield from _by_field(value, f"{path} {number}")
    elif found:
        said = found if isinstance(found, list) else [found]
        yield f"{path}: {' '.join(map(str, said))}"
