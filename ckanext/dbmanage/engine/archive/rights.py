"""Rights as pg_dump writes them: GRANT and REVOKE, read, compared, and made again.

An archive's own SQL is never run for them: each is put together again from parts that
cannot be anything else, with its role in quotes. Must not know whose rights they are.
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from .contents import Entry

#: rights by what they are about: kind, schema, name, and the owner of new objects
Rights = dict[tuple[str, ...], list["Right"]]
#: of a statement, so that one made to be slow to read is not
_LONGEST = 4000


@dataclass(frozen=True)
class Right:
    """One GRANT or REVOKE, up to its role; `by` another role than the owner."""

    prefix: str
    role: str
    suffix: str = ""
    by: str = ""

    @property
    def grants(self) -> bool:
        """Whether it gives something."""
        return self.prefix.endswith(" TO")

    def sql(self) -> str:
        """The statement."""
        return self._as(f"{self.prefix} {role_sql(self.role)}{self.suffix}")

    def taken_back(self) -> str:
        """The statement that takes back what it gives."""
        start, _, end = self.prefix.partition("GRANT ")
        return self._as(f"{start}REVOKE {end[:-3]} FROM {role_sql(self.role)}")

    def _as(self, sql: str) -> str:
        return f"SET ROLE {role_sql(self.by)}; {sql}; RESET ROLE" if self.by else sql


_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_RIGHT = re.compile(
    rf"(?P<start>(?:ALTER DEFAULT PRIVILEGES FOR ROLE (?P<for>{_NAME}) "
    rf"(?:IN SCHEMA {_NAME} )?)?(?:GRANT|REVOKE(?: GRANT OPTION FOR)?) )"
    rf"(?P<what>[A-Z]+(?: ?\({_NAME}(?:, ?{_NAME})*\)|[ ,A-Z])*?)"
    r"(?P<end> ON (?!DATABASE |TABLESPACE |PARAMETER )[A-Z].* (?:TO|FROM))"
    rf" (?P<role>{_NAME})(?P<suffix> WITH GRANT OPTION)?",
    re.DOTALL,
)
_COMMAS = re.compile(r",\s*(?![^()]*\))")
_SESSION = re.compile(
    r"RESET SESSION AUTHORIZATION|SET SESSION AUTHORIZATION "
    rf"(?P<by>{_NAME})"
)
_STATEMENTS = re.compile(r'(?:"[^"]*"|[^";])+')
#: what stands outside of quotes: nothing that could end a statement or begin a literal
_PLAIN = re.compile(r'(?:"[^"]*"|[\w\s.,()\[\]])+', re.ASCII)


def read(entry: Entry) -> list[Right]:
    """The GRANTs and REVOKEs of an entry; what is not one of these is left out."""
    found = []
    by = ""
    for statement in _STATEMENTS.findall(entry.statement):
        session = _SESSION.fullmatch(statement.strip())
        if session:
            by = _unquoted(session["by"]) if session["by"] else ""
        if len(statement) > _LONGEST or not _PLAIN.fullmatch(statement):
            continue
        known = _RIGHT.fullmatch(statement.strip())
        if known is None or known["role"] == '"PUBLIC"':  # not everybody
            continue
        role, suffix = _unquoted(known["role"]), known["suffix"] or ""
        # one by one: how they are put together depends on who gave them
        for what in _COMMAS.split(known["what"]):
            prefix = f"{known['start']}{what}{known['end']}"
            found.append(Right(prefix, role, suffix, by))
    return found


def _unquoted(role: str) -> str:
    return role[1:-1].replace('""', '"') if role[0] == '"' else role


def role_sql(name: str) -> str:
    """A role as SQL: always in quotes, for a reserved word may be one."""
    return name if name == "PUBLIC" else '"' + name.replace('"', '""') + '"'


#: what everybody may do in PostgreSQL 14's schema public
CREATE = Right("GRANT CREATE ON SCHEMA public TO", "PUBLIC")


def renamed(right: Right, role: str, to: str) -> Right:
    """A default right of new objects of `role` as one of those of another."""
    known = _RIGHT.fullmatch(f"{right.prefix} x")
    if not known or not known["for"] or _unquoted(known["for"]) != role:
        return right
    start, end = known.span("for")
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", to)  # as pg_dump writes it
    prefix = right.prefix[:start] + (to if plain else role_sql(to))
    return replace(right, prefix=prefix + right.prefix[end:])


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def in_schema_public(
    given: Iterable[Right], old: bool, owners: Container[str]
) -> list[Right]:
    """Rights in schema public as what they come to, but those of its `owners`.

    Who may use it and make there; `old` when pg_dump takes for granted what a new
    database allowed until PostgreSQL 14.
    """
    everything = {"CREATE", "USAGE"}
    may = {"PUBLIC": everything if old else {"USAGE"}}
    for right in given:
        words = right.prefix.partition(" ON ")[0].replace("GRANT OPTION FOR ", "")
        what = words.partition(" ")[2]
        named = everything if what == "ALL" else {what} & everything
        had = may.get(right.role, set())
        may[right.role] = had | named if right.grants else had - named
    return [
        Right(f"GRANT {what} ON SCHEMA public TO", role)
        for role, known in may.items()
        if role not in owners
        for what in sorted(known)
    ]


@dataclass(frozen=True)
class Difference:
    """The SQL that takes away what is too much, gives what is missing, or does both."""

    more: list[str]
    less: list[str]
    mend: list[str]


def compare(
    wanted: list[Right], got: list[Right], might: Container[str]
) -> Difference | None:
    """What is different in the rights on one thing, None when nothing is.

    `might` are the roles that no right is too much for.
    """
    extra = [right for right in got if right not in wanted and right.grants]
    missing = [right for right in wanted if right not in got]
    if not extra and not missing:
        return None
    taken = [(right.role, right.taken_back()) for right in extra]
    untaken = [(right.role, right.sql()) for right in missing if not right.grants]
    return Difference(
        more=[sql for role, sql in (*taken, *untaken) if role not in might],
        less=[right.sql() for right in missing if right.grants],
        mend=[
            *(sql for _, sql in taken),
            *(right.sql() for right in (wanted if missing else ())),
        ],
    )
