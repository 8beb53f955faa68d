"""One database into one file or stream that stock pg_restore reads."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from ..archive.contents import limit
from ..archive.unpack import read_to_end
from ..disk import whole
from ..errors import Damaged, Refused
from ..layout import MANIFEST
from ..postgres.beside import PATTERNS
from ..postgres.database import Database, closing, no_limits, quoted, server_major
from ..postgres.programs import dump_tools, finish, running
from ..postgres.tables import refuse_unreadable, tables_of
from ..report import Progress, name_of
from ..repository.backup import Backup
from ..signature import Hashed
from ..site import Site
from .manifest import segments_of, well_formed

_CHUNK = 1 << 18


@contextmanager
def dumping(database: Database, pg_bin: str, *options: str) -> Iterator[Any]:
    """A `pg_dump -Fc` at work, to be read from its stdout and `finish`ed."""
    with closing(database.connect()) as connection:
        tools = dump_tools(server_major(connection), pg_bin)
        limits = no_limits(connection)
    target, environment = database.program(limits)
    # what stands beside the tables is no part of the site
    options = (*options, *(f"--exclude-schema={each}" for each in PATTERNS))
    arguments = [tools.path("pg_dump"), "-Fc", "--no-password", *options, *target]
    with running(arguments, environment, stdin=-3, stdout=-1) as process:
        yield process


def to_stream(site: Site, part: str, out: Any, progress: Progress) -> None:
    """Writes the part's dump to a stream. Raises Refused, ToolFailed."""
    if part not in site.databases:
        raise Refused(f"this site has no {name_of(part)}{site.advise(f'no {part}')}")
    write_dump(site, site.databases[part], out, progress)


def write_dump(
    site: Site, database: Database, out: IO[bytes], progress: Progress
) -> None:
    """The same of a database anywhere. Raises Refused, ConnectionFailed, ToolFailed."""
    with closing(database.connect()) as connection:
        tables = tables_of(connection)
        refuse_unreadable(connection, database.name)
    refuse_unrestorable(site, database, tables)
    # rows take some fifth of their room when they are compressed
    done, total = 0, sum(size for *_, size in tables) // 5
    progress("dump", 0, total)  # it may wait for a lock before its first byte
    # half the time of pg_dump's own choice for a file of nearly the same size
    with dumping(database, site.pg_bin, "-Z1") as process:
        while chunk := process.stdout.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            progress("dump", done, total)
        finish(process, f"pg_dump of {database.name!r}")
    out.flush()


def from_backup(found: Backup, part: str, out: IO[bytes], progress: Progress) -> None:
    """Writes the dump that a backup holds of the part to a stream, not compressed.

    Of one that is not this site's no more than its pieces may grow to. Raises Refused,
    Damaged, Denied, OSError.
    """
    found.refuse_closed()
    if not well_formed(found.manifest):
        raise Damaged(f"backup {found.id}", [f"{MANIFEST}: is not a manifest"])
    dump, done = segments_of(found, part), 0
    total = found.manifest["databases"][part]["dump"]["bytes"]
    with dump.open(0 if found.signed else limit(dump.size)) as stream:
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            progress("dump", done, total)
    out.flush()


def to_file(
    site: Site, name: str, write: Callable[[IO[bytes]], None], progress: Progress
) -> None:
    """Has a dump written to a file, 0600, whole or not at all.

    A link is followed; a pipe or a device is written to as it is. Raises as `write`,
    and Damaged, OSError.
    """

    def readable(file: IO[bytes]) -> None:
        size = os.fstat(file.fileno()).st_size
        read = Hashed(file, lambda _: progress("verify", read.bytes, size))
        read_to_end(read, "", site.pg_bin)

    with whole(name, 0o600, readable) as out:
        write(out)


def refuse_unrestorable(
    site: Site, database: Database, tables: list[tuple[str, str, str, int]]
) -> None:
    """Refuses a database whose dump no restore would take. Raises Refused.

    `tables` as `postgres.tables` gives them. The site's own statements name no schema,
    but its DataStore, its extensions and all that is done here look in `public`.
    """
    if database.part != "database":
        return
    if not tables:
        raise Refused(f"the database {database.name!r} is empty{site.advise('empty')}")
    schemas = [
        {schema for schema, name, *_ in tables if name == table}
        for table in site.main_tables
    ]
    elsewhere = sorted(set[str]().union(*schemas[:1]).intersection(*schemas))
    if elsewhere and "public" not in elsewhere:
        schema, table = quoted(elsewhere[0]), quoted(site.main_tables[0])
        raise Refused(
            f"the tables of CKAN in the database {database.name!r} are in the schema "
            f"{schema}, and only those in `public` can be backed up and restored here. "
            "As their owner move each of them and its sequences (ALTER TABLE "
            f"{schema}.{table} SET SCHEMA public; and so on), and take the setting "
            "search_path away; or use pg_dump and pg_restore themselves"
        )
