"""Fixtures of the operations' tests: what there is to upgrade."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..support.older import made_by
from ..support.portal import Portal, install_plugin


@pytest.fixture
def old(portal: Portal) -> Portal:
    """A portal of CKAN 2.10, whose code is 2.12 now."""
    made_by(portal, "2.10")
    portal.sql(
        "INSERT INTO package_extra (id, package_id, key, value, state)"
        " SELECT 'e' || k || id, id, 'key ' || k, 'v', 'active'"
        " FROM package, generate_series(1, 3) k"
    )
    return portal


PLUGIN = {
    "plugin.py": "import ckan.plugins as p\nclass Bad(p.SingletonPlugin):\n    pass\n",
    "migration/bad/alembic.ini": "[alembic]\nscript_location = %(here)s\n",
    "migration/bad/env.py": """
from alembic import context
from sqlalchemy import engine_from_config, pool
engine = engine_from_config(
    context.config.get_section(context.config.config_ini_section),
    prefix="sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, version_table="bad_alembic_version")
    with context.begin_transaction():
        context.run_migrations()
""",
    "migration/bad/versions/1.py": """
import time
from alembic import op
revision, down_revision = "bad1", None
def upgrade():
    CODE
""",
}


@pytest.fixture
def bad(portal: Portal) -> Callable[[str], dict[str, str]]:
    """Enables a plugin with one pending migration of this code."""

    def make(code: str) -> dict[str, str]:
        files = {name: text.replace("CODE", code) for name, text in PLUGIN.items()}
        portal.write(**{"ckan.plugins": "dbmanage datastore activity bad"})
        root = portal.directory / "ckanext"
        return install_plugin(root, "bad", files, "plugin:Bad")

    return make
