"""What is known of the jobs of a site: their records in Redis, read as hostile."""

import time
from datetime import timedelta
from typing import Any

from ..engine.clock import FAR, is_stamp, now, stamp
from ..engine.errors import Refused
from ..engine.printable import one_line
from ..engine.redis.arming import ARMED
from ..engine.redis.client import answering, connect, key_of
from ..engine.redis.sealed import loaded, unseal
from ..portal.config import Options

QUEUED, RUNNING, DONE = "queued", "running", "done"
FAILED, CANCELLED, LOST = "failed", "cancelled", "lost"
ACTIVE = (QUEUED, RUNNING)
#: for how long a finished job is known, and how many at most
KEPT, MOST = 30 * 86400, 200
#: seconds after its last sign of life in which a job counts as alive
LIFE = 12.0
_GRACE = timedelta(seconds=10)
#: in which a worker that took a job has started CKAN and shows a sign of life
_START = timedelta(seconds=60)
DIED = "its worker ended without a word: the worker's own log says why"


#: a step that happens once, whoever comes first
_MOVE = """
if redis.call('HGET', KEYS[1], 'state') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2], ARGV[3], ARGV[4])
return 1"""


class Records:
    """The jobs of one site, as they are known; `queue` is where they wait."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.secrets = options.secrets
        with answering():  # the URL may be none
            self.redis = connect(options.redis_url)
        self._url = options.databases["database"].url
        self.queue = f"dbmanage-{self.key('').split(':')[1][:8]}"

    def key(self, name: str) -> str:
        """A key of this site in Redis."""
        return key_of(self._url, name)

    def job_key(self, id: str) -> str:
        """The key of a job; others begin with it."""
        return self.key(f"job:{id}")

    def show(self, id: str, log: int = 100) -> dict[str, Any]:
        """What is known of a job, with the last lines of its log. Raises Refused.

        `{id, kind, arguments, state, asked, until, begun, ended, user, address,
        forwarded, phase, part, phases, ahead, done, about, unit, rate, share,
        seconds_left, seen, cancellable, result, error, lines, log}`: times in UTC,
        `done` and `about` of the phase, `rate` of it a second; `share` (0 to 1) and
        `seconds_left` of the whole job, None while nobody would believe it; `seen`
        seconds since the last sign of life, `lines` how many the log has had.
        """
        with answering():
            pipe = self.redis.pipeline()
            self._ask(pipe, id)
            if log:
                pipe.lrange(f"{self.job_key(id)}:log", -log, -1)
            answers = pipe.execute(raise_on_error=False)
        known = self._understood(id, *answers)
        if known is None:
            raise Refused(f"there is no job {one_line(id)!r} of this site")
        return known

    def list(self, limit: int = 20) -> list[dict[str, Any]]:
        """The jobs, the newest first, without their logs."""
        with answering():
            found = self.redis.lrange(self.key("jobs"), 0, limit - 1)
            ids = [id.decode("utf-8", "replace") for id in found]
            pipe = self.redis.pipeline()
            for id in ids:
                self._ask(pipe, id)
            answers = pipe.execute(raise_on_error=False)
        each = zip(ids, answers[::3], answers[1::3], answers[2::3], strict=True)
        known = (self._understood(*facts) for facts in each)
        return [job for job in known if job is not None]

    def _ask(self, pipe: Any, id: str) -> None:
        """Asks for three answers: the record, its sign of life, what RQ says of it."""
        key = self.job_key(id)
        pipe.hgetall(key)
        pipe.pttl(f"{key}:alive")
        pipe.hmget(f"rq:job:{id}", "status", "started_at")

    def _understood(
        self, id: str, record: Any, alive: Any, queue: Any, lines: Any = ()
    ) -> dict[str, Any] | None:
        """What Redis answered, as `show` tells it; None for what is no record of ours.

        Half a record, or one that nobody can read, is none.
        """
        key = self.job_key(id)
        try:
            wanted = unseal(key, record.get(b"wanted"), self.secrets)
            if wanted is None or not isinstance(queue, list):
                return None
            known = {
                k.decode(): v.decode("utf-8", "replace") for k, v in record.items()
            }
            facts = facts_of(known) | result_of(f"{key}:result", known, self.secrets)
            alive, log = int(alive), log_lines(lines)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None
        state, error = facts["state"], facts["error"]
        if is_lost(state, wanted["asked"], alive, queue):
            state, error = LOST, DIED
        elif state == QUEUED and expired(wanted["until"]):
            state, error = FAILED, too_late(wanted["until"])
        done, begun, left = facts["done"], facts.pop("phase_begun"), facts.pop("left")
        spent = max(time.time() - begun, 0.001) if begun else 0.0
        rate = done / spent if state == RUNNING and done and spent > 1 else None
        final = facts.pop("final")
        armed = wanted.pop("armed")
        return {
            "id": id,
            **wanted,
            "until": wanted["until"] or None,
            **facts,
            "state": state,
            "error": error,
            "armed": armed and {k: armed[k] for k in ARMED if k in armed},
            "rate": rate and round(rate, 1),
            "seconds_left": left if state == RUNNING else None,
            "seen": round(LIFE - alive / 1000, 1) if state == RUNNING else None,
            "cancellable": state == QUEUED or (state == RUNNING and not final),
            "log": log,
        }

    def move(self, id: str, before: str, after: str, moment: str) -> bool:
        """Changes a job's state and notes the `moment`; once, whoever comes first."""
        words = (before, after, moment, stamp())
        return bool(self.redis.eval(_MOVE, 1, self.job_key(id), *words))


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
            {
                "phase": one_line(each["phase"]),
                "part": one_line(each.get("part")),
                "seconds": _number(each["seconds"]),
            }
            for each in phases
        ],
        "part": one_line(known.get("part")),
        "ahead": [
            {"phase": one_line(phase), "part": one_line(part)}
            for phase, part in loaded(known.get("ahead", "[]").encode())
        ],
        "share": min(_number(known.get("share")), 1.0),
        "left": int(_number(left)) if (left := known.get("left")) else None,
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
        return _is_older(asked, _GRACE)
    if said == "started":
        return _is_older(taken or asked, _START)
    return said not in ("queued", "deferred", "scheduled")


def _is_older(time: str, age: timedelta) -> bool:
    """Whether a moment is older, or of the future: a clock was wrong then."""
    return not stamp(now() - age) <= time <= stamp(now() + FAR)


def expired(until: str) -> bool:
    # none is asked for so far ahead: a clock was wrong then
    return bool(until) and not stamp() <= until <= stamp(
        now() + timedelta(seconds=KEPT)
    )


def too_late(until: str) -> str:
    return (
        f"no worker came to it until {until}, for which it was allowed; nothing was "
        "touched: confirm it anew"
    )
