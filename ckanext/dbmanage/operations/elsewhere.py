"""A database of another cluster is brought in: as a file, which `restore` then takes.

Its password never stands in an argument, a log or a message: libpq finds it, in
PGPASSWORD or in `~/.pgpass`.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..engine.archive.unpack import refuse_full
from ..engine.backup.dump import write_dump
from ..engine.errors import DbmanageError, Refused
from ..engine.postgres.database import Database
from ..engine.words import size
from .context import Portal
from .index import open_to_change

_SCHEME = re.compile(r"postgres(ql)?://", re.IGNORECASE)
_FORM = "postgresql://USER@HOST:PORT/NAME"
_SAFE = (
    f"Write it without one, {_FORM}: the password comes from PGPASSWORD or from "
    "~/.pgpass"
)


@dataclass(frozen=True)
class Dumped:
    """A database as a file of ours, and what messages call it."""

    path: str
    called: str


def is_address(text: str) -> bool:
    """Whether this is meant to be the address of a database, and no file."""
    return bool(_SCHEME.match(text))


def address_of(text: str) -> URL:
    """The address of a database, without a password.

    Raises Refused, which does not repeat it: whoever writes one may have put a
    password anywhere.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise Refused(f"this is no address of a database: {_FORM}") from None
    if url.password is not None or any("password" in key.lower() for key in url.query):
        raise Refused(
            "an address with a password is refused: everybody on this machine can read "
            f"it in the list of processes, and it stays in the shell's history. {_SAFE}"
        )
    return url


@contextmanager
def dumped(portal: Portal, url: URL, part: str) -> Iterator[Dumped]:
    """A dump of the database at this address, in a file that is gone at the end.

    It is only read, in one snapshot. Nothing is locked here meanwhile: it may take
    long. Raises Refused, ConnectionFailed, ToolFailed.
    """
    site, repository = open_to_change(portal)
    called = url.render_as_string()
    option = f"{called}, with its password in PGPASSWORD or ~/.pgpass,"
    with ExitStack() as stack:

        def progress(phase: str, done: int, total: int) -> None:
            refuse_full(repository.path, called)
            portal.talk.progress(phase, done, total)

        try:
            path, file = stack.enter_context(repository.lent())
            write_dump(site, Database(part, url, option), file, progress)
        except OSError as error:
            raise DbmanageError(
                f"cannot write the dump of {called} to {repository.path}: "
                f"{error.strerror}"
            ) from error
        portal.talk.end()
        portal.talk.say(f"read {called}: {size(path.stat().st_size)}")
        yield Dumped(str(path), called)
