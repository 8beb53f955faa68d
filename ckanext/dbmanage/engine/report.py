"""What an operation tells while it is at work, and how it names things."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .course import Course

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


@dataclass
class Standing:
    """What is true of the live site, should an operation be ended now.

    `done` is what was changed there, nothing while it is empty; `made` what stays
    besides; `owed` what is to follow what was done. Each is a clause, which names the
    command that goes back or on.
    """

    done: str = ""
    made: list[str] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """All of it, for whoever ended the operation."""
        owed = self.owed if self.done else []
        clauses = [self.done or "Nothing live was changed", *self.made, *owed]
        return "; ".join(clauses) + "."


class Listener(Protocol):
    """A terminal, or the log of a job.

    `progress` counts bytes and `rows` rows of a stage, whose name may end in the part
    that it is of; `end` ends the last one, and `finish` all: it is done. What lies
    ahead is planned in `course`. Operations keep `standing` true.
    """

    @property
    def standing(self) -> Standing: ...
    @property
    def course(self) -> Course: ...

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...
    def progress(self, phase: str, done: int, total: int) -> None: ...
    def rows(self, phase: str, done: int, total: int) -> None: ...
    def end(self) -> None: ...
    def finish(self) -> None: ...


class Silent:
    """Nobody listens."""

    @property
    def standing(self) -> Standing:
        return self.__dict__.setdefault("_standing", Standing())

    @property
    def course(self) -> Course:
        return self.__dict__.setdefault("_course", Course())

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...
    def progress(self, phase: str, done: int, total: int) -> None: ...
    def rows(self, phase: str, done: int, total: int) -> None: ...
    def end(self) -> None: ...
    def finish(self) -> None: ...
