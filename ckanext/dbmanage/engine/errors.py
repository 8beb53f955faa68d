"""The errors of the engine: what failed, which object, what to do next.

    DbmanageError             anything a person can act on; its text is shown as it is
    ├── ConnectionFailed      a PostgreSQL server or database could not be reached
    ├── Refused               a precondition does not hold; nothing was touched
    │   ├── Busy              somebody else is at work in the same place
    │   ├── Written           what is to be replaced was written to since it was copied
    │   └── Untrusted         not signed by this site, and no `--trust` was given
    ├── Damaged               a backup or an archive is not what it was
    │   └── Changed           a list or a file is not the one that was looked at
    ├── Denied                a backup has files that this user may not read
    └── ToolFailed            pg_dump, pg_restore or the server ended with an error
        └── Passing           the same may work a moment later (`postgres/again.py`)

Messages never hold a password: they are built from names, never from URLs.
"""

import re

from psycopg2 import Error as DatabaseError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

#: of an address in a message: a user with a password, which may hold an @, and what
#: follows the path
ACCOUNT = re.compile(r"(?<=://)[^/\s'\"]+@")
_QUERY = re.compile(r"\?[^\s'\")]{20,}")
#: letters of a message, at most: a whole page may be told in place of a sentence
_MOST = 500


class DbmanageError(Exception):
    """Something failed that the reader can do something about."""


class ConnectionFailed(DbmanageError):
    """A server or a database could not be reached.

    `reason` is what all databases of one server have in common in their messages;
    `down` says that nothing answers there.
    """

    reason = ""
    down = False


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


class Changed(Damaged):
    """A list or a file is not the one that was looked at; what it said is void."""


class Denied(DbmanageError):
    """A backup has files that this user may not read: nobody knows how it is.

    `why` begins with `layout.DENIED`, and says what mends it.
    """

    def __init__(self, what: str, why: str) -> None:
        self.why = why
        super().__init__(f"{what} {why}")


class ToolFailed(DbmanageError):
    """A program of PostgreSQL, or the server itself, ended with an error."""


class Passing(ToolFailed):
    """A server ended something that may work a moment later."""


def message_of(error: BaseException) -> str:
    """The message of an error, on one line, without values, passwords and long queries.

    SQLAlchemy quotes the statement with its parameters, PostgreSQL a row of it: hashes
    of passwords and keys are among them. What failed by HTTP quotes its address. What
    CKAN's validation finds is told by field.
    """
    hide_values(error)
    if isinstance(error, DBAPIError):
        said = getattr(getattr(error.orig, "diag", None), "message_primary", None)
        lines = str(error.orig).strip().splitlines()
        return " ".join((said or (lines[0] if lines else "")).split())
    by_field = getattr(error, "error_summary", None)
    if by_field and isinstance(by_field, dict):
        text = "; ".join(f"{field}: {said}" for field, said in by_field.items())
    else:
        text = str(error)
    text = _QUERY.sub("?…", ACCOUNT.sub("***@", " ".join(text.split())))
    return text if len(text) < _MOST else text[:_MOST] + " …"


def summary_of(error: BaseException) -> str:
    """The class of an error and its message, at most some 300 letters."""
    text = f"{type(error).__name__}: {message_of(error)}"
    return text if len(text) < 300 else text[:300] + " …"


def explanation_of(failure: Exception) -> str:
    """What an operation failed with, for people: no traceback, no password."""
    if isinstance(failure, DatabaseError):
        return f"PostgreSQL: {message_of(failure)}"
    if isinstance(failure, SQLAlchemyError):
        return f"the database: {message_of(failure)}"
    if isinstance(failure, OSError):
        where = f"{failure.filename}: " if failure.filename else ""
        return f"{where}{failure.strerror or message_of(failure)}"
    return str(failure)


def hide_values(error: BaseException | None) -> None:
    """Takes the parameters of statements out of an error and of all behind it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, StatementError):
            error.hide_parameters = True
        error = error.__cause__ or error.__context__
