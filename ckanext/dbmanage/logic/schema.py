"""What a parameter of an action may be: each makes the validators for one.

They are made at a call: while the actions are imported, CKAN's are not there yet.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

from ckan.plugins import toolkit as tk

from ..engine.clock import is_stamp
from ..engine.layout import PARTS

#: names in one list: what comes back together is read, and undone, together
_MOST_NAMES = 100
Parameter = Callable[[], list[Any]]


def needed() -> list[Any]:
    """A text that has to be there."""
    return [*_core("not_empty", "unicode_safe"), _text_to_send]


def optional() -> list[Any]:
    """A text; one that is empty is none."""
    return _core("ignore_empty", "unicode_safe")


def line() -> list[Any]:
    """One line for lists and journals, by default an empty one."""
    return [*_default(""), *_core("unicode_safe"), _one_line]


def flag() -> list[Any]:
    """Yes or no, by default no."""
    return [*_default(False), *_core("boolean_validator")]


def flag_or_none() -> list[Any]:
    """Yes or no, or neither."""
    return [*_default(None), _flag_or_none]


def moment() -> list[Any]:
    """A day of the site's time zone, `2026-11-23`, or a moment, as a stamp."""
    return [*_core("ignore_empty", "unicode_safe"), _day_or_moment]


def parts() -> list[Any]:
    """Parts of a backup, by default an empty list, which stands for all."""
    return [*_default(""), _list_of_parts]


def names() -> list[Any]:
    """One name or id, or a list of them; at least one."""
    return [*_core("not_empty"), _list_of_names]


def number(default: int, least: int, most: int) -> Parameter:
    """A whole number within limits."""

    def check(value: Any) -> int:
        # one validator: CKAN goes on to the next after one that was not content
        text = str(value)
        if len(text) < 10 and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise tk.Invalid(tk._("A number from {} to {}").format(least, most))

    return lambda: [*_default(default), check]


def choice(*among: str) -> Parameter:
    """One of some words, which has to be there."""

    def check(value: Any) -> str:
        if value not in among:
            raise tk.Invalid(tk._("Choose from {}").format(", ".join(among)))
        return value

    return lambda: [*_core("not_empty"), check]


def _core(*names: str) -> list[Any]:
    return [tk.get_validator(name) for name in names]


def _default(value: Any) -> list[Any]:
    default: Any = tk.get_validator("default")
    return [default(value)]


def _list_of_parts(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)) and not value:
        # to leave all of them out is not to want all
        raise tk.Invalid(tk._("Choose at least one part"))
    chosen = value.split() if isinstance(value, str) else value or []
    if not isinstance(chosen, (list, tuple)):
        raise tk.Invalid(tk._("A list of parts"))
    for part in chosen:
        if part not in PARTS:
            raise tk.Invalid(tk._("Choose from {}").format(", ".join(PARTS)))
    return [part for part in PARTS if part in chosen]


def _list_of_names(value: Any) -> list[str]:
    chosen = [value] if isinstance(value, str) else value
    if not isinstance(chosen, (list, tuple)) or len(chosen) > _MOST_NAMES:
        raise tk.Invalid(tk._("A list of at most {} names").format(_MOST_NAMES))
    if not all(isinstance(each, str) and each for each in chosen):
        raise tk.Invalid(tk._("A list of at most {} names").format(_MOST_NAMES))
    return [_text_to_send(each) for each in dict.fromkeys(chosen)]


def _flag_or_none(value: Any) -> bool | None:
    # `ignore_empty` takes a no for nothing
    flag: Any = tk.get_validator("boolean_validator")
    return None if value in (None, "") else flag(value, {})


def _day_or_moment(value: str) -> str:
    with suppress(ValueError):
        if is_stamp(value) or str(date.fromisoformat(value)) == value:
            return value
    raise tk.Invalid(tk._("A day as 2026-11-23, or a moment as 2026-11-23T04:55:00Z"))


def _text_to_send(value: Any) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise tk.Invalid(tk._("That is no text")) from None
    return value


def _one_line(value: Any) -> str:
    return " ".join(str(value or "").split())[:500]
