"""Signals: what ends an operation, and what they must not interrupt."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C and the like wait: a switch takes a second, half of one is none.

    By handlers, for other threads would take a signal that is only masked here.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, lambda n, _: came.append(n))
    except ValueError:  # not in the main thread: no signal comes here
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class Ended(SystemExit):
    """The process was told to end, by a signal that would kill it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turns signals that would kill the process into SystemExit."""

    # so that what is half-done is cleaned up, as for Ctrl-C
    def end(number: int, _: Any) -> NoReturn:
        raise Ended(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    try:
        before = [signal.signal(number, end) for number in numbers]
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
