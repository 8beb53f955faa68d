"""Arming: an operator lets the web page restore one backup, once, for some minutes.

A key in Redis, signed with the site's secret and with its end inside: nobody else who
can write to that Redis can make one, nor bring an old one back. Must not know CKAN.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from datetime import datetime, timedelta, timezone
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
        self.off()
        with answering():
            self._redis.delete(self._wrong)
            self._redis.set(self._key, self._signed(document), ex=seconds)
        return document

    def again(self, name: str, until: str, by: str) -> bool:
        """Arms what was used in vain until the same moment; whether it is armed.

        Not in place of what an operator has armed since, nor after wrong passwords.
        """
        ends = datetime.strptime(until, _FORM).replace(tzinfo=timezone.utc)
        seconds = int((ends - now()).total_seconds())
        if seconds <= 0 or self.tries() >= TRIES:
            return False
        signed = self._signed({"backup": name, "until": until, "by": by})
        with answering():
            return bool(self._redis.set(self._key, signed, ex=seconds, nx=True))

    def _signed(self, document: dict[str, Any]) -> str:
        # each is good once: the token tells one from another
        whole = document | {"token": secrets.token_hex(8)}
        return json.dumps(sign(whole, self._secrets[0], _PURPOSE))

    def armed(self) -> dict[str, Any] | None:
        """What is armed, `{backup, until, by}`, or None. Raises DbmanageError."""
        with answering():
            found = self._redis.get(self._key)
            known = self._understood(found)
            if known is None or self._redis.sismember(self._used, known["token"]):
                return None
        return known

    def use(self, name: str) -> dict[str, Any] | None:
        """Takes the one right to restore `name`: what was armed, None when nothing."""
        with answering():
            known = self.armed()
            if known is None or known["backup"] != name:
                return None
            # whoever adds the token is the one who has it
            if not self._redis.sadd(self._used, known["token"]):
                return None
            self._redis.expire(self._used, 30 * 86400)
            self._redis.delete(self._key)
        return known

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

    def count_try(self) -> int:
        """Counts a password before it is looked at, so that many at once count too.

        Returns how many were given within the hour, but for the right ones.
        """
        with answering():
            tried = self._redis.incr(self._wrong)
            self._redis.expire(self._wrong, 3600)
        return int(tried)

    def right_password(self) -> None:
        """Takes the count of one that was right back."""
        with answering():
            self._redis.decr(self._wrong)

    def _understood(self, found: bytes | None) -> dict[str, Any] | None:
        with suppress(ValueError):
            known = json.loads(found or b"null")
            signed = signed_by(known, self._secrets, _PURPOSE)
            if signed and known["until"] > f"{now():{_FORM}}":
                return {k: known[k] for k in ("backup", "until", "by", "token")}
        return None
