"""Main databases of portals that older CKANs made."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from ckanext.dbmanage.engine.postgres.database import quoted

from .cluster import (
    clone,
    query,
)
from .portal import Portal
from .rows import ROWS

#: main databases that older CKANs made, by version, and the site's id in them
_OLDER: dict[str, tuple[str, str]] = {}


def drop_older() -> None:
    """Drops what `made_by` keeps to be cloned again."""
    for name, _ in _OLDER.values():
        query(f"DROP DATABASE {quoted(name)} WITH (FORCE)")
    _OLDER.clear()


def made_by(portal: Portal, version: str) -> Callable[..., None]:
    """Gives a portal the main database of an older CKAN; what runs programs of it."""
    import ckan

    if not ckan.__version__.startswith("2.12"):
        pytest.skip("older than what? this is the test of the newest")
    name, site = portal.names["database"], portal.options["ckan.site_id"]
    ((where,),) = query(
        "SELECT spcname FROM pg_database JOIN pg_tablespace t ON t.oid = dattablespace"
        " WHERE datname = %s",
        "postgres",
        name,
    )
    query(f'DROP DATABASE "{name}" WITH (FORCE)')

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

    if version in _OLDER:
        kept, other = _OLDER[version]
        clone(kept, name)
        # the user that CKAN makes for itself when it starts
        portal.sql(f"UPDATE \"user\" SET name = '{site}' WHERE name = '{other}'")
        return run
    query(
        f'CREATE DATABASE "{name}" OWNER ckan_default TEMPLATE template0'
        f" TABLESPACE {where}"
    )
    run("ckan", "-c", str(portal.ini), "db", "init")
    run("ckan", "-c", str(portal.ini), "db", "pending-migrations", "--apply")
    with closing(psycopg2.connect(portal.url("database"))) as owned, owned:
        owned.cursor().execute(ROWS)
    kept = f"older_{secrets.token_hex(4)}"
    clone(name, kept)
    _OLDER[version] = kept, site
    return run
