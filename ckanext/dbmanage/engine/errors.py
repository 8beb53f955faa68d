"""The errors of the engine: what failed, which object, what to do next.

    DbmanageError             anything a person can act on; its text is shown as it is
    ├── ConnectionFailed      a PostgreSQL server or database could not be reached
    ├── Refused               a precondition does not hold; nothing was touched
    │   ├── Busy              somebody else is at work in the same place
    │   ├── Written           what is to be replaced was written to since it was copied
    │   └── Untrusted         not signed by this site, and no `--trust` was given
    ├── Damaged               a backup or an archive is not what it was
    └── ToolFailed            pg_dump, pg_restore or the server ended with an error

Messages never hold a password: they are built from names, never from URLs.
"""

from __future__ import annotations


class DbmanageError(Exception):
    """Something failed that the reader can do something about."""


class ConnectionFailed(DbmanageError):
    """A server or a database could not be reached."""


class Refused(DbmanageError):
    """A precondition does not hold; nothing was touched."""


class Busy(Refused):
    """Somebody else is at work here; the message names them."""


class Written(Refused):
    """What is to be replaced was written to since it was copied; who may have done so
    is named."""


class Untrusted(Refused):
    """The backup carries no signature of this site and `--trust` was not given."""


class Damaged(DbmanageError):
    """A backup or an archive is not what it was when it was made."""

    def __init__(self, what: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join([f"{what} is damaged:", *problems]))


class ToolFailed(DbmanageError):
    """A program of PostgreSQL, or the server itself, ended with an error."""
