"""Jobs: the operations in CKAN's own background queue, and what is known of them.

What is known stands in Redis, below the site's own keys, for it must outlive the switch
of the database; portals that share a Redis, or the name `default`, never meet. What is
to be done, by whose word and until when, is signed, and so is what came of it; a record
that is not is none. How far a job is, anybody who writes to Redis could say: that is
shown, and nothing is done by it. A job
shows a sign of life; one without is lost, and what it held is free: its locks were its
process's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg2 import Error as DatabaseError
from redis import RedisError

from ..engine import errors
from ..engine.clock import now
from ..engine.errors import DbmanageError, Refused, hide_values
from ..engine.printable import one_line
from ..engine.redis.arming import Arming
from ..engine.redis.client import answering, connect, is_moment, key_of
from ..engine.redis.sealed import FORM, loaded, seal, unseal, use
from ..engine.repository.repository import Repository
from ..engine.restore.history import last_switch
from ..engine.signals import ended_by_signals
from ..engine.site import Site
from ..operations.backup import backup, incomplete, verify
from ..operations.context import Portal, open_site, refuse_root, tidy
from ..operations.restore import preview, restore, undo
from ..portal import config
from ..portal.site import build_site

_log = logging.getLogger(__name__)

#: what is noted of who asked
_ACTOR = ("user", "address", "forwarded")
QUEUED, RUNNING, DONE = "queued", "running", "done"
FAILED, CANCELLED, LOST = "failed", "cancelled", "lost"
ACTIVE = (QUEUED, RUNNING)
#: for how long a finished job is known, and how many at most
_KEPT, _MOST = 30 * 86400, 200
#: a proof of a big portal takes hours; nothing is gained by ending it
_TIMEOUT = 7 * 86400
_LIFE, _BEAT = 12.0, 1.0
#: seconds until a job that was asked to end, and hangs in the database, is killed
_PATIENCE = 60.0
_TICK = 0.5
_GRACE = timedelta(seconds=10)
#: in which a worker that took a job has started CKAN and shows a sign of life
_START = timedelta(seconds=60)
_DIED = "its worker ended without a word: the worker's own log says why"
_LOG_LINES = 1000
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
_FINAL = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'final', '1')
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
            **dict.fromkeys(_ACTOR, ""),
            **actor,
        }
        record = {"wanted": seal(key, wanted, self._secrets), "state": QUEUED}
        with answering():
            # there before its place is taken: whoever sees the place sees the job
            self._redis.hset(key, mapping=record)
            self._redis.expire(key, _KEPT)
            before = b""
            while not self._redis.eval(_PLACE, 1, once, before, id, _KEPT):
                before = self._redis.get(once) or b""
                with suppress(Refused):
                    known = self.show(before.decode("utf-8", "replace"))
                    if known["state"] in ACTIVE:
                        self._redis.delete(key)
                        return known
            self._redis.lpush(self._key("jobs"), id)
            self._redis.ltrim(self._key("jobs"), 0, _MOST - 1)
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
            pipe.hmget(_queued(id), "status", "started_at")
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
            facts = _facts(known) | _result(f"{key}:result", known, self._secrets)
            alive, log = int(alive), _log_lines(lines)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None
        state, error = facts["state"], facts["error"]
        if _is_lost(state, wanted["asked"], alive, queue):
            state, error = LOST, _DIED
        elif state == QUEUED and _expired(wanted["until"]):
            state, error = FAILED, _too_late(wanted["until"])
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
            "seen": round(_LIFE - alive / 1000, 1) if state == RUNNING else None,
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
                pipe.hmget(_queued(name), "status", "started_at")
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
                found = [each for each in Worker.all(queue=queue) if _lives(each)]
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
    def taken(self, known: dict[str, Any]) -> Iterator[_Log | None]:
        """The job's work: shows that it lives, and ends it when that is asked for.

        `known` is what `show` tells. None when it was cancelled before. Whatever the
        work raises is noted.
        """
        id, key = known["id"], self._key(f"job:{known['id']}")
        alive = f"{socket.gethostname()}, process {os.getpid()}"
        self._redis.set(f"{key}:alive", alive, px=int(_LIFE * 1000))
        if not self._move(id, QUEUED, RUNNING, "begun"):
            yield None
            return
        stop, main = threading.Event(), os.getpid()

        def beat() -> None:
            asked = 0.0
            while not stop.wait(_BEAT):
                with suppress(Exception):
                    self._redis.set(f"{key}:alive", alive, px=int(_LIFE * 1000))
                    final = self._redis.hget(key, "final") == b"1"
                    if final or not self._redis.exists(f"{key}:cancel"):
                        continue
                    if not asked:
                        asked = time.monotonic()
                        os.kill(main, signal.SIGTERM)
                    elif time.monotonic() > asked + _PATIENCE:
                        # in a call that no signal ends: another job tidies up
                        self._move(id, RUNNING, CANCELLED, "ended")
                        with suppress(Exception):
                            self.enqueue("tidy", {}, {})
                        os.kill(main, signal.SIGKILL)

        # the context has CKAN's configuration
        thread = threading.Thread(target=copy_context().run, args=(beat,), daemon=True)
        thread.start()
        log = _Log(self._redis, key, self._secrets)
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
            state, error = FAILED, _told(failure)
            log.say(f"failed: {error}")
            _log.exception("the job %s failed", id)
            raise
        finally:
            stop.set()
            thread.join()
            log.end()
            self._ended(known, state, error)

    def give_back(self, known: dict[str, Any], log: _Log) -> None:
        """Arms again what was armed for a job that has switched nothing."""
        with suppress(Exception):  # what the job failed with is what is told
            armed = known["armed"]
            if armed and Arming(build_site(self._settings)).again(armed):
                log.say(f"nothing was switched: armed again until {armed['until']}")

    def _ended(self, known: dict[str, Any], state: str, error: str) -> None:
        """Notes how a job ended, when Redis was away also a minute later."""
        id, patience = known["id"], time.monotonic() + _PATIENCE
        key, once = (
            self._key(f"job:{id}"),
            self._once(known["kind"], known["arguments"]),
        )
        while True:
            try:
                self._redis.hset(key, mapping={"error": error})
                self._move(id, RUNNING, state, "ended")
                self._redis.delete(f"{key}:alive", f"{key}:cancel", once)
                self._redis.expire(key, _KEPT)
                return
            except RedisError:
                if time.monotonic() > patience:
                    raise
                time.sleep(_BEAT)


def _facts(known: dict[str, str]) -> dict[str, Any]:
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
    if text and not is_moment(text):
        raise ValueError("no moment")
    return text or None


def _result(
    key: str, known: dict[str, str], secrets: tuple[str, ...]
) -> dict[str, Any]:
    """What came of a job; one that is not signed is none."""
    said = unseal(key, known.get("result", "").encode(), secrets)
    return {"result": said["result"] if said else None}


def _log_lines(lines: Any) -> list[dict[str, str]]:
    """The lines of a job's log; what is no line of ours is left out."""
    split = (line.decode("utf-8", "replace").partition("\t") for line in lines)
    return [
        {"time": time, "text": one_line(text)}
        for time, _, text in split
        if is_moment(time)
    ]


def _is_lost(state: str, asked: str, alive: int, queue: list[bytes | None]) -> bool:
    """Whether nobody will go on with a job: its worker died, or never came to begin.

    `queue` is what RQ says of it: its state, and when a worker took it.
    """
    if state == RUNNING:
        return alive <= 0
    if state != QUEUED or alive > 0:
        return False
    said, taken = ((each or b"").decode("utf-8", "replace") for each in queue)
    if not said:  # the record is there a moment before the queue has it
        return asked < f"{now() - _GRACE:{FORM}}"
    if said == "started":
        return (taken or asked) < f"{now() - _START:%Y-%m-%dT%H:%M:%S}"
    return said not in ("queued", "deferred", "scheduled")


def _expired(until: str) -> bool:
    return bool(until) and until < f"{now():{FORM}}"


def _too_late(until: str) -> str:
    return (
        f"no worker came to it until {until}, for which it was allowed; nothing was "
        "touched: confirm it anew"
    )


def _queued(id: str) -> str:
    """RQ's own key of a job."""
    return f"rq:job:{id}"


def _lives(worker: Any) -> bool:
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


def _told(failure: BaseException) -> str:
    if isinstance(failure, (DbmanageError, DatabaseError, OSError)):
        return errors.told(failure)
    # what it says may be anything: the worker's own log has it
    return f"{type(failure).__name__}, see the worker's log"


class _Log:
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
            pipe.expire(f"{self._key}:log", _KEPT)
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


# ------------------------------------------------------------------------ the work


def run(id: str) -> None:
    """The job of an id, in a worker's process. Raises what its operation raises."""
    from ckan.common import config as settings

    jobs = Jobs(settings)
    known = jobs.show(id, log=0)  # of this site and signed, or there is none
    with jobs.taken(known) as log:
        if log is None:
            return
        if _expired(known["until"] or ""):
            raise Refused(_too_late(known["until"]))
        if known["until"]:
            _run_once(build_site(settings), known)
        actor = {key: known[key] for key in _ACTOR if known[key]} | {"job": id}
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


def _backup(portal: Portal, parts: list[str], note: str, keep: bool) -> dict[str, Any]:
    taken = backup(portal, tuple(parts), note, keep)
    portal.talk.say(f"backup {taken.id} is there, verified")
    if why := incomplete(taken):
        raise DbmanageError(why)
    return {"backup": taken.id, "bytes": taken.bytes}


def _verify(portal: Portal, id: str, prove: bool) -> dict[str, Any]:
    site, repository = open_site(portal, heads=prove)
    found = repository.find(id)
    problems = verify(portal, site, repository, found, prove)
    for problem in problems:
        portal.talk.warn(problem)
    if problems:
        raise DbmanageError(
            f"backup {found.id} is not {'proven' if prove else 'whole'}: {problems[0]}"
        )
    portal.talk.say(f"backup {found.id} is {'proven' if prove else 'whole'}")
    return {"backup": found.id}


def _preview(portal: Portal, id: str, parts: list[str]) -> dict[str, Any]:
    rows = preview(portal, id, tuple(parts))
    return {"backup": id, "parts": parts, "rows": rows}


def _restore(portal: Portal, id: str, parts: list[str], note: str) -> dict[str, Any]:
    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = restore(portal, id, tuple(parts))
    portal.talk.say(f"restored {' and '.join(done.parts)} from {done.source}")
    return {"backup": id, "parts": done.parts, "written": dict(done.written)}


def _undo(portal: Portal, note: str, operation: str) -> dict[str, Any]:
    def agree(site: Site, repository: Repository, _: Any) -> None:
        last = last_switch(site, repository) or {}
        if last.get("operation") != operation:
            raise Refused(
                "another switch was made since this was confirmed; nothing was "
                "touched: look at what an undo would take back now, and confirm that"
            )

    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = undo(portal, agree)
    portal.talk.say(f"undone: {' and '.join(done.parts)} as before")
    return {"parts": done.parts, "written": dict(done.written)}


def _export(portal: Portal, kind: str, everything: bool) -> dict[str, Any]:
    from ..records.export import Export
    from ..records.jsonl import new_file
    from ..records.kinds import Wanted

    _, repository = open_site(portal)
    with repository.exports() as directory:
        path = directory / export_name(kind, everything)
        wanted = Wanted(everything, False, False)
        with (
            Export(portal.app, wanted, config.jobs(portal.settings)) as moment,
            new_file(path, 0o600) as write,
        ):
            done = moment.write(kind, write, 0, portal.talk.rows)  # type: ignore[attr-defined]
    repository.record(path.name, "done", what="export", rows=done.rows)
    for sentence in done.failed:
        portal.talk.warn(sentence)
    if done.failed:
        raise DbmanageError(
            f"{len(done.failed)} {kind} could not be shown: see the log"
        )
    portal.talk.say(f"exported {done.rows} {kind}")
    return {"file": path.name, "rows": done.rows, "bytes": path.stat().st_size}


def export_name(kind: str, everything: bool) -> str:
    """The file of an export, in the repository's folder `exports`."""
    return f"{kind}{'-all' if everything else ''}.jsonl.gz"


def _publish(portal: Portal) -> dict[str, Any]:
    from ..operations import publish

    _, repository = open_site(portal)
    settings = portal.settings
    done, changed = publish.publish(
        portal.app,
        settings,
        False,
        config.jobs(settings),
        portal.talk.rows,  # type: ignore[attr-defined]
    )
    rows = {kind: each.rows for kind, each in done.items()}
    repository.record("publish", "done", what="publish", rows=rows)
    failed = {kind: each.failed for kind, each in done.items() if each.failed}
    for kind, sentences in failed.items():
        for sentence in sentences:
            portal.talk.warn(f"{kind}: {sentence}")
    if failed:
        raise DbmanageError(
            f"published, but {' and '.join(failed)} that could not be shown are "
            "missing: see the log"
        )
    portal.talk.say(f"new: {', '.join(changed) or 'nothing has changed'}")
    return {"rows": rows, "changed": list(changed)}


def _tidy(portal: Portal) -> dict[str, Any]:
    """After a job that could only be killed."""
    site, repository = open_site(portal)
    with repository.lock("tidy"):
        tidy(site, repository, portal.talk)
    return {}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "backup": _backup,
    "verify": _verify,
    "preview": _preview,
    "restore": _restore,
    "undo": _undo,
    "export": _export,
    "publish": _publish,
    "tidy": _tidy,
}
