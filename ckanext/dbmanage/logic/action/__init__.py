"""The actions, by name."""

from collections.abc import Callable
from typing import Any

from .. import auth
from . import read, restore, thing, write


def functions() -> dict[str, Callable[..., Any]]:
    """The actions by name."""
    return {
        name: function
        for module in (read, write, restore, thing)
        for name, function in vars(module).items()
        if name.startswith("dbmanage_")
    }


def auth_functions() -> dict[str, Callable[..., Any]]:
    """For each action who may call it."""
    return dict.fromkeys(functions(), auth.sysadmins_only)
