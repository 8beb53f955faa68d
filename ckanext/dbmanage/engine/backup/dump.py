"""One database into one file or stream that stock pg_restore reads."""

from __future__ import annotations

from typing import IO

from ..archive.unpack import read_to_end
from ..disk import whole
from ..errors import Refused
from ..postgres.database import Database, closing, quoted, server_major, unlimited
from ..postgres.programs import dump_tools, finish, running
from ..postgres.tables import refuse_unreadable, tables_of
from ..report import Progress
from ..site import Site

_CHUNK = 1 << 18


def to_stream(site: Site, part: str, out: IO[bytes], progress: Progress) -> None:
    """Writes the part's dump to a stream. Raises Refused, ToolFailed."""
    if part not in site.databases:
        raise Refused("this site has no DataStore (is the plugin `datastore` enabled?)")
    database = site.databases[part]
    total = _expected(database)
    with closing(database.connect()) as connection:
        tools = dump_tools(server_major(connection), site.pg_bin)
        limits = unlimited(connection)
    target, environment = database.program(limits)
    # half the time of pg_dump's own choice for a file of nearly the same size
    arguments = [tools.path("pg_dump"), "-Fc", "-Z1", "--no-password", *target]
    done = 0
    with running(arguments, environment, stdin=-3, stdout=-1) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            progress("dump", done, total)
        finish(process, f"pg_dump of {database.name!r}")
    out.flush()


def to_file(site: Site, part: str, name: str, progress: Progress) -> None:
    """Writes the part's dump to a file, 0600, whole or not at all.

    A link is followed; a pipe or a device is written to as it is. Raises as
    `to_stream`, and OSError.
    """

    def readable(file: IO[bytes]) -> None:
        read_to_end(file, "", site.pg_bin)

    with whole(name, 0o600, readable) as out:
        to_stream(site, part, out, progress)


def _expected(database: Database) -> int:
    with closing(database.connect()) as connection:
        tables = tables_of(connection)
        refuse_unreadable(connection, database.name)
    refuse_unrestorable(database, tables)
    # rows take some fifth of their room when they are compressed
    return sum(size for *_, size in tables) // 5


def refuse_unrestorable(
    database: Database, tables: list[tuple[str, str, str, int]]
) -> None:
    """Refuses a database whose dump no restore would take. Raises Refused.

    `tables` as `tables_of` gives them. CKAN's own statements name no schema, but
    its DataStore, its extensions and all that is done here look in `public`.
    """
    if database.part != "database":
        return
    if not tables:
        raise Refused(
            f"the database {database.name!r} is empty: `ckan db init` makes its "
            "tables, `ckan db load FILE` brings a dump back"
        )
    held = {"package": set[str](), "user": set[str]()}
    for schema, name, *_ in tables:
        held.get(name, set()).add(schema)
    elsewhere = sorted(held["package"] & held["user"])
    if elsewhere and "public" not in elsewhere:
        schema = quoted(elsewhere[0])
        raise Refused(
            f"the tables of CKAN in the database {database.name!r} are in the schema "
            f"{schema}, and only those in `public` can be backed up and restored here. "
            "As their owner move each of them and its sequences (ALTER TABLE "
            f"{schema}.package SET SCHEMA public; and so on), and take the setting "
            "search_path away; or use pg_dump and pg_restore themselves"
        )
