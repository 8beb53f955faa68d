"""One database is dumped: into a file of `pg_dump -Fc`, or to a stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from ..engine import words
from ..engine.backup.dump import from_backup, to_file, to_stream
from ..engine.disk import is_stream
from ..engine.postgres.again import again
from ..engine.signature import Hashed
from .context import Portal, open_site
from .journal import writable
from .stages import staged


def run_dump(
    portal: Portal,
    part: str,
    name: str,
    out: IO[bytes] | None = None,
    source: str | None = None,
) -> str:
    """Writes a part's dump to a file, or to the stream `out`; words for what it is of.

    It is the live database's, or what the backup `source` holds of it.
    What fails for a moment only is dumped again, unless half of it is somewhere from
    where it cannot be taken back. It works without a repository, for it only reads.
    Raises Refused, ToolFailed, OSError.
    """
    site, repository = open_site(portal)
    found = repository.find(source) if source else None
    talk, stream = portal.talk, out and Hashed(out)
    safe = not out and not is_stream(name)

    def write(to: Any) -> None:
        if found:
            from_backup(found, part, to, talk.progress)
        else:
            to_stream(site, part, to, talk.progress)

    def dump() -> None:
        if stream:
            write(stream)
        else:
            to_file(site, name, write, talk.progress)

    def may() -> bool:
        return safe or (stream is not None and not stream.bytes)

    ahead = ["dump", *["verify"] * safe]
    with (
        writing(portal, name, safe),
        staged(portal, writable(portal), f"dump {part}", ahead),
    ):
        again(f"dumping the {words.parts([part])}", dump, talk.warn, may)
    return f"of backup {found.id}" if found else repr(site.databases[part].name)


@contextmanager
def writing(portal: Portal, name: str, whole: bool) -> Iterator[None]:
    """Who ends the block is told what became of the file: nothing, when it is `whole`
    or not at all."""
    standing = portal.talk.standing
    half = f"what was written to {name} is not whole"
    standing.made[:] = [f"{name} was not written" if whole else half]
    yield
    standing.made.clear()
