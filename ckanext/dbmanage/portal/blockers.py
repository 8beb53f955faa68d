"""What would make CKAN's migrations fail or lose something, seen before they run.

Each problem comes with the command that mends it. The cases were measured: addresses
that differ by case only, extras without a value, views on tables that go, indexes that
somebody dropped. Lost without a word are repeated and inactive extras and the history
of revisions.
"""

import ast
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.postgres.database import Connection, literal, query, quoted, server_major
from ..engine.words import size

#: the revision that wants e-mail addresses to be one of a kind whatever their case
_ONE_EMAIL = "f7b64c701a10"
#: rows of these come back as a column, the history of revisions nowhere
_EXTRAS = {"package_extra": "package", "group_extra": "group"}


@dataclass
class Drops:
    """What the scripts of migrations take away: tables, and `(index, table)`.

    The table is empty where the script does not name it.
    """

    tables: set[str] = field(default_factory=set)
    indexes: list[tuple[str, str]] = field(default_factory=list)


def drops(scripts: Iterable[Path]) -> Drops:
    """Reads what scripts of alembic drop, in their order.

    Only indexes that must be there: one that is dropped on a condition, or that an
    earlier one of these scripts makes, is not counted.
    """
    found, earlier = Drops(), ""
    for script in scripts:
        text = script.read_text("utf-8")
        for function in ast.parse(text).body:
            if isinstance(function, ast.FunctionDef) and function.name == "upgrade":
                for node in ast.walk(function):
                    name, words, _ = _call(node)
                    if name == "drop_table" and words[0]:
                        found.tables.add(words[0])
                for statement in function.body:
                    name, words, named = _call(getattr(statement, "value", None))
                    if name != "drop_index" or named.get("if_exists") == "True":
                        continue
                    index, table = words[0], named.get("table_name") or words[1]
                    if index and index not in earlier:
                        found.indexes.append((index, table))
        earlier += text
    return found


def _call(node: ast.AST | None) -> tuple[str, list[str], dict[str, str]]:
    """The function, the first two words and the named words of `op.…("word", …)`.

    They are empty for anything else, and for a word that is not written out.
    """
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return "", ["", ""], {}
    words = [str(a.value) if isinstance(a, ast.Constant) else "" for a in node.args]
    named = {
        each.arg: str(each.value.value)
        for each in node.keywords
        if each.arg and isinstance(each.value, ast.Constant)
    }
    return node.func.attr, [*words, "", ""], named


def blockers(
    connection: Connection, revisions: Sequence[str], dropped: Drops
) -> Iterator[str]:
    """What these pending revisions of core will fail at, with what mends it."""
    if _ONE_EMAIL in revisions:
        yield from emails(connection)
    for table, owner in _EXTRAS.items():
        if table in dropped.tables and _is_there(connection, table):
            ((count,),) = query(
                connection,
                f"SELECT count(*) FROM public.{table}"  # noqa: S608
                " WHERE state = 'active' AND (key IS NULL OR value IS NULL)",
            )
            if count:
                yield (
                    f"{count} active extras of {owner}s have no key or no value, which "  # noqa: S608
                    "the new schema does not take. They show as nothing; remove them:"
                    f"\n    DELETE FROM public.{table} WHERE state = 'active'"
                    " AND (key IS NULL OR value IS NULL);"
                )
    yield from _dependents(connection, dropped.tables)
    yield from _missing(connection, dropped)


def _missing(connection: Connection, dropped: Drops) -> Iterator[str]:
    """What the scripts drop and is not there, with what makes something of its name."""
    made = [(i, t) for i, t in dropped.indexes if not _is_there(connection, i)]
    for table in sorted({t for _, t in made}):
        there = not table or _is_there(connection, table)
        indexes = [index for index, of in made if of == table]
        # an index is dropped by its name, whatever it is of
        on = quoted("public", table or "alembic_version")
        lines = [f"CREATE INDEX {quoted(i)} ON {on} ((1));" for i in indexes]
        if not there:
            lines.insert(0, f"CREATE TABLE {on} ();")
        what = f"table {table}"
        if there:
            what = f"indexes of the {what}" if table else "indexes"
        yield (
            f"the {what}, to be dropped, {'are' if there else 'is'} not there "
            f"({', '.join(indexes)}). Make them, for the migration to drop:\n    "
            + "\n    ".join(lines)
        )


#: what this extension and CKAN are tested with
_OLDEST = 14


def server(connection: Connection, oldest: int = _OLDEST) -> Iterator[str]:
    """A server that is older than what CKAN and this extension work with."""
    major = server_major(connection)
    if major < oldest:
        yield (
            f"the server is PostgreSQL {major}, and {oldest} is the oldest that will "
            "do: upgrade it first, on Debian\n    pg_upgradecluster"
            f" {major} main"
        )


def room(
    connection: Connection, databases: Sequence[str], repository: Path
) -> Iterator[str]:
    """Too little room for a backup of these databases, and for a copy of them.

    The disk of the server counts if it is this machine's and the connection's role may
    know the directory.
    """
    ((needed,),) = query(
        connection,
        "SELECT coalesce(sum(pg_database_size(datname)), 0)::bigint FROM pg_database"
        " WHERE datname = ANY(%s)",
        list(databases),
    )
    places = {"the repository": _existing(repository)}
    rows = query(
        connection,
        "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
        " AND coalesce(inet_server_addr() = inet_client_addr(), true)",
    )
    for (directory,) in rows:
        places["PostgreSQL's data"] = Path(directory)
    for what, path in places.items():
        try:
            free = shutil.disk_usage(path).free
        except OSError:
            continue
        if free < needed:
            yield (
                f"{size(free)} are free for {what} in {path}, and the databases have "
                f"{size(needed)}: make room, for backups by\n"
                "    ckan db prune"
            )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def emails(connection: Connection) -> Iterator[str]:
    """Active users that share an address but for its case."""
    found = query(
        connection,
        'SELECT min(email), array_agg(name ORDER BY name) FROM public."user"'
        " WHERE state = 'active' AND email IS NOT NULL"
        " GROUP BY lower(email) HAVING count(*) > 1 ORDER BY 1",
    )
    for email, names in found:
        users = ", ".join(map(_shown, names))
        yield (
            f"the users {users} have the same e-mail address"  # noqa: S608
            f"{f' ({_shown(email)})' if email else ', an empty one'}, but for its case."
            " Give all but one another one, or none:\n    "
            'UPDATE public."user" SET email = NULL '
            f"WHERE name = {literal(names[-1])};"
        )


def _shown(text: str) -> str:
    """A text of a user's on one line, so that it cannot look like a command."""
    return text if text.isprintable() else ascii(text)


def _dependents(connection: Connection, tables: set[str]) -> Iterator[str]:
    views = query(
        connection,
        "SELECT DISTINCT v.relkind, s.nspname, v.relname, t.relname FROM pg_depend d"
        " JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
        " JOIN pg_class v ON v.oid = r.ev_class"
        " JOIN pg_namespace s ON s.oid = v.relnamespace"
        " JOIN pg_class t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid"
        " WHERE t.relname = ANY(%s) AND v.oid <> t.oid ORDER BY 2, 3",
        sorted(tables),
    )
    for kind, schema, name, table in views:
        what = "MATERIALIZED VIEW" if kind == "m" else "VIEW"
        view = quoted(schema, name)
        yield (
            f"the view {view} needs the table {table}, which the migration drops. Keep "
            f"its definition (`pg_dump -t {shlex.quote(view)}`) and drop it:\n"
            f"    DROP {what} {view};"
        )
    keys = query(
        connection,
        "SELECT conname, s.nspname, o.relname, r.relname FROM pg_constraint"
        " JOIN pg_class r ON r.oid = confrelid JOIN pg_class o ON o.oid = conrelid"
        " JOIN pg_namespace s ON s.oid = o.relnamespace"
        " WHERE contype = 'f' AND r.relname = ANY(%s) AND o.relname <> ALL(%s)"
        " ORDER BY 1",
        sorted(tables),
        sorted(tables),
    )
    for key, schema, name, table in keys:
        owner = quoted(schema, name)
        yield (
            f"the table {owner} has a foreign key on {table}, which the migration "
            f"drops:\n    ALTER TABLE {owner} DROP CONSTRAINT {quoted(key)};"
        )


def losses(connection: Connection, dropped: Drops) -> Iterator[str]:
    """What these migrations take away without a word."""
    for table, owner in _EXTRAS.items():
        if table not in dropped.tables or not _is_there(connection, table):
            continue
        ((inactive, repeated),) = query(
            connection,
            "SELECT count(*) FILTER (WHERE state <> 'active'),"  # noqa: S608
            " count(*) FILTER (WHERE state = 'active')"
            f" - count(DISTINCT ({owner}_id, key)) FILTER (WHERE state = 'active')"
            f" FROM public.{table}",
        )
        if inactive:
            yield f"{inactive} deleted extras of {owner}s are not kept"
        if repeated:
            yield f"of {repeated} repeated extras of {owner}s one value is kept"
    for table in sorted(dropped.tables - set(_EXTRAS)):
        if _is_there(connection, table):
            ((rows,),) = query(
                connection,
                f"SELECT count(*) FROM public.{quoted(table)}",  # noqa: S608
            )
            if rows:
                yield f"{rows} rows of {table}, which CKAN has no use for, are not kept"


def extras(connection: Connection) -> dict[str, int]:
    """How many extras datasets and groups have, before or after they were moved."""
    found = {}
    for table, owner in _EXTRAS.items():
        if _is_there(connection, table):
            statement = (
                f"SELECT count(DISTINCT ({owner}_id, key))"  # noqa: S608
                f" FROM public.{table} WHERE state = 'active'"
            )
        else:
            statement = (
                f'SELECT count(*) FROM public."{owner}",'  # noqa: S608
                " jsonb_object_keys(extras)"
            )
        ((found[owner],),) = query(connection, statement)
    return found


def _is_there(connection: Connection, name: str) -> bool:
    return query(
        connection, "SELECT to_regclass(%s)::text", f"public.{quoted(name)}"
    ) != [(None,)]
