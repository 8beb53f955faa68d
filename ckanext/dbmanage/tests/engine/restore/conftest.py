"""Fixtures of the tests of restores: small databases, on each PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ...support.cluster import Cluster, query
from ...support.small import BINS, Made, Small


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
