"""What an operation tells while it is at work, and how it names things."""

from collections.abc import Callable
from typing import Protocol

#: what people call the settings and the parts, and what their commands begin with;
#: filled by what stands above the engine and knows them
NAMES: dict[str, str] = {}


def name_of(thing: str) -> str:
    """What people call a setting, or begin a `command` with, for messages."""
    return NAMES.get(thing, thing)


#: told of what goes on: phase, bytes done, bytes expected (0 when nobody knows)
Progress = Callable[[str, int, int], None]
#: told of what the operator should read, one sentence at a time
Warn = Callable[[str], None]


class Listener(Protocol):
    """A terminal, or the log of a job.

    `progress` counts bytes and `rows` rows; `end` ends the last phase.
    """

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...
    def progress(self, phase: str, done: int, total: int) -> None: ...
    def rows(self, phase: str, done: int, total: int) -> None: ...
    def end(self) -> None: ...


class Silent:
    """Nobody listens."""

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...
    def progress(self, phase: str, done: int, total: int) -> None: ...
    def rows(self, phase: str, done: int, total: int) -> None: ...
    def end(self) -> None: ...
