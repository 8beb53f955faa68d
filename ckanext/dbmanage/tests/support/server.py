"""A server with limits, hostile settings and fences."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import Any

import psycopg2

from ckanext.dbmanage.engine.postgres import database, sessions
from ckanext.dbmanage.engine.postgres.database import Database, execute
from ckanext.dbmanage.engine.restore.history import Pair
from ckanext.dbmanage.engine.restore.properties import copy_properties
from ckanext.dbmanage.engine.restore.scratch import Scratch
from ckanext.dbmanage.engine.site import Site

from .cluster import Cluster

#: not so short that a busy machine has passed them before the first statement
LIMITS = {
    "statement_timeout": "500ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "500ms",
    "idle_session_timeout": "500ms",
}


def main(site: Site) -> Database:
    return site.databases["database"]


def copied(site: Site, warned: list[str]) -> list[tuple]:
    """Gives a new database the main one's properties; the settings it has then."""
    live, copy = main(site), f"copy_{secrets.token_hex(3)}"
    with closing(live.maintenance()) as keeper:
        execute(keeper, "CREATE DATABASE {} TEMPLATE template0", copy)
        try:
            pair = Pair("database", live.name, copy, "", "", site.id)
            roles = frozenset(sessions.roles(site.databases))
            made = Scratch(pair, live.named(copy), live, keeper, roles)
            copy_properties(made, warned.append)
            return settings(keeper, copy)
        finally:
            execute(keeper, "DROP DATABASE {}", copy)


def settings(connection: Any, name: str) -> list[tuple]:
    return database.query(
        connection,
        "SELECT setrole::bigint, setconfig FROM pg_db_role_setting JOIN pg_database d"
        " ON d.oid = setdatabase WHERE datname = %s ORDER BY 1",
        name,
    )


def hostile(role: str) -> str:
    """A list setting that ends its statement and begins one more."""
    return f"x;ALTER/**/ROLE/**/{role}/**/SUPERUSER;--"


def limit(server: Cluster, role: str, limits: dict[str, str]) -> None:
    for name, value in limits.items():
        server.sql(f"ALTER ROLE {role} SET {name} = '{value}'")


def there(server: Cluster, name: str) -> list[tuple]:
    return server.sql(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")


def refused_at(server: Cluster, database: str, role: str) -> bool:
    try:
        server.connect(database, role).close()
    except psycopg2.OperationalError:
        return True
    return False
