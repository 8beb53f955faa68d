"""Maintenance: a key in Redis that every web process of the site reads.

It names its owner and expires by itself: renewed while a restore lives, for a set time
when it was set by hand. Redis that does not answer hinders nothing. Must not know what
is done meanwhile, nor how visitors are told.
"""

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import Any

import redis
from sqlalchemy.engine import URL

from ..clock import is_stamp, now, stamp, who
from ..errors import Busy
from ..printable import one_line
from ..report import name_of
from .client import FIELDS, LIMIT, answering, class_name, connect, key_of
from .sealed import loaded

READ_ONLY, AWAY = "read-only", "away"
#: seconds that the key outlives a process that was killed
_TTL = 12
_RENEW = 3.0

#: the token of who holds the maintenance, empty for a person and for what is not ours
_HOLDER = """
local now = redis.call('GET', KEYS[1])
local sound, known = pcall(cjson.decode, now or 'null')
local token = ''
if sound and type(known) == 'table' and type(known['token']) == 'string' then
  token = known['token'] end
"""

_RENEW_OURS = f"""{_HOLDER}
if token == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0"""

#: what was there before comes back in the same step: nobody slips through between
_END_OURS = f"""{_HOLDER}
if token == ARGV[1] then
  if tonumber(ARGV[3]) > 0 then
    return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
  return redis.call('DEL', KEYS[1]) end
return 0"""

#: what an operation holds is not a person's to end; no value: ends it
_UNLESS_HELD = f"""{_HOLDER}
if token ~= '' then return 0 end
if ARGV[1] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1"""


def understood(found: bytes | None) -> dict[str, Any] | None:
    """What the key says, None for a value that is not ours: it locks nobody out.

    `{level, owner, reason, reference, since, until, token}`, all of them text on one
    line; `until` is empty for what an operation holds.
    """
    known = loaded(found)
    if not isinstance(known, dict) or known.get("level") not in (READ_ONLY, AWAY):
        return None
    said = {key: known.get(key, "") for key in FIELDS}
    if not all(isinstance(value, str) for value in said.values()):
        return None
    if not is_stamp(said["since"]) or not is_stamp(said["until"] or said["since"]):
        return None
    return {key: one_line(value) for key, value in said.items()}


class Maintenance:
    """The maintenance of one site."""

    def __init__(self, redis_url: str, database_url: URL) -> None:
        self.key = key_of(database_url)
        self._url = redis_url

    @cached_property
    def _redis(self) -> Any:
        return connect(self._url)

    def status(self) -> dict[str, Any] | None:
        """What is on, None when nothing is.

        `{level, owner, reason, reference, since, until, held, seconds_left}`; `held`
        says that an operation renews it, and ends it. Raises DbmanageError when Redis
        does not answer.
        """
        with answering():
            found = self._redis.getrange(self.key, 0, LIMIT - 1)
            left = self._redis.pttl(self.key)
        known = understood(found)
        if known is None:
            return None
        known["held"] = bool(known.pop("token"))
        return known | {"seconds_left": round(max(left, 0) / 1000, 1)}

    def on(
        self, level: str, seconds: float, reason: str = "by hand", reference: str = ""
    ) -> None:
        """Sets a level for some seconds. Raises DbmanageError."""
        with answering():
            value = _value(level, reason, reference, seconds=seconds)
            self._redis.set(self.key, json.dumps(value), px=int(seconds * 1000))

    def off(self) -> bool:
        """Ends it, whoever set it; says whether it was on. Raises DbmanageError."""
        with answering():
            return bool(self._redis.delete(self.key))

    def by_hand(self, level: str, seconds: float) -> None:
        """Sets a level for some seconds, or ends it: `off`.

        Raises Busy where an operation holds it, DbmanageError.
        """
        set_to = _value(level, "by hand", "", seconds=seconds)
        value = json.dumps(set_to) if level != "off" else ""
        with answering():
            if self._redis.eval(_UNLESS_HELD, 1, self.key, value, int(seconds * 1000)):
                return
        raise Busy(
            "an operation holds the maintenance, and ends it by itself: wait for its "
            f"end, or run `{name_of('command')} maintenance off` on the server"
        )

    @contextmanager
    def held(
        self, reason: str, reference: str, warn: Callable[[str], None]
    ) -> Iterator[Callable[[str], None]]:
        """Hands out a function that sets the level, which lasts as long as the block.

        What an operator had set before comes back afterwards, with the time it had
        left; *away* is never weakened. Redis that does not answer is told once.
        """
        token, stop = secrets.token_hex(8), threading.Event()
        value = _value("", reason, reference, token=token)
        earlier: dict[str, Any] = {}
        told = False

        def to(level: str) -> None:
            nonlocal told
            try:
                before = self._redis.getrange(self.key, 0, LIMIT - 1)
                known = understood(before)
                # only an operator's own has no token: what a killed restore left goes
                if known is not None and not known["token"]:
                    left = max(self._redis.pttl(self.key), 1)
                    ends = now().timestamp() + left / 1000
                    earlier.update(value=before, level=known["level"], ends=ends)
                if earlier.get("level") == AWAY:
                    level = AWAY
                new = json.dumps(value | {"level": level})
                self._redis.set(self.key, new, px=_TTL * 1000)
            except redis.RedisError as error:
                if not told:
                    warn(
                        "Redis does not answer, so that visitors cannot be told of the "
                        f"switch and may see errors for a moment: {class_name(error)}"
                    )
                told = True

        def renew() -> None:
            while not stop.wait(_RENEW):
                with suppress(redis.RedisError):
                    self._redis.eval(_RENEW_OURS, 1, self.key, token, _TTL * 1000)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield to
        finally:
            stop.set()
            thread.join()
            left = earlier.get("ends", 0) - now().timestamp()
            with suppress(redis.RedisError):
                self._redis.eval(
                    _END_OURS, 1, self.key, token,
                    earlier.get("value", ""), max(int(left * 1000), 0),
                )  # fmt: skip


def _value(
    level: str, reason: str, reference: str, *, token: str = "", seconds: float = 0
) -> dict[str, Any]:
    return {
        "level": level,
        "owner": f"{who()}, process {os.getpid()}",
        "reason": reason,
        "reference": reference,
        "since": stamp(),
        "until": stamp(now() + timedelta(seconds=seconds)) if seconds else "",
        "token": token,
    }
