"""PostgreSQL: a database, its client programs, its archives, its advisory locks.

Knows how to reach a server by every URL that SQLAlchemy takes without a password ever
standing in an argument list, which pg_dump and pg_restore fit, and what an archive of
`pg_dump -Fc` says of itself. Must not know what a backup is, nor CKAN.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy.engine import URL

from ..errors import ConnectionFailed, Refused, ToolFailed

Connection = psycopg2.extensions.connection

#: where Debian, Red Hat, Homebrew and postgres.app put the programs of each version
_BIN_DIRECTORIES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
#: archive version by the major version of the pg_dump that wrote it (facts: measured)
_ARCHIVE_VERSIONS = {(1, 14): 12, (1, 15): 16, (1, 16): 17}
#: libpq options of a URL that carry no secret and may stand in an argument list
_SECRET_OPTIONS = {"password": "PGPASSWORD", "passfile": "PGPASSFILE"}
_TABLES_A_QUERY = 100
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
    """One PostgreSQL database: the URL that CKAN uses for it.

    `option` is the name of the setting that holds the URL, for messages; `read_url` the
    DataStore's read-only role; `admin_url` a direct connection of a role that may
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
        """The role CKAN connects as."""
        return self.role_of(self.url)

    def role_of(self, url: URL) -> str:
        """The role that a URL connects as."""
        return self._arguments(url).get("user") or _login()

    def named(self, name: str) -> Database:
        """The same server and role, another database."""
        reader = self.read_url and self.read_url.set(database=name)
        return replace(self, url=self.url.set(database=name), read_url=reader)

    def connect(self, **options: Any) -> Connection:
        """A connection as CKAN's role. Raises ConnectionFailed."""
        return _connect(self._arguments(self.url) | options, self.option)

    def maintenance(self, url: URL | None = None) -> Connection:
        """An autocommit connection beside it: to `postgres`, else `template1`.

        As the role of `url`, else of `admin_url`, else CKAN's own. Raises
        ConnectionFailed.
        """
        option = self.option if not self.admin_url else "ckanext.dbmanage.admin_url"
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
                "key without a passphrase in a file that only CKAN's user may read"
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

    def _arguments(self, url: URL) -> dict[str, Any]:
        # exactly what SQLAlchemy, and so CKAN, hands to psycopg2 for this URL
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


def _login() -> str:
    return os.environ.get("PGUSER") or os.environ.get("USER") or ""


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


def _connect(arguments: dict[str, Any], option: str) -> Connection:
    arguments = {"application_name": "dbmanage", "connect_timeout": 20} | arguments
    arguments["cursor_factory"] = _Cursor
    try:
        connection = psycopg2.connect(**arguments)
        _set_up(connection, option)
    except psycopg2.Error as error:
        reason = " ".join(str(error).split())
        if arguments.get("password"):  # libpq never says it; make sure for all time
            reason = reason.replace(str(arguments["password"]), "***")
        raise ConnectionFailed(
            f"cannot connect to database {arguments.get('dbname')!r}: {reason} "
            f"(is the server up, and is {option} right?)"
        ) from None
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
            # what is set here would stay set for the next that gets the session: CKAN
            connection.close()
            raise ConnectionFailed(
                f"a connection pooler stands before the server of {option}: set "
                "ckanext.dbmanage.admin_url to a connection that goes past it"
            )
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute(
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)",
            [list(LIMITS)],
        )
    connection.autocommit = False


def unlimited(connection: Connection) -> str:
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
        "ckanext.dbmanage.admin_url to a connection that gets there"
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


# ---------------------------------------------------------------- client programs


@dataclass(frozen=True)
class Tools:
    """The directory of one installed version of the client programs."""

    directory: str
    major: int

    def path(self, program: str) -> str:
        """The program's full path."""
        return os.path.join(self.directory, program)


@functools.cache
def installed_tools(pg_bin: str = "") -> tuple[Tools, ...]:
    """Every version of pg_dump with its pg_restore, the newest first.

    With `pg_bin` only what is in that directory.
    """
    directories = (
        [pg_bin]
        if pg_bin
        else [
            *(d for pattern in _BIN_DIRECTORIES for d in glob.glob(pattern)),
            *filter(None, [os.path.dirname(shutil.which("pg_dump") or "")]),
        ]
    )
    found = []
    for directory in dict.fromkeys(directories):
        version = _program_version(os.path.join(directory, "pg_dump"))
        if version and os.access(os.path.join(directory, "pg_restore"), os.X_OK):
            found.append((version, directory))
    found.sort(reverse=True)
    return tuple(Tools(directory, version[0]) for version, directory in found)


def _program_version(path: str) -> tuple[int, ...] | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(rb"\(PostgreSQL\) (\d+)\.?(\d*)", done.stdout)
    return match and tuple(int(number or 0) for number in match.groups()) or None


def dump_tools(server: int, pg_bin: str = "") -> Tools:
    """The newest pg_dump whose archive this server (its major version) can take back.

    From 17 on pg_restore sends a setting that servers up to 16 do not know, so for
    these the newest up to 16 is best; a newer one only when there is no other.
    Raises Refused: what to install.
    """
    tools = installed_tools(pg_bin)
    serving = [t for t in tools if t.major >= server]
    matching = [t for t in serving if server > 16 or t.major <= 16]
    if matching or serving:
        return (matching or serving)[0]
    raise Refused(
        _no_tools("pg_dump", tools, f"cannot dump PostgreSQL {server}", server)
    )


def restore_tools(archive: tuple[int, int], server: int, pg_bin: str = "") -> Tools:
    """The newest pg_restore that reads this archive version and suits the server.

    Raises Refused: what to install, or that the archive cannot be restored here.
    """
    tools = installed_tools(pg_bin)
    oldest = oldest_reader(archive)
    if server <= 16 < oldest:
        raise Refused(
            f"the archive was written by pg_dump {oldest} or newer (archive version "
            f"{archive[0]}.{archive[1]}) and cannot be restored into a server of "
            f"PostgreSQL {server}: dump it again with a pg_dump of version 16 or "
            f"older, or restore into a server of PostgreSQL {oldest} or newer"
        )
    fitting = [t for t in tools if t.major >= oldest and (server > 16 or t.major <= 16)]
    if fitting:
        return fitting[0]
    if server <= 16 and any(t.major > 16 for t in tools):
        what = f"cannot restore into PostgreSQL {server}, which lacks its settings"
    else:
        what = f"cannot read an archive of version {archive[0]}.{archive[1]}"
    wanted = max(oldest, min(server, 16) if server <= 16 else oldest)
    raise Refused(_no_tools("pg_restore", tools, what, wanted))


def reading_tools(archive: tuple[int, int], pg_bin: str = "") -> Tools:
    """The newest pg_restore that reads this archive version. Raises Refused."""
    tools = installed_tools(pg_bin)
    oldest = oldest_reader(archive)
    if tools and tools[0].major >= oldest:
        return tools[0]
    what = f"cannot read an archive of version {archive[0]}.{archive[1]}"
    raise Refused(_no_tools("pg_restore", tools, what, oldest))


def oldest_reader(archive: tuple[int, int]) -> int:
    """The oldest major version that reads an archive version. Raises Refused."""
    if archive > max(_ARCHIVE_VERSIONS):
        raise Refused(
            f"the archive has version {archive[0]}.{archive[1]}, newer than this "
            "extension knows: upgrade ckanext-dbmanage"
        )
    return max((m for v, m in _ARCHIVE_VERSIONS.items() if v <= archive), default=12)


def _no_tools(program: str, tools: Sequence[Tools], what: str, wanted: int) -> str:
    hint = f"install postgresql-client-{wanted} or set ckanext.dbmanage.pg_bin"
    if not tools:
        return f"no {program} was found: {hint}"
    return f"{program} {tools[0].major} {what}: {hint}"


_running: set[subprocess.Popen[bytes]] = set()


def end_programs() -> None:
    """Ends all client programs of this process, and so the threads that wait."""
    for process in list(_running):
        process.kill()


@contextmanager
def running(
    arguments: Sequence[str],
    environment: dict[str, str] | None = None,
    *,
    listen: bool = True,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A client program that does not outlive the block, whatever ends it.

    Its stderr is read beside, so that one with much to say does not wait for ever, and
    told by `finish`; without `listen` the caller reads it. Raises ToolFailed when it
    cannot be started.
    """
    try:
        process: Any = subprocess.Popen(
            arguments, env=environment, stderr=subprocess.PIPE, **options
        )
    except OSError as error:
        raise ToolFailed(f"cannot run {arguments[0]}: {error.strerror}") from error
    _running.add(process)
    if listen:
        heard = bytearray()
        listener = threading.Thread(
            target=_hear, args=(process.stderr, heard), daemon=True
        )
        process.heard, process.listener, process.stderr = heard, listener, None
        listener.start()
    try:
        yield process
    finally:
        _running.discard(process)
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


#: bytes of a program's words that are kept, of their begin and of their end
_HEARD = 1 << 20


def _hear(stream: Any, heard: bytearray) -> None:
    with stream:
        while chunk := stream.read1(1 << 16):
            heard += chunk
            if len(heard) > 2 * _HEARD:
                del heard[_HEARD:-_HEARD]


#: of a program's words: lines at their begin and end, letters of a line
_FIRST, _LAST, _WIDE = 8, 4, 400


def finish(process: Any, doing: str) -> str:
    """Waits for a client program; what it said on stderr all the same.

    Raises ToolFailed with what it said of the error.
    """
    process.listener.join()  # it ends with the last of the program's own children
    words, code = bytes(process.heard), process.wait()
    if code == 0:
        return words.decode("utf-8", "replace").strip()
    why = "\n  ".join(_gist(words.decode("utf-8", "replace").splitlines()))
    if code < 0:
        program = os.path.basename(str(process.args[0]))
        why = "\n  ".join(filter(None, [f"{program} was ended by signal {-code}", why]))
    raise ToolFailed(f"{doing} failed: {why or f'exit code {code}'}")


def _gist(lines: list[str]) -> list[str]:
    """The lines from the first error on, cut in the middle.

    What comes first is the reason, what comes after it often only follows from it.
    """
    lines = [line for line in lines if line.strip()]
    # a client program speaks English here, whatever the server speaks: `program`
    begins = re.compile(r"\w+: (?:error|fatal): ")
    first = next((n for n, line in enumerate(lines) if begins.match(line)), 0)
    lines = lines[first:]
    left = len(lines) - _FIRST - _LAST
    if left > 1:
        lines[_FIRST:-_LAST] = [f"… ({left} lines more)"]
    half = _WIDE // 2
    return [
        line if len(line) <= _WIDE else f"{line[:half]} … {line[-half:]}"
        for line in lines
    ]


# ---------------------------------------------------------- what is in a database

_TABLES = """
    SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner), pg_table_size(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
    ORDER BY 1, 2"""


def tables(connection: Connection) -> list[tuple[str, str, str, int]]:
    """Schema, name, owner and bytes of each table that a dump holds rows of.

    Not those of an extension: a dump leaves these to the extension.
    """
    return query(connection, _TABLES)  # type: ignore[return-value]


_UNREADABLE = """
    SELECT DISTINCT format('GRANT %s %s TO %I;', what, name, current_user)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace, LATERAL (VALUES
        ('USAGE ON SCHEMA', quote_ident(nspname),
         has_schema_privilege(n.oid, 'USAGE')),
        (CASE relkind WHEN 'S' THEN 'SELECT ON SEQUENCE' ELSE 'SELECT ON TABLE' END,
         format('%I.%I', nspname, relname),
         CASE relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                      ELSE has_table_privilege(c.oid, 'SELECT') END)
        ) AS needed (what, name, has)
    WHERE NOT has AND relkind IN ('r', 'S') AND relpersistence <> 't'
      AND nspname !~ '^pg_' AND nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
    ORDER BY 1 DESC"""


def unreadable(connection: Connection) -> list[str]:
    """The SQL that lets the connection's role read all that a dump reads."""
    return [statement for (statement,) in query(connection, _UNREADABLE)]


def refuse_unreadable(connection: Connection, name: str) -> None:
    """Raises Refused, with the SQL, where a dump of this database would fail."""
    if statements := unreadable(connection):
        shown = "\n".join(f"  {statement}" for statement in statements)
        raise Refused(
            f"CKAN's role may not read all of the database {name!r}, so it cannot be "
            "dumped whole. As the owner of the tables, or as PostgreSQL's superuser, "
            f"run in it once:\n{shown}"
        )


def drop_tables(connection: Connection, names: Iterable[tuple[str, str]]) -> None:
    """Drops tables with all that depends on them, in one transaction.

    Raises ToolFailed when somebody else holds one of them.
    """
    found = [sql.Identifier(*name) for name in names]
    if not found:
        return
    statement = sql.SQL("DROP TABLE {} CASCADE").format(sql.SQL(", ").join(found))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '10s'")
            cursor.execute(statement)
    except psycopg2.Error as error:
        raise ToolFailed(
            "the tables could not be dropped, all are as they were: "
            f"{' '.join(str(error).split())}. Stop CKAN's processes, then try again"
        ) from error


def count_rows(
    connection: Connection, names: Iterable[tuple[str, str]], snapshot: str = ""
) -> dict[str, int]:
    """Exact row counts by `schema.table`, of an exported snapshot when one is named.

    Many tables a query and a transaction for each: thousands of tables cost neither
    thousands of round trips nor more locks than a server has by default.
    """
    names = list(names)
    counts: dict[str, int] = {}
    for start in range(0, len(names), _TABLES_A_QUERY):
        batch = names[start : start + _TABLES_A_QUERY]
        statement = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, count(*) FROM ONLY {}").format(
                sql.Literal(number), sql.Identifier(*name)
            )
            for number, name in enumerate(batch)
        )
        query(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if snapshot:
            query(connection, "SET TRANSACTION SNAPSHOT %s", snapshot)
        for number, rows in query(connection, statement):
            counts[".".join(batch[number])] = rows
        query(connection, "COMMIT")
    return counts


def texts(connection: Connection, statements: Mapping[str, str]) -> Iterator[str]:
    """The first column of statements by the table each needs; in flat memory.

    One whose table is not there gives nothing.
    """
    yield from (row[0] for row in rows(connection, statements))


def rows(
    connection: Connection, statements: Mapping[str, str]
) -> Iterator[tuple[Any, ...]]:
    """The rows of the same."""
    for table, statement in statements.items():
        name = f'public."{table}"'
        if query(connection, "SELECT to_regclass(%s)::text", name) == [(None,)]:
            continue
        with connection.cursor("dbmanage", withhold=connection.autocommit) as cursor:
            cursor.execute(statement)
            yield from cursor


def migration_heads(connection: Connection) -> dict[str, list[str]]:
    """Alembic revisions by version table: `alembic_version` and the plugins'."""
    names = query(
        connection,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND relname ~ '(^|_)alembic_version$' ORDER BY 1",
    )
    return {
        name: sorted(
            row[0]
            for row in query(
                connection,
                sql.SQL("SELECT version_num::text FROM public.{}").format(
                    sql.Identifier(name)
                ),
            )
        )
        for (name,) in names
    }


# ----------------------------------------------------------------- advisory locks


def lock_key(*words: str) -> int:
    """A 64-bit key for an advisory lock out of words."""
    digest = hashlib.sha256("\0".join(("dbmanage", *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def try_lock(connection: Connection, *words: str) -> bool:
    """Takes the session's advisory lock, or says that somebody holds it."""
    return query(connection, "SELECT pg_try_advisory_lock(%s)", lock_key(*words))[0][0]


def unlock(connection: Connection, *words: str) -> None:
    """Gives an advisory lock back."""
    query(connection, "SELECT pg_advisory_unlock(%s)", lock_key(*words))


@dataclass(frozen=True)
class Holder:
    """Who holds an advisory lock: anybody may who can connect to where it is taken.

    `since` is None where this role may not see it, and `address` too, which is also
    None for a local socket. `is_ours`: it is of CKAN's role, or could switch the live
    database.
    """

    pid: int
    role: str
    address: str | None
    since: datetime | None
    is_ours: bool

    def __str__(self) -> str:
        about = f"the server's process {self.pid}, role {self.role!r}"
        if self.since is None:
            return f"{about}, whose address and time this role may not see"
        address = self.address or "a local socket"
        return f"{about}, from {address}, since {self.since:%F %T}"


def lock_holders(connection: Connection, live: Database, *words: str) -> list[Holder]:
    """Who holds an advisory lock that has to do with this live database."""
    rows = query(
        connection,
        "SELECT a.pid, a.usename::text, a.client_addr::text, a.backend_start,"
        " coalesce(a.usename = %s OR pg_has_role(usesysid, datdba, 'MEMBER'), true)"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " LEFT JOIN pg_database d ON d.datname = %s"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        live.role, live.name, lock_key(*words),
    )  # fmt: skip
    return [Holder(*row) for row in rows]
