"""Jobs: enqueued once, listed, cancelled."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

from redis import RedisError

from ..engine.clock import now
from ..engine.errors import Refused, hide_values
from ..engine.printable import one_line
from ..engine.redis.arming import Arming
from ..engine.redis.client import answering, connect, key_of
from ..engine.redis.sealed import FORM, seal, unseal
from ..engine.signals import ended_by_signals
from ..portal import config
from ..portal.site import build_site
from .record import (
    ACTIVE,
    BEAT,
    CANCELLED,
    DIED,
    DONE,
    FAILED,
    KEPT,
    LIFE,
    LOST,
    MOST,
    PATIENCE,
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
from .worker import Log, run, told_of

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


class Jobs:
    """The jobs of one site."""

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings
        self._url = config.databases(settings)["database"].url
        self._secrets = config.secrets(settings)
        self._redis = connect(config.redis_url(settings))
        self.queue = f"dbmanage-{self._key('').split(':')[1][:8]}"

    def _key(self, name: str) -> str:
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

        id = f"{now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        once, key = self._once(kind, arguments), self._key(f"job:{id}")
        wanted = {
            "kind": kind,
            "arguments": dict(arguments),
            "asked": f"{now():{FORM}}",
            "until": until,
            "armed": armed,
            **dict.fromkeys(ACTOR, ""),
            **actor,
        }
        record = {"wanted": seal(key, wanted, self._secrets), "state": QUEUED}
        with answering():
            # there before its place is taken: whoever sees the place sees the job
            self._redis.hset(key, mapping=record)
            self._redis.expire(key, KEPT)
            before = b""
            while not self._redis.eval(_PLACE, 1, once, before, id, KEPT):
                before = self._redis.get(once) or b""
                with suppress(Refused):
                    known = self.show(before.decode("utf-8", "replace"))
                    if known["state"] in ACTIVE:
                        self._redis.delete(key)
                        return known
            self._redis.lpush(self._key("jobs"), id)
            self._redis.ltrim(self._key("jobs"), 0, MOST - 1)
            tk.enqueue_job(  # type: ignore[attr-defined]
                run,
                [id],
                title=f"dbmanage: {kind}",
                queue=self.queue,
                rq_kwargs={"timeout": _TIMEOUT, "job_id": id, "result_ttl": 3600},
            )
        return self.show(id)

    def active(self, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The job that waits or runs with these arguments. Raises DbmanageError."""
        with answering():
            id = self._redis.get(self._once(kind, arguments)) or b""
        with suppress(Refused):
            known = self.show(id.decode("utf-8", "replace"))
            return known if known["state"] in ACTIVE else None
        return None

    def _once(self, kind: str, arguments: Mapping[str, Any]) -> str:
        words = json.dumps(arguments, sort_keys=True)
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        return self._key(f"once:{kind}:{digest}")

    # -- looking

    def show(self, id: str, log: int = 100) -> dict[str, Any]:
        """What is known of a job, with the last lines of its log. Raises Refused.

        `{id, kind, arguments, state, asked, until, begun, ended, user, address,
        forwarded, phase, phases, done, about, unit, rate, seconds_left, seen,
        cancellable, result, error, lines, log}`: times in UTC, `rate` a second, `seen`
        seconds since the last sign of life, `lines` how many the log has had.
        """
        key = self._key(f"job:{id}")
        with answering():
            pipe = self._redis.pipeline()
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
        key = self._key(f"job:{id}")
        try:
            wanted = unseal(key, record.get(b"wanted"), self._secrets)
            if wanted is None or not isinstance(queue, list):
                return None
            known = {
                k.decode(): v.decode("utf-8", "replace") for k, v in record.items()
            }
            facts = facts_of(known) | result_of(f"{key}:result", known, self._secrets)
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
            ids = self._redis.lrange(self._key("jobs"), 0, limit - 1)
            pipe = self._redis.pipeline()
            for id in ids:
                name = id.decode("utf-8", "replace")
                key = self._key(f"job:{name}")
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
            if known["state"] == QUEUED and self._move(id, QUEUED, CANCELLED, "ended"):
                with suppress(KeyError):
                    job_from_id(id).delete()
                self._redis.delete(self._once(known["kind"], known["arguments"]))
                return self.show(id)
            known = self.show(id, log=0)
            if not known["cancellable"]:
                why = "has come to the switch: let it end, then undo"
                if known["state"] != RUNNING:
                    why = f"has ended already: {known['state']}"
                raise Refused(f"the job {id} {why}")
            key = self._key(f"job:{id}")
            if not self._redis.eval(_CANCEL, 2, key, f"{key}:cancel"):
                raise Refused(f"the job {id} has come to the switch: let it end")
        return known

    def _move(self, id: str, before: str, after: str, moment: str) -> bool:
        time = f"{now():{FORM}}"
        return bool(
            self._redis.eval(
                _MOVE, 1, self._key(f"job:{id}"), before, after, moment, time
            )
        )

    # -- working

    @contextmanager
    def taken(self, known: dict[str, Any]) -> Iterator[Log | None]:
        """The job's work: shows that it lives, and ends it when that is asked for.

        `known` is what `show` tells. None when it was cancelled before. Whatever the
        work raises is noted.
        """
        id, key = known["id"], self._key(f"job:{known['id']}")
        alive = f"{socket.gethostname()}, process {os.getpid()}"
        self._redis.set(f"{key}:alive", alive, px=int(LIFE * 1000))
        if not self._move(id, QUEUED, RUNNING, "begun"):
            yield None
            return
        stop, main = threading.Event(), os.getpid()

        def beat() -> None:
            asked = 0.0
            while not stop.wait(BEAT):
                with suppress(Exception):
                    self._redis.set(f"{key}:alive", alive, px=int(LIFE * 1000))
                    final = self._redis.hget(key, "final") == b"1"
                    if final or not self._redis.exists(f"{key}:cancel"):
                        continue
                    if not asked:
                        asked = time.monotonic()
                        os.kill(main, signal.SIGTERM)
                    elif time.monotonic() > asked + PATIENCE:
                        # in a call that no signal ends: another job tidies up
                        self._move(id, RUNNING, CANCELLED, "ended")
                        with suppress(Exception):
                            self.enqueue("tidy", {}, {})
                        os.kill(main, signal.SIGKILL)

        # the context has CKAN's configuration
        thread = threading.Thread(target=copy_context().run, args=(beat,), daemon=True)
        thread.start()
        log = Log(self._redis, key, self._secrets)
        state, error = DONE, ""
        try:
            with ended_by_signals():
                yield log
        except SystemExit:
            cancelled = self._redis.exists(f"{key}:cancel")
            state = CANCELLED if cancelled else FAILED
            error = "" if cancelled else "the worker was told to end"
            log.say("cancelled" if cancelled else error)
            if not cancelled:
                raise
        except BaseException as failure:
            hide_values(failure)
            state, error = FAILED, told_of(failure)
            log.say(f"failed: {error}")
            _log.exception("the job %s failed", id)
            raise
        finally:
            stop.set()
            thread.join()
            log.end()
            self._ended(known, state, error)

    def give_back(self, known: dict[str, Any], log: Log) -> None:
        """Arms again what was armed for a job that has switched nothing."""
        with suppress(Exception):  # what the job failed with is what is told
            armed = known["armed"]
            if armed and Arming(build_site(self._settings)).again(armed):
                log.say(f"nothing was switched: armed again until {armed['until']}")

    def _ended(self, known: dict[str, Any], state: str, error: str) -> None:
        """Notes how a job ended, when Redis was away also a minute later."""
        id, patience = known["id"], time.monotonic() + PATIENCE
        key, once = (
            self._key(f"job:{id}"),
            self._once(known["kind"], known["arguments"]),
        )
        while True:
            try:
                self._redis.hset(key, mapping={"error": error})
                self._move(id, RUNNING, state, "ended")
                self._redis.delete(f"{key}:alive", f"{key}:cancel", once)
                self._redis.expire(key, KEPT)
                return
            except RedisError:
                if time.monotonic() > patience:
                    raise
                time.sleep(BEAT)
