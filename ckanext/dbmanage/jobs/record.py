"""What is known of a job: its record in Redis, read as hostile."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

from ..engine.clock import is_stamp, now, stamp
from ..engine.printable import one_line
from ..engine.redis.sealed import loaded, unseal

QUEUED, RUNNING, DONE = "queued", "running", "done"
FAILED, CANCELLED, LOST = "failed", "cancelled", "lost"
ACTIVE = (QUEUED, RUNNING)
#: for how long a finished job is known, and how many at most
KEPT, MOST = 30 * 86400, 200
LIFE, BEAT = 12.0, 1.0
#: seconds until a job that was asked to end, and hangs in the database, is killed
PATIENCE = 60.0
_GRACE = timedelta(seconds=10)
#: in which a worker that took a job has started CKAN and shows a sign of life
_START = timedelta(seconds=60)
DIED = "its worker ended without a word: the worker's own log says why"


def facts_of(known: dict[str, str]) -> dict[str, Any]:
    """How far a job is, as anybody may have written it. Raises ValueError, KeyError."""
    if known["state"] not in (*ACTIVE, DONE, FAILED, CANCELLED):
        raise ValueError("no state")
    phases = loaded(known.get("phases", "[]").encode())
    return {
        "state": known["state"],
        "begun": _moment(known.get("begun")),
        "ended": _moment(known.get("ended")),
        "phase": one_line(known.get("phase")),
        "phases": [
            {"phase": one_line(each["phase"]), "seconds": _number(each["seconds"])}
            for each in phases
        ],
        "done": int(_number(known.get("done"))),
        "about": int(_number(known.get("about"))),
        "phase_begun": _number(known.get("phase_begun")),
        "unit": "rows" if known.get("unit") == "rows" else "bytes",
        "final": known.get("final") == "1",
        "error": one_line(known.get("error")),
        "lines": int(_number(known.get("lines"))),
    }


def _number(text: Any) -> float:
    number = float(text or 0)
    if not 0 <= number < 1e18:  # nor one that is none
        raise ValueError("no number")
    return number


def _moment(text: str | None) -> str | None:
    if text and not is_stamp(text):
        raise ValueError("no moment")
    return text or None


def result_of(
    key: str, known: dict[str, str], secrets: tuple[str, ...]
) -> dict[str, Any]:
    """What came of a job; one that is not signed is none."""
    said = unseal(key, known.get("result", "").encode(), secrets)
    return {"result": said["result"] if said else None}


def log_lines(lines: Any) -> list[dict[str, str]]:
    """The lines of a job's log; what is no line of ours is left out."""
    split = (line.decode("utf-8", "replace").partition("\t") for line in lines)
    return [
        {"time": time, "text": one_line(text)}
        for time, _, text in split
        if is_stamp(time)
    ]


def is_lost(state: str, asked: str, alive: int, queue: list[bytes | None]) -> bool:
    """Whether nobody will go on with a job: its worker died, or never came to begin.

    `queue` is what RQ says of it: its state, and when a worker took it.
    """
    if state == RUNNING:
        return alive <= 0
    if state != QUEUED or alive > 0:
        return False
    said, taken = ((each or b"").decode("utf-8", "replace") for each in queue)
    if not said:  # the record is there a moment before the queue has it
        return asked < stamp(now() - _GRACE)
    if said == "started":
        return (taken or asked) < stamp(now() - _START)
    return said not in ("queued", "deferred", "scheduled")


def expired(until: str) -> bool:
    return bool(until) and until < stamp()


def too_late(until: str) -> str:
    return (
        f"no worker came to it until {until}, for which it was allowed; nothing was "
        "touched: confirm it anew"
    )


def queued(id: str) -> str:
    """RQ's own key of a job."""
    return f"rq:job:{id}"


def lives(worker: Any) -> bool:
    """Whether a worker that Redis knows is there still, as far as this host can say."""
    if worker.hostname != socket.gethostname() or not worker.pid:
        return True
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
