"""PostgreSQL for the tests: roles, queries, servers of their own."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.postgres.database import quoted

from .waiting import wait_until

if TYPE_CHECKING:
    from .portal import Portal

SUPERUSER = make_url(os.environ["DBMANAGE_SUPERUSER_URL"])
PASSWORD = os.environ["DBMANAGE_CKAN_PASSWORD"]
READER = os.environ["DBMANAGE_READER_PASSWORD"]
BIN = Path(sys.executable).parent
PG_BIN = Path(os.environ["DBMANAGE_PG_BIN"])
_IS_DEBIAN_S = PG_BIN.is_relative_to("/usr/lib/postgresql")


def superuser(database: str = "postgres") -> Any:
    """An autocommit connection of the superuser."""
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=SUPERUSER.port,
        user=SUPERUSER.username,
        password=SUPERUSER.password,
        dbname=database,
        connect_timeout=60,
    )
    connection.autocommit = True
    return connection


def query(statement: str, database: str = "postgres", *values: Any) -> list[tuple]:
    with closing(superuser(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def wait_for_the_last_statement() -> None:
    """Waits until the server has noticed that clients were killed.

    It ends the statement that it was at first.
    """

    def orphans() -> bool:
        served = query(
            "SELECT client_port FROM pg_stat_activity"
            " WHERE client_port > 0 AND pid <> pg_backend_pid()"
        )
        lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        # its own end of a connection is closed as soon as a client is dead
        alive = {
            int(end.rpartition(":")[2], 16)
            for _, end, _, state, *_ in lines
            if state == "01"  # established
        }
        return bool({port for (port,) in served} - alive)

    wait_until(lambda: not orphans())


def clone(origin: str, name: str) -> None:
    """Makes a database as another one is; its files are copied, which is quickest."""
    held: list[tuple] = []
    for _ in range(
        4
    ):  # a busy server takes more than five seconds to end an autovacuum
        try:
            query(
                f"CREATE DATABASE {quoted(name)} OWNER ckan_default"
                f" TEMPLATE {quoted(origin)} STRATEGY file_copy"
            )
            return
        except psycopg2.errors.ObjectInUse:
            asked = (
                "SELECT backend_type, query FROM pg_stat_activity WHERE datname = %s"
            )
            held = query(asked, "postgres", origin)
    raise AssertionError(f"{origin} is in use: {held}")


@contextmanager
def in_memory() -> Iterator[str]:
    """A tablespace in memory, where there is room: a database is hundreds of files,
    and to make and remove them is a third of the server's work for the tests.

    Yields the end of `CREATE DATABASE` for it. What runs that were killed have left is
    dropped before.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a name of chance is made in it
    if not memory.is_dir() or shutil.disk_usage(memory).free < 4 << 30:
        yield ""
        return
    ((data,),) = query("SHOW data_directory")
    # of this server, and so of this checkout
    own = f"tests_{zlib.crc32(data.encode()):08x}_"
    directory = memory / f"{own}{secrets.token_hex(4)}"
    with ExitStack() as lives:
        with _locked(Path(data).parent.parent):  # nobody makes or drops one beside this
            _drop_dead(memory, own)
            directory.mkdir(mode=0o700)
            lives.enter_context(_locked(directory))
        try:
            owner = os.stat(data)
            os.chown(directory, owner.st_uid, owner.st_gid)
            query(f"CREATE TABLESPACE {directory.name} LOCATION '{directory}'")
            query(f"GRANT CREATE ON TABLESPACE {directory.name} TO public")
            yield f"TABLESPACE {directory.name}"
        finally:
            _drop(directory)


@contextmanager
def _locked(directory: Path, wait: bool = True) -> Iterator[None]:
    """Holds a directory's lock, which is free as soon as its process is dead.

    Raises BlockingIOError where it is held, unless it is to `wait`.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _drop_dead(memory: Path, own: str) -> None:
    """Drops the tablespaces of dead runs, of this server alone.

    `own` is what the names of its directories begin with. When no other run lives, the
    small databases go as well, which are in none.
    """
    known = query("SELECT spcname FROM pg_tablespace WHERE spcname ~ '^tests_'")
    alive = False
    for name in {*(n for (n,) in known), *(p.name for p in memory.glob(f"{own}*"))}:
        try:
            with _locked(memory / name, wait=False):
                _drop(memory / name)
        except BlockingIOError:
            alive = True
        except FileNotFoundError:  # memory is empty after the machine has started
            _drop(memory / name)
    if not alive:
        _drop_databases(
            "SELECT datname FROM pg_database WHERE datname ~ %s"
            " OR shobj_description(oid, 'pg_database') ~ %s",
            "^small_[0-9a-f]{8}$",
            "site 'small_[0-9a-f]{8}'",
        )


def _drop(directory: Path) -> None:
    """Drops a tablespace, what is in it, and its directory."""
    _drop_databases(
        "SELECT datname FROM pg_database JOIN pg_tablespace t ON t.oid = dattablespace"
        " WHERE spcname = %s",
        directory.name,
    )
    query(f"DROP TABLESPACE IF EXISTS {directory.name}")
    shutil.rmtree(directory, ignore_errors=True)


def _drop_databases(statement: str, *values: str) -> None:
    for (left,) in query(statement, "postgres", *values):
        query(f"ALTER DATABASE {quoted(left)} IS_TEMPLATE false")
        query(f"DROP DATABASE {quoted(left)} WITH (FORCE)")


def client(program: Path, url: str, *arguments: object, **options: Any) -> Any:
    """Runs a client program of PostgreSQL; what fails fails the test.

    The password is in the environment: a test that runs beside this one looks at
    every program's arguments.
    """
    address = make_url(url)
    return subprocess.run(
        [program, "-d", address._replace(password=None).render_as_string(), *arguments],
        env=os.environ | {"PGPASSWORD": address.password or ""},
        check=True,
        **options,
    )


def free_port() -> int:
    """A port that nobody listens on.

    None of those that outgoing connections get: one of these would take it before its
    server listens.
    """
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port := random.randrange(20_000, 32_000)))
            return port


class Cluster:
    """A PostgreSQL server of a test's own: another version, or one that may break."""

    def __init__(self, directory: Path, bin: Path, *options: str) -> None:
        self.bin, self.data, self.log = bin, directory / "data", directory / "log"
        self.port = free_port()
        self.options = ["-p", str(self.port), "-k", "", *options]
        self.process: subprocess.Popen | None = None
        self._run(bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust",
                  "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        self.start()
        self.sql("CREATE ROLE ckan_default LOGIN CREATEDB")
        self.sql("CREATE ROLE datastore_default LOGIN")

    @staticmethod
    def _as_user(*command: object) -> list[str]:
        # PostgreSQL refuses to run as root; here root has another number
        other = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
        return [*(other if os.getuid() == 0 else []), *map(str, command)]

    def _run(self, *command: object) -> None:
        subprocess.run(self._as_user(*command), check=True, capture_output=True)

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._as_user(self.bin / "postgres", "-D", self.data, *self.options),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (
            self.log.read_text()
        )
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, number: int = signal.SIGQUIT) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def connect(self, database: str = "postgres", user: str = "postgres") -> Any:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=user, dbname=database
        )
        connection.autocommit = True
        return connection

    def sql(self, statement: str, database: str = "postgres") -> list[tuple]:
        with (
            closing(self.connect(database)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def url(self, name: str, user: str = "ckan_default") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def copy(self, portal: Portal, part: str) -> None:
        """Moves a portal's database here, by stock tools."""
        name = portal.names[part]
        self.sql(f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0')
        dump = client(PG_BIN / "pg_dump", portal.url(part), "-Fc", capture_output=True)
        subprocess.run(
            [PG_BIN / "pg_restore", "-O", "-d", self.url(name)],
            input=dump.stdout,
            check=True,
        )
        option = {"database": "sqlalchemy.url", "datastore": "ckan.datastore.write_url"}
        portal.write(**{option[part]: self.url(name)})
        if part == "datastore":
            portal.write(
                **{"ckan.datastore.read_url": self.url(name, "datastore_default")}
            )

    def onto_small_disk(self, portal: Portal, disk: Path, rows: int) -> str:
        """Moves a portal here, its main database with a table of so many rows onto a
        small disk; that database's name.

        A tablespace, for a server without room for its log goes down altogether.
        """
        self.sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
        self.sql("GRANT CREATE ON TABLESPACE small TO ckan_default")
        for part in portal.names:
            self.copy(portal, part)
        name = portal.names["database"]
        self.sql(f'ALTER DATABASE "{name}" SET TABLESPACE small')
        self.sql(
            "CREATE TABLE filler AS SELECT repeat(md5(i::text), 30) AS t FROM"
            f" generate_series(1, {rows}) i; ALTER TABLE filler OWNER TO ckan_default",
            name,
        )
        return name


PG16 = Path(os.environ["DBMANAGE_PG16_BIN"])
PG18 = Path(os.environ["DBMANAGE_PG18_BIN"])
