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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy.engine import URL

from .errors import ConnectionFailed, Refused, ToolFailed

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

        As the role of `url`, else of `admin_url`, else CKAN's own.
        """
        option = self.option if not self.admin_url else "ckanext.dbmanage.admin_url"
        arguments = self._arguments(url or self.admin_url or self.url)
        try:
            connection = _connect(arguments | {"dbname": "postgres"}, option)
        except ConnectionFailed as error:
            if "permission denied for database" not in str(error):
                raise
            connection = _connect(arguments | {"dbname": "template1"}, option)
        connection.autocommit = True
        return connection

    def program(self, settings: str = "") -> tuple[list[str], dict[str, str]]:
        """`-d` for a client program, and the environment that holds the secrets.

        `settings` of the session (`-c name=value`) count unless the URL has its own.
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
        if settings:
            environment["PGOPTIONS"] = settings
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


def _connect(arguments: dict[str, Any], option: str) -> Connection:
    arguments = {"application_name": "dbmanage", "connect_timeout": 20} | arguments
    try:
        connection = psycopg2.connect(**arguments)
    except psycopg2.Error as error:
        reason = " ".join(str(error).split())
        if arguments.get("password"):  # libpq never says it; make sure for all time
            reason = reason.replace(str(arguments["password"]), "***")
        raise ConnectionFailed(
            f"cannot connect to database {arguments.get('dbname')!r}: {reason} "
            f"(is the server up, and is {option} right?)"
        ) from None
    # what was promised of a value must not depend on a role's or a server's taste
    connection.set_client_encoding("UTF8")
    return connection


@contextmanager
def closing(connection: Connection) -> Iterator[Connection]:
    """Closes the connection (psycopg2's own `with` only ends transactions)."""
    try:
        yield connection
    finally:
        connection.close()


def quoted(name: str) -> str:
    """An identifier as one would type it."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    return name if plain else '"' + name.replace('"', '""') + '"'


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
    arguments: Sequence[str], environment: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A client program that does not outlive the block, whatever ends it.

    Its stderr is read whole by `finish`. Raises ToolFailed when it cannot be started.
    """
    try:
        process: Any = subprocess.Popen(
            arguments, env=environment, stderr=subprocess.PIPE, **options
        )
    except OSError as error:
        raise ToolFailed(f"cannot run {arguments[0]}: {error.strerror}") from error
    _running.add(process)
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


def finish(process: subprocess.Popen[bytes], doing: str) -> None:
    """Waits for a client program. Raises ToolFailed with its last words."""
    words = process.stderr.read() if process.stderr else b""
    code = process.wait()
    if code == 0:
        return
    lines = [line for line in words.decode("utf-8", "replace").splitlines() if line]
    why = "\n  ".join(lines[-6:])
    if code < 0:
        program = os.path.basename(str(process.args[0]))  # type: ignore[index]
        why = "\n  ".join(filter(None, [f"{program} was ended by signal {-code}", why]))
    raise ToolFailed(f"{doing} failed: {why or f'exit code {code}'}")


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


def lock_holder(connection: Connection, *words: str) -> str:
    """Who holds an advisory lock: process id, address, since when."""
    key = lock_key(*words)
    rows = query(
        connection,
        "SELECT a.pid, a.client_addr, a.backend_start FROM pg_locks l"
        " JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.objsubid = 1",
        key,
    )
    return (
        ", ".join(
            f"the server's process {pid}, from {address or 'a local socket'}, "
            f"since {since:%F %T}"
            for pid, address, since in rows
        )
        or "somebody who has just ended"
    )
