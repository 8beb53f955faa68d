"""Arming: an operator lets the web page do one thing to one backup, once.

What cannot be taken back, and what hands out the whole portal, needs the operator's
word on the server: a stolen login is not enough. The word is a key in Redis, signed
with the site's secret and with its end inside, and what is used up is noted beside the
backups: nobody else who can write to that Redis can make one, nor bring an old one
back.
"""

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..clock import FAR, is_future, now, parse_stamp, stamp
from ..site import Site
from . import sealed
from .client import answering, connect, key_of

#: what is armed for an undo, in place of a backup's id
UNDO = "undo"
#: what can be armed, the first one when nothing is said
RESTORE, DELETE, RELEASE, DOWNLOAD = DEEDS = "restore", "delete", "release", "download"
#: what a job keeps of it; one that waits since a version before has no `since`
ARMED = "backup", "to", "until", "by", "since"
#: wrong passwords that switch it off
TRIES = 4


class Arming:
    """What the web page of one site may do, one thing at a time."""

    def __init__(self, site: Site) -> None:
        url = site.databases["database"].url
        self._key, self._wrong = key_of(url, "armed"), key_of(url, "armed:wrong")
        self._secrets, self._repository = site.secrets, Path(site.repository)
        self._redis = connect(site.redis_url)

    def arm(
        self, name: str, seconds: int, by: str, to: str = RESTORE
    ) -> dict[str, Any]:
        """Lets the page do one of the `DEEDS` to the backup `name`, for some seconds.

        `UNDO` is restored only. Takes back what was armed before. Returns `{backup, to,
        until, by}`. Raises DbmanageError when Redis does not answer, OSError.
        """
        until = stamp(now() + timedelta(seconds=seconds))
        document = {"backup": name, "to": to, "until": until, "by": by}
        document["since"] = stamp()
        self.off()
        with answering():
            self._redis.delete(self._wrong)
            self._redis.set(self._key, self._signed(document), ex=seconds)
        return document

    def again(self, used: dict[str, Any]) -> bool:
        """Arms once more what was used for nothing; whether it is armed now.

        Until the same moment. Not in place of what an operator has armed since, nor
        after wrong passwords.
        """
        document = {k: used[k] for k in ARMED if k in used}
        seconds = int((parse_stamp(used["until"]) - now()).total_seconds())
        if seconds <= 0 or _is_ahead(used) or self.tries() >= TRIES:
            return False
        with answering():
            signed = self._signed(document)
            return bool(self._redis.set(self._key, signed, ex=seconds, nx=True))

    def _signed(self, document: dict[str, Any]) -> str:
        # each is good once: the token tells one from another
        whole = document | {"token": secrets.token_hex(8)}
        return sealed.seal(self._key, whole, self._secrets)

    def armed(self) -> dict[str, Any] | None:
        """What is armed, `{backup, to, until, by, token}`, or None.

        Raises DbmanageError.
        """
        with answering():
            found = self._redis.getrange(self._key, 0, 4095)
        known = sealed.unseal(self._key, found, self._secrets)
        if known is None or known["until"] <= stamp():
            return None
        if _is_ahead(known):
            return None
        used = sealed.used_at(self._repository, known["token"], known["until"])
        return None if used else known

    def use(self, name: str, to: str = RESTORE) -> dict[str, Any] | None:
        """Takes the one right to do that to `name`: what was armed, None when nothing.

        Raises DbmanageError, and OSError when it cannot be noted as used.
        """
        known = self.armed()
        if known is None or (known["backup"], known["to"]) != (name, to):
            return None
        if not sealed.use(self._repository, known["token"], known["until"]):
            return None
        with answering():
            self._redis.delete(self._key)
        return known

    def off(self) -> None:
        """Takes it back for good: the same value would not arm it again."""
        if (known := self.armed()) is not None:
            sealed.use(self._repository, known["token"], known["until"])
        with answering():
            self._redis.delete(self._key)

    def tries(self) -> int:
        """How many wrong passwords were given within the hour."""
        with answering():
            found = self._redis.getrange(self._wrong, 0, 9)
        return int(found) if found.isdigit() else 0

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


def _is_ahead(known: dict[str, Any]) -> bool:
    """Whether a wrong clock has armed it: Redis keeps by that too, so it may for years.

    One without its moment is of a version before.
    """
    return is_future(parse_stamp(known.get("since") or stamp()), FAR)
