"""Archives of `pg_dump -Fc`: what is in them, and whether they are whole."""

from __future__ import annotations

import re
import shlex
import struct
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg2.extensions import encodings

from ..errors import Damaged, Refused
from ..postgres.database import Connection, server_major
from ..postgres.programs import Tools, oldest_reader, restore_tools
from ..report import name_of
from ..site import Site

CHUNK = 1 << 18
MAGIC = b"PGDMP"
#: a sign and four bytes, on every machine that PostgreSQL runs on
_INTEGER_AS_WRITTEN = struct.Struct("<BI")
#: pg_restore keeps a byte for each number up to the largest
_IDS = 1 << 26
#: what is compressed may grow to so many times its size, and to so much at least
TIMES, AT_LEAST = 250, 16 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of an archive: `statement` makes it, `copy` is its COPY.

    `drop` is the statement that would drop it, which names it as SQL must; `needs` are
    the ids of the entries that it depends on; `has_data` tells that pg_restore looks
    for data of it further on.
    """

    id: int
    kind: str
    schema: str
    name: str
    owner: str
    statement: str
    copy: str
    drop: str = ""
    tablespace: str = ""
    needs: frozenset[int] = frozenset()
    has_data: bool = False

    def __str__(self) -> str:
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        printable = name.encode("utf-8", "backslashreplace").decode()
        return f"{self.kind} {' '.join(printable.split())}"


class Archive(Protocol):
    """A dump of `pg_dump -Fc`, wherever its bytes are: a file, segments.

    `size` are the bytes on the disk that it is made of; `open` gives the dump itself,
    to be read, and raises Refused when more than `most` bytes come out, if not zero.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    def open(self, most: int = 0) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class Contents:
    """An archive's table of contents; `encoding` is what PostgreSQL calls it.

    `server` and `program` are the versions of its server and of pg_dump.
    """

    version: tuple[int, int]
    database: str
    entries: list[Entry]
    server: str = ""
    program: str = ""
    encoding: str = "UTF8"

    def tables(self) -> set[str]:
        """The names of the tables in the schema public."""
        return {
            e.name for e in self.entries if e.kind == "TABLE" and e.schema == "public"
        }

    def table_data(self) -> set[str]:
        """The tables whose rows it holds, as `schema.table`."""
        return {f"{e.schema}.{e.name}" for e in self.entries if e.kind == "TABLE DATA"}


class _Reader:
    """The basic values of the format: bytes, integers, texts.

    Read as pg_restore reads them (ReadInt, ReadStr); what it and this could take for
    different things is damage.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def bytes(self, size: int) -> bytes:
        chunks = []
        while size:
            chunk = self._stream.read(size)
            if not chunk:
                raise Damaged(self._name, ["its table of contents ends too early"])
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def byte(self) -> int:
        return self.bytes(1)[0]

    def integer(self) -> int:
        sign, value = _INTEGER_AS_WRITTEN.unpack(self.bytes(_INTEGER_AS_WRITTEN.size))
        # pg_restore's sum wraps at 32 bits, and any sign but zero is a minus
        if sign > 1 or value >= 1 << 31:
            raise self.unreadable()
        return -value if sign else value

    def text(self) -> bytes | None:
        size = self.integer()
        if size < 0:
            return None
        if size > MAX_TEXT:
            raise self.unreadable()
        found = self.bytes(size)
        if b"\0" in found:  # where a text ends for pg_restore
            raise self.unreadable()
        return found

    def unreadable(self) -> Damaged:
        return Damaged(self._name, ["its table of contents is not readable"])


def read_contents(stream: Any, name: str) -> Contents:
    """The table of contents of a dump that is read from its start.

    Raises Damaged; Refused for an archive newer than is known here.
    """
    reader = _Reader(stream, name)
    if reader.bytes(5) != MAGIC:
        raise Damaged(name, ["it is not an archive of pg_dump -Fc"])
    version = (reader.byte(), reader.byte())
    reader.byte()  # revision
    oldest_reader(version)
    if version < (1, 12):
        raise Refused(f"{name} was written by a pg_dump older than PostgreSQL 9")
    if reader.byte() != _INTEGER_AS_WRITTEN.size - 1:
        raise reader.unreadable()
    offset_size = reader.byte()
    if reader.byte() != 1:
        raise Damaged(name, ["it is not an archive in pg_dump's custom format"])
    if version >= (1, 15):
        reader.byte()  # compression algorithm
    else:
        reader.integer()  # compression level
    for _ in range(7):  # when it was made
        reader.integer()
    database = reader.text() or b""
    server = reader.text() or b""
    program = reader.text() or b""
    count = reader.integer()
    found = [_entry(reader, version, offset_size) for _ in range(count)]
    ids = {number for number, *_ in found}
    # `pg_restore -L` would take both of one number
    if len(ids) != len(found) or min(ids, default=1) < 1 or max(ids, default=1) > _IDS:
        raise reader.unreadable()
    encoding = _encoding(found)
    codec = "utf-8" if encoding == "SQL_ASCII" else encodings.get(encoding, "utf-8")

    def decoded(text: bytes) -> str:
        return text.decode(codec, "surrogateescape")

    entries = [
        # the same few kinds and schemas, over and over
        Entry(number, *map(sys.intern, map(decoded, texts)), needs, has_data)  # pyright: ignore
        for number, has_data, needs, *texts in found
    ]
    about = (decoded(server), decoded(program), encoding)
    return Contents(version, decoded(database), entries, *about)


def _encoding(found: list[Any]) -> str:
    """What pg_restore takes for the encoding of all texts (processEncodingEntry)."""
    name = "UTF8"
    for _, _, _, kind, _, _, _, statement, *_ in found:
        if kind == b"ENCODING":
            quoted = statement.split(b"'")
            name = quoted[1].decode("ascii", "replace") if len(quoted) > 2 else ""
    return re.sub(r"[^A-Z0-9_]", "", name.upper())


def _entry(reader: _Reader, version: tuple[int, int], offset_size: int) -> Any:
    number = reader.integer()
    has_data = reader.integer() != 0
    reader.text()  # oid of the catalogue
    reader.text()  # of the object
    name, kind = reader.text(), reader.text()
    reader.integer()  # section
    statement = reader.text()
    drop = reader.text()  # which is never run here
    copy, schema = reader.text(), reader.text()
    tablespace = reader.text()
    if version >= (1, 14):
        reader.text()  # table access method
    if version >= (1, 16):
        reader.integer()  # relation kind
    owner = reader.text()
    reader.text()  # with oids
    needs = set()
    while (need := reader.text()) is not None:
        needs.add(int(need) if need.isdigit() and len(need) < 10 else 0)
    reader.bytes(1 + offset_size)  # where the data are
    texts = (kind, schema, name, owner, statement, copy, drop, tablespace)
    return (number, has_data, frozenset(needs), *(text or b"" for text in texts))


def contents_of(archive: Archive) -> Contents:
    """The table of contents of an archive. Raises as `read_contents`, and OSError."""
    with archive.open(limit(archive.size)) as stream:
        return read_contents(stream, archive.name)


def refuse_wrong_part(found: Contents, part: str, name: str, site: Site) -> None:
    """Refuses another database's archive for the main database, and the reverse.

    Raises Refused.
    """
    is_main = found.tables().issuperset(site.main_tables)
    if part == "database" and not is_main:
        lacks = " and ".join(f"`{table}`" for table in sorted(site.main_tables))
        raise Refused(
            f"{name} holds no tables {lacks}, so it is not a dump of the main database"
            + site.advise("not the main database")
        )
    if part == "datastore" and is_main:
        raise Refused(
            f"{name} holds the tables of the main database, so it is not a dump of the "
            f"{name_of('datastore')}{site.advise('not the datastore')}"
        )


def tools(archive: Archive, connection: Connection, pg_bin: str) -> Tools:
    """The pg_restore for this archive and this server. Raises Refused."""
    return restore_tools(contents_of(archive).version, server_major(connection), pg_bin)


#: of one text in the table of contents; a view of a million characters is none of ours
MAX_TEXT = 64 << 20


def limit(packed: int) -> int:
    """How many bytes may come out of `packed` ones that nobody vouches for."""
    return AT_LEAST + packed * TIMES


class Bounded:
    """A stream that ends with Refused when more than `most` bytes come out of it."""

    def __init__(self, stream: Any, name: str, most: int) -> None:
        self._stream, self._name, self._left = stream, name, most

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        return self._counted(self._stream.read(size))

    def readline(self, size: int) -> bytes:
        """A line, or the first `size` bytes of it."""
        return self._counted(self._stream.readline(size))

    def _counted(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0:
            raise Refused(
                f"{self._name} grows to more than {TIMES} times its size when it is "
                "unpacked, and carries no signature of this site: if you know what it "
                f"is, unpack it yourself (`zstd -d {shlex.quote(self._name)}`)"
            )
        return chunk
