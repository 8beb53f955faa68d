"""Owners and rights of a copy, compared with those that the archive has."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..archive import extensions, rights
from ..archive.contents import Contents, Entry
from ..archive.rights import Difference, Right, Rights, role_sql
from ..errors import Refused
from . import schema_public
from .faithful import LARGE, OWNED, PUBLIC, PUBLIC_RIGHTS, RIGHTS, Loaded, Plan, key_of

#: rights of these do not come with what is in a database, or cannot be compared
_ELSEWHERE = ("DATABASE ", "LARGE OBJECT ", "LARGE OBJECTS ")
#: what the rights of schema public are about, as of any other thing
_PUBLIC = (*PUBLIC_RIGHTS, "")
#: statements shown in one refusal
_SHOWN = 10


@dataclass(frozen=True)
class Comparison:
    """What an archive says of owners and rights (`found`) and its copy says (`there`).

    `owners` and `rights` are statements that make the copy as the archive, those of one
    thing together; what they could not do is told, or refused.
    """

    found: Contents
    there: Contents
    plan: Plan

    # -- owners

    def owners(self) -> list[list[str]]:
        """What gives each thing back to its owner."""
        return [
            [_owned_by(what, self.plan.name(entry.owner, entry))]
            for entry, what in self._misowned()
            if self.plan.keeps(entry.owner)
        ]

    def _misowned(self) -> Iterator[tuple[Entry, str]]:
        """The entries whose thing is another role's in the copy, the thing as SQL."""
        copies = _things(self.there)
        # it has no entry where it is whose pg_dump takes for granted
        usual = "" if schema_public.is_open(self.there) else "pg_database_owner"
        copies.setdefault(PUBLIC, [Entry(0, *PUBLIC, usual, "", "")])
        for key, entries in _things(self.found).items():
            for entry, other in zip(entries, copies.get(key, ()), strict=False):
                if not entry.owner or self.plan.name(entry.owner) == other.owner:
                    continue
                if key == PUBLIC:
                    if self.plan.keeps(entry.owner):
                        yield entry, "SCHEMA public"
                elif other.drop.startswith("DROP "):  # else it goes with another thing
                    yield entry, _dropped(other)

    def tell_owners(self, loaded: Loaded) -> None:
        """Tells what belongs to another role than in the archive."""
        lost: dict[str, list[str]] = {}
        for entry, what in self._misowned():
            owner = self.plan.name(entry.owner)
            sql = lost.setdefault(owner, [])
            sql.append(f"{_owned_by(what, owner)};")
            if _acts_as_owner(entry):
                sql.append(f"GRANT EXECUTE ON {what} TO PUBLIC;")
                about = ("ACL", entry.schema, f"{entry.kind} {entry.name}")
                for other in self.found.entries:
                    if key_of(other) == about:
                        sql += [f"{right.sql()};" for right in rights.read(other)]
        for owner, sql in sorted(lost.items()):
            loaded.ask_superuser(
                f"what belonged to {owner!r} does not in the copy, where nobody else "
                "may run the SECURITY DEFINER functions among it. If it is to be as "
                "before:",
                sql,
            )

    # -- rights

    def rights(self) -> list[list[str]]:
        """What gives and takes rights, so that they are those of the archive."""
        return [each.mend for each in self._different().values()]

    def _different(self) -> dict[tuple[str, ...], Difference]:
        """The differences in rights, by what they are about."""
        found, there, plan = self.found, self.there, self.plan
        wanted, have = self._wanted(), _given(there)
        if _PUBLIC in wanted or not schema_public.is_open(found):
            wanted[_PUBLIC] = schema_public.rights_of(
                wanted.get(_PUBLIC, ()), found, plan
            )
            have[_PUBLIC] = schema_public.rights_of(have.get(_PUBLIC, ()), there, plan)
        else:  # it was open to all, which newer versions are not any more
            have.pop(_PUBLIC, None)
        owners = {_subject(e, plan): plan.name(e.owner, e) for e in found.entries}
        owners |= {_subject(e): e.owner for e in there.entries}
        different = {}
        for key in {**wanted, **have}:
            # who can do or give itself everything at any time
            might = plan.superusers | {owners.get(key, "")}
            compared = rights.compare(wanted.get(key, []), have.get(key, []), might)
            if compared:
                different[key] = compared
        return different

    def _wanted(self) -> Rights:
        """The archive's rights by what they are about, as they can be here."""
        plan, known = self.plan, self._closed()
        closed = set(known)
        for entry in self.found.entries:
            key = _subject(entry, plan)
            if key is None or entry.id in plan.left or key in closed:
                continue
            if _is_of_stranger(entry, plan):
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

    def _closed(self) -> Rights:
        """Functions that nobody may run: who may would act as CKAN's role."""
        copies = _things(self.there)
        closed: Rights = {}
        for entry in self.plan.strangers:
            if _acts_as_owner(entry):
                (copied,) = copies.get(key_of(entry), [None])
                if copied is None:
                    raise Refused(f"{entry} is not in the copy; nothing was switched")
                key = ("ACL", entry.schema, f"{entry.kind} {entry.name}", "")
                revoked = f"REVOKE ALL ON {_dropped(copied)} FROM"
                closed[key] = [Right(revoked, "PUBLIC")]
        return closed

    def tell_rights(self, loaded: Loaded) -> None:
        """Tells which rights are not in the copy. Raises Refused for any too much."""
        plan, different = self.plan, self._different()
        given = [e for e in self.found.entries if e.kind in RIGHTS]
        missing = {
            right.role
            for entry in given
            for right in rights.read(entry)
            if _is_missing(right, entry, plan)
        }
        if missing:
            loaded.op.warn(
                "the archive gives rights to roles that do not exist here: "
                f"{', '.join(sorted(missing))}; these rights are left out"
            )
        for entry in given:
            if _is_of_stranger(entry, plan):
                loaded.ask_superuser(
                    f"left out, for {plan.role!r} may not set what new objects of "
                    f"{entry.owner!r} allow.",
                    [f"{right.sql()};" for right in rights.read(entry)],
                )
        self._refuse_more(loaded, different)
        less = [f"{sql};" for each in different.values() for sql in each.less]
        if less:
            loaded.ask_superuser("rights that CKAN's role could not give again.", less)

    def _refuse_more(
        self, loaded: Loaded, different: dict[tuple[str, ...], Difference]
    ) -> None:
        more = [f"  {sql};" for each in different.values() for sql in each.more]
        if not more:
            return
        part = loaded.scratch.pair.part
        in_public = different[_PUBLIC].more if _PUBLIC in different else []
        if len(more) == len(in_public) and schema_public.server_opens(self.there):
            remedy = schema_public.why_open(loaded.op.site, part, self.plan.role)
        elif loaded.signed:
            remedy = (
                "A superuser runs this in a database that becomes "
                f"{extensions.option(part)}:\n" + "\n".join(more[:_SHOWN])
            )
        else:
            remedy = "Make an archive of it without rights (`pg_dump -Fc -x`)"
        raise Refused(
            "in the copy somebody may do more than the archive says, and CKAN's role "
            f"cannot take it away; nothing was switched. {remedy}"
        )


def _things(of: Contents) -> dict[tuple[str, str, str], list[Entry]]:
    """What has an owner, by kind, schema and name."""
    things: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in of.entries:
        if entry.kind in OWNED and entry.kind not in LARGE:
            things.setdefault(key_of(entry), []).append(entry)
    return things


def _dropped(entry: Entry) -> str:
    """An entry's thing as SQL names it."""
    return entry.drop.strip()[5:-1]


def _owned_by(what: str, owner: str) -> str:
    return f"ALTER {what} OWNER TO {role_sql(owner)}"


def _acts_as_owner(entry: Entry) -> bool:
    runs = entry.kind in ("FUNCTION", "PROCEDURE")
    return runs and "SECURITY DEFINER" in entry.statement


def _is_missing(right: Right, entry: Entry, plan: Plan) -> bool:
    """Whether it is of a role that is not there, and is not another's here."""
    known = right.role == "PUBLIC" or right.role in plan.roles
    return not known and plan.name(right.role, entry) == right.role


def _is_of_stranger(entry: Entry, plan: Plan) -> bool:
    """Whether it says what new objects allow of a role that cannot be acted as."""
    return entry.kind == "DEFAULT ACL" and not plan.keeps(entry.owner)


def _subject(entry: Entry, plan: Plan | None = None) -> tuple[str, ...] | None:
    """What an entry's rights are about, None when it has none that are compared."""
    if entry.kind not in RIGHTS or entry.name.startswith(_ELSEWHERE):
        return None
    owner = plan.name(entry.owner) if plan else entry.owner
    return (*key_of(entry), owner if entry.kind == "DEFAULT ACL" else "")


def _given(of: Contents) -> Rights:
    known: Rights = {}
    for entry in of.entries:
        key = _subject(entry)
        if key is not None:
            known.setdefault(key, []).extend(rights.read(entry))
    return known
