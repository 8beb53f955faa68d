"""One database into one file or stream that stock pg_restore reads."""

from __future__ import annotations

from typing import IO

from . import Progress, Site, archive, postgres
from .errors import Refused
from .postgres import Database, closing
from .target import whole

_CHUNK = 1 << 18


def to_stream(site: Site, part: str, out: IO[bytes], progress: Progress) -> None:
    """Writes the part's dump to a stream. Raises Refused, ToolFailed."""
    if part not in site.databases:
        raise Refused("this site has no DataStore (is the plugin `datastore` enabled?)")
    database = site.databases[part]
    total = _expected(database)
    with closing(database.connect()) as connection:
        tools = postgres.dump_tools(postgres.server_major(connection), site.pg_bin)
        limits = postgres.unlimited(connection)
    target, environment = database.program(limits)
    # half the time of pg_dump's own choice for a file of nearly the same size
    arguments = [tools.path("pg_dump"), "-Fc", "-Z1", "--no-password", *target]
    done = 0
    with postgres.running(arguments, environment, stdin=-3, stdout=-1) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            progress("dump", done, total)
        postgres.finish(process, f"pg_dump of {database.name!r}")
    out.flush()


def to_file(site: Site, part: str, name: str, progress: Progress) -> None:
    """Writes the part's dump to a file, 0600, whole or not at all.

    A link is followed; a pipe or a device is written to as it is. Raises as
    `to_stream`, and OSError.
    """

    def readable(file: IO[bytes]) -> None:
        archive.read_to_end(file, "", site.pg_bin)

    with whole(name, 0o600, readable) as out:
        to_stream(site, part, out, progress)


def _expected(database: Database) -> int:
    with closing(database.connect()) as connection:
        tables = postgres.tables(connection)
        postgres.refuse_unreadable(connection, database.name)
    if not tables and database.part == "database":
        raise Refused(
            f"the database {database.name!r} is empty: `ckan db init` makes its "
            "tables, `ckan db load FILE` brings a dump back"
        )
    # rows take some fifth of their room when they are compressed
    return sum(size for *_, size in tables) // 5
