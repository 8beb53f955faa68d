"""Extensions that only a superuser makes: named beforehand, left out, or brought."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckanext.dbmanage.doctor import checks
from ckanext.dbmanage.engine.archive import extensions
from ckanext.dbmanage.engine.archive.contents import contents_of
from ckanext.dbmanage.engine.archive.extensions import missing_in_copies
from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres.database import closing
from ckanext.dbmanage.engine.restore import restore
from ckanext.dbmanage.engine.restore.preflight import preflight
from ckanext.dbmanage.engine.restore.source import open_source
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import PG_BIN, SUPERUSER, client, query
from ...support.heard import Heard
from ...support.portal import Portal

MANUAL = Path(__file__).parents[5] / "docs" / "restore.rst"
AVAILABLE = {name for (name,) in query("SELECT name FROM pg_available_extensions")}


def needs(*names: str) -> pytest.MarkDecorator:
    why = f"this server has no {', '.join(names)}"
    return pytest.mark.skipif(not {*names} <= AVAILABLE, reason=why)


POSTGIS = (
    "CREATE EXTENSION postgis;"
    "CREATE TABLE extent (id int PRIMARY KEY, geom geometry(Point, 4326));"
    "INSERT INTO extent VALUES (1, 'SRID=4326;POINT(7 51)');"
    "CREATE INDEX extent_geom ON extent USING gist (geom);"
    "ALTER TABLE extent OWNER TO ckan_default;"
    "INSERT INTO spatial_ref_sys VALUES (990000, 'ours', 1, '', '');"
    "GRANT SELECT, INSERT ON spatial_ref_sys TO ckan_default, datastore_default;"
)


@pytest.fixture
def make_template() -> Iterator[Callable[[], str]]:
    """Makes templates as the manual says."""
    made = []

    def make() -> str:
        text = MANUAL.read_text()
        block = re.search(
            r"\n\n(    sudo -u postgres createdb .*?)\n\n", text, re.DOTALL
        )
        assert block
        made.append(f"ckan_template_{secrets.token_hex(3)}")
        environment = {
            "PATH": f"{PG_BIN}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(SUPERUSER.port),
            "PGUSER": str(SUPERUSER.username),
            "PGPASSWORD": str(SUPERUSER.password),
        }
        # whoever runs this may be nobody's superuser on the machine
        script = block[1].replace("ckan_template", made[-1])
        script = script.replace("sudo -u postgres ", "")
        subprocess.run(["sh", "-ec", script], env=environment, check=True)
        return made[-1]

    yield make
    for name in made:
        query(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        query(f'DROP DATABASE "{name}" WITH (FORCE)')


def brought_back(portal: Portal, part: str) -> list[str]:
    """Takes a backup of a part and restores it: what was told meanwhile."""
    site, repository = portal.engine()
    heard = Heard()
    op = Operation(site, repository, heard)
    with repository.lock("backup"):
        taken = take.take(op, parts=(part,))
    with repository.lock("restore"):
        source = open_source(site, repository, taken.id)
        preflight(site, repository, source)
        restore.restore_backup(op, source)
    return heard.warned


def found(site: Site) -> list[str]:
    """What the doctor says of the rights."""
    found = checks.rights(None, site, None)  # type: ignore[arg-type]
    return [f"{state}: {text}" for state, text in found]


@needs("pg_stat_statements", "postgres_fdw")
def test_what_nothing_needs_is_left_out_with_a_word(portal: Portal) -> None:
    portal.sql(
        "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION postgres_fdw;"
        "CREATE EXTENSION pg_trgm; COMMENT ON EXTENSION pg_trgm IS 'for odd';"
        "CREATE INDEX odd ON package USING gin (title gin_trgm_ops);"
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE USER MAPPING FOR ckan_default SERVER elsewhere OPTIONS (user 'x');"
        "GRANT USAGE ON FOREIGN SERVER elsewhere TO ckan_default;"
        # rights on what is not in the copy are no rights that it has too many of
        "REVOKE ALL ON pg_stat_statements FROM PUBLIC;"
        "REVOKE EXECUTE ON FUNCTION pg_stat_statements(boolean) FROM PUBLIC;"
        "GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO ckan_default"
    )
    before = portal.state()
    site, _ = portal.engine()
    hints = [each for each in found(site) if each.startswith("hint")]
    assert len(hints) == 2 and "'pg_stat_statements'" in hints[0]
    said = brought_back(portal, "database")
    for name in ("pg_stat_statements", "postgres_fdw"):
        assert sum(name in each and "nothing needs it" in each for each in said) == 2
    said_of = "SELECT obj_description(oid) FROM pg_extension WHERE extname = 'pg_trgm'"
    assert portal.sql(said_of) == [("for odd",)]
    runs = [each for each in said if "superuser runs" in each]
    assert not any("pg_stat_statements" in each for each in runs)
    assert portal.state() == before
    left = portal.sql("SELECT extname FROM pg_extension ORDER BY 1")
    assert left == [("pg_trgm",), ("plpgsql",)]
    assert portal.sql("SELECT 1 FROM pg_indexes WHERE indexname = 'odd'")
    for each in runs:  # the server needs its extension, and says so
        portal.sql(each.partition("\n")[2])
    assert portal.sql("SELECT srvname FROM pg_foreign_server") == [("elsewhere",)]


@needs("postgis")
def test_postgis_is_named_refused_and_brought_by_the_manuals_template(
    portal: Portal, make_template: Callable[[], str]
) -> None:
    portal.sql(POSTGIS)
    site, _ = portal.engine()
    (said,) = missing_in_copies(site, site.databases["database"])
    assert "'postgis' of the database is needed (extent, extent_geom)" in said[0]
    assert any(each.startswith("problem: the extension") for each in found(site))
    oids = portal.oids()
    with pytest.raises(Refused, match="needs the extension 'postgis'") as refused:
        brought_back(portal, "database")
    assert "TABLE public.extent" in str(refused.value) and portal.oids() == oids
    portal.write(**{"ckanext.dbmanage.scratch_template": make_template()})
    portal.sql(
        "CREATE UNLOGGED TABLE since (); ALTER TABLE since OWNER TO ckan_default"
    )
    heard = brought_back(portal, "database")
    assert [each for each in heard if "needed" in each] == []
    assert any("spatial_ref_sys" in each and "its own" in each for each in heard)
    assert portal.sql("SELECT ST_X(geom) FROM extent") == [(7.0,)]
    assert portal.sql("SELECT 1 FROM pg_indexes WHERE indexname = 'extent_geom'")
    assert portal.sql("SELECT count(*) > 8000 FROM spatial_ref_sys") == [(True,)]
    # the DataStore is not made from the main database's
    brought_back(portal, "datastore")
    assert (
        portal.sql("SELECT 1 FROM pg_extension WHERE extname = 'postgis'", "datastore")
        == []
    )


@needs("postgis")
def test_postgis_in_the_datastore_has_a_template_of_its_own(
    portal: Portal, make_template: Callable[[], str]
) -> None:
    portal.sql(POSTGIS, "datastore")
    portal.write(**{"ckanext.dbmanage.scratch_template": "template0"})
    with pytest.raises(Refused, match="datastore_scratch_template = "):
        brought_back(portal, "datastore")
    portal.write(**{"ckanext.dbmanage.datastore_scratch_template": make_template()})
    brought_back(portal, "datastore")
    assert portal.sql("SELECT ST_X(geom) FROM extent", "datastore") == [(7.0,)]
    triggers = portal.sql(
        "SELECT 1 FROM pg_trigger WHERE tgrelid = 'spatial_ref_sys'::regclass",
        "datastore",
    )
    assert triggers == []


@needs("postgis")
def test_a_bare_dump_into_a_copy_says_it_too(portal: Portal, tmp_path: Path) -> None:
    portal.sql(POSTGIS)
    site, _ = portal.engine()
    file = tmp_path / "x.dump"
    address = portal.url("database", str(SUPERUSER.username), str(SUPERUSER.password))
    client(PG_BIN / "pg_dump", address, "-Fc", "-f", file)
    portal.sql("DROP EXTENSION postgis CASCADE")
    with (
        closing(site.databases["database"].connect()) as connection,
        pytest.raises(Refused, match="TABLE public.extent"),
    ):
        found = contents_of(File(file))
        extensions.left_out("database", found, connection, lambda _: None)
