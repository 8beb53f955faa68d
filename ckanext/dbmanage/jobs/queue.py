"""Jobs: enqueued once, listed, cancelled."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..engine.clock import id_stamp, now, stamp
from ..engine.errors import Refused
from ..engine.printable import one_line
from ..engine.redis.client import answering, connect, key_of
from ..engine.redis.sealed import seal, unseal
from ..portal.config import Options
from .record import (
    ACTIVE,
    CANCELLED,
    DIED,
    FAILED,
    KEPT,
    LIFE,
    LOST,
    MOST,
    QUEUED,
    RUNNING,
    expired,
    facts_of,
    is_lost,
    lives,
    log_lines,
    queued,
    result_of,
    too_late,
)

_log = logging.getLogger(__name__)
#: what is noted of who asked
ACTOR = ("user", "address", "forwarded")
#: a proof of a big portal takes hours; nothing is gained by ending it
_TIMEOUT = 7 * 86400

#: a step that happens once, whoever comes first
_MOVE = """
if redis.call('HGET', KEYS[1], 'state') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2], ARGV[3], ARGV[4])
return 1"""

#: two clicks at once make one job: its place is taken once, or from one that has ended
_PLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1"""

#: either it is asked to end, or it has begun to switch: never both
_CANCEL = """
if redis.call('HGET', KEYS[1], 'final') == '1' then return 0 end
redis.call('SET', KEYS[2], '1', 'EX', 3600)
return 1"""

#: what a worker calls, by its name: it stands above this module
RUN: Any = "ckanext.dbmanage.jobs.worker.run"


class Jobs:
    """The jobs of one site."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._url = options.databases["database"].url
        self.secrets = options.secrets
        self.redis = connect(options.redis_url)
        self.queue = f"dbmanage-{self.key('').split(':')[1][:8]}"

    def key(self, name: str) -> str:
        return key_of(self._url, name)

    # -- asking

    def enqueue(
        self,
        kind: str,
        arguments: Mapping[str, Any],
        actor: Mapping[str, str],
        until: str = "",
        armed: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Asks for a job; what is known of it, as `show` tells.

        One that waits or runs with the same arguments is returned instead of a second.
        With `until` it fails unless a worker has begun it by then, and runs once;
        `armed` is what an operator allowed, which a job that fails before its switch
        gives back.
        Raises DbmanageError when Redis does not answer.
        """
        from ckan.plugins import toolkit as tk

        id = f"{id_stamp()}-{secrets.token_hex(4)}"
        once, key = self.once(kind, arguments), self.key(f"job:{id}")
        wanted = {
            "kind": kind,
            "arguments": dict(arguments),
            "asked": stamp(),
            "until": until,
            "armed": armed,
            **dict.fromkeys(ACTOR, ""),
            **actor,
        }
        record = {"wanted": seal(key, wanted, self.secrets), "state": QUEUED}
        with answering():
            # there before its place is taken: whoever sees the place sees the job
            self.redis.hset(key, mapping=record)
            self.redis.expire(key, KEPT)
            before = b""
            while not self.redis.eval(_PLACE, 1, once, before, id, KEPT):
                before = self.redis.get(once) or b""
                with suppress(Refused):
                    known = self.show(before.decode("utf-8", "replace"))
                    if known["state"] in ACTIVE:
                        self.redis.delete(key)
                        return known
            self.redis.lpush(self.key("jobs"), id)
            self.redis.ltrim(self.key("jobs"), 0, MOST - 1)
            tk.enqueue_job(  # type: ignore[attr-defined]
                RUN,
                [id],
                title=f"dbmanage: {kind}",
                queue=self.queue,
                rq_kwargs={"timeout": _TIMEOUT, "job_id": id, "result_ttl": 3600},
            )
        return self.show(id)

    def active(self, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The job that waits or runs with these arguments. Raises DbmanageError."""
        with answering():
            id = self.redis.get(self.once(kind, arguments)) or b""
        with suppress(Refused):
            known = self.show(id.decode("utf-8", "replace"))
            return known if known["state"] in ACTIVE else None
        return None

    def once(self, kind: str, arguments: Mapping[str, Any]) -> str:
        words = json.dumps(arguments, sort_keys=True)
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        return self.key(f"once:{kind}:{digest}")

    # -- looking

    def show(self, id: str, log: int = 100) -> dict[str, Any]:
        """What is known of a job, with the last lines of its log. Raises Refused.

        `{id, kind, arguments, state, asked, until, begun, ended, user, address,
        forwarded, phase, phases, done, about, unit, rate, seconds_left, seen,
        cancellable, result, error, lines, log}`: times in UTC, `rate` a second, `seen`
        seconds since the last sign of life, `lines` how many the log has had.
        """
        key = self.key(f"job:{id}")
        with answering():
            pipe = self.redis.pipeline()
            pipe.hgetall(key)
            pipe.pttl(f"{key}:alive")
            pipe.hmget(queued(id), "status", "started_at")
            if log:
                pipe.lrange(f"{key}:log", -log, -1)
            answers = pipe.execute(raise_on_error=False)
        said = self._said(id, *answers)
        if said is None:
            raise Refused(f"there is no job {one_line(id)!r} of this site")
        return said

    def _said(
        self, id: str, record: Any, alive: Any, queue: Any, lines: Any = ()
    ) -> dict[str, Any] | None:
        """What Redis answered, as `show` tells it; None for what is no record of ours.

        Half a record, or one that nobody can read, is none.
        """
        key = self.key(f"job:{id}")
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
        done, about, begun = facts["done"], facts["about"], facts.pop("phase_begun")
        spent = max(time.time() - begun, 0.001) if begun else 0.0
        rate = done / spent if state == RUNNING and done and spent > 1 else None
        left = (about - done) / rate if rate and about > done else None
        final = facts.pop("final")
        armed = wanted.pop("armed")
        return {
            "id": id,
            **wanted,
            "until": wanted["until"] or None,
            **facts,
            "state": state,
            "error": error,
            "armed": armed and {k: armed[k] for k in ("backup", "to", "until", "by")},
            "rate": rate and round(rate, 1),
            "seconds_left": left and round(left),
            "seen": round(LIFE - alive / 1000, 1) if state == RUNNING else None,
            "cancellable": state == QUEUED or (state == RUNNING and not final),
            "log": log,
        }

    def list(self, limit: int = 20) -> list[dict[str, Any]]:
        """The jobs, the newest first, without their logs."""
        with answering():
            ids = self.redis.lrange(self.key("jobs"), 0, limit - 1)
            pipe = self.redis.pipeline()
            for id in ids:
                name = id.decode("utf-8", "replace")
                key = self.key(f"job:{name}")
                pipe.hgetall(key)
                pipe.pttl(f"{key}:alive")
                pipe.hmget(queued(name), "status", "started_at")
            found = pipe.execute(raise_on_error=False)
        facts = zip(ids, found[::3], found[1::3], found[2::3], strict=True)
        said = (
            self._said(id.decode("utf-8", "replace"), record, alive, queue)
            for id, record, alive, queue in facts
        )
        return [each for each in said if each is not None]

    def workers(self) -> dict[str, Any]:
        """Who takes the jobs: `{count, seen, waiting, command}`.

        `seen` is seconds since the last sign of life, None when there is no worker.
        """
        from ckan.lib.jobs import get_queue
        from rq import Worker

        found: list[Any] = []
        with answering():
            queue = get_queue(self.queue)
            # what RQ cannot read is no worker
            with suppress(AttributeError, KeyError, TypeError, ValueError):
                found = [each for each in Worker.all(queue=queue) if lives(each)]
            waiting = queue.count
        beats = [each.last_heartbeat for each in found if each.last_heartbeat]
        ages = [now().replace(tzinfo=None) - b.replace(tzinfo=None) for b in beats]
        return {
            "count": len(found),
            "seen": round(min(a.total_seconds() for a in ages)) if ages else None,
            "waiting": waiting,
            "command": f"ckan jobs worker {self.queue}",
        }

    # -- ending

    def cancel(self, id: str) -> dict[str, Any]:
        """Takes a job out of the queue, or asks the one that runs to end.

        Raises Refused for one that has ended, or is past the point of no return.
        """
        from ckan.lib.jobs import job_from_id

        known = self.show(id, log=0)
        with answering():
            if known["state"] == QUEUED and self.move(id, QUEUED, CANCELLED, "ended"):
                with suppress(KeyError):
                    job_from_id(id).delete()
                self.redis.delete(self.once(known["kind"], known["arguments"]))
                return self.show(id)
            known = self.show(id, log=0)
            if not known["cancellable"]:
                why = "has come to the switch: let it end, then undo"
                if known["state"] != RUNNING:
                    why = f"has ended already: {known['state']}"
                raise Refused(f"the job {id} {why}")
            key = self.key(f"job:{id}")
            if not self.redis.eval(_CANCEL, 2, key, f"{key}:cancel"):
                raise Refused(f"the job {id} has come to the switch: let it end")
        return known

    def move(self, id: str, before: str, after: str, moment: str) -> bool:
        time = stamp()
        return bool(
            self.redis.eval(
                _MOVE, 1, self.key(f"job:{id}"), before, after, moment, time
            )
        )
