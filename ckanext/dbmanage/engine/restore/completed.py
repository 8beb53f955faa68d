"""Faithful copies: what an archive holds comes back as it was, or is told with its SQL.

CKAN's role may not make everything that a dump holds, nor give everything to whom it
belonged. `plan` says so before anything is touched: it needs the archive and a
connection to the server. `complete` does after the load what pg_restore cannot do as
this role, compares owners and rights with those of the archive, and refuses a copy in
which somebody may do more than before. Must not know CKAN.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import psycopg2
import psycopg2.errors

from ..archive import extensions, rights
from ..archive.contents import Contents, Entry, read_contents
from ..archive.rights import Difference, Right, Rights, role_sql
from ..errors import ConnectionFailed, Refused
from ..postgres.database import (
    Connection,
    Database,
    closing,
    query,
    server_major,
    unlimited,
)
from ..postgres.programs import dump_tools, finish, running
from ..report import Warn
from ..site import Site

#: kinds that only a superuser makes
_SUPERUSERS = (
    "ACCESS METHOD", "EVENT TRIGGER", "FOREIGN DATA WRAPPER", "OPERATOR CLASS",
    "OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "PUBLICATION TABLES IN SCHEMA",
    "SECURITY LABEL", "SERVER", "SHELL TYPE", "SUBSCRIPTION", "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE", "USER MAPPING",
)  # fmt: skip
#: and what of other kinds only a superuser makes
_SUPERUSERS_SQL = {
    "CAST": re.compile(r"WITHOUT FUNCTION;|^CREATE CAST \([^.]* AS [^.]*\) WITH", re.M),
    "FUNCTION": re.compile(r"^    LANGUAGE (?:c|internal|\w+u)\b", re.M),
    "PUBLICATION": re.compile(r"\bFOR ALL TABLES\b"),
    "TRANSFORM": re.compile(r"^CREATE TRANSFORM FOR (?:pg_catalog\.|[^.]+ LANGUAGE )"),
    "TYPE": re.compile(r"^    INPUT = ", re.M),
}
_SUPERUSERS_SQL["PROCEDURE"] = _SUPERUSERS_SQL["FUNCTION"]
#: kinds that have an owner; those of large objects are told and not given back
_LARGE = ("BLOB", "BLOB METADATA")
_RUN = ("FUNCTION", "PROCEDURE")
_OWNED = {
    "AGGREGATE", "COLLATION", "CONVERSION", "DOMAIN", "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE", "FUNCTION", "MATERIALIZED VIEW", "OPERATOR", "OPERATOR CLASS",
    "OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "PROCEDURE", "PUBLICATION", "SCHEMA",
    "SEQUENCE", "SERVER", "STATISTICS", "TABLE", "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY", "TYPE", "VIEW", *_LARGE,
}  # fmt: skip
#: made by nobody: one in a copy would take what is the live one's
_NEVER = ("SUBSCRIPTION",)
_RIGHTS = ("ACL", "DEFAULT ACL")
#: kinds that only say something about another entry
_ABOUT = (*_RIGHTS, "COMMENT", "SECURITY LABEL")
#: rights of these do not come with what is in a database, or cannot be compared
_ELSEWHERE = ("DATABASE ", "LARGE OBJECT ", "LARGE OBJECTS ")
_PUBLIC = ("ACL", "", "SCHEMA public")
_PUBLIC_SCHEMA = ("SCHEMA", "", "public")
#: until here everybody may make something in a new database's schema public
_OPEN_UNTIL = 14
_SHOWN = 10
#: what the server says of a thing that is not there
_UNDEFINED = (
    psycopg2.errors.InvalidSchemaName,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.UndefinedTable,
)


@dataclass(frozen=True)
class Plan:
    """What of an archive this server and this role do not take as it stands.

    `own` is the role in the archive that is CKAN's, `role` what it is called here.
    `left` are the entries that only a superuser can make, or that need such a one;
    `strangers` those that cannot be given to their owner; `roles` say of each role of
    the server whether ours may give something to it, and act as it.
    """

    own: str
    role: str
    superusers: frozenset[str]
    roles: Mapping[str, bool]
    left: Mapping[int, Entry]
    strangers: list[Entry]
    tablespaces: list[str]

    def name(self, role: str, entry: Entry | None = None) -> str:
        """What a role of the archive is called here, for what an entry is about."""
        lost = entry is not None and entry.owner == role and not self.keeps(role)
        return self.role if role == self.own or lost else role

    def keeps(self, owner: str) -> bool:
        """Whether what a role of the archive owns can be given to it here."""
        return owner in ("", self.own) or self.roles.get(owner, False)


def plan(found: Contents, connection: Connection, role: str) -> Plan:
    """What has to be left out, asked for or done by hand; on any connection."""
    may = "SET" if connection.server_version >= 160000 else "MEMBER"
    rows = query(
        connection,
        "SELECT rolname, pg_has_role(%(role)s, oid, 'USAGE')"
        " AND pg_has_role(%(role)s, oid, %(may)s), rolsuper FROM pg_roles",
        {"role": role, "may": may},
    )
    roles: dict[str, bool] = {name: may_act for name, may_act, _ in rows}
    superusers = frozenset(name for name, _, superuser in rows if superuser)
    own = _own(found, role)
    left = _left(found, _NEVER if role in superusers else _SUPERUSERS)
    named = {entry.tablespace for entry in found.entries} - {""}
    usable = query(
        connection,
        "SELECT spcname FROM pg_tablespace"
        " WHERE has_tablespace_privilege(%s, oid, 'CREATE')",
        role,
    )
    made = Plan(
        own, role, superusers, roles, left, [], sorted(named - {*sum(usable, ())})
    )
    strangers = [
        entry
        for entry in found.entries
        if entry.kind in _OWNED
        and entry.id not in left
        and not made.keeps(entry.owner)
        # whose schema public is depends on the version that made the cluster
        and (entry.kind, entry.schema, entry.name) != _PUBLIC_SCHEMA
    ]
    return replace(made, strangers=strangers)


def _own(found: Contents, role: str) -> str:
    """The role that is CKAN's in the archive: it owns the tables."""
    owners = Counter(e.owner for e in found.entries if e.kind == "TABLE" and e.owner)
    if role in owners or not owners:
        return role
    return owners.most_common(1)[0][0]


def renamed(found: Contents, role: str) -> str:
    """That CKAN's role is another than in the archive, empty when it is not."""
    own = _own(found, role)
    if own == role:
        return ""
    return f"what belongs to {own!r} in it will belong to {role!r}, CKAN's role here"


def _left(found: Contents, kinds: tuple[str, ...]) -> dict[int, Entry]:
    left: dict[int, Entry] = {}
    ids: set[int] = set()
    # an entry stands behind what it needs, but for the odd circle
    for _ in range(2):
        for entry in found.entries:
            odd = _SUPERUSERS_SQL.get(entry.kind) if kinds != _NEVER else None
            if entry.id not in left and (
                entry.kind in kinds
                or (odd and odd.search(entry.statement))
                or not ids.isdisjoint(entry.needs)
            ):
                left[entry.id] = entry
                ids.add(entry.id)
    return left


def refuse_lost_rows(plan: Plan, name: str) -> None:
    """Refuses an archive whose rows need what only a superuser makes."""
    rows = [entry for entry in plan.left.values() if entry.kind == "TABLE DATA"]
    if rows:
        first = next(iter(plan.left.values()))
        raise Refused(
            f"{name} holds rows of {_some(rows)}, which need what only a superuser can "
            f"make, as {first}: restore it by hand as a superuser, with stock "
            "`pg_restore` (the manual says how), or let the tables do without it and "
            "take another backup"
        )


def refuse_open_public(
    site: Site, part: str, plan: Plan, found: Contents, connection: Connection
) -> None:
    """Refuses where schema public of the copy would be open to everybody, and was not.

    Until PostgreSQL 14 a new database's schema public belongs to the superuser, who
    alone can close it. Raises Refused, with what the superuser runs once.
    """
    given = [
        right
        for entry in found.entries
        if (entry.kind, entry.schema, entry.name) == _PUBLIC
        for right in rights.read(entry)
    ]
    if not _public_can_be_closed(site, part, connection, plan.role) and (
        rights.CREATE not in _public(given, found, plan)
    ):
        raise Refused(_open_public(part, plan.role))


def open_public(site: Site, database: Database) -> str:
    """Why a copy of a live database would be refused for it, empty when it is not."""
    with closing(database.maintenance()) as connection:
        if _public_can_be_closed(site, database.part, connection, database.role):
            return ""
    with closing(database.connect()) as connection:
        open_ = query(
            connection, "SELECT has_schema_privilege('public', 'public', 'CREATE')"
        )
    return "" if open_ == [(True,)] else _open_public(database.part, database.role)


def _public_can_be_closed(
    site: Site, part: str, connection: Connection, role: str
) -> bool:
    return (
        server_major(connection) > _OPEN_UNTIL
        or site.scratch_templates.get(part, "template0") != "template0"
        or _is_superuser(connection, role)
        or _is_superuser(connection)
    )


def _open_public(part: str, role: str) -> str:
    return (
        "in a new database of PostgreSQL 14 everybody may make objects in the schema "
        "public, which only a superuser can change; in the archive it is closed. As "
        "PostgreSQL's superuser make once, with psql, a template that is CKAN's:\n"
        f"  CREATE DATABASE ckan_scratch OWNER {role_sql(role)} ENCODING 'UTF8' "
        "TEMPLATE template0;\n"
        "  \\connect ckan_scratch\n"
        f"  ALTER SCHEMA public OWNER TO {role_sql(role)};\n"
        f"and set {extensions.option(part)} = ckan_scratch; or set "
        "ckanext.dbmanage.admin_url to a superuser's connection"
    )


def _is_superuser(connection: Connection, role: str | None = None) -> bool:
    return query(
        connection,
        "SELECT rolsuper FROM pg_roles WHERE rolname = coalesce(%s, current_user)",
        role,
    ) == [(True,)]


def changed_owners(plan: Plan, signed: bool) -> Iterator[str]:
    """What will belong to CKAN's role and did not, a sentence for each owner.

    A way to keep it is told for a signed archive, and for no mighty role.
    """
    for owner in sorted({entry.owner for entry in plan.strangers}):
        theirs = [entry for entry in plan.strangers if entry.owner == owner]
        if owner in plan.roles:
            why = f"{plan.role!r} is not a member of it"
        else:
            why = "there is no such role here"
        mend = ""
        if signed and owner in plan.roles and not _is_mighty(owner, plan):
            mend = (
                f" (`GRANT {role_sql(owner)} TO {role_sql(plan.role)};`, run by a "
                "superuser before, keeps them as they are)"
            )
        yield (
            f"{len(theirs)} objects belong to {owner!r} and will belong to "
            f"{plan.role!r}, for {why}: {_some(theirs)}{mend}"
        )


def _is_mighty(role: str, plan: Plan) -> bool:
    """Whether nobody is to be told to make CKAN's role a member of this one."""
    return role in plan.superusers or role.startswith("pg_")


def _some(entries: Iterable[Entry]) -> str:
    listed = [str(entry) for entry in entries]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


# ------------------------------------------------------------------------- loading


def left_out(plan: Plan, found: Contents, connection: Connection) -> set[int]:
    """The ids of what pg_restore cannot make in this scratch database as this role."""
    there = {row[0] for row in query(connection, "SELECT nspname FROM pg_namespace")}
    ((owns,),) = query(
        connection,
        "SELECT pg_has_role(%s, nspowner, 'USAGE') FROM pg_namespace"
        " WHERE nspname = 'public' UNION ALL SELECT false LIMIT 1",
        plan.role,
    )

    ids = {entry.id for entry in found.entries}

    def fails(entry: Entry) -> bool:
        if entry.kind == "SCHEMA":
            return entry.name in there
        if entry.kind == "COMMENT" and entry.name == "SCHEMA public":
            return not owns
        if entry.kind not in _RIGHTS:
            return False
        # what is left is set by `complete`, as far as it goes
        return (
            (entry.kind, entry.schema, entry.name) == _PUBLIC
            or "SESSION AUTHORIZATION" in entry.statement
            # on what an extension brings, and so perhaps another role's
            or (entry.kind == "ACL" and ids.isdisjoint(entry.needs))
            or (entry.kind == "DEFAULT ACL" and not plan.keeps(entry.owner))
            or any(
                right.role != "PUBLIC"
                and (
                    right.role not in plan.roles
                    or plan.name(right.role, entry) != right.role
                )
                for right in rights.read(entry)
            )
        )

    return {*plan.left, *(entry.id for entry in found.entries if fails(entry))}


# ------------------------------------------------------------------ after the load


def complete(
    copy: Database,
    found: Contents,
    plan: Plan,
    warn: Warn,
    *,
    left: Container[int],
    live: str,
    pg_bin: str,
    signed: bool,
) -> None:
    """Makes a loaded copy what the archive says, and tells what stays another.

    `left` are the ids that pg_restore was not to make (`left_out`); `live` is the name
    of the database that it becomes, for the SQL that is told. Of an unsigned archive no
    SQL is run here but GRANT and REVOKE made of their parts, and none is told. Raises
    Refused when somebody may do in the copy what the archive does not say.
    """
    with closing(copy.connect()) as connection:
        connection.autocommit = True
        later = [e for e in found.entries if e.id in left and e.statement]
        # rights are compared, a schema is there; an extension that is told already is
        # told with its SQL where that of others needs it
        needed = frozenset[int]().union(*(e.needs for e in plan.left.values()))
        later = [
            e
            for e in later
            if e.id in plan.left
            or (e.kind == "COMMENT" and not e.name.startswith("EXTENSION "))
            or (e.kind == "EXTENSION" and e.id in needed)
        ]
        _make_left(connection, later, warn, live, signed)
        for entry in found.entries if signed else ():
            # the owner's word of it; one that a template brings keeps its own
            if entry.kind == "COMMENT" and entry.name.startswith("EXTENSION "):
                _try(connection, [entry.statement])
        found = _without_absent(found, connection)
        there = _contents_of(copy, connection, pg_bin)
        for wanted in (_wanted_owners, _wanted_rights):
            work = wanted(found, there, plan)
            for statements in work:
                _try(connection, statements)
            if work:
                there = _contents_of(copy, connection, pg_bin)
    if plan.tablespaces:
        warn(
            f"the tablespaces {', '.join(plan.tablespaces)} are not there or not "
            f"CKAN's to use: what was in them is in the database's own"
        )
    _tell_owners(found, there, plan, warn, live, signed)
    _tell_rights(copy.part, found, there, plan, warn, live, signed)


def _make_left(
    connection: Connection,
    entries: list[Entry],
    warn: Warn,
    live: str,
    signed: bool,
) -> None:
    """Makes what can be made after all of the entries that were left out."""
    left = []
    for entry in entries:
        usual = (
            entry.kind == "COMMENT" and "'standard public schema'" in entry.statement
        )
        tried = signed and entry.kind != "SUBSCRIPTION"
        if not (tried and _try(connection, [entry.statement])) and not usual:
            left.append(entry)
    if left:
        named = ", ".join(str(entry) for entry in left if entry.kind not in _ABOUT)
        warn(
            f"left out, for only a superuser can make it: {named or _some(left)}. "
            + _by_superuser(map(_shown_sql, left), live, signed)
        )


def _by_superuser(sql: Iterable[str], live: str, signed: bool) -> str:
    """The sentence that tells a superuser's SQL: of a signed archive alone.

    Whoever made another would have written what a superuser is asked to run.
    """
    if not signed:
        return (
            "`pg_restore -s -f -` of the archive shows its SQL, to be read before a "
            "superuser runs it"
        )
    shown = "\n".join(sql)
    return f"A superuser runs in the database {live!r} after the restore:\n{shown}"


def _shown_sql(entry: Entry) -> str:
    text = entry.statement.strip()
    if entry.kind in ("SUBSCRIPTION", "USER MAPPING"):  # a password may be in there
        text = re.sub(r"'(?:[^']|'')*'", "'***'", text)
    return text


def _try(connection: Connection, statements: Iterable[str]) -> bool:
    """Runs statements in one transaction, all or none; whether it could be done."""
    try:
        query(connection, "BEGIN")
        query(connection, "SET LOCAL search_path = pg_catalog")
        # as pg_restore does: a function may name what is not there any more
        query(connection, "SET LOCAL check_function_bodies = off")
        for statement in statements:
            query(connection, statement)
        query(connection, "COMMIT")
        return True
    except psycopg2.Error:
        query(connection, "ROLLBACK")
        return False


def _contents_of(copy: Database, connection: Connection, pg_bin: str) -> Contents:
    """What pg_dump says of the copy."""
    tools = dump_tools(server_major(connection), pg_bin)
    target, environment = copy.program(unlimited(connection))
    arguments = [tools.path("pg_dump"), "-Fc", "-s", "-Z0", "--no-password", *target]
    with running(arguments, environment, stdin=-3, stdout=-1) as process:
        assert process.stdout is not None
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


# -- owners


def _things(found: Contents) -> dict[tuple[str, str, str], list[Entry]]:
    things: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in found.entries:
        if entry.kind in _OWNED and entry.kind not in _LARGE:
            things.setdefault((entry.kind, entry.schema, entry.name), []).append(entry)
    return things


def _wanted_owners(found: Contents, there: Contents, plan: Plan) -> list[list[str]]:
    return [
        [f"ALTER {what} OWNER TO {role_sql(plan.name(entry.owner, entry))}"]
        for entry, what in _misowned(found, there, plan)
        if plan.keeps(entry.owner)
    ]


def _misowned(
    found: Contents, there: Contents, plan: Plan
) -> Iterator[tuple[Entry, str]]:
    """The entries whose thing in the copy is another role's, and the thing as SQL."""
    copies = _things(there)
    # it has no entry where it is whose pg_dump takes for granted
    usual = "" if _is_old(there) else "pg_database_owner"
    unnamed = Entry(0, *_PUBLIC_SCHEMA, usual, "", "")
    copies.setdefault(_PUBLIC_SCHEMA, [unnamed])
    for key, entries in _things(found).items():
        for entry, other in zip(entries, copies.get(key, ()), strict=False):
            if not entry.owner or plan.name(entry.owner) == other.owner:
                continue
            if key == _PUBLIC_SCHEMA:
                if plan.keeps(entry.owner):
                    yield entry, "SCHEMA public"
            elif other.drop.startswith("DROP "):  # else it goes with another thing
                yield entry, other.drop.strip()[5:-1]


def _tell_owners(
    found: Contents, there: Contents, plan: Plan, warn: Warn, live: str, signed: bool
) -> None:
    lost: dict[str, list[str]] = {}
    for entry, what in _misowned(found, there, plan):
        sql = lost.setdefault(plan.name(entry.owner), [])
        sql.append(f"ALTER {what} OWNER TO {role_sql(plan.name(entry.owner))};")
        if _acts_as_owner(entry):
            sql.append(f"GRANT EXECUTE ON {what} TO PUBLIC;")
            about = (entry.schema, f"{entry.kind} {entry.name}")
            for other in found.entries:
                if other.kind == "ACL" and (other.schema, other.name) == about:
                    sql += [f"{right.sql()};" for right in rights.read(other)]
    for owner, sql in sorted(lost.items()):
        warn(
            f"what belonged to {owner!r} does not in the copy, where nobody else may "
            "run the SECURITY DEFINER functions among it. If it is to be as before: "
            + _by_superuser(sql, live, signed)
        )


def _acts_as_owner(entry: Entry) -> bool:
    return entry.kind in _RUN and "SECURITY DEFINER" in entry.statement


# -- rights


def _expected(found: Contents, there: Contents, plan: Plan) -> Rights:
    """The archive's rights by what they are about, as they can be here."""
    known: Rights = {}
    copies = _things(there)
    for entry in plan.strangers:
        if _acts_as_owner(entry):
            # whoever may run it would act as CKAN's role
            (copied,) = copies.get((entry.kind, entry.schema, entry.name), [None])
            if copied is None:
                raise Refused(f"{entry} is not in the copy; nothing was switched")
            what = copied.drop.strip()[5:-1]
            key = ("ACL", entry.schema, f"{entry.kind} {entry.name}", "")
            known[key] = [Right(f"REVOKE ALL ON {what} FROM", "PUBLIC")]
    closed = set(known)
    for entry in found.entries:
        key = _key(entry, plan)
        if key is None or entry.id in plan.left or key in closed:
            continue
        if entry.kind == "DEFAULT ACL" and not plan.keeps(entry.owner):
            continue
        known.setdefault(key, []).extend(
            replace(
                rights.renamed(right, plan.own, plan.role),
                role=plan.name(right.role, entry),
                # the owner gives what a role gave that cannot be acted as
                by=right.by if plan.roles.get(right.by) else "",
            )
            for right in rights.read(entry)
            if not _is_missing(right, entry, plan)
        )
    return known


def _is_missing(right: Right, entry: Entry, plan: Plan) -> bool:
    """Whether it is of a role that is not there, and is not another's here."""
    known = right.role == "PUBLIC" or right.role in plan.roles
    return not known and plan.name(right.role, entry) == right.role


def _key(entry: Entry, plan: Plan | None = None) -> tuple[str, ...] | None:
    """What an entry's rights are about, None when it has none that are compared."""
    if entry.kind not in _RIGHTS or entry.name.startswith(_ELSEWHERE):
        return None
    owner = plan.name(entry.owner) if plan else entry.owner
    of = owner if entry.kind == "DEFAULT ACL" else ""
    return (entry.kind, entry.schema, entry.name, of)


def _have(there: Contents) -> Rights:
    known: Rights = {}
    for entry in there.entries:
        key = _key(entry)
        if key is not None:
            known.setdefault(key, []).extend(rights.read(entry))
    return known


def _is_old(of: Contents) -> bool:
    return int(re.match(r"\d*", of.program)[0] or 0) <= _OPEN_UNTIL  # type: ignore[index]


def _different(
    found: Contents, there: Contents, plan: Plan
) -> dict[tuple[str, ...], Difference]:
    expected, have = _expected(found, there, plan), _have(there)
    public = (*_PUBLIC, "")
    if public in expected or not _is_old(found):
        expected[public] = _public(expected.get(public, ()), found, plan)
        have[public] = _public(have.get(public, ()), there, plan)
    else:  # it was open to all, which newer versions are not any more
        have.pop(public, None)
    owners = {_key(e, plan): plan.name(e.owner, e) for e in found.entries}
    owners |= {_key(e): e.owner for e in there.entries}
    different = {}
    for key in {**expected, **have}:
        owner = owners.get(key, "")
        # who can do or give itself everything at any time
        might = plan.superusers | {owner}
        compared = rights.compare(expected.get(key, []), have.get(key, []), might)
        if compared:
            different[key] = compared
    return different


def _public(given: Iterable[Right], of: Contents, plan: Plan) -> list[Right]:
    owners = {plan.role, plan.own, "postgres", "pg_database_owner", *plan.superusers}
    return rights.in_schema_public(given, _is_old(of), owners)


def _wanted_rights(found: Contents, there: Contents, plan: Plan) -> list[list[str]]:
    return [each.mend for each in _different(found, there, plan).values()]


def _tell_rights(
    part: str,
    found: Contents,
    there: Contents,
    plan: Plan,
    warn: Warn,
    live: str,
    signed: bool,
) -> None:
    different = _different(found, there, plan)
    missing = sorted(
        {
            right.role
            for entry in found.entries
            if entry.kind in _RIGHTS
            for right in rights.read(entry)
            if _is_missing(right, entry, plan)
        }
    )
    if missing:
        warn(
            "the archive gives rights to roles that do not exist here: "
            f"{', '.join(missing)}; these rights are left out"
        )
    for entry in found.entries:
        if entry.kind == "DEFAULT ACL" and not plan.keeps(entry.owner):
            sql = [f"{right.sql()};" for right in rights.read(entry)]
            warn(
                f"left out, for {plan.role!r} may not set what new objects of "
                f"{entry.owner!r} allow. {_by_superuser(sql, live, signed)}"
            )
    more = [sql for difference in different.values() for sql in difference.more]
    if more:
        public = (*_PUBLIC, "")
        only = (
            len(more) == len(different[public].more) if public in different else False
        )
        shown = "\n".join(f"  {sql};" for sql in more[:_SHOWN])
        raise Refused(
            "in the copy somebody may do more than the archive says, and CKAN's role "
            "cannot take it away; nothing was switched. "
            + (
                _open_public(part, plan.role)
                if only and int(there.server.split(".")[0]) <= _OPEN_UNTIL
                else "A superuser runs this in a database that becomes "
                f"{extensions.option(part)}:\n{shown}"
                if signed
                else "Make an archive of it without rights (`pg_dump -Fc -x`)"
            )
        )
    less = [sql for difference in different.values() for sql in difference.less]
    if less:
        sql = [f"{statement};" for statement in less]
        warn(
            "rights that CKAN's role could not give again. "
            + _by_superuser(sql, live, signed)
        )


# ------------------------------------------------------------------ what stays behind


def stays_behind(database: Database) -> Iterator[str]:
    """What belongs to the live database, is in no dump of CKAN's role, and will not
    be the restored one's: subscriptions and replication slots, a sentence for each."""
    try:
        connection = database.connect()
    except ConnectionFailed:
        return
    with closing(connection):
        subscriptions = query(
            connection,
            "SELECT subname, subpublications, subslotname FROM pg_subscription"
            " WHERE subdbid = (SELECT oid FROM pg_database"
            " WHERE datname = current_database()) ORDER BY 1",
        )
        slots = query(
            connection,
            "SELECT slot_name, plugin FROM pg_replication_slots"
            " WHERE database = current_database() ORDER BY 1",
        )
    for name, publications, slot in subscriptions:
        listed = ", ".join(map(role_sql, publications))
        yield (
            f"the subscription {name!r} stays with the old database, which cannot be "
            "dropped as long as it has one. A superuser runs there and, with its "
            "connection string out of pg_subscription, in the restored one:\n"
            f"ALTER SUBSCRIPTION {role_sql(name)} DISABLE;\n"
            f"ALTER SUBSCRIPTION {role_sql(name)} SET (slot_name = NONE);\n"
            f"DROP SUBSCRIPTION {role_sql(name)};\n"
            f"CREATE SUBSCRIPTION {role_sql(name)} CONNECTION '***' "
            f"PUBLICATION {listed} WITH (create_slot = false, copy_data = false"
            f"{f', slot_name = {role_sql(slot)}' if slot else ''});"
        )
    for name, plugin in slots:
        yield (
            f"the replication slot {name!r} stays with the old database, which cannot "
            "be dropped as long as it has one. A superuser runs, there and in the "
            f"restored one:\nSELECT pg_drop_replication_slot({rights.literal(name)});\n"
            "SELECT pg_create_logical_replication_slot("
            f"{rights.literal(name)}, {rights.literal(plugin)});"
        )
