"""The rows that belong to some records: those that name them, and what these name.

Gathered out of a dump, before anything is loaded. Which tables hold records, and what
names another without a foreign key, is handed in. Must not know what the records are.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO

from ..archive.contents import Contents
from ..archive.rows import NULL, Rows
from ..report import Warn
from ..words import size

_NAME = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)'
_KEY = re.compile(
    rf"ALTER TABLE (?:ONLY )?({_NAME}\.{_NAME})\s+ADD CONSTRAINT {_NAME} FOREIGN KEY"
    rf" \(({_NAME})\) REFERENCES ({_NAME}\.{_NAME})\(({_NAME})\)"
)
#: rows of a table that are held in memory, in bytes; more go to a file without a name
_HELD = 4 << 20
#: a table that nobody said anything about is not searched when it is larger than this
_LARGE = 256 << 20
_PORTION = 1 << 16

Column = tuple[str, str]


@dataclass(frozen=True)
class Belonging:
    """Which rows belong to records, tables as `schema.table`.

    `names` are table, column and the other table, for the columns by which records name
    others without a foreign key; `own` tables are searched whatever their size; `never`
    tables hold nothing of a record that its reader needs.
    """

    names: Iterable[tuple[str, str, str]]
    own: Collection[str]
    never: Collection[str]


@dataclass
class Gathered:
    """Rows by table, each once."""

    rows: dict[str, IO[bytes]] = field(default_factory=dict)
    _seen: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, table: str, fields: list[bytes]) -> bool:
        """Adds a row, where it is new."""
        row = b"\t".join(fields)
        if hash(row) in self._seen[table]:
            return False
        self._seen[table].add(hash(row))
        if table not in self.rows:
            self.rows[table] = SpooledTemporaryFile(_HELD)  # noqa: SIM115  # pyright: ignore
        self.rows[table].write(row + b"\n")
        return True

    def data(self) -> dict[str, Callable[[], Iterator[bytes]]]:
        """What gives the rows of each table, some at a time."""
        return {table: partial(_read, file) for table, file in self.rows.items()}

    def close(self) -> None:
        """Forgets all of it."""
        for each in self.rows.values():
            each.close()


def _read(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    yield from iter(partial(file.read, _PORTION), b"")


def gather(
    rows: Rows,
    found: Contents,
    roots: Mapping[str, Collection[bytes]],
    belonging: Belonging,
    warn: Warn,
) -> Gathered:
    """The rows of records, whose ids are given by their table, and of what they need.

    Of each other table the rows that name one of them, in any column; then, over and
    over, the rows that one of these names. Raises as `Rows`.
    """
    made = Gathered()
    wanted = _Named(rows, found, belonging, made)
    for table, ids in roots.items():
        wanted.add(table, "id", ids)
    wanted.follow()
    ids = {id for each in roots.values() for id in each}
    for table in rows.entries:
        if table in roots or table in belonging.never or not ids:
            continue
        large = rows.size(table)
        if large > _LARGE and table not in belonging.own:
            warn(
                f"{table} has {size(large)} of rows and is not searched: what CKAN "
                "reads there is missing"
            )
            continue
        for fields in rows.having(table, ids):
            wanted.take(table, fields)
    wanted.follow()
    return made


class _Named:
    """What rows that were taken name, and what of that is not taken yet."""

    def __init__(
        self, rows: Rows, found: Contents, belonging: Belonging, made: Gathered
    ) -> None:
        self._rows, self._made = rows, made
        self._known: dict[Column, set[bytes]] = defaultdict(set)
        self._new: dict[Column, set[bytes]] = defaultdict(set)
        self._places: dict[str, list[tuple[int, Column]]] = defaultdict(list)
        for table, column, target in _references(found, belonging):
            names = rows.columns(table)
            if column in names:
                self._places[table].append((names.index(column), target))

    def take(self, table: str, fields: list[bytes]) -> None:
        """Takes a row, and notes what it names."""
        if self._made.add(table, fields):
            for place, target in self._places[table]:
                if fields[place] != NULL:
                    self.add(*target, [fields[place]])

    def add(self, table: str, column: str, values: Collection[bytes]) -> None:
        """Wants the rows of a table with these values."""
        new = {*values} - self._known[table, column]
        self._known[table, column] |= new
        self._new[table, column] |= new

    def follow(self) -> None:
        """Takes what is wanted, what that names, and so on."""
        while self._new:
            (table, column), values = self._new.popitem()
            if values:
                for fields in self._rows.having(table, values, [column]):
                    self.take(table, fields)


def _references(
    found: Contents, belonging: Belonging
) -> Iterator[tuple[str, str, Column]]:
    """What names what: a table, its column, and the table and column of the other."""
    for entry in found.entries:
        if entry.kind == "FK CONSTRAINT" and (key := _KEY.search(entry.statement)):
            table, column, other, its = map(_plain, key.groups())
            yield table, column, (other, its)
    for table, column, other in belonging.names:
        yield table, column, (other, "id")


def _plain(name: str) -> str:
    """A name, or two with a dot between, without quotes."""
    parts = re.findall(_NAME, name)
    return ".".join(
        each[1:-1].replace('""', '"') if each[0] == '"' else each for each in parts
    )
