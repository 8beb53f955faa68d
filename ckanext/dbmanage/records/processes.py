"""Processes that read the catalogue side by side, all of one snapshot of the database.

Knows CKAN, not what is read. The results come in the order of the batches. Work that
is a generator hands over its result in pieces, so that nobody holds all of it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import GeneratorType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..engine.errors import DbmanageError, Passing, summary_of
from ..engine.postgres.again import passes
from ..engine.postgres.database import LIMITS

_AHEAD = 2


@dataclass(frozen=True)
class _Piece:
    content: Any


def _ignore(_: Any, __: Any) -> None:
    """For work that has no pieces."""


@dataclass(frozen=True)
class _Failed:
    why: str
    passes: bool


class Readers:
    """Processes that work on batches, and the snapshot that all of them see.

    They work inside a `with` block. `app` is CKAN's Flask application. `prepare` is
    called in each process, within a request, and gives what works on a batch: a
    function, or one that yields pieces of the result and returns what it says of the
    whole. `moment` is the snapshot's time. Nothing of this process may be in a
    transaction.
    """

    moment: datetime
    _does = "reads"

    def __init__(self, app: Any, prepare: Callable[[], Any], jobs: int) -> None:
        self._app, self._prepare, self._jobs = app, prepare, jobs
        self._workers: list[tuple[Any, Any]] = []
        self._connection: Any = None

    def __enter__(self) -> Readers:
        from ckan import model

        model.Session.remove()
        # what is open now would be shared with the processes
        # CKAN itself is never garbage: neither the processes nor the end look at it
        gc.freeze()
        engine: Any = model.meta.engine
        engine.dispose()
        forking = multiprocessing.get_context("fork")
        for _ in range(self._jobs):
            ours, theirs = forking.Pipe()
            ends = [ours, *(pipe for _, pipe in self._workers)]
            process = forking.Process(
                target=_work, args=(self._app, self._prepare, theirs, ends), daemon=True
            )
            process.start()
            theirs.close()
            self._workers.append((process, ours))
        try:
            snapshot = self._snapshot(engine)
            for worker in range(len(self._workers)):
                self._send(worker, snapshot)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _snapshot(self, engine: Any) -> str:
        """The name of what all of them see; empty where each sees what there is."""
        self._connection = engine.connect().execution_options(
            isolation_level="REPEATABLE READ"
        )
        self._connection.begin()
        _unlimited(self._connection)
        snapshot, self.moment = self._connection.execute(
            sa.text("SELECT pg_export_snapshot(), transaction_timestamp()")
        ).one()
        return snapshot

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._workers:
            pipe.close()
            # it may be in the middle of a batch that nobody wants any more
            process.terminate()
            process.join()
        if self._connection is not None:
            # all is read, or a failure is under way: that it broke since is neither
            with suppress(SQLAlchemyError):
                self._connection.close()

    def listed(
        self, statement: str, order: str, size: int, **values: Any
    ) -> tuple[int, Iterator[list[tuple[str, ...]]]]:
        """The number of a statement's rows in the snapshot, and these, in batches.

        The last column is a time, or empty; it comes as ISO text.
        """
        count = sa.text(f"SELECT count(*) FROM ({statement}) found")  # noqa: S608
        total = self._connection.execute(count, values).scalar()
        streamed = self._connection.execution_options(
            stream_results=True, max_row_buffer=1000
        )
        rows = streamed.execute(sa.text(f"{statement} ORDER BY {order}"), values)
        return total, iter(lambda: list(map(_in_texts, rows.fetchmany(size))), [])

    def each(
        self, batches: Iterator[Any], take: Callable[[Any, Any], Any] = _ignore
    ) -> Iterator[tuple[Any, Any]]:
        """Each batch with what came of it, in their order.

        Before that, `take` is handed each batch with each piece of it. Raises
        DbmanageError when a process ends before its time.
        """
        waiting: deque[tuple[int, Any]] = deque()
        free = deque(n for _ in range(_AHEAD) for n in range(len(self._workers)))
        while True:
            while free and (batch := next(batches, None)):
                worker = free.popleft()
                self._send(worker, batch)
                waiting.append((worker, batch))
            if not waiting:
                return
            worker, batch = waiting.popleft()
            found = self._receive(worker, batch, take)
            free.append(worker)
            yield batch, found

    def ask(self, batch: Any) -> Any:
        """What comes of one batch. Raises as `each`."""
        self._send(0, batch)
        return self._receive(0)

    def tell(self, batch: Any) -> None:
        """Lets each process work on the same batch. Raises as `each`."""
        for worker in range(len(self._workers)):
            self._send(worker, batch)
        for worker in range(len(self._workers)):
            self._receive(worker)

    def _send(self, worker: int, message: Any) -> None:
        try:
            self._workers[worker][1].send(message)
        except BrokenPipeError:
            self._receive(worker)

    def _receive(
        self, worker: int, batch: Any = None, take: Callable[[Any, Any], Any] = _ignore
    ) -> Any:
        while isinstance(found := self._message(worker), _Piece):
            take(batch, found.content)
        return found

    def _message(self, worker: int) -> Any:
        process, pipe = self._workers[worker]
        try:
            found = pipe.recv()
        except (EOFError, ConnectionError):
            process.join()
            raise DbmanageError(
                f"a process that {self._does} the records ended before its time (exit "
                f"code {process.exitcode})"
            ) from None
        if isinstance(found, _Failed):
            raise (Passing if found.passes else DbmanageError)(found.why)
        return found


class Writers(Readers):
    """Processes that write to the catalogue side by side, each as it is at the time."""

    _does = "writes"

    def _snapshot(self, engine: Any) -> str:
        return ""


def _in_texts(row: Any) -> tuple[str, ...]:
    *texts, time = row
    return *texts, time.isoformat() if time else ""


# -- in a process of its own


def _work(
    app: Any, prepare: Callable[[], Any], pipe: Any, inherited: list[Any]
) -> None:
    """Works on what the pipe hands over, until nobody wants more."""
    from ckan import model

    for end in inherited:  # else none would see its owner go
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.set_threshold(100_000, 20, 20)
    # what a plugin prints is talk: the standard output may be the export itself
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    snapshot = ""
    try:
        snapshot = pipe.recv()
        if snapshot:
            event.listen(
                model.Session,
                "after_begin",
                lambda _, __, connection: _look_at(connection, snapshot),
            )
        with app.test_request_context():
            work = prepare()
            while True:
                found = work(pipe.recv())
                if isinstance(found, GeneratorType):
                    found = _send_pieces(pipe, found)
                pipe.send(found)
    except (EOFError, ConnectionError):
        pass  # nobody wants more
    except Exception as error:
        done = "read" if snapshot else "written to"
        why = f"the catalogue could not be {done}: {summary_of(error)}"
        pipe.send(_Failed(why, passes(error)))


def _send_pieces(pipe: Any, pieces: Any) -> Any:
    """Sends each piece; what the generator returns."""
    try:
        while True:
            pipe.send(_Piece(next(pieces)))
    except StopIteration as end:
        return end.value


def _unlimited(connection: Any) -> None:
    """Sets off, in this transaction, what would end one that lasts, or waits."""
    off = "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = ANY(:names)"
    connection.execute(sa.text(off), {"names": list(LIMITS)})


def _look_at(connection: Any, snapshot: str) -> None:
    # again in each transaction: a plugin may end one
    connection.exec_driver_sql(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    )
    try:
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
    except DBAPIError as error:
        raise Passing(f"the snapshot is gone: {summary_of(error)}") from error
    # there are several of us: a server's own workers start slower than these end
    connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
    _unlimited(connection)
