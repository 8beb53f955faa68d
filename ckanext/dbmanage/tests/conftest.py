"""Fixtures of all tests: portals, clusters, web servers."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, settings

from .support import forked
from .support import plugins as plugins_
from .support.cluster import PG_BIN, READER, Cluster, in_memory, query
from .support.older import drop_older
from .support.portal import DATASTORE_TABLES, Portal
from .support.rows import ROWS
from .support.site import Site
from .support.waiting import wait_until
from .support.web import Web

# the same examples in each run: who changes nothing sees no test fail;
# `--hypothesis-profile=deep` looks for new ones, for as long as it takes
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=60)
settings.register_profile(
    "deep", deadline=None, max_examples=4000, suppress_health_check=[*HealthCheck]
)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def memory() -> Iterator[str]:
    """Where databases are made; every run has it, so that others see that it lives."""
    with in_memory() as where:
        yield where


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, memory: str) -> Iterator[Portal]:
    """The portal that others are cloned from: real schema, some rows of every kind."""
    portal = Portal(tmp_path_factory.mktemp("template"), f"tpl{secrets.token_hex(3)}")
    for name in portal.names.values():
        query(
            f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0 {memory}'
        )
    portal.ckan("db", "init")
    forked.serve(portal.ini, portal.environment)
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
    yield portal
    forked.stop()
    portal.drop()
    drop_older()


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
        portal.become(template)
        made.append(portal)
        return portal

    yield make
    for portal in made:
        portal.drop()


@pytest.fixture
def portal(make_portal: Callable[..., Portal]) -> Portal:
    """A portal with datasets, a DataStore and an empty repository."""
    return make_portal()


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


@pytest.fixture
def serve() -> Iterator[Callable[[Portal], Web]]:
    """Starts web processes of portals; each ends with the test."""
    made = []

    def start(portal: Portal) -> Web:
        made.append(Web(portal))
        wait_until(made[-1].up)
        return made[-1]

    yield start
    for web in made:
        web.process.terminate()
        web.process.wait()


@pytest.fixture
def site(portal: Portal, serve: Callable[[Portal], Web]) -> Iterator[Site]:
    """A portal of one test that is visited, and may have a worker."""
    made = Site(portal, serve)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH with the tests' plugins, installed as pip would."""
    directory = tmp_path_factory.mktemp("plugins")
    (directory / "some_plugins.py").write_text(plugins_.PLUGINS)
    about = directory / "some_plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: some-plugins\nVersion: 1.0\n"
    )
    points = [f"{name.lower()} = some_plugins:{name}" for name in plugins_.NAMES]
    (about / "entry_points.txt").write_text("\n".join(["[ckan.plugins]", *points, ""]))
    return str(directory)
