"""A job at work: its heartbeat, its log, its end."""

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

import click
from redis import RedisError

from ..engine.clock import stamp
from ..engine.course import Course
from ..engine.errors import Refused, hide_values
from ..engine.printable import one_line
from ..engine.redis.arming import Arming
from ..engine.redis.sealed import seal, use
from ..engine.report import Standing
from ..engine.signals import ended_by_signals
from ..engine.site import Site
from ..engine.words import stage_name
from ..operations.context import Portal, refuse_root
from ..operations.journal import TOLD, reason
from ..portal.command import on_server, pasted
from ..portal.config import Options, current
from ..portal.site import build_site
from .queue import ACTOR, Jobs
from .record import (
    CANCELLED,
    DONE,
    FAILED,
    KEPT,
    LIFE,
    QUEUED,
    RUNNING,
    expired,
    too_late,
)
from .work import KINDS

_log = logging.getLogger(__name__)
#: seconds between two signs of life, and between two tellings of how far a job is
_BEAT, _TICK = 1.0, 0.5
#: seconds until a job that was asked to end, and hangs in the database, is killed; and
#: for which the end of a job waits for Redis
_PATIENCE = 60.0
_LOG_LINES = 1000

_FINAL = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'final', '1')
return 1"""


class Log:
    """The listener of a job: writes to Redis; one that does not answer stops no job.

    `ckan` is how that is typed on the server, for the commands in what it is told;
    `switches` says whether the job has come to its switch.
    """

    def __init__(
        self, redis: Any, key: str, secrets: tuple[str, ...], ckan: str = "ckan"
    ) -> None:
        self._redis, self._key, self._secrets = redis, key, secrets
        self._ckan = ckan
        self._phase, self._next = "", 0.0
        self.switches = False
        self.standing, self.course = Standing(), Course()
        self._phases: list[dict[str, Any]] = []
        self._begun = 0.0

    def say(self, sentence: str) -> None:
        line = f"{stamp()}\t{one_line(pasted(sentence, self._ckan))}"
        with suppress(Exception):
            pipe = self._redis.pipeline()
            pipe.rpush(f"{self._key}:log", line.encode())
            pipe.ltrim(f"{self._key}:log", -_LOG_LINES, -1)
            pipe.expire(f"{self._key}:log", KEPT)
            pipe.hincrby(self._key, "lines", 1)
            pipe.execute()

    def warn(self, sentence: str) -> None:
        self.say(f"warning: {sentence}")

    def progress(self, phase: str, done: int, total: int) -> None:
        self._count(phase, done, total, "bytes")

    def rows(self, phase: str, done: int, total: int) -> None:
        self._count(phase, done, total, "rows")

    def finish(self) -> None:
        self.end()
        self.course = Course()

    def end(self) -> None:
        self.course.end()
        if not self._phase:
            return
        seconds = round(time.time() - self._begun, 1)
        phase, part = _parted(self._phase)
        self._phases.append({"phase": phase, "part": part, "seconds": seconds})
        self._phase = ""
        with suppress(Exception):
            words = json.dumps(self._phases[-50:])
            self._redis.hset(self._key, mapping={"phases": words, "phase": ""})

    def result(self, result: Any) -> None:
        """Notes what came of the job."""
        with suppress(Exception):
            said = seal(f"{self._key}:result", {"result": result}, self._secrets)
            self._redis.hset(self._key, "result", said)

    def final(self) -> None:
        """From here on the job cannot be cancelled. Raises SystemExit when it was."""
        may: Any = 1
        with suppress(RedisError):  # nobody can have cancelled it then
            may = self._redis.eval(_FINAL, 2, self._key, f"{self._key}:cancel")
        if may == 0:
            sys.exit(1)
        self.switches = True

    def _count(self, phase: str, done: int, total: int, unit: str) -> None:
        moment = time.time()
        if phase == self._phase and moment < self._next:
            self.course.count(phase, done, total)
            return
        facts: dict[str, Any] = {"done": done}
        if phase != self._phase:
            self.end()
            self._phase, self._begun = phase, moment
            name, part = _parted(phase)
            facts |= {"phase": name, "part": part}
            facts |= {"phase_begun": moment, "unit": unit}
            self.say(f"{stage_name(phase)} …")
            if phase == "switch":
                self.final()
        self.course.count(phase, done, total)
        facts |= {"about": self.course.whole} | self.estimate()
        self._next = moment + _TICK
        with suppress(Exception):
            self._redis.hset(self._key, mapping=facts)

    def estimate(self) -> dict[str, Any]:
        """How far all of the job is, what lies ahead, and the seconds that are left."""
        left = self.course.left()
        return {
            "share": round(self.course.share(), 4),
            "ahead": json.dumps([_parted(name) for name in self.course.ahead[:50]]),
            "left": "" if left is None else round(left),
        }


def _parted(name: str) -> tuple[str, str]:
    """A stage's name as two: what it does, of which part."""
    stage, _, part = name.partition(" ")
    return stage, part


class Running:
    """A job in the hands of this process."""

    def __init__(self, jobs: Jobs, known: dict[str, Any]) -> None:
        self._jobs, self._known = jobs, known
        self._id, self._key = known["id"], jobs.job_key(known["id"])
        self._cancel = f"{self._key}:cancel"
        self.ckan = on_server(jobs.options)
        self.log = Log(jobs.redis, self._key, jobs.secrets, self.ckan)

    def begin(self) -> bool:
        """Takes the job, unless it was cancelled before."""
        self._show_life()
        return self._jobs.move(self._id, QUEUED, RUNNING, "begun")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Shows that the job lives, and ends it when that is asked for.

        Notes how it ended, whatever the block raises.
        """
        stop, main = threading.Event(), os.getpid()
        # the context has CKAN's configuration
        beat = threading.Thread(
            target=copy_context().run, args=(self._beat, stop, main), daemon=True
        )
        beat.start()
        state, error = DONE, ""
        try:
            with ended_by_signals():
                yield
        except SystemExit:
            cancelled = self._jobs.redis.exists(self._cancel)
            state = CANCELLED if cancelled else FAILED
            said = pasted(self.log.standing.sentence(), self.ckan)
            error = (
                ""
                if cancelled
                else f"the worker was stopped before the job had ended. {said}"
            )
            self.log.say("cancelled" if cancelled else error)
            if not cancelled:
                raise
        except BaseException as failure:
            hide_values(failure)
            state, error = FAILED, pasted(_why(failure), self.ckan)
            self.log.say(f"failed: {error}")
            _log.exception("the job %s failed", self._id)
            raise
        finally:
            stop.set()
            beat.join()
            self.log.end()
            self._end(state, error)

    def arm_again(self) -> None:
        """Gives back what was armed for a job that has switched nothing."""
        with suppress(Exception):  # what the job failed with is what is told
            armed = self._known["armed"]
            if armed and Arming(build_site(self._jobs.options)).again(armed):
                until = armed["until"]
                self.log.say(f"nothing was switched: armed again until {until}")

    def _show_life(self) -> None:
        alive = f"{socket.gethostname()}, process {os.getpid()}"
        self._jobs.redis.set(f"{self._key}:alive", alive, px=int(LIFE * 1000))

    def _beat(self, stop: threading.Event, main: int) -> None:
        asked = 0.0
        while not stop.wait(_BEAT):
            with suppress(Exception):
                self._show_life()
                # an estimate grows old while nothing is counted
                self._jobs.redis.hset(self._key, mapping=self.log.estimate())
                final = self._jobs.redis.hget(self._key, "final") == b"1"
                if final or not self._jobs.redis.exists(self._cancel):
                    continue
                if not asked:
                    asked = time.monotonic()
                    os.kill(main, signal.SIGTERM)
                elif time.monotonic() > asked + _PATIENCE:
                    # in a call that no signal ends: another job tidies up
                    self._jobs.move(self._id, RUNNING, CANCELLED, "ended")
                    with suppress(Exception):
                        self._jobs.enqueue("tidy", {}, {})
                    os.kill(main, signal.SIGKILL)

    def _end(self, state: str, error: str) -> None:
        """Notes how the job ended; waits a minute for a Redis that does not answer."""
        patience, redis = time.monotonic() + _PATIENCE, self._jobs.redis
        place = self._jobs.once(self._known["kind"], self._known["arguments"])
        while True:
            try:
                redis.hset(self._key, mapping={"error": error})
                self._jobs.move(self._id, RUNNING, state, "ended")
                redis.delete(f"{self._key}:alive", self._cancel, place)
                redis.expire(self._key, KEPT)
                return
            except RedisError:
                if time.monotonic() > patience:
                    raise
                time.sleep(_BEAT)


def _why(failure: BaseException) -> str:
    # what others say may be anything: the worker's own log has it
    more = "" if isinstance(failure, TOLD) else ", see the worker's log"
    return reason(failure) + more


def run(id: str) -> None:
    """The job of an id, in a worker's process. Raises what its operation raises."""
    options = current()
    jobs = Jobs(options)
    known = jobs.show(id, log=0)  # of this site and signed, or there is none
    job = Running(jobs, known)
    if not job.begin():
        return
    with job.at_work():
        if expired(known["until"] or ""):
            raise Refused(too_late(known["until"]))
        if known["until"]:
            _run_once(build_site(options), known)
        actor = {key: known[key] for key in ACTOR if known[key]} | {"job": id}
        if note := known["arguments"].get("note"):
            actor["note"] = note
        portal = Portal(options, job.log, _application(options), actor)
        try:
            job.log.result(KINDS[known["kind"]](portal, **known["arguments"]))
        except Exception:
            if not job.log.switches:
                job.arm_again()
            raise


def _run_once(site: Site, known: dict[str, Any]) -> None:
    """Raises Refused for a job that was run before, whatever Redis says of it."""
    refuse_root(site)  # a mark of root's would lock CKAN's user out
    if not use(Path(site.repository), known["id"], known["until"]):
        raise Refused("this job was begun before; nothing was touched: confirm it anew")


def _application(options: Options) -> Any:
    """CKAN's Flask application, which the worker has made and not entered."""
    from ckan.config.middleware import make_app

    context = click.get_current_context(silent=True)
    made = context.meta.get("flask_app") if context else None
    if made is None:
        app: Any = make_app(dict(options.settings))
        made = app._wsgi_app
    return made
