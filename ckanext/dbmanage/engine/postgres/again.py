"""What fails for a moment only is tried again: the one rule of what that is.

A connection that broke, a deadlock, a serialization failure, a server that restarts.
Whoever tries again has made sure that nothing of the first time is left.
"""

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg2

from ..errors import ConnectionFailed, Passing, ToolFailed, explanation_of
from ..report import Warn

T = TypeVar("T")

#: SQLSTATEs: serialization failure, deadlock, the connection, the server ends or starts
_STATES = re.compile("40001|40P01|08...|57P0[123]")
#: the same in the words of client programs, and of libpq, which tell no SQLSTATE
_WORDS = re.compile(
    "deadlock detected|could not serialize access|terminating connection"
    "|server closed the connection|no connection to the server"
    "|the database system is |Is the server running|SSL connection has been closed"
    # who held the snapshot was cut off
    '|invalid snapshot identifier|snapshot "[^"]*" does not exist'
)
#: seconds before the next try: a server that restarts is back after some
WAITS = (0.5, 1.5, 4.0)


def passes(error: BaseException | None) -> bool:
    """Whether the same may work a moment later."""
    if isinstance(error, Passing) or getattr(error, "down", False):
        return True
    error = getattr(error, "orig", None) or error  # SQLAlchemy's has the driver's
    if isinstance(error, psycopg2.Error):
        if error.pgcode:
            return bool(_STATES.fullmatch(error.pgcode))
        # no answer of the server's at all: the connection is gone, which psycopg2 also
        # tells as a plain DatabaseError where it has not noticed that yet
        lost = (psycopg2.OperationalError, psycopg2.InterfaceError)
        return isinstance(error, lost) or bool(_WORDS.search(str(error)))
    if isinstance(error, (ConnectionFailed, ToolFailed)) and _WORDS.search(str(error)):
        return True
    return error is not None and passes(error.__cause__)


def again(
    doing: str,
    work: Callable[[], T],
    warn: Warn,
    may: Callable[[], Any] = lambda: True,
) -> T:
    """What `work` returns; it is called again, some times, while its failure passes.

    Each time that is told, as `doing`. Not when `may` says that it must not be: it
    returns something false, or raises what is told instead. Raises what `work` does.
    """
    for wait in WAITS:
        try:
            return work()
        except Exception as error:
            if not passes(error) or not may():
                raise
            why = explanation_of(error).splitlines()[0]
            warn(f"{doing} did not work, and is tried again: {why}")
        time.sleep(wait)
    return work()
