"""Links for one user to download one backup."""

import hashlib
import hmac
import secrets
from datetime import timedelta
from pathlib import Path

from ..clock import FAR, is_future, now, parse_stamp, stamp
from ..site import Site
from .client import answering, connect, key_of
from .sealed import seal, unseal, use, used_at

#: seconds until a link is no good any more: before its download, and from then on
_FRESH, RESUME = 900, 6 * 3600


class Links:
    """The links of one site."""

    def __init__(self, site: Site) -> None:
        self._url, self._secrets = site.databases["database"].url, site.secrets
        self._repository = Path(site.repository)
        self._redis = connect(site.redis_url)

    def _key(self, token: str) -> str:
        return key_of(self._url, f"link:{_digest(token)}")

    def make(self, user: str, backup: str, file: str) -> dict[str, str]:
        """A link for a user: `{token, until}`. Raises DbmanageError.

        `backup` is the id of a backup, empty for an export.
        """
        token = secrets.token_urlsafe(32)
        until = stamp(now() + timedelta(seconds=_FRESH))
        about = {"user": user, "backup": backup, "file": file, "until": until}
        with answering():
            sealed = seal(self._key(token), about, self._secrets)
            self._redis.set(self._key(token), sealed, ex=_FRESH + RESUME)
        return {"token": token, "until": until}

    def find(self, token: str, user: str) -> dict[str, str] | None:
        """What a link is for, `{backup, file, until}`; None when it is no good.

        `backup` is empty for an export.
        """
        with answering():
            found = self._redis.getrange(self._key(token), 0, 4095)
        known = unseal(self._key(token), found, self._secrets)
        if known is None or not user or known.pop("user") != user:
            return None
        ends = parse_stamp(known["until"])
        if is_future(ends, FAR):  # a wrong clock has made it
            return None
        return known if now() < ends + timedelta(seconds=RESUME) else None

    def begin(self, token: str, known: dict[str, str]) -> str:
        """The one begin of a download: what proves who began it, empty when it was.

        Whoever takes it up again shows the proof (`begun`). Raises DbmanageError, and
        OSError when it cannot be noted beside the backups.
        """
        until = known["until"]
        if until <= stamp():
            return ""
        if not use(self._repository, _digest(token)[:32], until):
            return ""
        proof = secrets.token_urlsafe(16)
        with answering():
            key = f"{self._key(token)}:begun"
            self._redis.set(key, _digest(proof), ex=_FRESH + RESUME)
        return proof

    def used_at(self, token: str, until: str) -> str | None:
        """When its download was begun, None when it was not. Raises OSError."""
        return used_at(self._repository, _digest(token)[:32], until)

    def begun(self, token: str, proof: str) -> bool:
        """Whether a proof is the one that was handed out with the begin."""
        with answering():
            found = self._redis.getrange(f"{self._key(token)}:begun", 0, 99)
        return hmac.compare_digest(found, _digest(proof).encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
