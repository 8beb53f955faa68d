"""Records are exported: to a stream or a file, or for the sysadmin page."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ..engine.postgres.again import again
from ..portal.config import Options
from ..portal.directories import refuse_public
from ..records.export import Export, Exported
from ..records.jsonl import new_file
from ..records.kinds import Wanted
from .context import Portal
from .dump import writing
from .in_use import refuse_empty
from .index import open_to_change
from .journal import journalled
from .stages import staged

#: what takes lines, and what opens it
Write = Callable[[bytes], Any]
Target = Callable[[], AbstractContextManager[Write]]


def run_export(
    portal: Portal,
    kind: str,
    wanted: Wanted,
    target: Target,
    *,
    name: str,
    whole: bool,
    check: int = 0,
    jobs: int | None = None,
) -> tuple[Exported, datetime]:
    """Writes all records of a kind as JSON Lines; what was written, as of when.

    `name` is where the lines go to, for the journal; `target` opens it, and is `whole`
    when nothing of an export that fails stays there. `check` as `Export.write` takes
    it. It works without a repository, for it only reads. Raises DbmanageError, OSError.
    """
    talk, written = portal.talk, 0

    def export() -> tuple[Exported, Export]:
        processes = jobs or portal.options.jobs
        with (
            target() as write,
            Export(portal.app, portal.options, wanted, processes) as moment,
        ):

            def counted(lines: bytes) -> None:
                nonlocal written
                written += len(lines)
                write(lines)

            return moment.write(kind, counted, check, talk.rows), moment

    def may() -> bool:
        return whole or not written  # it could not be taken back

    facts = {"kind": kind, "all": wanted.everything, "secrets": wanted.secrets}
    ahead = [kind, *["check"] * bool(check)]
    with (
        journalled(portal, "export", name, **facts) as (repository, noted),
        writing(portal, name, whole),
        staged(portal, repository, f"export {kind}", ahead),
    ):
        done, moment = again(f"the export of {kind}", export, talk.warn, may)
        noted |= {"rows": done.rows, "failed": len(done.failed)}
    return done, moment.moment


@contextmanager
def to_file(options: Options, path: Path, private: bool) -> Iterator[Write]:
    """A file for an export, whole or not at all; a `private` one is its owner's alone.

    Raises Refused where visitors could read it, and OSError.
    """
    refuse_public(options, path, private)
    umask = os.umask(0)
    os.umask(umask)
    with new_file(path, 0o600 if private else 0o666 & ~umask) as write:
        yield write


def export_for_page(
    portal: Portal, kind: str, everything: bool
) -> tuple[Path, Exported]:
    """Exports into the repository's folder `exports`, from where the page sends it."""
    site, repository = open_to_change(portal)
    refuse_empty(portal.options, site, repository)
    with repository.exports() as directory:
        path = directory / f"{kind}{'-all' if everything else ''}.jsonl.gz"
        wanted = Wanted(everything)
        done, _ = run_export(
            portal, kind, wanted, lambda: new_file(path, 0o600), name=path.name,
            whole=True,
        )  # fmt: skip
    return path, done
