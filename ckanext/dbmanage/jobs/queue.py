"""Jobs: enqueued once, listed, cancelled; and who takes them."""

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..engine.clock import id_stamp, now, stamp
from ..engine.errors import Refused
from ..engine.redis.client import answering
from ..engine.redis.sealed import seal
from ..portal.command import on_server
from .record import (
    ACTIVE,
    CANCELLED,
    KEPT,
    MOST,
    QUEUED,
    RUNNING,
    Records,
)

#: what is noted of who asked
ACTOR = ("user", "address", "forwarded")
#: a proof of a big portal takes hours; nothing is gained by ending it
_TIMEOUT = 7 * 86400

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

#: what a worker calls, by its name; it stays, for jobs wait while a site is upgraded
RUN: Any = "ckanext.dbmanage.jobs.run"


class Jobs(Records):
    """The jobs of one site, to be asked for and ended."""

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
        once, key = self.once(kind, arguments), self.job_key(id)
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
        """The key of the place that one job with these arguments has."""
        words = json.dumps(arguments, sort_keys=True)
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        return self.key(f"once:{kind}:{digest}")

    def workers(self) -> dict[str, Any]:
        """Who takes the jobs: `{count, others, seen, waiting, command}`.

        `others` are workers of this site that run while none takes these jobs;
        `seen` is seconds since the last sign of life, None when there is no worker;
        `command` starts one on the server.
        """
        from ckan.lib.jobs import add_queue_name_prefix, get_queue
        from rq import Worker

        found, others = list[Any](), 0
        with answering():
            queue = get_queue(self.queue)
            # what RQ cannot read is no worker
            unreadable = (AttributeError, KeyError, TypeError, ValueError)
            with suppress(*unreadable):
                found = [each for each in Worker.all(queue=queue) if _lives(each)]
            with suppress(*unreadable):
                ours = add_queue_name_prefix("")
                others = (
                    0
                    if found
                    else sum(
                        _lives(each)
                        and any(n.startswith(ours) for n in each.queue_names())
                        for each in Worker.all(connection=queue.connection)
                    )
                )
            waiting = queue.count
        beats = [each.last_heartbeat for each in found if each.last_heartbeat]
        ages = [now().replace(tzinfo=None) - b.replace(tzinfo=None) for b in beats]
        return {
            "count": len(found),
            "others": others,
            "seen": round(min(a.total_seconds() for a in ages)) if ages else None,
            "waiting": waiting,
            "command": f"{on_server(self.options)} db worker",
        }

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
            key = self.job_key(id)
            if not self.redis.eval(_CANCEL, 2, key, f"{key}:cancel"):
                raise Refused(f"the job {id} has come to the switch: let it end")
        return known


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
