"""Real portals for the tests: own databases, own roles where needed, real commands.

A portal is cloned from one that was made once a session by `ckan db init` and some
SQL, so that each test may break its own. Commands run as their user runs them, in a
process of their own.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL, make_url

from ckanext.dbmanage.engine.postgres.database import quoted
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.portal.plan import installed_migrations
from ckanext.dbmanage.portal.site import build_site

from .support import forked

DATASETS = 40
DATASTORE_TABLES = 3
UPLOADS = 5
SUPERUSER = make_url(os.environ["DBMANAGE_SUPERUSER_URL"])
PASSWORD = os.environ["DBMANAGE_CKAN_PASSWORD"]
READER = os.environ["DBMANAGE_READER_PASSWORD"]
BIN = Path(sys.executable).parent
PG_BIN = Path(os.environ["DBMANAGE_PG_BIN"])
_IS_DEBIAN_S = PG_BIN.is_relative_to("/usr/lib/postgresql")

ROWS = f"""
INSERT INTO "user" (id, name, fullname, email, created, state, sysadmin)
  SELECT 'user-' || i, 'user-' || i, 'Us\u00e9r ' || i, 'u' || i || '@example.com', now(),
         'active', i = 1 FROM generate_series(1, 5) i;
INSERT INTO "group" (id, name, title, state, type, approval_status, is_organization, created)
  VALUES ('org-1', 'org-1', 'An organization', 'active', 'organization', 'approved', true, now()),
         ('group-1', 'group-1', 'A group', 'active', 'group', 'approved', false, now());
INSERT INTO package (id, name, title, notes, state, type, owner_org, private,
                     metadata_created, metadata_modified, creator_user_id)
  SELECT 'id-' || i, 'dataset-' || i, E'Dataset \\t\u6771\u4eac ' || i, E'a\\nb\\\\.', 'active', 'dataset',
         'org-1', i % 10 = 0, now(), now() - i * interval '1 hour', 'user-1'
  FROM generate_series(1, {DATASETS}) i;
INSERT INTO resource (id, package_id, url, format, state, name, description, position,
                      created, metadata_modified, extras)
  SELECT 'r-' || i, 'id-' || i, 'https://example.com/' || i, 'CSV', 'active', 'File', '', 0,
         now(), now(), '{{}}' FROM generate_series(1, {DATASETS}) i;
INSERT INTO resource (id, package_id, url, url_type, format, state, name, description, position,
                      created, metadata_modified, extras)
  SELECT 'upload-' || i, 'id-' || i, 'table.csv', 'upload', 'CSV', 'active', 'Upload', '', 1,
         now(), now(), '{{}}' FROM generate_series(1, {UPLOADS}) i;
UPDATE "group" SET image_url = 'logo 東.png' WHERE id = 'org-1';
INSERT INTO tag (id, name) VALUES ('tag-1', 'air quality');
INSERT INTO package_tag (id, package_id, tag_id, state)
  SELECT 'pt-' || i, 'id-' || i, 'tag-1', 'active' FROM generate_series(1, {DATASETS}) i;
INSERT INTO member (id, group_id, table_id, state, table_name, capacity)
  SELECT 'm-' || i, 'org-1', 'id-' || i, 'active', 'package', 'organization'
  FROM generate_series(1, {DATASETS}) i;
"""


#: CKAN 2.10 and 2.11 do not start without these
_LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""


def superuser(database: str = "postgres") -> Any:
    """An autocommit connection of the superuser."""
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=SUPERUSER.port,
        user=SUPERUSER.username,
        password=SUPERUSER.password,
        dbname=database,
        connect_timeout=10,
    )
    connection.autocommit = True
    return connection


def query(statement: str, database: str = "postgres", *values: Any) -> list[tuple]:
    with closing(superuser(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def clone(origin: str, name: str) -> None:
    """Makes a database as another one is; its files are copied, which is quickest."""
    query(
        f"CREATE DATABASE {quoted(name)} OWNER ckan_default"
        f" TEMPLATE {quoted(origin)} STRATEGY file_copy"
    )


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


class Portal:
    """A CKAN portal of its own; `options` are lines of its configuration."""

    def __init__(
        self, directory: Path, name: str, options: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.names = {"database": f"ckan_{name}", "datastore": f"datastore_{name}"}
        self.ini = directory / "ckan.ini"
        self.storage = directory / "storage"
        self.repository = self.storage / "dbmanage" / "backups"
        self.options = {
            "use": "egg:ckan",
            "SECRET_KEY": "portal-secret-5fd1",
            "beaker.session.secret": "portal-secret-5fd1",
            "ckan.site_id": name,
            "ckan.site_url": "http://portal.test",
            "ckan.storage_path": str(self.storage),
            "ckan.plugins": "dbmanage datastore activity",
            "sqlalchemy.url": self.url("database"),
            "ckan.datastore.write_url": self.url("datastore"),
            "ckan.datastore.read_url": self.url(
                "datastore", "datastore_default", READER
            ),
            "ckan.redis.url": f"redis://127.0.0.1:{os.environ['DBMANAGE_REDIS_PORT']}/2",
            "solr_url": os.environ["CKAN_SOLR_URL"],
            # Debian's own programs are found
            **({} if _IS_DEBIAN_S else {"ckanext.dbmanage.pg_bin": str(PG_BIN)}),
            **(options or {}),
        }
        self.storage.mkdir(exist_ok=True)
        self.write()

    def url(
        self, part: str, user: str = "ckan_default", password: str = PASSWORD
    ) -> str:
        url = URL.create(
            "postgresql", user, password, "127.0.0.1", SUPERUSER.port, self.names[part]
        )
        return url.render_as_string(hide_password=False)

    def write(self, **options: str) -> None:
        """Writes the configuration file; an underscore in a name here is a dot."""
        self.options |= options
        lines = [f"{k} = {v.replace('%', '%%')}" for k, v in self.options.items()]
        self.ini.write_text("[app:main]\n" + "\n".join(lines) + _LOGGING)

    # -- commands

    @property
    def environment(self) -> dict[str, str]:
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("CKAN_", "PG"))
        }
        return clean | {"PYTHONWARNINGS": "ignore", "TZ": "UTC"}

    def ckan(self, *arguments: str, code: int = 0, **options: Any) -> Any:
        """`ckan -c ini …`; fails the test when it ends with another code."""
        return self._run(
            [str(BIN / "ckan"), "-c", str(self.ini), *arguments], code, options
        )

    def db(self, *arguments: str, code: int = 0, **options: Any) -> Any:
        """`ckan db …`"""
        return self.ckan("db", *arguments, code=code, **options)

    def module(self, *arguments: str, code: int | None = 0, **options: Any) -> Any:
        """`python -m ckanext.dbmanage …`"""
        return self._run([*self.module_command, *arguments], code, options)

    @property
    def module_command(self) -> list[str]:
        return [sys.executable, "-m", "ckanext.dbmanage", "-c", str(self.ini)]

    def _run(
        self, command: list[str], code: int | None, options: dict[str, Any]
    ) -> Any:
        options = {"stdin": subprocess.DEVNULL, "text": True} | options
        environment = self.environment | options.pop("env", {})
        with forked.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
            **options,
        ) as process:  # fmt: skip
            try:
                said = process.communicate(timeout=600)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, *said)
        assert code in (done.returncode, None), (
            f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen:
        """A `python -m` command left running, leader of its own process group."""
        return forked.start(
            [*self.module_command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment | options.pop("env", {}),
            text=True,
            start_new_session=True,
            **options,
        )

    def backup(self, *arguments: str) -> Path:
        """Takes a backup; its directory."""
        name = self.module("backup", *arguments).stdout.strip()
        return self.repository / name

    def backups(self) -> list[dict[str, Any]]:
        return json.loads(self.module("backups", "--json").stdout)

    # -- what is in the databases

    def sql(self, statement: str, part: str = "database") -> list[tuple]:
        return query(statement, self.names[part])

    def state(self) -> dict[str, Any]:
        """All there is: a hash of each table's rows, order-free, and the uploads."""
        found: dict[str, Any] = {"uploads": self.uploads()}
        for part in self.names:
            tables = self.sql(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", part
            )
            # many in one statement: to connect costs more than to count; not all, for
            # a server has no locks for thousands
            rows = [
                f"SELECT '{table}', count(*),"
                " coalesce(sum(('x' || substr(md5(t::text), 1, 8))"
                f"::bit(32)::bigint), 0)::text FROM public.{quoted(table)} t"
                for (table,) in tables
            ]
            for start in range(0, len(rows), 500):
                statement = " UNION ALL ".join(rows[start : start + 500])
                for table, *rest in self.sql(statement, part):
                    found[f"{part}:{table}"] = tuple(rest)
        return found

    def uploads(self) -> dict[str, str]:
        """The uploads on the disk: a checksum by path."""
        return {
            str(path.relative_to(self.storage)): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in sorted(self.storage.rglob("*"))
            if path.is_file()
            and not path.relative_to(self.storage).parts[0].startswith(".dbm_")
            and path.relative_to(self.storage).parts[0]
            not in ("dbmanage", "webassets", "i18n")
        }

    def fill_uploads(self) -> None:
        """What CKAN has written for the rows of the template."""
        for number in range(1, UPLOADS + 1):
            path = self.storage / "resources" / "upl" / "oad" / f"-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"a,b\n1,2\n" * number)
        path = self.storage / "storage" / "uploads" / "group" / "logo 東.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\x89PNG")

    def damage(self) -> None:
        """What an operator does by mistake."""
        upload = self.storage / "resources" / "upl" / "oad"
        (upload / "-1").unlink(missing_ok=True)
        if upload.exists():
            (upload / "-2").write_bytes(b"overwritten")
            (upload / "new").write_bytes(b"new")
        self.sql("DELETE FROM resource; DELETE FROM package_tag; DELETE FROM member")
        self.sql("DELETE FROM package WHERE name LIKE 'dataset-1%'")
        (name,) = self.sql(
            "SELECT tablename FROM pg_tables WHERE tablename LIKE '0000%' LIMIT 1",
            "datastore",
        )
        self.sql(f'DROP TABLE "{name[0]}" CASCADE', "datastore")

    def oids(self) -> list[int]:
        return [
            r[0]
            for r in query(
                "SELECT oid::bigint FROM pg_database WHERE datname = ANY(%s) ORDER BY 1",
                "postgres",
                list(self.names.values()),
            )
        ]

    def copies(self) -> set[str]:
        """The scratch and undo databases that are this portal's, by what they say.

        Others run beside it: one of a moment ago, which says nothing yet, is its own
        when its journal names it.
        """
        path = self.repository / "journal.jsonl"
        journal = path.read_text() if path.exists() else ""
        rows = query(
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
            " WHERE datname LIKE 'dbm\\_%'"
        )
        site = f"site {self.options['ckan.site_id']!r}"
        return {
            name
            for name, said in rows
            if site in (said or "") or name.rsplit("_", 1)[0] + "_" in journal
        }

    # -- the engine in this process

    @property
    def settings(self) -> dict[str, str]:
        return self.options

    def site(self) -> Site:
        return build_site(
            self.options,
            installed_migrations(self.options["ckan.plugins"].split()),
        )

    def engine(self) -> tuple[Site, Repository]:
        site = self.site()
        return site, Repository(site.repository, site.secrets)

    def drop(self) -> None:
        for name in {*self.names.values(), *self.copies()}:
            query(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")


def install_plugin(
    directory: Path, name: str, files: dict[str, str], plugin: str
) -> dict[str, str]:
    """Writes a plugin as pip would install it; the environment that finds it.

    `files` of its package, `plugin` what implements it: `module:Class` in there.
    """
    for file, text in files.items():
        path = directory / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    about = directory / f"{name}-1.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
    )
    (about / "entry_points.txt").write_text(
        f"[ckan.plugins]\n{name} = {name}.{plugin}\n"
    )
    return {"PYTHONPATH": str(directory)}


def wait_until(true: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def end_group(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Ends a command and all its children at once, as a power cut would."""
    os.killpg(process.pid, number)
    process.communicate()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """The portal that others are cloned from: real schema, some rows of every kind."""
    portal = Portal(tmp_path_factory.mktemp("template"), f"tpl{secrets.token_hex(3)}")
    for name in portal.names.values():
        query(f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0')
    portal.ckan("db", "init")
    if (
        b"2.10"
        in subprocess.run([BIN / "ckan", "--version"], capture_output=True).stdout
    ):
        portal.ckan("db", "upgrade", "-p", "activity")
    portal.db("pending-migrations", "--apply")
    script = portal.ckan("datastore", "set-permissions").stdout
    lines = [line for line in script.splitlines() if not line.startswith("\\connect")]
    query("\n".join(lines), portal.names["datastore"])
    owned = psycopg2.connect(portal.url("database"))
    with owned, owned.cursor() as cursor:
        cursor.execute(ROWS)
    owned.close()
    owned = psycopg2.connect(portal.url("datastore"))
    with owned, owned.cursor() as cursor:
        for number in range(DATASTORE_TABLES):
            table = f"0000000{number}-0000-4000-8000-000000000000"
            cursor.execute(
                f'CREATE TABLE "{table}" (_id serial PRIMARY KEY, _full_text tsvector,'
                ' "a b" text, "100%%" numeric, j json);'
                f'INSERT INTO "{table}" ("a b", "100%%", j)'
                " SELECT 'value ' || g, g / 3.0, json_build_object('k', g)"
                " FROM generate_series(1, 50) g",
                (),
            )
    owned.close()
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)",
        "postgres",
        list(portal.names.values()),
    )
    forked.serve(portal.ini, portal.environment)
    yield portal
    forked.stop()
    portal.drop()


@pytest.fixture
def role() -> Iterator[Callable[..., str]]:
    """Makes roles with a password; each is gone at the end of the test."""
    made = []

    def make(name: str, options: str, password: str = "other") -> str:  # noqa: S107
        made.append(f"{name}_{secrets.token_hex(3)}")
        query(
            f"CREATE ROLE {made[-1]} LOGIN {options} PASSWORD %s", "postgres", password
        )
        return made[-1]

    yield make
    for name in reversed(made):
        query(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
def make_portal(
    role: object, template: Portal, tmp_path: Path
) -> Iterator[Callable[..., Portal]]:
    """Makes portals; each is gone at the end of the test."""
    made = []

    def make(
        options: dict[str, str] | None = None, names: dict[str, str] | None = None
    ) -> Portal:
        name = secrets.token_hex(4)
        directory = tmp_path / name
        directory.mkdir()
        portal = Portal(directory, name)
        portal.names |= names or {}
        portal.write(
            **{
                "sqlalchemy.url": portal.url("database"),
                "ckan.datastore.write_url": portal.url("datastore"),
                "ckan.datastore.read_url": portal.url(
                    "datastore", "datastore_default", READER
                ),
            }
            | (options or {})
        )
        for part, own in portal.names.items():
            origin = template.names[part]
            clone(origin, own)
            if part == "datastore":
                query(f"GRANT CONNECT ON DATABASE {quoted(own)} TO datastore_default")
        # the user that CKAN makes for itself when it starts
        own, other = portal.options["ckan.site_id"], template.options["ckan.site_id"]
        portal.sql(f"UPDATE \"user\" SET name = '{own}' WHERE name = '{other}'")
        portal.fill_uploads()
        made.append(portal)
        return portal

    yield make
    for portal in made:
        portal.drop()


@pytest.fixture
def portal(make_portal: Callable[..., Portal]) -> Portal:
    """A portal with datasets, a DataStore and an empty repository."""
    return make_portal()


def made_by(portal: Portal, version: str) -> Callable[..., None]:
    """Gives a portal the main database of an older CKAN; what runs programs of it."""
    import ckan

    if not ckan.__version__.startswith("2.12"):
        pytest.skip("older than what? this is the test of the newest")
    name = portal.names["database"]
    query(f'DROP DATABASE "{name}" WITH (FORCE)')
    query(f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0')

    def run(program: str, *arguments: str) -> None:
        core = f"{os.environ['CKAN_SOLR_URL']}_{version.replace('.', '')}"
        portal.write(solr_url=core)
        subprocess.run(
            [
                Path(sys.prefix).parent / f"venv-{version}" / "bin" / program,
                *arguments,
            ],
            env=portal.environment,
            check=True,
            capture_output=True,
        )
        portal.write(solr_url=os.environ["CKAN_SOLR_URL"])

    run("ckan", "-c", str(portal.ini), "db", "init")
    run("ckan", "-c", str(portal.ini), "db", "pending-migrations", "--apply")
    with closing(psycopg2.connect(portal.url("database"))) as owned, owned:
        owned.cursor().execute(ROWS)
    return run


# ------------------------------------------------------------- another PostgreSQL


class Cluster:
    """A PostgreSQL server of a test's own: another version, or one that may break."""

    def __init__(self, directory: Path, bin: Path, *options: str) -> None:
        self.bin, self.data, self.log = bin, directory / "data", directory / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
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


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    made = []

    def make(
        *options: str, bin: Path = PG_BIN, directory: Path | None = None
    ) -> Cluster:
        if directory is None:
            directory = tmp_path / f"cluster{len(made)}"
            directory.mkdir()
        made.append(Cluster(directory, bin, *options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes file systems of a given size, in memory; needs root, as CI has."""
    made = []

    def make(size: str) -> Path:
        directory = tmp_path / f"disk{len(made)}"
        directory.mkdir()
        subprocess.run(
            [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={size},mode=0700",
                "tmpfs",
                directory,
            ],
            check=True,
        )
        made.append(directory)
        return directory

    yield make
    for directory in made:
        subprocess.run(["umount", "-l", directory], check=True)


# ------------------------------------------------------------------ a running site


class Answer:
    """What a visitor got: status, headers, body; redirects are not followed."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers = answer.status, answer.headers
        self.body = answer.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """A CKAN web process of a portal."""

    def __init__(self, portal: Portal) -> None:
        self.log = portal.directory / "web.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        with open(self.log, "w") as log:
            self.process = forked.start(
                [BIN / "ckan", "-c", portal.ini, "run", "-H", "127.0.0.1",
                 "-p", str(self.port), "-r", "-t"],
                env=portal.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            headers = {k.replace("_", "-"): v for k, v in headers.items()}
            if isinstance(body, dict):
                body = json.dumps(body)
                headers["Content-Type"] = "application/json"
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())

    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.ask("/api/3/action/status_show").status == 200
        except OSError:
            return False


@pytest.fixture
def serve() -> Iterator[Callable[[Portal], Web]]:
    """Starts web processes of portals; each ends with the test."""
    made = []

    def start(portal: Portal) -> Web:
        made.append(Web(portal))
        wait_until(made[-1].up, 90)
        return made[-1]

    yield start
    for web in made:
        web.process.terminate()
        web.process.wait()
