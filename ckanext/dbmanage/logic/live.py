"""What stands in the live databases, counted for a page."""

from typing import Any

from psycopg2 import errors

from ..engine.postgres.database import closing, query
from ..engine.postgres.tables import count_rows, tables_of
from ..engine.repository.backup import Backup
from ..engine.site import Site

#: tables of the portal itself, and nobody else's
_OURS = (
    "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE relkind IN ('r', 'p') AND nspname = 'public'"
)


def rows_now(site: Site, found: Backup) -> list[dict[str, Any]] | None:
    """The rows of each table in the backup and now, where they differ.

    `{part, table, then, now}`, the largest difference first; None when counting took
    longer than anybody waits for a page. Raises ConnectionFailed.
    """
    try:
        differing = _differing(site, found)
    except (errors.QueryCanceled, errors.LockNotAvailable):
        return None
    return sorted(differing, key=lambda e: -abs((e["then"] or 0) - (e["now"] or 0)))


def _differing(site: Site, found: Backup) -> list[dict[str, Any]]:
    differing = []
    for part, about in found.manifest.get("databases", {}).items():
        if part not in site.databases:
            continue
        then = about.get("rows") or {}
        with closing(site.databases[part].connect()) as connection:
            connection.autocommit = True
            limits = "SET statement_timeout = '20s'; SET lock_timeout = '3s'"
            query(connection, limits)
            names = [(schema, table) for schema, table, *_ in tables_of(connection)]
            live = count_rows(connection, names)
        for table in sorted(set(then) | set(live)):
            if then.get(table) != live.get(table):
                row = {"part": part, "table": table}
                differing.append(
                    row | {"then": then.get(table), "now": live.get(table)}
                )
    return differing


def table_sizes(site: Site) -> dict[str, Any]:
    """What fills the databases, by part: `{bytes, tables, largest}`.

    `largest` is a list of `{table, bytes, rows, resource}`; rows are the planner's
    estimate, `resource` is `{name, dataset, title}` of the one whose data the table
    has, None for other tables. Raises ConnectionFailed.
    """
    found: dict[str, Any] = {}
    for part, database in site.databases.items():
        with closing(database.connect()) as connection:
            (whole,) = query(
                connection,
                f"SELECT pg_database_size(current_database()), count(*) {_OURS}",
            )
            rows = query(
                connection,
                "SELECT relname, pg_total_relation_size(c.oid),"
                f" greatest(reltuples, 0)::bigint {_OURS} ORDER BY 2 DESC, 1 LIMIT 8",
            )
        names = ("table", "bytes", "rows")
        found[part] = {
            "bytes": whole[0],
            "tables": whole[1],
            "largest": [dict(zip(names, row, strict=True)) for row in rows],
        }
    every = [table for about in found.values() for table in about["largest"]]
    with closing(site.main.connect()) as connection:
        rows = query(connection, _RESOURCES, [table["table"] for table in every])
    names = ("name", "dataset", "title")
    resources = {id: dict(zip(names, about, strict=True)) for id, *about in rows}
    for table in every:
        table["resource"] = resources.get(table["table"])
    return found


#: a table of the DataStore has the id of its resource
_RESOURCES = (
    "SELECT r.id, r.name, p.name, p.title FROM public.resource r"
    " JOIN public.package p ON p.id = r.package_id WHERE r.id = ANY(%s)"
)
