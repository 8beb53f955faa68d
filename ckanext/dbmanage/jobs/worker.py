"""A job at work: its heartbeat, its log, its end."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

from psycopg2 import Error as DatabaseError
from redis import RedisError

from ..engine.clock import stamp
from ..engine.errors import DbmanageError, Refused, explanation_of, hide_values
from ..engine.printable import one_line
from ..engine.redis.arming import Arming
from ..engine.redis.sealed import seal, use
from ..engine.signals import ended_by_signals
from ..engine.site import Site
from ..operations.context import Portal, refuse_root
from ..portal.config import Options, current
from ..portal.site import build_site
from .queue import ACTOR, Jobs
from .record import (
    BEAT,
    CANCELLED,
    DONE,
    FAILED,
    KEPT,
    LIFE,
    PATIENCE,
    QUEUED,
    RUNNING,
    expired,
    too_late,
)
from .work import KINDS

_log = logging.getLogger(__name__)
_TICK = 0.5
_LOG_LINES = 1000

_FINAL = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'final', '1')
return 1"""


def message_for_log(failure: BaseException) -> str:
    if isinstance(failure, (DbmanageError, DatabaseError, OSError)):
        return explanation_of(failure)
    # what it says may be anything: the worker's own log has it
    return f"{type(failure).__name__}, see the worker's log"


class Log:
    """What a job tells, into Redis; a Redis that is away hinders nothing."""

    def __init__(self, redis: Any, key: str, secrets: tuple[str, ...]) -> None:
        self._redis, self._key, self._secrets = redis, key, secrets
        self._phase, self._next = "", 0.0
        self.switches = False
        self._phases: list[dict[str, Any]] = []
        self._begun = 0.0

    def say(self, sentence: str) -> None:
        line = f"{stamp()}\t{one_line(sentence)}"
        with suppress(Exception):
            pipe = self._redis.pipeline()
            pipe.rpush(f"{self._key}:log", line.encode())
            pipe.ltrim(f"{self._key}:log", -_LOG_LINES, -1)
            pipe.expire(f"{self._key}:log", KEPT)
            pipe.hincrby(self._key, "lines", 1)
            pipe.execute()

    def warn(self, sentence: str) -> None:
        self.say(f"warning: {sentence}")

    def rows(self, phase: str, done: int, total: int) -> None:
        self._tell(phase, done, total, "rows")

    def progress(self, phase: str, done: int, total: int) -> None:
        self._tell(phase, done, total, "bytes")

    def end(self) -> None:
        self._finish()

    def result(self, result: Any) -> None:
        """Notes what came of it."""
        with suppress(Exception):
            said = seal(f"{self._key}:result", {"result": result}, self._secrets)
            self._redis.hset(self._key, "result", said)

    def final(self) -> None:
        """From here on it cannot be cancelled. Raises SystemExit when it was before."""
        may: Any = 1
        with suppress(RedisError):  # nobody can have cancelled it then
            may = self._redis.eval(_FINAL, 2, self._key, f"{self._key}:cancel")
        if may == 0:
            sys.exit(1)
        self.switches = True

    def _finish(self) -> None:
        if self._phase:
            seconds = round(time.time() - self._begun, 1)
            self._phases.append({"phase": self._phase, "seconds": seconds})
            self._phase = ""
            with suppress(Exception):
                words = json.dumps(self._phases[-50:])
                self._redis.hset(self._key, mapping={"phases": words, "phase": ""})

    def _tell(self, phase: str, done: int, total: int, unit: str) -> None:
        moment = time.time()
        if phase == self._phase and moment < self._next:
            return
        facts: dict[str, Any] = {"done": done, "about": total}
        if phase != self._phase:
            self._finish()
            self._phase, self._begun = phase, moment
            facts |= {"phase": phase, "phase_begun": moment, "unit": unit}
            self.say(f"{phase} …")
            if phase == "switch":
                self.final()
        self._next = moment + _TICK
        with suppress(Exception):
            self._redis.hset(self._key, mapping=facts)


@contextmanager
def taken(jobs: Jobs, known: dict[str, Any]) -> Iterator[Log | None]:
    """The job's work: shows that it lives, and ends it when that is asked for.

    `known` is what `show` tells. None when it was cancelled before. Whatever the
    work raises is noted.
    """
    id, key = known["id"], jobs.key(f"job:{known['id']}")
    alive = f"{socket.gethostname()}, process {os.getpid()}"
    jobs.redis.set(f"{key}:alive", alive, px=int(LIFE * 1000))
    if not jobs.move(id, QUEUED, RUNNING, "begun"):
        yield None
        return
    stop, main = threading.Event(), os.getpid()

    def beat() -> None:
        asked = 0.0
        while not stop.wait(BEAT):
            with suppress(Exception):
                jobs.redis.set(f"{key}:alive", alive, px=int(LIFE * 1000))
                final = jobs.redis.hget(key, "final") == b"1"
                if final or not jobs.redis.exists(f"{key}:cancel"):
                    continue
                if not asked:
                    asked = time.monotonic()
                    os.kill(main, signal.SIGTERM)
                elif time.monotonic() > asked + PATIENCE:
                    # in a call that no signal ends: another job tidies up
                    jobs.move(id, RUNNING, CANCELLED, "ended")
                    with suppress(Exception):
                        jobs.enqueue("tidy", {}, {})
                    os.kill(main, signal.SIGKILL)

    # the context has CKAN's configuration
    thread = threading.Thread(target=copy_context().run, args=(beat,), daemon=True)
    thread.start()
    log = Log(jobs.redis, key, jobs.secrets)
    state, error = DONE, ""
    try:
        with ended_by_signals():
            yield log
    except SystemExit:
        cancelled = jobs.redis.exists(f"{key}:cancel")
        state = CANCELLED if cancelled else FAILED
        error = "" if cancelled else "the worker was told to end"
        log.say("cancelled" if cancelled else error)
        if not cancelled:
            raise
    except BaseException as failure:
        hide_values(failure)
        state, error = FAILED, message_for_log(failure)
        log.say(f"failed: {error}")
        _log.exception("the job %s failed", id)
        raise
    finally:
        stop.set()
        thread.join()
        log.end()
        _ended(jobs, known, state, error)


def give_back(jobs: Jobs, known: dict[str, Any], log: Log) -> None:
    """Arms again what was armed for a job that has switched nothing."""
    with suppress(Exception):  # what the job failed with is what is told
        armed = known["armed"]
        if armed and Arming(build_site(jobs.options)).again(armed):
            log.say(f"nothing was switched: armed again until {armed['until']}")


def _ended(jobs: Jobs, known: dict[str, Any], state: str, error: str) -> None:
    """Notes how a job ended, when Redis was away also a minute later."""
    id, patience = known["id"], time.monotonic() + PATIENCE
    key, once = (
        jobs.key(f"job:{id}"),
        jobs.once(known["kind"], known["arguments"]),
    )
    while True:
        try:
            jobs.redis.hset(key, mapping={"error": error})
            jobs.move(id, RUNNING, state, "ended")
            jobs.redis.delete(f"{key}:alive", f"{key}:cancel", once)
            jobs.redis.expire(key, KEPT)
            return
        except RedisError:
            if time.monotonic() > patience:
                raise
            time.sleep(BEAT)


def run(id: str) -> None:
    """The job of an id, in a worker's process. Raises what its operation raises."""
    options = current()
    jobs = Jobs(options)
    known = jobs.show(id, log=0)  # of this site and signed, or there is none
    with taken(jobs, known) as log:
        if log is None:
            return
        if expired(known["until"] or ""):
            raise Refused(too_late(known["until"]))
        if known["until"]:
            _run_once(build_site(options), known)
        actor = {key: known[key] for key in ACTOR if known[key]} | {"job": id}
        portal = Portal(options, log, _application(options), actor)
        try:
            log.result(KINDS[known["kind"]](portal, **known["arguments"]))
        except Exception:
            if not log.switches:
                give_back(jobs, known, log)
            raise


def _run_once(site: Site, known: dict[str, Any]) -> None:
    """Raises Refused for a job that was run before, whatever Redis says of it."""
    refuse_root(site)  # a mark of root's would lock CKAN's user out
    if not use(Path(site.repository), known["id"], known["until"]):
        raise Refused("this job was begun before; nothing was touched: confirm it anew")


def _application(options: Options) -> Any:
    """CKAN's Flask application, which `ckan jobs worker` has made and not entered."""
    import click
    from ckan.config.middleware import make_app

    context = click.get_current_context(silent=True)
    made = context.meta.get("flask_app") if context else None
    if made is None:
        app: Any = make_app(dict(options.settings))
        made = app._wsgi_app
    return made
