"""A PostgreSQL database: a URL, and the one way to connect to it and to ask it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy.engine import URL

from ..errors import ConnectionFailed, Refused, message_of
from ..report import name_of

Connection = psycopg2.extensions.connection
#: libpq options of a URL that carry no secret and may stand in an argument list
_SECRET_OPTIONS = {"password": "PGPASSWORD", "passfile": "PGPASSFILE"}

#: limits of a role's, a database's or a server's taste that end work which takes long,
#: or a session that waits with a lock; a server knows those of its version
LIMITS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)

#: what an operation looks at from the database beside its own
_BESIDE = "postgres"


@dataclass(frozen=True)
class Database:
    """One PostgreSQL database: the URL that the site uses for it.

    `option` is the name of the setting that holds the URL, for messages; `read_url` is
    of a role that only reads; `admin_url` a direct connection of a role that may
    create databases, its host and port are then used for every connection.
    """

    part: str
    url: URL
    option: str = "sqlalchemy.url"
    read_url: URL | None = field(default=None, repr=False)
    admin_url: URL | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The database's name, `libpq`'s default included."""
        return self._arguments(self.url).get("dbname") or self.role

    @property
    def role(self) -> str:
        """The role that the site connects as."""
        return self.role_of(self.url)

    def role_of(self, url: URL) -> str:
        """The role that a URL connects as."""
        own = self._arguments(url).get("user") or os.environ.get("PGUSER")
        return own or os.environ.get("USER") or ""

    @property
    def server(self) -> str:
        """Where it is, for people: `libpq` goes there, whatever else the URL says."""
        known = self._arguments(self.url)
        host = known.get("hostaddr") or known.get("host") or os.environ.get("PGHOST")
        port = known.get("port") or os.environ.get("PGPORT")
        return f"{host or 'the local socket'}{f':{port}' if port else ''}"

    def named(self, name: str) -> Database:
        """The same server and role, another database."""
        reader = self.read_url and self.read_url.set(database=name)
        return replace(self, url=self.url.set(database=name), read_url=reader)

    def connect(self, **options: Any) -> Connection:
        """A connection as the site's role. Raises ConnectionFailed."""
        return _connect(self._arguments(self.url) | options, self.option)

    def maintenance(self, url: URL | None = None) -> Connection:
        """An autocommit connection beside it: to `postgres`, else `template1`.

        As the role of `url`, else of `admin_url`, else the site's. Raises
        ConnectionFailed.
        """
        option = self.option if not self.admin_url else name_of("admin_url")
        arguments = self._arguments(url or self.admin_url or self.url)
        try:
            connection = _connect(arguments | {"dbname": _BESIDE}, option)
        except ConnectionFailed as error:
            return _instead(arguments, option, error)
        connection.autocommit = True
        return connection

    def is_missing(self) -> bool:
        """Whether the server has no database of this name. Raises ConnectionFailed."""
        with closing(self.maintenance()) as connection:
            there = "SELECT 1 FROM pg_database WHERE datname = %s"
            return not query(connection, there, self.name)

    def program(self, settings: str = "") -> tuple[list[str], dict[str, str]]:
        """`-d` for a client program, and the environment that holds the secrets.

        `settings` of the session (`-c name=value`) are added to the URL's own options,
        or those of the environment.
        """
        arguments = self._arguments(self.url)
        if "sslpassword" in arguments:
            raise Refused(
                f"{self.option} has an sslpassword, which a client program of "
                "PostgreSQL takes only in its argument list, for all to see: use a "
                "key without a passphrase in a file that only the site's user may read"
            )
        environment = {k: v for k, v in os.environ.items() if k != "PGOPTIONS"}
        for option, variable in _SECRET_OPTIONS.items():
            if option in arguments:
                environment[variable] = str(arguments.pop(option))
        # as libpq has it: options of a URL stand for those of the environment
        own = arguments.pop("options", os.environ.get("PGOPTIONS", ""))
        if options := f"{own} {settings}".strip():
            environment["PGOPTIONS"] = options
        environment |= {"PGAPPNAME": "dbmanage", "LC_MESSAGES": "C", "LANGUAGE": "C"}
        return ["-d", psycopg2.extensions.make_dsn(**arguments)], environment

    def variables(self) -> dict[str, str]:
        """What tells stock tools of the server and the role, and no secret."""
        known = self._arguments(self.url)
        names = ("host", "port", "user", "sslmode", "sslrootcert")
        return {f"PG{n.upper()}": str(known[n]) for n in names if n in known}

    def _arguments(self, url: URL) -> dict[str, Any]:
        # exactly what SQLAlchemy, and so the site, hands to psycopg2 for this URL
        dialect = url.set(drivername="postgresql+psycopg2").get_dialect()()
        arguments = dict(dialect.create_connect_args(url)[1])
        if "database" in arguments:
            arguments["dbname"] = arguments.pop("database")
        if self.admin_url is not None and url is not self.admin_url:
            admin = self._arguments(self.admin_url)
            for option in ("host", "port"):
                arguments.pop(option, None)
                if option in admin:
                    arguments[option] = admin[option]
        return arguments


class _Cursor(psycopg2.extensions.cursor):
    """A cursor that tells why the server ended a session while it waited.

    psycopg2 says only that the connection was closed; libpq knows what came before.
    """

    def execute(self, query: Any, vars: Any = None) -> None:
        """As psycopg2's."""
        with _reasoned(self.connection):
            super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """As psycopg2's."""
        with _reasoned(self.connection):
            super().copy_expert(sql, file, size)


@contextmanager
def _reasoned(connection: Connection) -> Iterator[None]:
    try:
        yield
    except psycopg2.OperationalError as error:
        if connection.closed and (reason := connection.info.error_message):
            raise psycopg2.OperationalError(reason) from error
        raise


#: what libpq asks beside its reason; the message asks the same
_ASKS = re.compile(r" Is the server running [^?]*\?")


def _connect(arguments: dict[str, Any], option: str) -> Connection:
    arguments = {"application_name": "dbmanage", "connect_timeout": 20} | arguments
    arguments["cursor_factory"] = _Cursor
    try:
        connection = psycopg2.connect(**arguments)
        _set_up(connection, option)
    except psycopg2.Error as error:
        said = message_of(error)
        reason = _ASKS.sub("", said)
        down = reason != said
        if arguments.get("password"):  # libpq never says it; make sure for all time
            reason = reason.replace(str(arguments["password"]), "***")
        failed = ConnectionFailed(
            f"cannot connect to database {arguments.get('dbname')!r}: {reason} "
            f"(is the server up, and is {option} right?)"
        )
        failed.reason, failed.down = reason, down
        raise failed from None
    return connection


def _set_up(connection: Connection, option: str) -> None:
    """What every session of ours begins with, whatever its role or server has set.

    No name finds what somebody planted in a schema, no limit ends the session, and text
    comes in UTF-8.
    """
    connection.set_client_encoding("UTF8")
    connection.autocommit = True  # a SET in a transaction goes with its ROLLBACK
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_backend_pid()")
        if cursor.fetchone() != (connection.info.backend_pid,):
            # what is set here would stay set for the site, which gets the session next
            connection.close()
            raise ConnectionFailed(
                f"a connection pooler stands before the server of {option}: set "
                f"{name_of('admin_url')} to a connection that goes past it"
            )
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute(
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)",
            [list(LIMITS)],
        )
    connection.autocommit = False


def no_limits(connection: Connection) -> str:
    """Options that set off the limits which a program beside this session would have.

    None is named that is off: some poolers take no options.
    """
    found = query(
        connection,
        "SELECT name FROM pg_settings WHERE name = ANY(%s) AND reset_val <> '0'",
        list(LIMITS),
    )
    return " ".join(f"-c {name}=0" for (name,) in found)


def _instead(
    arguments: dict[str, Any], option: str, refused: ConnectionFailed
) -> Connection:
    """A connection to `template1` for a role that has no right to `postgres`.

    Only then: a lock in the one is not seen in the other, so that all who work on a
    portal must look in the same.
    """
    try:
        connection = _connect(arguments | {"dbname": "template1"}, option)
    except ConnectionFailed:
        raise refused from None  # there is no server, or no such role
    connection.autocommit = True
    barred = query(
        connection,
        "SELECT 1 FROM pg_database WHERE datname = %s AND datallowconn"
        " AND has_database_privilege(oid, 'CONNECT')",
        _BESIDE,
    )
    if not barred:
        return connection
    connection.close()
    raise ConnectionFailed(
        f"{refused}. Locks are kept in the database {_BESIDE!r}, beside the portal's "
        "own: let pg_hba.conf let this role and host into it, or set "
        f"{name_of('admin_url')} to a connection that gets there"
    ) from None


@contextmanager
def closing(connection: Connection) -> Iterator[Connection]:
    """Closes the connection (psycopg2's own `with` only ends transactions)."""
    try:
        yield connection
    finally:
        connection.close()


#: names that must be quoted although they look plain: `pg_get_keywords()`, R and T
_RESERVED = re.compile(
    "all|analyse|analyze|and|any|array|as|asc|asymmetric|authorization|"
    "binary|both|case|cast|check|collate|collation|column|concurrently|"
    "constraint|create|cross|current_catalog|current_date|current_role|"
    "current_schema|current_time|current_timestamp|current_user|default|"
    "deferrable|desc|distinct|do|else|end|except|false|fetch|for|foreign|"
    "freeze|from|full|grant|group|having|ilike|in|initially|inner|"
    "intersect|into|is|isnull|join|lateral|leading|left|like|limit|"
    "localtime|localtimestamp|natural|not|notnull|null|offset|on|only|or|"
    "order|outer|overlaps|placing|primary|references|returning|right|select|"
    "session_user|similar|some|symmetric|system_user|table|tablesample|then|"
    "to|trailing|true|union|unique|user|using|variadic|verbose|when|where|"
    "window|with"
)


def quoted(*names: str) -> str:
    """An identifier as one would type it, its schema before it when that is given.

    On one line, whatever the name: who reads it may paste it.
    """
    return ".".join(
        name
        if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and not _RESERVED.fullmatch(name)
        else _in_quotes(name, '"')
        for name in names
    )


def literal(text: str) -> str:
    """Text as SQL, on one line, whatever it holds."""
    return _in_quotes(text, "'")


def _in_quotes(text: str, quote: str) -> str:
    plain = text.replace(quote, quote * 2)
    if text.isprintable() and (quote == '"' or "\\" not in text):
        return f"{quote}{plain}{quote}"
    escaped = (
        letter if letter.isprintable() and letter != "\\" else f"\\+{ord(letter):06x}"
        for letter in plain
    )
    return f"U&{quote}{''.join(escaped)}{quote}"


def query(
    connection: Connection, statement: str | sql.Composable, *values: Any
) -> list[tuple[Any, ...]]:
    """All rows of one statement, none when it gives no rows.

    `values` stand for its `%s`, or are one dictionary for its `%(name)s`.
    """
    named = values[0] if len(values) == 1 and isinstance(values[0], dict) else None
    with connection.cursor() as cursor:
        cursor.execute(statement, named or values or None)
        return cursor.fetchall() if cursor.description else []


def execute(connection: Connection, template: str, *names: str, **words: str) -> None:
    """One statement whose `{}` are identifiers and whose `{word}` are literals."""
    statement = sql.SQL(template).format(
        *map(sql.Identifier, names),
        **{key: sql.Literal(word) for key, word in words.items()},
    )
    query(connection, statement)


def server_major(connection: Connection) -> int:
    """The server's major version, 15 for 15.18."""
    return connection.server_version // 10000


def server_identity(connection: Connection) -> str:
    """What tells one PostgreSQL cluster from another."""
    return str(
        query(connection, "SELECT system_identifier FROM pg_control_system()")[0][0]
    )
