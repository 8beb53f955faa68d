"""What emptying a database takes, what goes with it, and what stays.

The site's tables are those in schema public that its role may drop. Nothing is changed
here.
"""

from dataclasses import dataclass

from .database import Connection, query

_RELATIONS = """
SELECT c.oid, nspname::text, relname::text, relkind::text, pg_get_userbyid(relowner),
       pg_has_role(relowner, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'
  AND nspname !~ '^pg_' AND nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                  AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
ORDER BY 2, 3"""
#: what DROP … CASCADE takes of what is not dropped itself; a rule goes with its view
_DEPENDENT = """
WITH RECURSIVE gone AS (
    SELECT 'pg_class'::regclass::oid AS class, o AS id FROM unnest(%(oids)s::oid[]) o
    UNION SELECT next.* FROM gone, LATERAL (
        SELECT d.classid, d.objid FROM pg_depend d
        WHERE d.refclassid = gone.class AND d.refobjid = gone.id
        UNION ALL SELECT 'pg_class'::regclass::oid, ev_class FROM pg_rewrite w
        WHERE gone.class = 'pg_rewrite'::regclass AND w.oid = gone.id) next)
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
            ELSE 'table' END || format(' %%I.%%I', nspname, relname)
FROM gone JOIN pg_class c ON class = 'pg_class'::regclass AND c.oid = id
JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND c.oid <> ALL(%(oids)s::oid[])
UNION SELECT 'function ' || id::regprocedure FROM gone
WHERE class = 'pg_proc'::regclass
UNION SELECT format('foreign key %%I of %%s', conname, conrelid::regclass) FROM gone
JOIN pg_constraint k ON class = 'pg_constraint'::regclass AND k.oid = id
WHERE contype = 'f' AND conrelid <> ALL(%(oids)s::oid[])
ORDER BY 1"""


@dataclass(frozen=True)
class Emptying:
    """`tables` (schema, name) are dropped; sentences of what goes along, what stays."""

    tables: list[tuple[str, str]]
    along: list[str]
    stays: list[str]


def emptying(connection: Connection) -> Emptying:
    """What emptying this database means."""
    found = query(connection, _RELATIONS)
    mine = [
        row for row in found if row[1] == "public" and row[3] in ("r", "p") and row[5]
    ]
    oids = [row[0] for row in mine]
    along = [row[0] for row in query(connection, _DEPENDENT, {"oids": oids})]
    stays = []
    for _, schema, name, kind, owner, may in found:
        what = _KINDS.get(kind, "table")
        if f"{what} {schema}.{name}" in along or (schema, name) in _names(mine):
            continue
        why = f"it belongs to {owner!r}" if not may else "it is in another schema"
        if may and schema == "public":
            why = "it reads none of the site's tables"
        stays.append(f"the {what} {schema}.{name} ({why})")
    return Emptying(sorted(_names(mine)), along, stays)


_KINDS = {"v": "view", "m": "materialized view"}


def _names(rows: list[tuple]) -> set[tuple[str, str]]:
    return {(row[1], row[2]) for row in rows}


def is_taken(connection: Connection, names: set[str]) -> bool:
    """Whether tables stand where the site would make its own.

    Those that its role owns in schema public, or of these names; not what emptying a
    database leaves.
    """
    return any(
        schema == "public" and ((kind in ("r", "p") and may) or name in names)
        for _, schema, name, kind, _, may in query(connection, _RELATIONS)
    )
