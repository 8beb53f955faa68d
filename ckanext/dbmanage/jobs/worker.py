"""A job at work: its heartbeat, its log, its end."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from psycopg2 import Error as DatabaseError
from redis import RedisError

from ..engine import errors
from ..engine.clock import now
from ..engine.errors import DbmanageError, Refused
from ..engine.printable import one_line
from ..engine.redis.sealed import FORM, seal, use
from ..engine.site import Site
from ..operations.context import Portal, refuse_root
from ..portal.site import build_site
from .queue import ACTOR, Jobs
from .record import KEPT, expired, too_late
from .work import KINDS

_log = logging.getLogger(__name__)


_TICK = 0.5


_LOG_LINES = 1000


_FINAL = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'final', '1')
return 1"""


def told_of(failure: BaseException) -> str:
    if isinstance(failure, (DbmanageError, DatabaseError, OSError)):
        return errors.told(failure)
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
        line = f"{now():{FORM}}\t{one_line(sentence)}"
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


def run(id: str) -> None:
    """The job of an id, in a worker's process. Raises what its operation raises."""
    from ckan.common import config as settings

    jobs = Jobs(settings)
    known = jobs.show(id, log=0)  # of this site and signed, or there is none
    with jobs.taken(known) as log:
        if log is None:
            return
        if expired(known["until"] or ""):
            raise Refused(too_late(known["until"]))
        if known["until"]:
            _run_once(build_site(settings), known)
        actor = {key: known[key] for key in ACTOR if known[key]} | {"job": id}
        portal = Portal(settings, log, _application(settings), actor)
        try:
            log.result(KINDS[known["kind"]](portal, **known["arguments"]))
        except Exception:
            if not log.switches:
                jobs.give_back(known, log)
            raise


def _run_once(site: Site, known: dict[str, Any]) -> None:
    """Raises Refused for a job that was run before, whatever Redis says of it."""
    refuse_root(site)  # a mark of root's would lock CKAN's user out
    if not use(Path(site.repository), known["id"], known["until"]):
        raise Refused("this job was begun before; nothing was touched: confirm it anew")


def _application(settings: Any) -> Any:
    """CKAN's Flask application, which `ckan jobs worker` has made and not entered."""
    import click
    from ckan.config.middleware import make_app

    context = click.get_current_context(silent=True)
    made = context.meta.get("flask_app") if context else None
    if made is None:
        app: Any = make_app(settings)
        made = app._wsgi_app
    return made
