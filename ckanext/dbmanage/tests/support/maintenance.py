"""The maintenance of a portal, as an operation and as an operator say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.maintenance import Maintenance

from .cluster import query
from .portal import Portal


def keeper(portal: Portal) -> Maintenance:
    return Maintenance(
        portal.options["ckan.redis.url"], make_url(portal.options["sqlalchemy.url"])
    )


@contextmanager
def moved_away(portal: Portal) -> Iterator[None]:
    """The portal's database is not there, as for a moment of each switch."""
    name = portal.names["database"]
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
        "postgres",
        name,
    )
    query(f'ALTER DATABASE "{name}" RENAME TO "{name}_moved"')
    try:
        yield
    finally:
        query(f'ALTER DATABASE "{name}_moved" RENAME TO "{name}"')
