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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..archive import extensions, rights
from ..archive.contents import Contents, Entry
from ..archive.rights import Right, role_sql
from ..errors import Refused
from ..postgres.database import Connection, Database, closing, query, server_major
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
LARGE = ("BLOB", "BLOB METADATA")
RUN = ("FUNCTION", "PROCEDURE")

OWNED = {
    "AGGREGATE", "COLLATION", "CONVERSION", "DOMAIN", "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE", "FUNCTION", "MATERIALIZED VIEW", "OPERATOR", "OPERATOR CLASS",
    "OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "PROCEDURE", "PUBLICATION", "SCHEMA",
    "SEQUENCE", "SERVER", "STATISTICS", "TABLE", "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY", "TYPE", "VIEW", *LARGE,
}  # fmt: skip

#: made by nobody: one in a copy would take what is the live one's
_NEVER = ("SUBSCRIPTION",)
RIGHTS = ("ACL", "DEFAULT ACL")
#: kinds that only say something about another entry
ABOUT = (*RIGHTS, "COMMENT", "SECURITY LABEL")
#: rights of these do not come with what is in a database, or cannot be compared
ELSEWHERE = ("DATABASE ", "LARGE OBJECT ", "LARGE OBJECTS ")
PUBLIC = ("ACL", "", "SCHEMA public")
PUBLIC_SCHEMA = ("SCHEMA", "", "public")
#: until here everybody may make something in a new database's schema public
OPEN_UNTIL = 14
_SHOWN = 10


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
        if entry.kind in OWNED
        and entry.id not in left
        and not made.keeps(entry.owner)
        # whose schema public is depends on the version that made the cluster
        and (entry.kind, entry.schema, entry.name) != PUBLIC_SCHEMA
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
            f"{name} holds rows of {some(rows)}, which need what only a superuser can "
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
        if (entry.kind, entry.schema, entry.name) == PUBLIC
        for right in rights.read(entry)
    ]
    if not _public_can_be_closed(site, part, connection, plan.role) and (
        rights.CREATE not in public_rights(given, found, plan)
    ):
        raise Refused(opened_public(part, plan.role))


def open_public(site: Site, database: Database) -> str:
    """Why a copy of a live database would be refused for it, empty when it is not."""
    with closing(database.maintenance()) as connection:
        if _public_can_be_closed(site, database.part, connection, database.role):
            return ""
    with closing(database.connect()) as connection:
        open_ = query(
            connection, "SELECT has_schema_privilege('public', 'public', 'CREATE')"
        )
    return "" if open_ == [(True,)] else opened_public(database.part, database.role)


def _public_can_be_closed(
    site: Site, part: str, connection: Connection, role: str
) -> bool:
    return (
        server_major(connection) > OPEN_UNTIL
        or site.scratch_templates.get(part, "template0") != "template0"
        or _is_superuser(connection, role)
        or _is_superuser(connection)
    )


def opened_public(part: str, role: str) -> str:
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
            f"{plan.role!r}, for {why}: {some(theirs)}{mend}"
        )


def _is_mighty(role: str, plan: Plan) -> bool:
    """Whether nobody is to be told to make CKAN's role a member of this one."""
    return role in plan.superusers or role.startswith("pg_")


def some(entries: Iterable[Entry]) -> str:
    listed = [str(entry) for entry in entries]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


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
        if entry.kind not in RIGHTS:
            return False
        # what is left is set by `complete`, as far as it goes
        return (
            (entry.kind, entry.schema, entry.name) == PUBLIC
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


def by_superuser(sql: Iterable[str], live: str, signed: bool) -> str:
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


def shown_sql(entry: Entry) -> str:
    text = entry.statement.strip()
    if entry.kind in ("SUBSCRIPTION", "USER MAPPING"):  # a password may be in there
        text = re.sub(r"'(?:[^']|'')*'", "'***'", text)
    return text


def public_rights(given: Iterable[Right], of: Contents, plan: Plan) -> list[Right]:
    owners = {plan.role, plan.own, "postgres", "pg_database_owner", *plan.superusers}
    return rights.in_schema_public(given, is_old(of), owners)


def is_old(of: Contents) -> bool:
    return int(re.match(r"\d*", of.program)[0] or 0) <= OPEN_UNTIL  # type: ignore[index]
