"""Owners and rights of a copy, compared with those that the archive has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..archive import extensions, rights
from ..archive.contents import Contents, Entry
from ..archive.rights import Difference, Right, Rights, role_sql
from ..errors import Refused
from ..report import Warn
from .faithful import (
    ELSEWHERE,
    LARGE,
    OPEN_UNTIL,
    OWNED,
    PUBLIC,
    PUBLIC_SCHEMA,
    RIGHTS,
    RUN,
    Plan,
    by_superuser,
    is_old,
    opened_public,
    public_rights,
)

_SHOWN = 10


# -- owners


def _things(found: Contents) -> dict[tuple[str, str, str], list[Entry]]:
    things: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in found.entries:
        if entry.kind in OWNED and entry.kind not in LARGE:
            things.setdefault((entry.kind, entry.schema, entry.name), []).append(entry)
    return things


def wanted_owners(found: Contents, there: Contents, plan: Plan) -> list[list[str]]:
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
    usual = "" if is_old(there) else "pg_database_owner"
    unnamed = Entry(0, *PUBLIC_SCHEMA, usual, "", "")
    copies.setdefault(PUBLIC_SCHEMA, [unnamed])
    for key, entries in _things(found).items():
        for entry, other in zip(entries, copies.get(key, ()), strict=False):
            if not entry.owner or plan.name(entry.owner) == other.owner:
                continue
            if key == PUBLIC_SCHEMA:
                if plan.keeps(entry.owner):
                    yield entry, "SCHEMA public"
            elif other.drop.startswith("DROP "):  # else it goes with another thing
                yield entry, other.drop.strip()[5:-1]


def tell_owners(
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
            + by_superuser(sql, live, signed)
        )


def _acts_as_owner(entry: Entry) -> bool:
    return entry.kind in RUN and "SECURITY DEFINER" in entry.statement


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
    if entry.kind not in RIGHTS or entry.name.startswith(ELSEWHERE):
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


def _different(
    found: Contents, there: Contents, plan: Plan
) -> dict[tuple[str, ...], Difference]:
    expected, have = _expected(found, there, plan), _have(there)
    public = (*PUBLIC, "")
    if public in expected or not is_old(found):
        expected[public] = public_rights(expected.get(public, ()), found, plan)
        have[public] = public_rights(have.get(public, ()), there, plan)
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


def wanted_rights(found: Contents, there: Contents, plan: Plan) -> list[list[str]]:
    return [each.mend for each in _different(found, there, plan).values()]


def tell_rights(
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
            if entry.kind in RIGHTS
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
                f"{entry.owner!r} allow. {by_superuser(sql, live, signed)}"
            )
    more = [sql for difference in different.values() for sql in difference.more]
    if more:
        public = (*PUBLIC, "")
        only = (
            len(more) == len(different[public].more) if public in different else False
        )
        shown = "\n".join(f"  {sql};" for sql in more[:_SHOWN])
        raise Refused(
            "in the copy somebody may do more than the archive says, and CKAN's role "
            "cannot take it away; nothing was switched. "
            + (
                opened_public(part, plan.role)
                if only and int(there.server.split(".")[0]) <= OPEN_UNTIL
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
            + by_superuser(sql, live, signed)
        )
