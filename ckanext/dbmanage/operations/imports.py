"""Records are imported: out of a stream or a file, with what was refused beside it."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from ..engine.disk import is_stream, whole
from ..engine.errors import DbmanageError, Refused, explanation_of
from ..engine.printable import one_line
from ..engine.words import many
from ..portal.directories import refuse_public
from ..records.imports import Import
from ..records.lines import Source
from ..records.written import How, There, Written
from .context import Portal, application
from .index import index_changed
from .journal import TOLD, journalled
from .locked import locked
from .stages import staged

#: what the name of a file of lines ends in, and the name of one with refused lines
_SUFFIX = re.compile(r"(\.refused(-\d+)?)?(\.(jsonl|ndjson|json))?(\.(gz|zst))?$")
#: letters of a record's name in a message
_NAME = 100


@dataclass
class Imported:
    """What was done, how many lines were refused, and the file that has these."""

    done: Written = field(default_factory=Written)
    refused: int = 0
    path: Path | None = None


def run_import(
    portal: Portal,
    kind: str,
    name: str,
    how: How,
    *,
    stdin: IO[bytes],
    jobs: int | None = None,
) -> Imported:
    """Imports all records of a kind out of a file, or of `stdin` for the name `-`.

    Each line that is refused is a warning. Raises DbmanageError, OSError.
    """
    talk, found = portal.talk, Imported()
    indexed = kind == "datasets" and not how.dry
    ahead = ["read", "import", *["index"] * indexed]
    facts = {"kind": kind, "there": how.there.value, "dry": how.dry}
    with (
        locked(portal, "import") as (site, repository),
        journalled(portal, "import", name, **facts) as (_, noted),
        application(portal),
        staged(portal, repository, f"import {kind}", ahead),
        _source(name, stdin, site.repository) as source,
        _Refused(portal, name, kind, how.dry) as refused,
    ):

        def refuse(number: int, called: str, why: str) -> None:
            found.refused += 1
            what = one_line(called)[:_NAME]
            of = f"{kind.removesuffix('s')} {what}: " if what else ""
            talk.warn(f"line {number}: {of}{one_line(why)}")

        def told(done: Written) -> None:
            found.done = done
            noted.update(created=done.created, changed=done.changed)
            noted.update(refused=found.refused)
            if not how.dry:
                talk.standing.done = _standing(done, kind, how, name)

        told(found.done)
        owed = repository.marked("reindex")
        if indexed:
            repository.mark("reindex", True)
        work = Import(kind, source, how, site.repository, portal.options)
        processes = jobs or portal.options.jobs
        try:
            work.run(portal.app, processes, refuse, refused.keep, talk.rows, told)
        except TOLD as error:
            written = found.done.created or found.done.changed
            if isinstance(error, Refused) and not written:
                repository.mark("reindex", owed)
                raise
            if how.dry:
                raise
            raise DbmanageError(
                f"{explanation_of(error)}. {talk.standing.done}"
            ) from error
        if found.done.created or found.done.changed:
            if indexed:
                index_changed(portal, repository, "imported", found.done.indexed)
        elif indexed:
            repository.mark("reindex", owed)
    found.path = refused.path
    return found


def _standing(done: Written, kind: str, how: How, name: str) -> str:
    written = many(done.created + done.changed, kind.removesuffix("s"))
    options = {There.CHANGED: " --update", There.LEFT: " --create-only"}
    again = f"import {kind} {shlex.quote(name)}{options.get(how.there, ' --resume')}"
    return f"{written} imported so far; `ckan db {again}` goes on"


@contextmanager
def _source(name: str, stdin: IO[bytes], folder: str) -> Iterator[Source]:
    """The file, or what comes out of a stream, kept on the disk meanwhile."""
    if name != "-" and not is_stream(name):
        yield Source(Path(os.path.realpath(name)), None, name)
        return
    with ExitStack() as stack:
        stream = stdin if name == "-" else stack.enter_context(open(name, "rb"))
        kept = stack.enter_context(TemporaryFile(dir=folder))
        shutil.copyfileobj(stream, kept, 1 << 20)
        yield Source(None, kept, "standard input" if name == "-" else name)


class _Refused:
    """The file of the lines that are refused, which is made when there is one.

    It appears at the end, beside the file that the lines are of; `path` is None while
    there is none. Raises Refused and OSError.
    """

    path: Path | None = None

    def __init__(self, portal: Portal, name: str, kind: str, dry: bool) -> None:
        self._dry, self._stack = dry, ExitStack()
        self._file: IO[bytes] | None = None
        given = Path(f"{kind}.jsonl" if name == "-" or is_stream(name) else name)
        self._folder = Path(os.path.abspath(given)).parent
        self._stem = _SUFFIX.sub("", given.name) or kind
        if not dry:
            refuse_public(portal.options, self._folder / given.name, True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise Refused(
                    f"{self._folder} cannot be written to, and refused lines would go "
                    "there: copy the file to another place, or go to one and give the "
                    "file as standard input"
                )

    def __enter__(self) -> "_Refused":
        return self

    def keep(self, content: bytes) -> None:
        """Writes what was refused."""
        if self._dry:
            return
        if self._file is None:
            # an earlier one may have been mended meanwhile
            number, path = 1, self._folder / f"{self._stem}.refused.jsonl"
            while os.path.lexists(path):
                number += 1
                path = self._folder / f"{self._stem}.refused-{number}.jsonl"
            self._file, self.path = self._stack.enter_context(whole(path, 0o600)), path
        try:
            self._file.write(content)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise

    def __exit__(self, *failure: object) -> None:
        try:
            self._stack.__exit__(*failure)  # type: ignore[arg-type]
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
