"""What a check is and what it finds; how old things may be, and how old they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..operations.context import Portal

OK, HINT, PROBLEM = "ok", "hint", "problem"


@dataclass(frozen=True)
class Finding:
    """What a check found: its name, `ok`, `hint` or `problem`, and a sentence.

    Not `known` where the check itself could not look, as this user or at all.
    """

    name: str
    state: str
    text: str
    known: bool = True

    @property
    def told(self) -> dict[str, str]:
        """What the terminal and `--json` tell of it."""
        return {"name": self.name, "state": self.state, "text": self.text}


#: states, each with a sentence
Found = Iterator[tuple[str, str]]
Check = Callable[[Portal, Site, Repository], Found]


def in_words(age: timedelta) -> str:
    """An age in minutes, hours, or days."""
    minutes = age.total_seconds() / 60
    if minutes < 1:
        return "less than a minute"
    for count, unit, most in ((minutes, "minute", 60), (minutes / 60, "hour", 48)):
        if round(count) < most:
            return f"{count:.0f} {unit}{'s' * (round(count) != 1)}"
    return f"{minutes / 1440:.0f} days"
