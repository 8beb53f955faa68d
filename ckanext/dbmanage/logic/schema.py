"""What the actions take; any other parameter is refused."""

from __future__ import annotations

from typing import Any

from ckan.plugins import toolkit as tk

from ..engine.layout import PARTS
from ..engine.redis.maintenance import AWAY, READ_ONLY

KINDS = ("datasets", "organizations", "groups", "users")


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


def _sent(value: Any) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise tk.Invalid(tk._("That is no text")) from None
    return value


def _line(value: Any) -> str:
    # it stands in lists and journals: one line of it
    return " ".join(str(value or "").split())[:500]


def _choice(among: tuple[str, ...]) -> Any:
    def check(value: Any) -> str:
        if value not in among:
            raise tk.Invalid(tk._("Choose from {}").format(", ".join(among)))
        return value

    return check


def _v(name: str, *arguments: Any) -> Any:
    found = tk.get_validator(name)
    return found(*arguments) if arguments else found


def _needed() -> list[Any]:
    return [_v("not_empty"), _v("unicode_safe"), _sent]


def _text() -> list[Any]:
    return [_v("default", ""), _v("unicode_safe"), _line]


def _secret() -> list[Any]:
    return [_v("ignore_empty"), _v("unicode_safe")]


def _flag() -> list[Any]:
    return [_v("default", False), _v("boolean_validator")]


def _number(default: int, least: int, most: int) -> list[Any]:
    def check(value: Any) -> int:
        # one validator: CKAN goes on to the next after one that was not content
        if (
            len(str(value)) < 10
            and str(value).isdecimal()
            and least <= int(value) <= most
        ):
            return int(value)
        raise tk.Invalid(tk._("A number from {} to {}").format(least, most))

    return [_v("default", default), check]


def _parts() -> list[Any]:
    return [_v("default", ""), _list_of_parts]


def nothing() -> dict[str, Any]:
    """No parameter."""
    return {}


def status() -> dict[str, Any]:
    return {"tables": _flag(), "journal": _number(0, 0, 1000)}


def backup_create() -> dict[str, Any]:
    return {"parts": _parts(), "note": _text(), "keep": _flag()}


def backup_list() -> dict[str, Any]:
    return {
        "limit": _number(1000, 1, 100_000),
        "before": [_v("ignore_empty"), _v("unicode_safe")],
    }


def backup_show() -> dict[str, Any]:
    return {"id": _needed(), "compare": _flag(), "parts": _parts()}


def backup_verify() -> dict[str, Any]:
    return {"id": _needed(), "prove": _flag()}


def backup_keep() -> dict[str, Any]:
    return {"id": _needed(), "release": _flag(), "password": _secret()}


def backup_delete() -> dict[str, Any]:
    return {"id": _needed(), "password": _secret()}


def job_cancel() -> dict[str, Any]:
    return {"id": _needed()}


def backup_download() -> dict[str, Any]:
    return {
        "id": [_v("ignore_empty"), _v("unicode_safe")],
        "file": _needed(),
        "password": _secret(),
    }


def restore() -> dict[str, Any]:
    return {
        "id": _needed(),
        "parts": _parts(),
        "preview": _flag(),
        "note": _text(),
        "confirm": [_v("ignore_empty"), _v("unicode_safe")],
        "password": _secret(),
    }


def undo() -> dict[str, Any]:
    return {
        "operation": [_v("ignore_empty"), _v("unicode_safe")],
        "note": _text(),
        "confirm": [_v("ignore_empty"), _v("unicode_safe")],
        "password": _secret(),
    }


def export() -> dict[str, Any]:
    return {"kind": [_v("not_empty"), _choice(KINDS)], "all": _flag()}


def job_show() -> dict[str, Any]:
    return {"id": _needed(), "log": _number(100, 0, 1000)}


def job_list() -> dict[str, Any]:
    return {"limit": _number(20, 1, 200)}


def maintenance_update() -> dict[str, Any]:
    levels = ("off", READ_ONLY, AWAY)
    return {
        "level": [_v("not_empty"), _choice(levels)],
        "seconds": _number(1800, 10, 86_400),
    }
