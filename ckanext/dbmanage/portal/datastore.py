"""The DataStore's rights: those that core's `ckan datastore set-permissions` gives.

They are compared, and set where they are missing, on the DataStore's own tables. A site
may have others beside them: whose rights and triggers are the site's affair.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from psycopg2 import sql

from ..engine.errors import DbmanageError, message_of
from ..engine.postgres.again import again
from ..engine.postgres.database import Connection, Database, closing, query, quoted
from ..engine.report import Warn
from .isolated import Isolated

#: core makes this type at the first search, and fails when two come at once
_NESTED = """DO $$ BEGIN IF to_regtype('public.nested') IS NULL THEN
    CREATE TYPE public.nested AS (json json, extra text); END IF; END $$"""

#: tables that core made, and the aliases of them: all others are the site's own
_OWN = """SELECT c.oid, relname, relkind FROM pg_class c
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
    AND NOT starts_with(relname, '_')
    AND 2 = (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid
             AND NOT attisdropped AND (attname = '_id' OR attname = '_full_text'
                                       AND atttypid = 'tsvector'::regtype))"""
_EACH = """DO $body$ DECLARE each regclass; BEGIN
    FOR each IN SELECT oid FROM ({own}) o WHERE {where} LOOP
        EXECUTE format('{statement}', each);
    END LOOP; END $body$;"""

#: what core does to all tables, and what is done to the DataStore's instead
_GRANT = re.compile(r"^GRANT SELECT ON ALL TABLES [^;]*;$", re.MULTILINE)
_TRIGGERS = re.compile(r"^DO \$body\$.*?^\$body\$;$", re.MULTILINE | re.DOTALL)
_OWN_TRIGGERS = _EACH.format(
    own=_OWN,
    where="relkind = 'r' AND NOT EXISTS (SELECT FROM pg_trigger"
    " WHERE tgrelid = oid AND tgname = 'zfulltext')",
    statement="CREATE TRIGGER zfulltext BEFORE INSERT OR UPDATE ON %s"
    " FOR EACH ROW EXECUTE PROCEDURE public.populate_full_text_trigger()",
)


_SETTING = "setting the permissions of the DataStore"


class _Rights(NamedTuple):
    """What the reading role may do, and how many tables it cannot read, can write."""

    may_make: bool
    may_use: bool
    may_list: bool
    will_read: bool
    cannot: int
    can: int

    @property
    def brought(self) -> bool:
        """Whether somebody has given rights here: then none were left out."""
        return self.may_use and self.may_list and self.will_read


_RIGHTS = f"""
SELECT has_schema_privilege(%(reader)s, 'public', 'CREATE'),
    has_schema_privilege(%(reader)s, 'public', 'USAGE'),
    coalesce(has_table_privilege(%(reader)s, to_regclass('public._table_metadata'),
                                 'SELECT'), true),
    EXISTS (SELECT 1 FROM pg_default_acl, aclexplode(defaclacl) a
            WHERE defaclobjtype = 'r' AND privilege_type = 'SELECT'
            AND a.grantee = (SELECT oid FROM pg_roles WHERE rolname = %(reader)s)),
    (SELECT count(*) FROM ({_OWN}) o
     WHERE NOT has_table_privilege(%(reader)s, oid, 'SELECT')),
    (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace
     AND relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege(
         %(reader)s, oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
"""  # noqa: S608


def permissions(store: Database, main: Database) -> str:
    """The SQL of core's `ckan datastore set-permissions`, for the DataStore itself."""
    from ckanext.datastore.cli import permissions_sql

    script = permissions_sql(
        maindb=store.name,  # its CONNECT is given back three lines further on
        datastoredb=store.name,
        mainuser=main.role,
        writeuser=store.role,
        readuser=_reader(store),
    )
    lines = script.splitlines()
    return "\n".join(line for line in lines if not line.startswith("\\connect"))


def _reader(store: Database) -> str:
    assert store.read_url is not None
    return store.role_of(store.read_url)


def set_permissions(
    store: Database, main: Database, warn: Warn = lambda _: None
) -> None:
    """Runs core's script on the DataStore's own tables, as its owner, all of it.

    Measured: the owner may run all of it, no superuser is needed. Tells of what is
    tried again. Raises DbmanageError.
    """

    def set_all() -> None:
        with closing(store.connect()) as connection:
            _run(connection, store, main, True)

    again(_SETTING, set_all, warn)


def bring_permissions(
    store: Database, main: Database, warn: Warn = lambda _: None
) -> None:
    """Sets on a restored or migrated copy what its archive could not bring.

    What came with it stays as it was: a table that the site closed stays closed. Tells
    of what is tried again. Raises DbmanageError.
    """

    def bring() -> None:
        with closing(store.connect()) as connection:
            rights = _rights(connection, store)
            missing = _missing(connection, permissions(store, main))
            if missing or rights.may_make or not rights.brought:
                _run(connection, store, main, not rights.brought)
            else:
                with connection:
                    query(connection, _NESTED)

    again(_SETTING, bring, warn)


def _run(
    connection: Connection, store: Database, main: Database, opening: bool
) -> None:
    script = permissions(store, main)
    # who has the function had each table's trigger, or took it away
    new = ("FUNCTION", "populate_full_text_trigger") in _missing(connection, script)
    reader = sql.Identifier(_reader(store)).as_string(connection).replace("'", "''")
    grant = _EACH.format(
        own=_OWN,
        where="true",
        statement=f"GRANT SELECT ON %s TO {reader.replace('%', '%%')}",
    )
    script = _TRIGGERS.sub(lambda _: _OWN_TRIGGERS if new else "", script)
    script = _GRANT.sub(lambda _: grant if opening else "", script)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL search_path = public")
            cursor.execute(script)
            cursor.execute(_NESTED)
    except Exception as error:
        raise DbmanageError(
            f"the permissions of the DataStore could not be set: {message_of(error)}"
        ) from error


def _missing(connection: Connection, script: str) -> list[tuple[str, str]]:
    """The views and functions of the script that are not there: kind and name."""
    made = re.findall(r"CREATE OR REPLACE (VIEW|FUNCTION) \"?(\w+)\"?", script)
    there = query(
        connection,
        "SELECT 'FUNCTION', proname FROM pg_proc UNION SELECT 'VIEW', relname"
        " FROM pg_class WHERE relkind = 'v'",
    )
    return [each for each in made if each not in there]


def _rights(connection: Connection, store: Database) -> _Rights:
    return _Rights(*query(connection, _RIGHTS, {"reader": _reader(store)})[0])


def unset_permissions(store: Database, main: Database) -> Iterator[str]:
    """What of core's `datastore set-permissions` is not in force, and it sets."""
    reader = _reader(store)
    with closing(store.connect()) as connection:
        for kind, name in _missing(connection, permissions(store, main)):
            yield f"the {kind.lower()} {name} is missing"
        if reader == store.role:
            return
        rights = _rights(connection, store)
        if rights.may_make:
            yield f"the reading role {reader!r} may make tables"
        if not (rights.may_use and rights.may_list):
            yield f"the reading role {reader!r} may not read"
        if not rights.will_read:
            yield f"the reading role {reader!r} will not be able to read new tables"
        if rights.cannot:
            yield f"the reading role {reader!r} may not read {rights.cannot} tables"


def excess(store: Database) -> Iterator[str]:
    """What the reading role may do and should not, with what takes it away."""
    reader = _reader(store)
    if reader == store.role:
        yield f"CKAN reads as {reader!r}, which may write: set another read_url"
        return
    with closing(store.connect()) as connection:
        if can := _rights(connection, store).can:
            yield (
                f"the reading role {reader!r} may write to {can} tables: if that is "
                "not meant, REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN "
                f"SCHEMA public FROM {quoted(reader)};"
            )


#: until 2.10 a field's description was all there was in its column's comment
_OLD_FIELDS = """SELECT 1 FROM pg_description d JOIN pg_class c ON c.oid = objoid
    WHERE classoid = 'pg_class'::regclass AND objsubid > 0 AND relkind = 'r'
    AND relnamespace = 'public'::regnamespace AND description LIKE '{%' LIMIT 1"""


def set_up_datastore(ckan: Isolated, warn: Warn) -> None:
    """Makes of a copy of the DataStore what the installed CKAN wants.

    Its permissions are set, where they are missing, and its data dictionary is brought
    up to date, as by `ckan datastore upgrade`. Raises ToolFailed, DbmanageError.
    """
    from ckanext.datastore.cli import datastore

    store = ckan.copies["datastore"]
    bring_permissions(store, ckan.options.databases["database"], warn)
    with closing(store.connect()) as connection:
        old = query(connection, _OLD_FIELDS.replace("%", "%%"))
    if old and "upgrade" in datastore.commands and "database" in ckan.copies:
        ckan.command(["datastore"], "datastore", "upgrade")
