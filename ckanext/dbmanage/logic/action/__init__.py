"""The actions, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def functions() -> dict[str, Callable[..., Any]]:
    """The actions by name."""
    return {k: v for k, v in globals().items() if k.startswith("dbmanage_")}
