"""Archives of `pg_dump -Fc`: what is in them, whether they are whole, what is odd.

Reads the table of contents itself, entry by entry, so that the SQL an entry carries
is seen exactly as pg_restore will send it. The layout is that of PostgreSQL's
src/bin/pg_dump/pg_backup_archiver.c (ReadHead, ReadToc), archive versions 1.12 to
1.16. An archive is hostile input until a signature of this site vouches for it.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard
from psycopg2 import sql

from . import Progress, postgres
from .errors import Damaged, Refused, ToolFailed
from .opened import open_plain
from .postgres import Connection, Tools
from .repository import create_file

_CHUNK = 1 << 18
_MAGIC = b"PGDMP"
#: of one text in the table of contents; a view of a million characters is none of ours
_MAX_TEXT = 64 << 20


@dataclass(frozen=True)
class Entry:
    """One object of an archive: `statement` makes it, `copy` is its COPY.

    `drop` is the statement that would drop it, which names it as SQL must; `needs` are
    the ids of the entries that it depends on.
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

    def __str__(self) -> str:
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return f"{self.kind} {' '.join(name.split())}"


@dataclass(frozen=True)
class Contents:
    """An archive's table of contents; the versions of its server and of pg_dump."""

    version: tuple[int, int]
    database: str
    entries: list[Entry]
    server: str = ""
    program: str = ""

    def tables(self, schema: str = "public") -> set[str]:
        """The names of the tables in a schema."""
        return {
            e.name for e in self.entries if e.kind == "TABLE" and e.schema == schema
        }


# ---------------------------------------------------------------- table of contents


class _Reader:
    """The basic values of the format: bytes, integers, texts."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name
        self.integer_size = 4

    def bytes(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            chunk = self._stream.read(size - len(found))
            if not chunk:
                raise Damaged(self._name, ["its table of contents ends too early"])
            found += chunk
        return found

    def byte(self) -> int:
        return self.bytes(1)[0]

    def integer(self) -> int:
        sign = self.byte()
        value = int.from_bytes(self.bytes(self.integer_size), "little")
        return -value if sign else value

    def text(self) -> str | None:
        size = self.integer()
        if size < 0:
            return None
        if size > _MAX_TEXT:
            raise Damaged(self._name, ["its table of contents is not readable"])
        return self.bytes(size).decode("utf-8", "surrogateescape")


def contents(file: Any, name: str) -> Contents:
    """The table of contents of an archive open for reading.

    Raises Damaged, ZstdError; Refused for an archive newer than is known here.
    """
    reader = _Reader(unpacked(file, name), name)
    if reader.bytes(5) != _MAGIC:
        raise Damaged(name, ["it is not an archive of pg_dump -Fc"])
    version = (reader.byte(), reader.byte())
    reader.byte()  # revision
    postgres.oldest_reader(version)
    if version < (1, 12):
        raise Refused(f"{name} was written by a pg_dump older than PostgreSQL 9")
    reader.integer_size = reader.byte()
    offset_size = reader.byte()
    if reader.byte() != 1:
        raise Damaged(name, ["it is not an archive in pg_dump's custom format"])
    if version >= (1, 15):
        reader.byte()  # compression algorithm
    else:
        reader.integer()  # compression level
    for _ in range(7):  # when it was made
        reader.integer()
    database = reader.text() or ""
    server = reader.text() or ""
    program = reader.text() or ""
    count = reader.integer()
    found = [_entry(reader, version, offset_size) for _ in range(count)]
    return Contents(version, database, found, server, program)


def _entry(reader: _Reader, version: tuple[int, int], offset_size: int) -> Entry:
    number = reader.integer()
    reader.integer()  # has data
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
        needs.add(int(need) if need.isdecimal() and len(need) < 10 else 0)
    reader.bytes(1 + offset_size)  # where the data are
    texts = (kind, schema, name, owner, statement, copy, drop, tablespace)
    return Entry(number, *(text or "" for text in texts), needs=frozenset(needs))


def contents_of(path: Path) -> Contents:
    """The table of contents of an archive's file. Raises as `contents`, and OSError."""
    with open_plain(path) as file:
        return contents(file, path.name)


# ------------------------------------------------------------------------- reading


def unpacked(file: Any, name: str) -> Any:
    """The archive inside a file, to `read(size)`: decompressed when it ends in `.zst`.

    In bounded steps: a small file may unpack to very much.
    """
    if not name.endswith(".zst"):
        return file
    return zstandard.ZstdDecompressor().stream_reader(file, closefd=False)


def read_to_end(file: Any, name: str, pg_bin: str) -> None:
    """Reads an archive to its end. Raises Damaged, ToolFailed, ZstdError."""
    stream = unpacked(file, name)
    head = stream.read(_CHUNK)
    if len(head) < 7 or head[:5] != _MAGIC:
        raise Damaged(name, ["it is not an archive of pg_dump -Fc"])
    tools = postgres.reading_tools((head[5], head[6]), pg_bin)
    broken: list[Exception] = []

    def feed(out: IO[bytes], chunk: bytes) -> None:
        try:
            with suppress(BrokenPipeError), out:
                while chunk:
                    out.write(chunk)
                    chunk = stream.read(_CHUNK)
        except Exception as error:  # it belongs into the other thread
            broken.append(error)

    # "-l" would pass a truncated archive: only reading all of it tells
    arguments = [tools.path("pg_restore"), "-f", "/dev/null"]
    with postgres.running(arguments, stdin=-1) as process:
        assert process.stdin is not None
        feeder = threading.Thread(target=feed, args=(process.stdin, head))
        feeder.start()
        try:
            postgres.finish(process, f"pg_restore of {name}")
        finally:
            process.kill()
            feeder.join()
            if broken:
                raise broken[0]


def unpack(path: Path, directory: Path, sha256: str, progress: Progress) -> Path:
    """The archive as a plain file, which is what parallel loading needs.

    With `sha256` the file's bytes are compared once more on the way, and the plain file
    is one of ours even when nothing is packed. Raises Damaged.
    """
    size, done = path.stat().st_size, 0
    digest = hashlib.sha256()

    class Hashed:
        def read(self, count: int = -1) -> bytes:
            nonlocal done
            chunk = file.read(count)
            digest.update(chunk)
            done += len(chunk)
            progress("unpack", done, size)
            return chunk

    if not sha256 and not path.name.endswith(".zst"):
        return path
    plain = directory / path.name.removesuffix(".zst")
    with open_plain(path) as file, create_file(plain) as out:
        hashed = Hashed()
        stream = unpacked(hashed, path.name)
        try:
            while chunk := stream.read(_CHUNK):
                out.write(chunk)
            while hashed.read(_CHUNK):
                pass
        except zstandard.ZstdError as error:
            raise Damaged(path.name, [str(error)]) from error
    if sha256 and digest.hexdigest() != sha256:
        raise Damaged(path.name, ["it was changed while it was being restored"])
    return plain


# --------------------------------------------------------------------- what is odd


def refuse_other_formats(path: Path) -> None:
    """Refuses what is no archive of `pg_dump -Fc`, with the reason. Raises Refused."""
    with open_plain(path) as file:
        stream: Any = file
        head = file.read(512)
        if head[:4] == b"\x28\xb5\x2f\xfd":
            if path.suffix != ".zst":
                raise Refused(
                    f"{path.name} is compressed by zstd: let its name end in .zst"
                )
            file.seek(0)
            stream = unpacked(file, path.name)
            with suppress(zstandard.ZstdError):
                head = stream.read(512)
    if head[:5] == _MAGIC:
        return
    if head[257:262] == b"ustar":
        what = "is a tar archive"
    elif head[:2] == b"\x1f\x8b":
        what = "is compressed by gzip, so most likely plain SQL"
    elif re.match(
        rb"\s*(--|/\*|\\|(SET|CREATE|BEGIN|SELECT|DROP|ALTER|COPY)\b)", head, re.I
    ):
        what = "is plain SQL"
    else:
        raise Refused(f"{path.name} is not an archive of pg_dump -Fc")
    raise Refused(
        f"{path.name} {what}. Only archives of `pg_dump -Fc` are restored: plain SQL "
        "must be run by psql, which obeys commands hidden in the data (CVE-2025-8714) "
        "and cannot tell a whole file from a cut one. Make an archive with "
        "`ckan db dump FILE` or `pg_dump -Fc`"
    )


def refuse_wrong_part(found: Contents, part: str, name: str) -> None:
    """Refuses the DataStore's archive for the main database, and the reverse."""
    main = {"package", "user"} <= found.tables()
    if part == "database" and not main:
        raise Refused(
            f"{name} holds no tables `package` and `user`, so it is not a dump of "
            "CKAN's main database (the DataStore's goes by `--only datastore`)"
        )
    if part == "datastore" and main:
        raise Refused(
            f"{name} holds the tables of CKAN's main database, not the DataStore's"
        )


#: what a dump of a CKAN never holds; a pair of words with any space between them
_NEVER = re.compile(
    r"\b(?:(?:create|alter|drop)\s+(?:database|role|user\b(?!\s+mapping)|tablespace"
    r"|subscription)|alter\s+system|reassign\s+owned|set\s+(?:local\s+|session\s+)?role"
    r"|session\s+authorization|load\s+'|pg_terminate_backend|pg_cancel_backend"
    r"|pg_reload_conf|pg_(?:read|write|ls|stat)_\w*(?:file|dir)\w*|lo_import|lo_export"
    r"|dblink\w*\s*\(|language\s+'?\"?(?:c|internal|\w+u)\b)",
    re.IGNORECASE,
)
_STARTS = re.compile(
    r"(?:create|comment\s+on|grant|revoke|refresh\s+materialized\s+view|"
    r"security\s+label|alter\s+(?:table|sequence|view|materialized\s+view|index|type|"
    r"domain|function|procedure|aggregate|schema|default\s+privileges|publication|"
    r"policy|statistics|large\s+object|text\s+search|extension|collation))\b"
    r"|select\s+\*\s+from\s+pg_catalog\.pg_restore_(?:relation|attribute)_stats\s*\("
    r"|set\s+\w+\s*=|select\s+pg_catalog\.(?:setval|set_config|lo_create)\s*\(",
    re.IGNORECASE,
)
_COPY = re.compile(
    r'COPY (?:"(?:[^"]|"")+"|[\w$]+)(?:\.(?:"(?:[^"]|"")+"|[\w$]+))? '
    r'(?:\((?:"(?:[^"]|"")+"|[^()";])*\))? ?FROM stdin;\s*'
)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_QUOTED = re.compile(
    r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(\$\w*\$).*?\1",
    re.DOTALL,
)
#: their bodies may hold any statement, in quotes or (BEGIN ATOMIC) without
_WITH_BODY = ("FUNCTION", "PROCEDURE")
#: left out of every restore of an unsigned archive, see `faithful`
_SKIPPED = ("EVENT TRIGGER", "SUBSCRIPTION")


def refuse_odd(found: Contents, name: str) -> None:
    """Refuses an archive with an entry that a dump of a CKAN does not have, by name.

    A lint and not a wall: SQL can hide from every scan, so who says `--trust` is told
    what that means. Raises Refused.
    """
    for entry in found.entries:
        if entry.kind.startswith((*_SKIPPED, "DATABASE")):  # never restored
            continue
        odd = _odd(entry)
        if odd:
            raise Refused(
                f"{name} is refused: its entry {str(entry)!r} {odd}, which no dump of "
                "a CKAN has"
            )


def _odd(entry: Entry) -> str:
    if entry.copy and not _COPY.fullmatch(entry.copy):
        return "has more than a COPY"
    for text in (entry.statement, _COMMENTS.sub(" ", entry.statement)):
        never = _NEVER.search(text)
        if never:
            return f"says {' '.join(never.group().split()).upper()!r}"
    if entry.kind.startswith(_WITH_BODY):
        return ""
    # quotes and comments first, together: either may hold the signs of the other
    blank = re.sub(
        f"{_QUOTED.pattern}|{_COMMENTS.pattern}",
        " x ",
        entry.statement,
        flags=re.DOTALL,
    )
    for statement in blank.split(";"):
        words = re.sub(r"^(?:\s|x(?=\s))+", "", statement).strip()
        if words and not _STARTS.match(words):
            return f"says {' '.join(words.split())[:40]!r}"
    return ""


# ---------------------------------------------------------------- what is restored


def tools(path: Path, connection: Connection, pg_bin: str) -> Tools:
    """The pg_restore for this archive and this server. Raises Refused."""
    return postgres.restore_tools(
        contents_of(path).version, postgres.server_major(connection), pg_bin
    )


def choose(
    found: Contents, connection: Connection, left: Container[int] = ()
) -> list[str]:
    """The lines of pg_restore's `-L` list: all entries but those that are there.

    `connection` is to the scratch database; `left` are ids of entries to be left out.
    """
    present = {
        row[0] for row in postgres.query(connection, "SELECT extname FROM pg_extension")
    }

    def wanted(entry: Entry) -> bool:
        if entry.kind == "EXTENSION":
            return entry.name not in present
        if entry.kind == "COMMENT":
            return not entry.name.startswith("EXTENSION ")
        return True

    return [f"{e.id};" for e in found.entries if e.id not in left and wanted(e)]


# --------------------------------------------------------------------- for a preview


def copy_tables(path: Path, names: list[str], pg_bin: str, cursor: Any) -> None:
    """Copies tables of schema public into temporary tables of text columns."""
    found = contents_of(path)
    columns = {
        entry.name: _columns(entry.copy)
        for entry in found.entries
        if entry.kind == "TABLE DATA"
        and entry.schema == "public"
        and entry.name in names
    }
    for name, listed in columns.items():
        with _rows(path, name, found, pg_bin) as rows:
            fields = sql.SQL(", ").join(
                sql.SQL("{} text").format(sql.Identifier(column)) for column in listed
            )
            table = sql.Identifier("pg_temp", name)
            cursor.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} ({})").format(
                    sql.Identifier(name), fields
                )
            )
            cursor.copy_expert(sql.SQL("COPY {} FROM STDIN").format(table), rows)
            cursor.execute(sql.SQL("ANALYZE {}").format(table))


def _columns(copy: str) -> list[str]:
    inside = copy[copy.find("(") + 1 : copy.rfind(")")]
    return [
        name[1:-1].replace('""', '"') if name[0] == '"' else name
        for name in re.findall(r'"(?:[^"]|"")+"|[^,\s]+', inside)
    ]


class _Lines:
    """The rows of one COPY in pg_restore's output, as a file to read."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._rest, self._ended = out, b"", False

    def read(self, size: int = -1) -> bytes:
        while not self._ended and (size < 0 or len(self._rest) < size):
            line = self._out.readline()
            self._ended = line in (b"\\.\n", b"")
            if not self._ended:
                self._rest += line
        size = len(self._rest) if size < 0 else size
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk


@contextmanager
def _rows(path: Path, name: str, found: Contents, pg_bin: str) -> Iterator[_Lines]:
    number = next(
        e.id
        for e in found.entries
        if e.kind == "TABLE DATA" and e.schema == "public" and e.name == name
    )
    reading = postgres.reading_tools(found.version, pg_bin)
    # the list on stdin: nothing to name, nothing to clean up
    arguments = [reading.path("pg_restore"), "-a", "-f-", "-L/dev/stdin", str(path)]
    with postgres.running(arguments, stdin=-1, stdout=-1) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{number};\n".encode())
        process.stdin.close()
        for line in iter(process.stdout.readline, b""):
            if line.startswith(b"COPY "):
                yield _Lines(process.stdout)
                break
        else:
            raise ToolFailed(
                f"pg_restore found no rows of table {name!r} in {path.name}"
            )
        while process.stdout.read(_CHUNK):
            pass
        postgres.finish(process, f"reading table {name!r} of {path.name}")
