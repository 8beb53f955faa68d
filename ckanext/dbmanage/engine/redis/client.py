"""The Redis client and the names of a site's keys."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import redis
from sqlalchemy.engine import URL

from ..errors import DbmanageError
from ..report import name_of

#: bytes of a value of ours: who can write to Redis could put half a gigabyte there
LIMIT = 4096
FIELDS = ("level", "owner", "reason", "reference", "since", "until", "token")


def key_of(database_url: URL, name: str = "maintenance") -> str:
    """A key of a site: sites share a Redis, and often the name `default`."""
    words = database_url.render_as_string(hide_password=True)
    digest = hashlib.sha256(words.encode()).hexdigest()
    return f"dbmanage:{digest[:16]}:{name}"


@lru_cache(maxsize=8)
def connect(redis_url: str) -> Any:
    """A client of Redis, which connects at its first command. Raises RedisError.

    One for a process: each has connections of its own, and a request several clients.
    """
    try:
        return redis.Redis.from_url(
            redis_url, socket_timeout=1, socket_connect_timeout=1
        )
    except ValueError:  # its message holds pieces of the URL, so of the password
        raise redis.ConnectionError("not a URL of Redis") from None


@contextmanager
def answering() -> Iterator[None]:
    """Turns what Redis fails with into a DbmanageError."""
    try:
        yield
    except redis.RedisError as error:
        raise DbmanageError(
            f"Redis does not answer ({class_name(error)}): is it up, and is "
            f"{name_of('redis_url')} right?"
        ) from error


def class_name(error: Exception) -> str:
    # a server's words on a wrong password may hold a part of the address
    return type(error).__name__
