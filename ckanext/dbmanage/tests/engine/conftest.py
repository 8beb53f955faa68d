"""Fixtures of the engine's tests: a server of their own."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine import layout
from ckanext.dbmanage.engine.postgres import database
from ckanext.dbmanage.engine.postgres.database import Database
from ckanext.dbmanage.engine.site import Site

from ..support.cluster import PG_BIN, Cluster, query
from ..support.small import BINS, Made, Small
from ..support.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server of this module's own, in German where the machine has the words."""
    directory = tmp_path_factory.mktemp("server")
    options = ["-c", "max_prepared_transactions=5"]
    locale = "de_DE.UTF-8"
    with pytest.MonkeyPatch.context() as patch:
        made = subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "UTF-8", directory / locale],
            capture_output=True,
        )
        if made.returncode == 0:
            patch.setenv("LOCPATH", str(directory))
            options += ["-c", f"lc_messages={locale}"]
        cluster = Cluster(directory, PG_BIN, *options)
        yield cluster
        cluster.stop()


@pytest.fixture
def site(server: Cluster, tmp_path: Path) -> Iterator[Site]:
    """A site with a database and a DataStore, an empty table in each."""
    names = {part: f"{part}_{secrets.token_hex(3)}" for part in layout.PARTS[:2]}
    for name in names.values():
        server.sql(f"CREATE DATABASE {name} OWNER ckan_default TEMPLATE template0")
        with closing(server.connect(name, "ckan_default")) as connection:
            database.query(connection, "CREATE TABLE public.t (a int)")
    url = {part: make_url(server.url(name)) for part, name in names.items()}
    reader = make_url(server.url(names["datastore"], "datastore_default"))
    databases = {
        "database": Database("database", url["database"]),
        "datastore": Database("datastore", url["datastore"], read_url=reader),
    }
    yield Site("test", "http://test", str(tmp_path / "backups"), databases, ("secret",))
    for name in names.values():
        server.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def login(server: Cluster) -> Iterator[Callable[[str], str]]:
    """Makes roles on the server; each is gone at the end of the test."""
    made = []

    def make(options: str = "") -> str:
        made.append(f"role_{secrets.token_hex(3)}")
        server.sql(f"CREATE ROLE {made[-1]} LOGIN {options}")
        return made[-1]

    yield make
    for name in made:
        server.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def fenced(server: Cluster) -> Iterator[Callable[[str], None]]:
    """Puts lines before those of pg_hba.conf, until the test's end."""
    path = server.data / "pg_hba.conf"
    before = path.read_text()
    loaded = "SELECT pg_conf_load_time()"

    def fence(text: str) -> None:
        path.write_text(text + before)
        last = server.sql(loaded)
        server.sql("SELECT pg_reload_conf()")
        wait_until(lambda: server.sql(loaded) != last)  # it only asks for it

    yield fence
    fence("")


@pytest.fixture(scope="session")
def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[int], Cluster]]:
    """Gives the one server of a version, started when it is asked for."""
    started: dict[int, Cluster] = {}

    def server(version: int) -> Cluster:
        """A server with the roles of the databases here."""
        if version not in started:
            directory = tmp_path_factory.mktemp(f"pg{version}")
            made = Cluster(directory, BINS[version], "-c", "fsync=off")
            started[version] = made
            for role in ("editors", "stranger", '"user"'):
                made.sql(f"CREATE ROLE {role}")
            made.sql("GRANT editors TO ckan_default")
        return started[version]

    yield server
    for each in started.values():
        each.stop()


@pytest.fixture(params=BINS)
def cluster(
    request: pytest.FixtureRequest, servers: Callable[[int], Cluster]
) -> Cluster:
    """A server of each version, shared with other tests."""
    return servers(request.param)


@pytest.fixture
def make(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Made]]:
    made = []

    def create(options: str = "", **site: str) -> Made:
        name = f"m{len(made)}"
        cluster.sql(
            f"CREATE DATABASE {name} OWNER ckan_default TEMPLATE template0 {options}"
        )
        made.append(Made(cluster, tmp_path, name, **site))
        return made[-1]

    yield create
    for each in made:
        cluster.sql(f"ALTER DATABASE {each.name} IS_TEMPLATE false")
        cluster.sql(f"DROP DATABASE {each.name} WITH (FORCE)")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[..., Small]]:
    made: list[Small] = []

    def make(options: str = "") -> Small:
        made.append(Small(tmp_path, options))
        return made[-1]

    yield make
    for each in made:
        names = query(
            "SELECT datname FROM pg_database WHERE datname = %s"
            " OR datname LIKE 'dbm\\_%%' AND position(%s in"
            " encode(textsend(shobj_description(oid, 'pg_database')), 'escape')) > 0",
            "postgres", each.name, f"site '{each.name}'",
        )  # fmt: skip
        for (name,) in names:
            query(f"DROP DATABASE {name} WITH (FORCE)")
