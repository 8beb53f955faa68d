"""Arming: an operator lets the web page restore one backup, once, for some minutes.

A key in Redis, signed with the site's secret and with its end inside: nobody else who
can write to that Redis can make one, nor bring an old one back. Must not know CKAN.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from datetime import timedelta
from typing import Any

from . import Site
from .maintenance import answering, connect, key_of
from .repository import now, sign, signed_by

#: what is armed for an undo, in place of a backup's id
UNDO = "undo"
#: wrong passwords that switch it off
TRIES = 4
_PURPOSE = "arming"
_FORM = "%Y-%m-%dT%H:%M:%SZ"


class Arming:
    """What the web page of one site may restore."""

    def __init__(self, site: Site) -> None:
        url = site.databases["database"].url
        self._key, self._wrong = key_of(url, "armed"), key_of(url, "armed:wrong")
        self._used = key_of(url, "armed:used")
        self._secrets = site.secrets
        self._redis = connect(site.redis_url)

    def arm(self, name: str, seconds: int, by: str) -> dict[str, Any]:
        """Lets the page restore the backup `name` (or `undo`) once, for some seconds.

        Returns `{backup, until, by}`. Raises DbmanageError when Redis does not answer.
        """
        until = f"{now() + timedelta(seconds=seconds):{_FORM}}"
        document = {"backup": name, "until": until, "by": by}
        document |= {"token": secrets.token_hex(8)}
        signed = json.dumps(sign(document, self._secrets[0], _PURPOSE))
        self.off()
        with answering():
            self._redis.delete(self._wrong)
            self._redis.set(self._key, signed, ex=seconds)
        return document

    def armed(self) -> dict[str, Any] | None:
        """What is armed, `{backup, until, by}`, or None. Raises DbmanageError."""
        with answering():
            found = self._redis.get(self._key)
            known = self._understood(found)
            if known is None or self._redis.sismember(self._used, known["token"]):
                return None
        return known

    def use(self, name: str) -> bool:
        """Takes the one right to restore `name`; whether there was one."""
        with answering():
            known = self.armed()
            if known is None or known["backup"] != name:
                return False
            # whoever adds the token is the one who has it
            if not self._redis.sadd(self._used, known["token"]):
                return False
            self._redis.expire(self._used, 30 * 86400)
            self._redis.delete(self._key)
        return True

    def off(self) -> None:
        """Takes it back for good: the same value would not arm it again."""
        with answering():
            if (known := self.armed()) is not None:
                self._redis.sadd(self._used, known["token"])
                self._redis.expire(self._used, 30 * 86400)
            self._redis.delete(self._key)

    def tries(self) -> int:
        """How many wrong passwords were given within the hour."""
        with answering():
            return int(self._redis.get(self._wrong) or 0)

    def wrong_password(self, disarms: bool = True) -> int:
        """Counts a wrong password; how many more are left, at 0 it is off."""
        with answering():
            tried = self._redis.incr(self._wrong)
            self._redis.expire(self._wrong, 3600)
            if disarms and tried >= TRIES:
                self.off()
        return max(TRIES - tried, 0)

    def _understood(self, found: bytes | None) -> dict[str, Any] | None:
        with suppress(ValueError):
            known = json.loads(found or b"null")
            signed = signed_by(known, self._secrets, _PURPOSE)
            if signed and known["until"] > f"{now():{_FORM}}":
                return {k: known[k] for k in ("backup", "until", "by", "token")}
        return None
