"""The schema public of a copy is never more open than it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Refused

from ...support.small import CKAN, Made


def told_sql(made: Made, name: str) -> None:
    """Runs what was told to be run by a superuser after the restore."""
    for told in made.heard.warned:
        assert "superuser" in told
        made.cluster.sql(told.partition("\n")[2], name)


#: what core's `datastore set-permissions` does
CLOSE = """REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT ALL ON SCHEMA public TO ckan_default"""


def test_schema_public_is_never_more_open_than_it_was(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    made = make()
    made.sql(CLOSE)
    made.sql(CKAN, "ckan_default")
    source = made.backup()
    makers = (
        "SELECT rolname FROM pg_roles WHERE has_schema_privilege(oid, 'public', 'CREATE')"
        " AND rolname !~ '^pg_' ORDER BY 1"
    )
    before = made.sql(makers)
    assert ("datastore_default",) not in before
    if made.version == 14:
        with pytest.raises(Refused, match="everybody may make objects") as early:
            made.preflight(source)
        with pytest.raises(Refused, match="nothing was switched") as late:
            made.copy(source).__enter__()
        assert "CREATE DATABASE ckan_scratch" in str(early.value)
        sql = str(late.value).partition("\n")[2].partition("\nand set")[0]
        create, _, alter = re.split(r"\s*\\connect (\w+)\n", sql)
        made.cluster.sql(create)
        made.cluster.sql(alter, "ckan_scratch")
        made.site = replace(made.site, scratch_templates={"database": "ckan_scratch"})
    made.preflight(source)
    with made.copy(source) as name:
        assert made.cluster.sql(makers, name) == before
    made.cluster.sql("DROP DATABASE IF EXISTS ckan_scratch")
    # and where a superuser is asked for
    by_admin = Made(made.cluster, tmp_path, made.name, admin="postgres")
    by_admin.preflight(source)
    with by_admin.copy(source) as name:
        assert by_admin.cluster.sql(makers, name) == before
    assert made.heard.warned == by_admin.heard.warned == []


def test_schema_public_of_ckan_s_role(make: Callable[..., Made]) -> None:
    made = make()
    made.sql("ALTER SCHEMA public OWNER TO ckan_default")
    made.sql(f"{CKAN}; COMMENT ON SCHEMA public IS 'the portal''s'", "ckan_default")
    before = made.dump(made.name)
    with made.copy(made.backup()) as name:
        assert len(made.heard.warned) == (2 if made.version == 14 else 0), (
            made.heard.warned
        )
        told_sql(made, name)
        assert made.dump(name) == before


def test_schema_public_of_another_role_or_closed_to_all(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.sql("GRANT USAGE, CREATE ON SCHEMA public TO editors")
    made.sql(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO ckan_default"
    )
    if made.version > 14:
        made.sql("ALTER SCHEMA public OWNER TO editors")
    made.sql(CKAN, "ckan_default")
    before = made.dump(made.name)
    source = made.backup()
    if made.version == 14:
        with pytest.raises(Refused, match="everybody may make objects"):
            made.copy(source).__enter__()
        return
    with made.copy(source) as name:
        assert made.dump(name) == before
    assert made.heard.warned == []
