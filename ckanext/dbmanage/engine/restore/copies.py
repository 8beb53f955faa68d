"""Copies: a backup is loaded beside the live databases, migrated and counted."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

from ..archive import contents, extensions, feeding, lint
from ..archive.contents import Contents, Entry, contents_of, limit
from ..archive.file import File
from ..archive.unpack import unpack
from ..errors import Damaged, ToolFailed
from ..operation import Operation
from ..postgres.again import again
from ..postgres.database import Connection, Database, closing, no_limits, query
from ..postgres.programs import finish, running
from ..postgres.tables import count_rows, migration_heads, tables_of
from ..signals import uninterrupted
from ..site import Site
from . import faithful
from .completed import complete
from .faithful import Loaded, left_out, refuse_lost_rows
from .preflight import outdated
from .scratch import Scratch, scratch_database
from .source import Source

#: letters of what pg_restore says though it succeeds
_WORDS = 2000


def choose(
    found: Contents, connection: Connection, left: Container[int] = ()
) -> list[str]:
    """The lines of pg_restore's `-L` list: all entries but those that are there.

    `connection` is to the scratch database; `left` are ids of entries to be left out.
    """
    present = {row[0] for row in query(connection, "SELECT extname FROM pg_extension")}

    def wanted(entry: Entry) -> bool:
        if entry.kind == "EXTENSION":
            return entry.name not in present
        if entry.kind == "COMMENT":
            return not entry.name.startswith("EXTENSION ")
        return True

    return [f"{e.id};" for e in found.entries if e.id not in left and wanted(e)]


#: given the scratch databases by part and the version tables that are older than the
#: installed code, makes of them what this site's CKAN needs
Prepare = Callable[[Mapping[str, Database], list[str]], None]


def stages_of(parts: Iterable[str]) -> list[str]:
    """What lies ahead of `loaded_copies` of these parts."""
    return [
        f"{stage} {part}"
        for part in parts
        if part != "files"
        for stage in ("unpack", "load", "check")
    ]


@contextmanager
def loaded_copies(
    op: Operation,
    source: Source,
    prepare: Prepare,
    locked: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Scratch]]:
    """Scratch databases with the source's data, by part, migrated and checked.

    They are gone at the end unless they were switched in. What fails for a moment only
    is loaded again, into new ones, unless `locked` raises. Raises Damaged, Refused.
    """
    with ExitStack() as stack:

        def load() -> dict[str, Scratch]:
            with ExitStack() as own:
                scratches = {
                    part: own.enter_context(scratch_database(op, part, source.backup))
                    for part in source.archives
                }
                for part, scratch in scratches.items():
                    _load(op, source, scratch)
                    op.progress(f"check {part}")
                    _compare_rows(source, part, scratch.database)
                _migrate(op, source, scratches, prepare)
                for scratch in scratches.values():
                    _analyse(scratch.database, op.site.jobs)
                stack.push(own.pop_all())
            return scratches

        def may() -> bool:
            return not locked()

        yield again(f"loading {source.name} into a copy", load, op.warn, may)


def _migrate(
    op: Operation, source: Source, scratches: Mapping[str, Scratch], prepare: Prepare
) -> None:
    older = _outdated(op.site, source, scratches)
    if older:
        op.progress("migrate")
    prepare({part: scratch.database for part, scratch in scratches.items()}, older)
    # a migration's exit code alone says little
    if older and (wrong := _outdated(op.site, source, scratches)):
        raise ToolFailed(
            f"the copy of {source.name} was migrated, but {', '.join(wrong)} is "
            "still not what the installed code expects; nothing was switched"
        )


def _outdated(
    site: Site, source: Source, scratches: Mapping[str, Scratch]
) -> list[str]:
    if "database" not in scratches:
        return []
    with closing(scratches["database"].database.connect()) as connection:
        return outdated(source.name, migration_heads(connection), site)


def _load(op: Operation, source: Source, scratch: Scratch) -> None:
    """Loads a part's archive into its scratch database, and completes it."""
    part, site = scratch.pair.part, op.site
    with op.repository.partial(f"restore{scratch.pair.token[:8]}{part}") as directory:
        packed = source.archives[part]
        most = 0 if source.signed else limit(packed.size)
        path = unpack(
            packed, directory,
            lambda name, done, about: op.progress(f"{name} {part}", done, about), most,
        )  # fmt: skip
        plain = File(path)
        with closing(scratch.database.connect()) as connection:
            tools = contents.tools(plain, connection, site.pg_bin)
            found = contents_of(plain)
            if not source.signed:  # once more: this is what is loaded
                lint.refuse_odd(found, source.name)
            plan = faithful.plan(found, connection, scratch.database.role)
            refuse_lost_rows(plan, source.name)
            left = left_out(plan, found, connection)
            left |= extensions.left_out(part, found, connection, op.warn)
            chosen = choose(found, connection, left)
            settings = f"{_settings(connection)} {no_limits(connection)}"
        listed = directory / "list"
        listed.write_text("\n".join(chosen) + "\n", "utf-8")
        # owners follow: one that cannot be given to its owner must not end it all
        arguments = [tools.path("pg_restore"), "-O", "-e", "-L", str(listed)]
        arguments += ["--no-tablespaces"] if plan.tablespaces else []
        name = f"{source.name} ({part})"
        doing = f"restoring {name} into a copy"
        op.progress(f"load {part}")
        if source.signed:
            target, environment = scratch.database.program(settings)
            arguments += ["-j", str(site.jobs), "--no-password", *target, str(path)]
            with running(arguments, environment, stdin=-3) as process:
                words = finish(process, doing)
        else:
            with closing(scratch.database.connect()) as connection:
                query(connection, "SET synchronous_commit = off")
                words = feeding.load(connection, [*arguments, "-f-", str(path)], name)
        if words:
            op.warn(f"{doing}, pg_restore says: {words[:_WORDS]}")
        op.progress(f"check {part}")
        complete(Loaded(op, scratch, found, plan, left, source.signed))


def _settings(connection: Connection) -> str:
    """What makes a load faster, where the server knows it.

    Commits need not wait for the disk: the switch's own commit does, after them all.
    """
    found = query(
        connection,
        "SELECT 'lz4' = ANY(enumvals) FROM pg_settings"
        " WHERE name = 'default_toast_compression'",
    )
    lz4 = "-c default_toast_compression=lz4" if found == [(True,)] else ""
    return f"-c synchronous_commit=off {lz4}"


def _analyse(database: Database, jobs: int) -> None:
    """Collects the planner's statistics, tables side by side, the largest first."""
    with closing(database.connect()) as connection:
        tables = query(
            connection,
            "SELECT format('%I.%I', nspname, relname) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind IN ('r', 'm', 'p') AND nspname !~ '^pg_'"
            " AND nspname <> 'information_schema' ORDER BY pg_table_size(c.oid)",
        )

    def work() -> None:
        with closing(database.connect()) as connection:
            connection.autocommit = True
            query(connection, "SET synchronous_commit = off")
            while tables:
                with suppress(IndexError):
                    query(connection, f"ANALYZE {tables.pop()[0]}")

    with ThreadPoolExecutor(jobs) as pool:
        try:
            with uninterrupted():  # a pool forgets a thread that it only starts
                working = [pool.submit(work) for _ in range(jobs)]
            for done in working:
                done.result()
        finally:
            tables.clear()  # whatever ended it, none waits for the others


def _compare_rows(source: Source, part: str, copy: Database) -> None:
    expected = source.rows(part)
    if expected is None:
        return
    with closing(copy.connect()) as connection:
        connection.autocommit = True
        names = [(schema, table) for schema, table, *_ in tables_of(connection)]
        counted = count_rows(connection, names)
    wrong = [
        f"table {table}: {counted.get(table, 'none')} rows, the manifest says {rows}"
        for table, rows in sorted(expected.items())
        if counted.get(table) != rows
    ]
    if wrong:
        raise Damaged(f"the copy restored from {source.name} ({part})", wrong)
