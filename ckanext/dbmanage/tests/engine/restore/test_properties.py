"""What a restore does and tells with small databases of the odd kind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.errors import ToolFailed
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.postgres.database import Database
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.restore import restore
from ckanext.dbmanage.engine.restore.completed import contents_of_copy
from ckanext.dbmanage.engine.restore.copies import loaded_copies
from ckanext.dbmanage.engine.restore.preflight import changed_owners, preflight
from ckanext.dbmanage.engine.restore.source import Source, open_source
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import PASSWORD, PG_BIN, SUPERUSER, client, query
from ...support.heard import Heard
from ...support.portal import Portal

CKAN = 'CREATE TABLE public.package (id int); CREATE TABLE public."user" (id int);'


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
        return open_source(self.site, self.repository, taken.id)

    def told(self, source: Source) -> str:
        """What is said before and while a copy is made."""
        heard = Heard()
        heard.warned += changed_owners(self.site, source)
        op = Operation(self.site, self.repository, heard)
        with loaded_copies(op, source, lambda *_: None):
            return "\n".join(heard.warned)


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


def test_what_others_wrote_is_not_offered_to_a_superuser(
    small: Callable[..., Small], tmp_path: Path
) -> None:
    made = small()
    query(
        "CREATE FUNCTION public.trap() RETURNS int LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT 1'; CREATE SCHEMA theirs AUTHORIZATION datastore_default;"
        "CREATE PUBLICATION all_of_it FOR ALL TABLES;"
        "GRANT USAGE ON SCHEMA theirs TO ckan_default;"
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public"
        " GRANT ALL ON TABLES TO datastore_default",
        made.name,
    )
    signed = made.told(made.backup())
    assert 'ALTER FUNCTION public.trap() OWNER TO "postgres";' in signed
    assert 'GRANT "datastore_default" TO "ckan_default";' in signed
    assert "ALTER DEFAULT PRIVILEGES" in signed and "CREATE PUBLICATION" in signed
    # who follows that makes CKAN's role a superuser
    assert 'GRANT "postgres"' not in signed
    superuser = make_url(made.url).set(
        username=SUPERUSER.username, password=SUPERUSER.password
    )
    file = tmp_path / "x.dump"
    address = superuser.render_as_string(hide_password=False)
    client(PG_BIN / "pg_dump", address, "-Fc", "-f", file)
    unsigned = made.told(open_source(made.site, made.repository, str(file), trust=True))
    assert "FUNCTION public.trap()" in unsigned and "PUBLICATION all_of_it" in unsigned
    assert not any(word in unsigned for word in ("ALTER ", "GRANT ", "CREATE "))


def test_a_comment_in_the_database_s_own_encoding_is_kept(
    small: Callable[..., Small],
) -> None:
    made = small("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    made.own(
        'CREATE TABLE "Übersicht" AS SELECT \'Größe\' AS "Größe";'
        f"COMMENT ON DATABASE {made.name} IS 'f''ür\\alle $$'"
    )
    comment = (
        "SELECT textsend(shobj_description(oid, 'pg_database'))::text"
        f" FROM pg_database WHERE datname = '{made.name}'"
    )
    before = query(comment)
    assert before == [("\\x" + "f'ür\\alle $$".encode("latin-1").hex(),)]
    source = made.backup()
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'Übersicht'"
    made.own('DROP TABLE "Übersicht"')
    with made.repository.lock("restore"):
        preflight(made.site, made.repository, source)
        restore.restore_backup(Operation(made.site, made.repository), source)
    for count in (1, 0, 1):
        assert query(tables, made.name) == [(count,)]
        assert query(comment) == before
        with made.repository.lock("undo"):
            restore.undo_switch(Operation(made.site, made.repository))
    query(f"COMMENT ON DATABASE {made.name} IS NULL")
    with made.repository.lock("undo"):
        restore.undo_switch(Operation(made.site, made.repository))
    assert query(comment) == [(None,)]


def test_why_a_copy_cannot_be_compared_is_told(small: Callable[..., Small]) -> None:
    made = small()
    query("CREATE TABLE public.closed (x int)", made.name)
    database = made.site.databases["database"]
    with pytest.raises(ToolFailed, match="comparing .* permission denied .* closed"):
        contents_of_copy(database, str(PG_BIN))


@pytest.mark.smoke
def test_what_belongs_to_the_database_is_copied(portal: Portal) -> None:
    name = portal.names["database"]
    for statement in (
        "ALTER DATABASE {} SET work_mem = '7MB'",
        'ALTER DATABASE {} SET search_path = public, "odd, schema"',
        "ALTER ROLE ckan_default IN DATABASE {} SET statement_timeout = '1h'",
        "COMMENT ON DATABASE {} IS 'the portal''s 100% own'",
        "ALTER DATABASE {} CONNECTION LIMIT 77",
        "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {} TO datastore_default",
    ):
        query(statement.format(f'"{name}"'))
    properties = (
        "SELECT shobj_description(oid, 'pg_database'), datconnlimit, pg_get_userbyid(datdba),"
        " (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), encoding, datcollate,"
        " (SELECT array_agg(setrole || array_to_string(setconfig, ';') ORDER BY 1)"
        " FROM pg_db_role_setting WHERE setdatabase = d.oid)"
        " FROM pg_database d WHERE datname = %s"
    )
    before = query(properties, "postgres", name)
    oids = portal.oids()
    portal.backup()
    portal.module("restore", "latest", "--yes", "--no-backup")
    assert not set(portal.oids()) & set(oids)
    assert query(properties, "postgres", name) == before


def test_rights_of_a_role_that_is_gone_are_left_out(portal: Portal, role) -> None:
    analyst = role("dbm_analyst", "")
    portal.sql(f"GRANT SELECT ON package TO {analyst}")
    portal.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {analyst}", "datastore")
    portal.backup()
    for part in ("database", "datastore"):
        portal.sql(f"DROP OWNED BY {analyst}", part)
    query(f"DROP ROLE {analyst}")
    before = portal.state()
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert analyst in done.stderr and "Warning" in done.stderr
    assert portal.state() == before
    reader = psycopg2.connect(portal.options["ckan.datastore.read_url"])
    with closing(reader), reader.cursor() as cursor:
        cursor.execute('SELECT count(*) FROM "00000001-0000-4000-8000-000000000000"')
        assert cursor.fetchone() == (50,)
