"""One thing as it was then: read out of a backup by CKAN itself, on a copy.

Only what is needed is loaded. Nothing live is touched, and nothing that is said here is
the word of the live site: what the backup holds may be older, or another's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from ..engine import words
from ..engine.archive.rows import plain
from ..engine.errors import Refused, ToolFailed
from ..engine.operation import Operation
from ..engine.postgres.database import Database, closing
from ..engine.postgres.tables import migration_heads
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from ..engine.restore.gathered import gather
from ..engine.restore.parted import Data, Part, load, refuse_copy
from ..engine.restore.preflight import outdated, refuse_strange_part
from ..engine.restore.scratch import scratch_database
from ..engine.restore.source import Source, open_source
from ..engine.site import Site
from ..engine.uploads.contents import copy_content, open_content
from ..portal.belonging import BELONGING, RESOURCE, named, roots, whole_tables
from ..portal.isolated import Isolated
from ..portal.migrate import to_the_head
from .context import Portal

if TYPE_CHECKING:  # CKAN itself, which `python -m` starts without
    from ..records.thing import Thing

#: the part of a backup that each kind stands in
PART_OF = dict.fromkeys(("dataset", "organization", "group", "user"), "database") | {
    "table": "datastore",
    "upload": "files",
}
_PUBLIC = "public."
#: before each thing that an isolated CKAN prints: plugins may print too
_MARK = "dbmanage thing "


@dataclass(frozen=True)
class Then:
    """What a backup holds of what was asked for, while it lies in a copy.

    `things` are in the order in which they can be written: what others need comes
    first. `store` has their DataStore tables in its schema public, as they were: rows,
    types, indexes, triggers, comments (the data dictionary), views (aliases) and
    rights; None where there are none. `rows` counts those by table. `uploads` are those
    that the backup holds, by path, as its list tells of them; `lacking` is what the
    things name and the backup does not hold, a sentence for each.
    """

    source: str
    moment: datetime | None
    things: list[Thing]
    store: Database | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    uploads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    _of: Source | None = None

    @contextmanager
    def open_upload(self, name: str) -> Iterator[IO[bytes]]:
        """The content of one of `uploads`, looked at. Raises Damaged, OSError."""
        assert self._of and self._of.backup
        with open_content(self._of.backup.objects, self.uploads[name]) as file:
            copy_content(file, self.uploads[name])
            file.seek(0)
            yield file


def open_then(
    site: Site, repository: Repository, name: str, kind: str, trust: bool, talk: Any
) -> Source:
    """The backup that things of a kind are read out of, verified.

    Raises Refused for one without the part that the kind stands in; Untrusted, Damaged.
    """
    source = open_source(
        site, repository, name, trust=trust, progress=talk.progress, whole=False
    )
    if source.backup is None:
        raise Refused(
            f"{source.name} is one database in a file: a single thing is brought back "
            "out of a backup alone"
        )
    if PART_OF[kind] not in source.parts:
        raise Refused(
            f"{source.name} holds no {words.parts([PART_OF[kind]])}, only "
            f"{words.parts(source.parts)}"
        )
    return source


@contextmanager
def then(
    portal: Portal,
    op: Operation,
    source: Source,
    kind: str,
    names: Collection[str],
    with_datasets: bool = False,
) -> Iterator[Then]:
    """What a source (`open_then`) holds of things of a kind.

    `kind` is `dataset`, `organization`, `group`, `user`, `table` or `upload`; `names`
    are names or ids, for a table the id of its resource, for an upload its path in the
    backup. The repository's lock is not needed; the site must know the installed
    migrations. Raises Refused for a name that the backup does not hold, Damaged,
    ToolFailed.
    """
    with ExitStack() as stack:
        reading = _Reading(portal, op, source, stack)
        if kind == "upload":
            yield reading.upload(names)
        elif kind == "table":
            yield reading.table(names)
        else:
            yield reading.records(kind, names, with_datasets)


@dataclass
class _Reading:
    """Reads things out of a source; what is made for it is gone with the stack."""

    portal: Portal
    op: Operation
    source: Source
    stack: ExitStack
    lacking: list[str] = field(default_factory=list)
    _parts: dict[str, Part] = field(default_factory=dict)

    def _then(self, things: list[Thing], **facts: Any) -> Then:
        moment = self.source.backup.moment if self.source.backup else None
        return Then(
            self.source.name, moment, things, lacking=self.lacking, _of=self.source,
            **facts,
        )  # fmt: skip

    def upload(self, paths: Collection[str]) -> Then:
        """Single files."""
        from ..records.thing import UPLOAD, Thing

        found = self._uploads(paths)
        for path in paths:
            if path not in found and self.source.uploads:
                raise Refused(
                    f"{self.source.name} holds no upload {one_line(path)!r}"
                    + words.alike(path, self.source.uploads.paths())
                )
        things = [Thing(UPLOAD, path, path, uploads=[path]) for path in found]
        return self._then(things, uploads=found)

    def table(self, resources: Collection[str]) -> Then:
        """Single DataStore tables."""
        from ..records.thing import TABLE, Thing

        refuse_strange_part(self.op.site, self.source)
        known = self._part("datastore").rows.entries
        for id in resources:
            if _PUBLIC + id not in known or id.startswith("_"):
                near = (each.removeprefix(_PUBLIC) for each in known)
                raise Refused(
                    f"{self.source.name} holds no DataStore table {one_line(id)!r}"
                    + words.alike(id, near)
                )
        ids = list(dict.fromkeys(resources))
        store = self._copy("datastore")
        rows = self._store(store, ids)
        things = [Thing(TABLE, id, id, tables=[id]) for id in ids]
        return self._then(things, store=store, rows=rows)

    def records(self, kind: str, names: Collection[str], with_datasets: bool) -> Then:
        """Datasets, organizations, groups, users, with all that is theirs."""
        part, op = self._part("database"), self.op
        op.progress("look")
        found = named(part.rows, kind, names, self.source.name)
        for each in found:
            if each.deleted:
                op.warn(
                    f"{kind} {one_line(each.name)} is deleted in {self.source.name}: "
                    "it comes back as deleted"
                )
        copies = {"database": self._copy("database")}
        if "datastore" in op.site.databases:
            copies["datastore"] = self._copy("datastore")
        asked = [each.id for each in found]
        stored: dict[str, int] = {}

        def beside(go: Callable[[], None]) -> None:
            belongs = roots(part.rows, kind, asked, with_datasets)
            self._load(copies, part, belongs)
            go()
            resources = [plain(each) for each in belongs.get(RESOURCE, ())]
            stored.update(self._store(copies.get("datastore"), resources))
            op.progress("read")

        things = self._read(copies, kind, asked, with_datasets, beside)
        things = [self._with_tables(thing, stored) for thing in things]
        uploads = self._uploads({path for thing in things for path in thing.uploads})
        for thing in things:
            self.lacking += [
                f"the upload {path} of {thing.kind} {thing.name} is not in it"
                for path in thing.uploads
                if path not in uploads
            ]
        store = copies["datastore"] if stored else None
        return self._then(things, store=store, rows=stored, uploads=uploads)

    def _load(
        self,
        copies: Mapping[str, Database],
        part: Part,
        belongs: Mapping[str, Collection[bytes]],
    ) -> None:
        """Loads the rows that belong to some records, and migrates their copy."""
        gathered = gather(part.rows, part.found, belongs, BELONGING, self.op.warn)
        self.stack.callback(gathered.close)
        data: Data = dict.fromkeys(whole_tables(part.rows)) | gathered.data()
        self.op.progress("load")
        load(self.op, part, copies["database"], data, True)
        self._migrate(copies)

    def _part(self, part: str) -> Part:
        """The dump of a part, which is read once."""
        return self._parts.setdefault(part, Part(self.op.site, self.source, part))

    def _copy(self, part: str) -> Database:
        """A new, empty database for a part; gone at the end. Raises Refused."""
        if part in self.source.archives:
            refuse_copy(self.op, self._part(part))
        made = scratch_database(self.op, part, self.source.backup)
        return self.stack.enter_context(made).database

    def _migrate(self, copies: Mapping[str, Database]) -> None:
        """Makes of a copy of an older CKAN what the installed one reads."""
        site = self.op.site
        with closing(copies["database"].connect()) as connection:
            there = migration_heads(connection)
        gone = sorted(set(there) - set(site.heads)) if site.heads else []
        for table in gone:
            self.op.warn(
                f"{self.source.name} has migrations of a plugin that is not enabled "
                f"here ({table}): what only that plugin knows of stays behind"
            )
            del there[table]
        if older := outdated(self.source.name, there, site):
            self.op.progress("migrate")
            to_the_head(Isolated(self.portal.options, copies), older)

    def _read(
        self,
        copies: Mapping[str, Database],
        kind: str,
        ids: Collection[str],
        with_datasets: bool,
        beside: Callable[[Callable[[], None]], None],
    ) -> list[Thing]:
        """The things as CKAN shows them on the copy, those that others need first."""
        from ..records.thing import Thing

        options = self.portal.options
        code = f"from {__name__} import print_things; print_things()"
        asked = [kind, "with" if with_datasets else "", options.text(_STORAGE), *ids]
        isolated = Isolated(options, copies)
        printed = isolated.code(
            code, options.plugins, *asked, beside=beside, doing=f"reading the {kind}"
        )
        things = [
            Thing.from_json(json.loads(line.removeprefix(_MARK)))
            for line in printed.splitlines()
            if line.startswith(_MARK)
        ]
        if missing := set(ids) - {thing.id for thing in things}:
            raise ToolFailed(
                f"CKAN does not find the {kind} {one_line(min(missing))} in a copy of "
                f"{self.source.name}, in which it stands"
            )
        return things

    def _with_tables(self, thing: Thing, stored: Collection[str]) -> Thing:
        """A thing with the DataStore tables that it has in the source."""
        tables = []
        for resource in thing.record.get("resources", ()):
            if resource["id"] in stored:
                tables.append(resource["id"])
            elif resource.get("datastore_active"):
                self.lacking.append(
                    f"the DataStore table of resource {resource['id']} of dataset "
                    f"{thing.name} is not in it"
                )
        return replace(thing, tables=tables)

    def _store(
        self, copy: Database | None, resources: Collection[str]
    ) -> dict[str, int]:
        """Loads the tables of those of these resources that have one; their rows."""
        if copy is None or "datastore" not in self.source.archives:
            return {}
        part = self._part("datastore")
        tables = [_PUBLIC + each for each in resources]
        data: Data = {each: None for each in tables if each in part.rows.entries}
        if not data:
            return {}
        self.op.progress("load datastore")
        counted = load(self.op, part, copy, data, False)
        return {name.removeprefix(_PUBLIC): rows for name, rows in counted.items()}

    def _uploads(self, paths: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """What the list tells of those of some uploads that the backup holds."""
        if not paths or self.source.uploads is None:
            return {}
        return self.source.uploads.find(paths)


_STORAGE = "ckan.storage_path"


def print_things() -> None:
    """Reads things through CKAN, and prints a line for each.

    For a process of its own: `-c` and a configuration file are its arguments, then
    kind, whether their datasets are asked for, the live storage, and ids.
    """
    from ckan.cli import load_config
    from ckan.common import config
    from ckan.config.middleware import make_app

    from ..portal.config import Options
    from ..records.thing import datasets_of, read

    sys.stdin.read()  # until the copies are ready
    ini, kind, with_datasets, storage, *ids = sys.argv[2:]
    made: Any = make_app(load_config(ini))
    # its own storage is an empty one, in which no upload is
    options = Options({**config, _STORAGE: storage})
    # CKAN makes addresses by a dataset's type, whose plugin may be gone
    made._wsgi_app.url_build_error_handlers.append(_of_no_type)
    with made._wsgi_app.test_request_context():
        asked = [(kind, id) for id in ids]
        if with_datasets:
            asked += [("dataset", each) for id in ids for each in datasets_of(kind, id)]
        for each, id in dict.fromkeys(asked):
            if thing := read(each, id, options):
                print(_MARK + json.dumps(thing.as_json()))  # noqa: T201


def _of_no_type(error: Exception, endpoint: str, values: dict[str, Any]) -> str:
    """The address of a file of a dataset whose type is not known any more."""
    from flask import url_for

    if not endpoint.endswith("_resource.download"):
        raise error
    return url_for("resource.download", **values)
