"""What pg_restore leaves out is made, or told with its SQL."""

import re
from collections.abc import Iterable
from dataclasses import replace

import psycopg2.errors

from ..archive import rights
from ..archive.contents import Contents, Entry, read_contents
from ..backup.dump import dumping
from ..postgres.again import passes
from ..postgres.database import Connection, Database, closing, query
from ..postgres.programs import finish
from .compared import Comparison
from .faithful import RIGHTS, Loaded, names_of

#: what the server says of a thing that is not there
_UNDEFINED = (
    psycopg2.errors.InvalidSchemaName,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.UndefinedTable,
)
#: kinds that only say something about another entry
_ABOUT = (*RIGHTS, "COMMENT", "SECURITY LABEL")


def complete(loaded: Loaded) -> None:
    """Makes a loaded copy what the archive says, and tells what stays another.

    Of an unsigned archive no SQL is run here but GRANT and REVOKE made of their parts,
    and none is told. Raises Refused when somebody may do in the copy what the archive
    does not say.
    """
    plan, copy, pg_bin = loaded.plan, loaded.scratch.database, loaded.op.site.pg_bin
    with closing(copy.connect()) as connection:
        connection.autocommit = True
        _make_left(loaded, connection)
        if loaded.signed:
            _comment_extensions(loaded, connection)
        found = _without_absent(loaded.found, connection)
        compared = Comparison(found, contents_of_copy(copy, pg_bin), plan)
        for wanted in (Comparison.owners, Comparison.rights):
            if work := wanted(compared):
                for statements in work:
                    _try(connection, statements)
                compared = replace(compared, there=contents_of_copy(copy, pg_bin))
    if plan.tablespaces:
        loaded.op.warn(
            f"the tablespaces {', '.join(plan.tablespaces)} are not there or not "
            "CKAN's to use: what was in them is in the database's own"
        )
    compared.tell_owners(loaded)
    compared.tell_rights(loaded)


def _make_left(loaded: Loaded, connection: Connection) -> None:
    """Makes what can be made after all of the entries that were left out."""
    left = []
    for entry in _later(loaded):
        usual = (
            entry.kind == "COMMENT" and "'standard public schema'" in entry.statement
        )
        tried = loaded.signed and entry.kind != "SUBSCRIPTION"
        if not (tried and _try(connection, [entry.statement])) and not usual:
            left.append(entry)
    if left:
        named = ", ".join(str(entry) for entry in left if entry.kind not in _ABOUT)
        loaded.ask_superuser(
            f"left out, for only a superuser can make it: {named or names_of(left)}.",
            map(_shown, left),
        )


def _later(loaded: Loaded) -> list[Entry]:
    """Those of the entries left out that are neither rights nor there already.

    An extension that is told already is told with its SQL where that of others needs
    it.
    """
    plan = loaded.plan
    needed = frozenset[int]().union(*(e.needs for e in plan.left.values()))
    return [
        entry
        for entry in loaded.found.entries
        if entry.id in loaded.left
        and entry.statement
        and (
            entry.id in plan.left
            or (entry.kind == "COMMENT" and not _is_of_extension(entry))
            or (entry.kind == "EXTENSION" and entry.id in needed)
        )
    ]


def _is_of_extension(entry: Entry) -> bool:
    """Whether a comment is an extension's."""
    return entry.kind == "COMMENT" and entry.name.startswith("EXTENSION ")


def _comment_extensions(loaded: Loaded, connection: Connection) -> None:
    """Gives extensions their owner's word; one that a template brings keeps its own."""
    for entry in loaded.found.entries:
        if _is_of_extension(entry):
            _try(connection, [entry.statement])


def _shown(entry: Entry) -> str:
    """An entry's SQL without what may be a password."""
    text = entry.statement.strip()
    if entry.kind in ("SUBSCRIPTION", "USER MAPPING"):
        text = re.sub(r"'(?:[^']|'')*'", "'***'", text)
    return text


def _try(connection: Connection, statements: Iterable[str]) -> bool:
    """Runs statements in one transaction, all or none; whether it could be done.

    Raises psycopg2.Error for what may work a moment later: it must not be left out.
    """
    try:
        query(connection, "BEGIN")
        query(connection, "SET LOCAL search_path = pg_catalog")
        # as pg_restore does: a function may name what is not there any more
        query(connection, "SET LOCAL check_function_bodies = off")
        for statement in statements:
            query(connection, statement)
        query(connection, "COMMIT")
        return True
    except psycopg2.Error as error:
        # of another server's connection (08...), which the statement is about
        if passes(error) and not (error.pgcode or "").startswith("08"):
            raise
        query(connection, "ROLLBACK")
        return False


def contents_of_copy(copy: Database, pg_bin: str) -> Contents:
    """What pg_dump says of the copy."""
    with dumping(copy, pg_bin, "-s", "-Z0") as process:
        try:
            return read_contents(process.stdout, "the copy")
        finally:
            while process.stdout.read(1 << 18):
                pass
            # where too little came, what it said is the reason
            finish(process, "comparing the copy with the archive")


def _without_absent(found: Contents, connection: Connection) -> Contents:
    """The archive without the rights on what an extension brought that is not here."""
    ids = {entry.id for entry in found.entries}
    absent = {
        entry.id
        for entry in found.entries
        if entry.kind == "ACL"
        and ids.isdisjoint(entry.needs)
        and _is_absent(entry, connection)
    }
    kept = [entry for entry in found.entries if entry.id not in absent]
    return replace(found, entries=kept)


def _is_absent(entry: Entry, connection: Connection) -> bool:
    """Whether there is nothing of the name that rights are about; changes nothing."""
    for right in rights.read(entry)[:1]:
        # everybody is there: what is not found is the thing
        asked = replace(right, role="PUBLIC", suffix="", by="").sql()
        query(connection, "BEGIN")
        try:
            query(connection, "SET LOCAL search_path = pg_catalog")
            query(connection, asked)
        except _UNDEFINED:
            return True
        except psycopg2.Error:
            return False
        finally:
            query(connection, "ROLLBACK")
    return False
