"""The site, as the engine is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .postgres.database import Database


@dataclass(frozen=True)
class Indexed:
    """A kind of record that the index of a backup has a line for each of.

    `select` is SQL for id, name, title, state, owner, modified and hash of each, from a
    `table` of the schema `public` where one is named. `rows`: each is itself a table of
    that schema, whose name is the id, and the hash is that of its rows.
    """

    kind: str
    table: str
    select: str
    rows: bool = False


@dataclass(frozen=True)
class Site:
    """What the engine knows of a site.

    `databases` by part (`database`, `datastore`); `uploads` the directories of the part
    `files` by the prefix of their files' paths (empty for the main storage), and
    `uploads_elsewhere` the storages that are on no local disk, a sentence for each,
    `named_uploads` SQL by table for the paths of the uploads that the database names;
    `indexed` what an index of records has lines of, by the part that holds it;
    `public_dir` the directory of the public dumps, empty when there is none;
    `secrets` are the site's effective secret, then the older ones it still accepts,
    the first signs and all verify; `heads` the alembic revisions of the installed code
    by version table, `revisions` all that it knows, the older ones too;
    `scratch_templates` the databases that copies are made from, by part; `main_tables`
    tables that tell the main database from any other; `advice` what an operator does
    in a case, such as `empty`, in the words of the application.
    """

    id: str
    url: str
    repository: str
    databases: Mapping[str, Database]
    secrets: tuple[str, ...] = field(repr=False)
    token_secret: str = field(repr=False, default="")
    versions: Mapping[str, object] = field(default_factory=dict)
    heads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    revisions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    uploads: Mapping[str, str] = field(default_factory=dict)
    uploads_elsewhere: tuple[str, ...] = ()
    named_uploads: Mapping[str, str] = field(default_factory=dict)
    indexed: Mapping[str, tuple[Indexed, ...]] = field(default_factory=dict)
    public_dir: str = ""
    redis_url: str = field(repr=False, default="")
    pg_bin: str = ""
    jobs: int = 2
    scratch_templates: Mapping[str, str] = field(default_factory=dict)
    main_tables: tuple[str, ...] = ()
    advice: Mapping[str, str] = field(default_factory=dict)

    def advise(self, case: str, before: str = ": ") -> str:
        """The advice for a case, to be put behind what is wrong; empty without one."""
        return f"{before}{self.advice[case]}" if case in self.advice else ""

    @property
    def main(self) -> Database:
        """The database that the site cannot be without."""
        return self.databases["database"]
