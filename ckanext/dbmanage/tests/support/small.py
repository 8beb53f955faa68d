"""Sites of one small database, without CKAN."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres.database import Database
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore.copies import loaded_copies
from ckanext.dbmanage.engine.restore.preflight import changed_owners, preflight
from ckanext.dbmanage.engine.restore.source import Source, open_source
from ckanext.dbmanage.engine.site import Site

from .cluster import PASSWORD, PG_BIN, SUPERUSER, Cluster, query
from .heard import Heard
from .waiting import wait_until

#: tables that tell CKAN's main database from others
CKAN = 'CREATE TABLE public.package (id int); CREATE TABLE public."user" (id int);'


#: the programs of each version of PostgreSQL
BINS = {
    14: Path(os.environ["DBMANAGE_PG14_BIN"]),
    15: Path("/usr/lib/postgresql/15/bin"),
    16: Path(os.environ["DBMANAGE_PG16_BIN"]),
    18: Path(os.environ["DBMANAGE_PG18_BIN"]),
}


class Made:
    """A database in a cluster, its site and its repository."""

    def __init__(self, cluster: Cluster, directory: Path, name: str, **options: str):
        self.cluster, self.name = cluster, name
        self.version = int(cluster.sql("SHOW server_version_num")[0][0]) // 10000
        # PostgreSQL 14 is served by the clients of a newer one
        self.bin = BINS[max(self.version, 15)]
        admin = options.pop("admin", "")
        database = Database(
            "database",
            make_url(cluster.url(name)),
            admin_url=make_url(cluster.url("postgres", admin)) if admin else None,
        )
        self.site = Site(
            name, "http://x.test", str(directory / name), {"database": database},
            ("a secret of this test",), pg_bin=str(self.bin), **options,
        )  # fmt: skip
        self.repository = Repository(self.site.repository, self.site.secrets)
        self.heard = Heard()

    def sql(self, statement: str, user: str = "postgres") -> list[tuple]:
        connection = self.cluster.connect(self.name, user)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def backup(self) -> Source:
        with self.repository.lock("backup"):
            taken = take.take(Operation(self.site, self.repository))
        return self.source(taken.id)

    def source(self, name: str) -> Source:
        """A backup of its own, to be restored."""
        return open_source(self.site, self.repository, name)

    @contextmanager
    def copy(self, source: Source) -> Iterator[str]:
        """The name of a copy of it; what is told meanwhile is `heard`."""
        op = Operation(self.site, self.repository, self.heard)
        with loaded_copies(op, source, lambda *_: None) as scratches:
            yield scratches["database"].database.name

    def preflight(self, source: Source) -> None:
        """As of a restore; sessions of a moment ago may still be ending."""
        others = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{self.name}'"
        wait_until(lambda: not self.cluster.sql(others))
        preflight(self.site, self.repository, source)

    def dump(self, name: str, *options: str) -> list[str]:
        """What a superuser's pg_dump says is in a database, but its name."""
        done = subprocess.run(
            [self.bin / "pg_dump", "-s", *options, self.cluster.url(name, "postgres")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        pieces = re.split(r"\n\n\n(?=--\n-- Name: )", done.stdout)[1:]
        return sorted(re.sub(r"\\(?:un)?restrict .*", "", p).strip() for p in pieces)


class Small:
    """A site with one database, of CKAN's role and with what the text makes."""

    def __init__(self, directory: Path, options: str = "") -> None:
        self.name = f"small_{secrets.token_hex(4)}"
        own = f"ckan_default:{PASSWORD}@127.0.0.1:{SUPERUSER.port}/{self.name}"
        self.url = f"postgresql://{own}"
        database = Database("database", make_url(self.url))
        self.site = Site(
            self.name, "http://x.test", str(directory / "backups"),
            {"database": database}, ("a secret of this test",), pg_bin=str(PG_BIN),
        )  # fmt: skip
        self.repository = Repository(self.site.repository, self.site.secrets)
        self.said: list[str] = []
        query(
            f"CREATE DATABASE {self.name} OWNER ckan_default TEMPLATE template0 {options}"
        )
        self.own(CKAN)

    def own(self, statement: str | bytes) -> None:
        """Runs SQL as CKAN's role."""
        with closing(psycopg2.connect(self.url)) as connection, connection:
            connection.cursor().execute(statement)

    def backup(self) -> Source:
        with self.repository.lock("backup"):
            taken = take.take(Operation(self.site, self.repository))
        return self.source(taken.id)

    def source(self, name: str) -> Source:
        """A backup of its own, to be restored."""
        return open_source(self.site, self.repository, name)

    def told(self, source: Source) -> str:
        """What is said before and while a copy is made."""
        heard = Heard()
        heard.warned += changed_owners(self.site, source)
        op = Operation(self.site, self.repository, heard)
        with loaded_copies(op, source, lambda *_: None):
            return "\n".join(heard.warned)
