"""How far an operation is: its stages, what each took the last time, and what is left.

A time that is left is an estimate, and only told while it is believed: when each stage
ahead is known from the last time, and the one under way moves as it should.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

#: seconds without a byte after which nobody knows how long a stage takes
_STUCK = 8.0
#: what a stage may take longer than the last time, and seconds besides
_LONGER, _MORE = 1.25, 2.0


@dataclass(frozen=True)
class Took:
    """A stage: seconds, bytes or rows that were counted, and how many were expected."""

    name: str
    seconds: float = 0.0
    counted: int = 0
    about: int = 0


@dataclass
class Course:
    """The stages of an operation, those that are over in `took`, those `ahead`.

    `before` is what each stage took the last time. Its times are `time.monotonic`.
    """

    before: dict[str, Took] = field(default_factory=dict)
    ahead: list[str] = field(default_factory=list)
    took: list[Took] = field(default_factory=list)
    name: str = ""
    done: int = 0
    about: int = 0
    _begun: float = 0.0
    _moved: float = 0.0
    _share: float = 0.0

    def plan(self, ahead: Sequence[str], before: Sequence[Took] = ()) -> None:
        """Says what lies ahead of the stage under way.

        What is over by then, with nothing under way or ahead, was of another course.
        """
        if not self.name and not self.ahead:
            self.took.clear()
            self._share = 0.0
        self.ahead = list(ahead)
        self.before |= {each.name: each for each in before}

    def count(self, name: str, done: int, about: int) -> bool:
        """Notes how far a stage is; whether it has begun now.

        Stages that it passes over were not needed.
        """
        moment = time.monotonic()
        begins = name != self.name
        if begins:
            self.end()
            if name in self.ahead:
                del self.ahead[: self.ahead.index(name) + 1]
            self.name, self._begun, self._moved = name, moment, moment
        elif done > self.done:
            self._moved = moment
        self.done, self.about = done, about
        return begins

    def end(self) -> None:
        """Ends the stage under way."""
        if self.name:
            seconds = round(time.monotonic() - self._begun, 3)
            self.took.append(Took(self.name, seconds, self.done, self.about))
            self.name = ""

    @property
    def number(self) -> int:
        """The number of the stage under way, of `count_all`."""
        return len(self.took) + bool(self.name)

    @property
    def count_all(self) -> int:
        """How many stages there are, as far as that is known."""
        return self.number + len(self.ahead)

    @property
    def whole(self) -> int:
        """Bytes or rows that the stage under way comes to, 0 when nobody knows."""
        last = self.before.get(self.name)
        # the sizes of tables are a guess at the size of their dump: the last time tells
        if last and last.counted and last.about and self.about:
            return max(self.done, round(self.about * last.counted / last.about))
        return max(self.done, self.about) if self.about else 0

    @property
    def seconds(self) -> float:
        """How long the operation takes so far."""
        under_way = time.monotonic() - self._begun if self.name else 0.0
        return sum(each.seconds for each in self.took) + under_way

    def share(self) -> float:
        """How much of the whole is done, from 0 to 1; it never goes back."""
        known = [t.seconds for t in self.before.values() if t.seconds]
        usual = sum(known) / len(known) if known else 1.0

        def weight(name: str) -> float:
            last = self.before.get(name)
            return last.seconds if last and last.seconds else usual

        behind = sum(weight(each.name) for each in self.took)
        under_way = weight(self.name) if self.name else 0.0
        before_us = sum(map(weight, self.ahead))
        total = behind + under_way + before_us
        if total:
            now = (behind + under_way * self._of_stage()) / total
            self._share = max(self._share, min(now, 0.99 if self.name else 1.0))
        return self._share

    def _of_stage(self) -> float:
        if self.whole:
            return self.done / self.whole
        last = self.before.get(self.name)
        spent = time.monotonic() - self._begun
        return min(spent / last.seconds, 0.95) if last and last.seconds else 0.0

    def left(self) -> float | None:
        """Seconds until all is done; None while nobody would believe it."""
        ahead = [self.before.get(name) for name in self.ahead]
        own = self._left_of_stage()
        if own is None or None in ahead:
            return None
        return own + sum(each.seconds for each in ahead if each)

    def _left_of_stage(self) -> float | None:
        if not self.name:
            return None
        moment, last = time.monotonic(), self.before.get(self.name)
        spent, whole = moment - self._begun, self.whole
        if not whole:
            if not last or spent > last.seconds * _LONGER + _MORE:
                return None
            return max(last.seconds - spent, 0.0)
        part = self.done / whole
        if moment - self._moved > _STUCK or part >= 1:
            return None
        expected = 0.0
        if last and last.counted:
            expected = last.seconds * whole / last.counted * (1 - part)
        if spent < _MORE or part < 0.02:
            return expected or None
        by_rate = spent * (1 - part) / part
        # what is seen counts the more, the more is seen
        return by_rate * part + expected * (1 - part) if expected else by_rate


def rough(seconds: float) -> str:
    """A time that is left, as roughly as it is known: 40 s, 3 min, 2 h 10 min."""
    if seconds < 55:
        return f"{max(round(seconds / 5) * 5, 5)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    minutes = round(minutes / 10) * 10
    return f"{minutes // 60} h {minutes % 60} min"
