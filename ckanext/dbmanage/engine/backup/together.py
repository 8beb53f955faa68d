"""Work side by side: the first that fails ends the others."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

from ..errors import DbmanageError
from ..postgres.programs import end_programs
from ..report import Progress
from ..signals import uninterrupted

_PAUSE = 0.1


class Ended(DbmanageError):
    """Ended because something beside it failed."""


class Together:
    """Work side by side, its bytes counted together; a failure ends the rest."""

    def __init__(self, phase: str, total: int, progress: Progress) -> None:
        self._phase, self._total, self._progress = phase, total, progress
        self._done, self._guard, self._stop = 0, threading.Lock(), threading.Event()

    def count(self, size: int) -> None:
        """To be told of bytes as they go by. Raises when the work is to end."""
        if self._stop.is_set():
            raise Ended("ended because what ran beside it failed")
        with self._guard:
            self._done += size
            self._progress(self._phase, self._done, self._total)

    def run(self, tasks: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The tasks' results by their names. Raises what the first to fail raised."""
        if not tasks:
            return {}
        self.count(0)  # a program may wait for a lock before its first byte
        futures: dict[str, Future[Any]] = {}
        with ThreadPoolExecutor(len(tasks)) as pool:
            try:
                with uninterrupted():  # a pool forgets a thread that it only starts
                    for name, task in tasks.items():
                        futures[name] = pool.submit(task)
                for future in as_completed(futures.values()):
                    future.result()
            except BaseException:
                self._stop.set()
                end_programs()
                while wait(futures.values(), _PAUSE).not_done:
                    end_programs()  # that a thread began only now
                raise
        return {name: future.result() for name, future in futures.items()}
