"""What was written meanwhile is not lost: the switch refuses."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import Written
from ..postgres import sessions, writes
from ..postgres.database import closing
from ..site import Site
from .history import Pair

#: rows ever written, by part and table
Counters = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Since:
    """What the live databases were like, by part, and the moment of looking.

    `touched` are tables with a column that reading itself writes, and `contents`
    checksums of them without it: such a write is not counted.
    """

    counters: Counters
    shapes: Mapping[str, Mapping[str, str]]
    touched: Mapping[str, str]
    contents: Mapping[str, str]
    moment: float = field(default_factory=time.monotonic)


def since(site: Site, touched: Mapping[str, str]) -> Since:
    """Looks at the live databases; `touched` are columns by `schema.table` of the main.

    Raises ConnectionFailed.
    """
    contents = writes.contents(site.databases["database"], touched)
    shapes = {part: writes.shapes(d) for part, d in site.databases.items()}
    return Since(counters(site, site.databases), shapes, touched, contents)


def counters(site: Site, parts: Iterable[str]) -> Counters:
    """How many rows were ever written to the live databases, by part and table."""
    return {part: writes.written(site.databases[part]) for part in parts}


def refuse_written(site: Site, since: Since, pairs: list[Pair]) -> dict[int, int]:
    """Ends all sessions, and refuses when there was a write since.

    Returns what is known of the live databases now, for the switch to compare:
    `writes.tuples` by OID.
    """
    writers = sessions.ended(site.databases, time.monotonic() - since.moment)
    known = {}
    for pair in pairs:
        with closing(site.databases[pair.part].maintenance()) as connection:
            known[pair.live_oid] = writes.tuples(connection, pair.live_oid)
    changed = [
        sentence for part in since.counters for sentence in _new(site, since, part)
    ]
    if changed:
        who = "; ".join(writers) or "a session that is gone"
        raise Written(
            f"{', '.join(changed)} since the copy was made, perhaps by: {who}"
            f"{site.advise('writers', '. ')}"
        )
    return known


def _new(site: Site, since: Since, part: str) -> Iterator[str]:
    """What was written to a live database since, by table."""
    database, before = site.databases[part], since.counters[part]
    after = writes.written(database)
    rows = {n: after.get(n, 0) - before.get(n, 0) for n in before.keys() | after.keys()}
    shapes = writes.shapes(database)
    for name in sorted(rows.keys() | shapes.keys() | since.shapes[part].keys()):
        if shapes.get(name) != since.shapes[part].get(name):
            yield f"{part}: {name} was made, altered or emptied"
        elif rows.get(name):  # fewer: the counters were reset, nobody knows
            if part == "database" and name in since.touched:
                column = {name: since.touched[name]}
                now = writes.contents(database, column).get(name)
                if now == since.contents.get(name):
                    continue
            yield f"{abs(rows[name])} rows of {part}: {name} were written"


def rows_written(before: Counters, after: Counters) -> dict[str, int]:
    """How many rows were written between two looks, by `part: table`."""
    return {
        f"{part}: {table}": rows - before[part].get(table, 0)
        for part, tables in after.items()
        for table, rows in tables.items()
        if rows > before[part].get(table, 0)
    }
