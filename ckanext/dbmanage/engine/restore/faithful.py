"""Faithful copies: what an archive holds comes back as it was, or is told with its SQL.

CKAN's role may not make everything that a dump holds, nor give everything to whom it
belonged. `plan` says so before anything is touched: it needs the archive and a
connection to the server. What pg_restore cannot do as this role `completed` does after
the load. Must not know CKAN.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..archive import rights
from ..archive.contents import Contents, Entry
from ..archive.rights import role_sql
from ..errors import Refused
from ..operation import Operation
from ..postgres.database import Connection, query
from .scratch import Scratch

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
#: the schema public, and its rights, as `key_of` tells entries apart
PUBLIC = ("SCHEMA", "", "public")
PUBLIC_RIGHTS = ("ACL", "", "SCHEMA public")
#: entries named in one sentence
_SHOWN = 10


def key_of(entry: Entry) -> tuple[str, str, str]:
    """What tells one object of an archive from the others."""
    return (entry.kind, entry.schema, entry.name)


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
        and key_of(entry) != PUBLIC
    ]
    return replace(made, strangers=strangers)


def _own(found: Contents, role: str) -> str:
    """The role that is CKAN's in the archive: it owns the tables."""
    owners = Counter(e.owner for e in found.entries if e.kind == "TABLE" and e.owner)
    if role in owners or not owners:
        return role
    return owners.most_common(1)[0][0]


def other_role(found: Contents, role: str) -> str:
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
            f"{name} holds rows of {names_of(rows)}, which need what only a superuser "
            f"can make, as {first}: restore it by hand as a superuser, with stock "
            "`pg_restore` (the manual says how), or let the tables do without it and "
            "take another backup"
        )


def changed_owners(plan: Plan, signed: bool) -> Iterator[str]:
    """What will belong to CKAN's role and did not, a sentence for each owner.

    A way to keep it is told for a signed archive, and for no mighty role.
    """
    for owner in sorted({entry.owner for entry in plan.strangers}):
        theirs = [entry for entry in plan.strangers if entry.owner == owner]
        why, mend = "there is no such role here", ""
        if owner in plan.roles:
            why = f"{plan.role!r} is not a member of it"
            # nobody is to be told to make CKAN's role a member of these
            mighty = owner in plan.superusers or owner.startswith("pg_")
            if signed and not mighty:
                mend = (
                    f" (`GRANT {role_sql(owner)} TO {role_sql(plan.role)};`, run by a "
                    "superuser before, keeps them as they are)"
                )
        yield (
            f"{len(theirs)} objects belong to {owner!r} and will belong to "
            f"{plan.role!r}, for {why}: {names_of(theirs)}{mend}"
        )


def names_of(entries: Iterable[Entry]) -> str:
    """The first entries, and how many more there are."""
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
            key_of(entry) == PUBLIC_RIGHTS
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


@dataclass(frozen=True)
class Loaded:
    """A copy that pg_restore has loaded, beside the archive that it was loaded from.

    `left` are the ids that pg_restore was not to make (`left_out`); `signed`: this site
    vouches for the archive.
    """

    op: Operation
    scratch: Scratch
    found: Contents
    plan: Plan
    left: set[int]
    signed: bool

    def ask_superuser(self, why: str, sql: Iterable[str]) -> None:
        """Tells what stays different, and the SQL by which a superuser mends it.

        Of a signed archive alone: whoever made another would have written what a
        superuser is asked to run.
        """
        remedy = (
            "`pg_restore -s -f -` of the archive shows its SQL, to be read before a "
            "superuser runs it"
        )
        if self.signed:
            remedy = (
                f"A superuser runs in the database {self.scratch.pair.live!r} after "
                "the restore:\n" + "\n".join(sql)
            )
        self.op.warn(f"{why} {remedy}")
