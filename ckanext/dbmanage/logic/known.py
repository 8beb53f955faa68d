"""What is read of a repository for the page: backups and journal, as little as can be.

Everything is kept and read again only when it has changed.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine.clock import is_stamp, stamp
from ..engine.printable import one_line
from ..engine.repository.journal import Entry
from ..engine.repository.repository import Repository
from ..operations.there import listed
from ..operations.watched import described

#: by repository and part of it: what it looked like, and what was read of it then
_kept: dict[tuple[Path, str], tuple[Any, Any]] = {}


def backups(repository: Repository) -> list[dict[str, Any]]:
    """The backups as `Backup.describe` tells, and `where` each is; the newest first.

    They are what is kept for the next one who asks: who changes one copies it.
    """
    return reread(
        (repository.path, "backups"),
        seen(repository),
        lambda: listed(
            repository,
            [described(repository, name) for name in repository.names()],
            every=False,
        )[0],
    )


def seen(repository: Repository) -> Any:
    """What tells whether a backup has come or gone, or was looked at."""
    # a backup comes and goes by a rename here, what is learned of it by one in `state`;
    # its date may have been of the future an hour ago, by a clock that was set since
    return stamped(repository.path), stamped(repository.path / "state"), stamp()[:13]


def of_journal(
    repository: Repository, name: str, read: Callable[[], Any], *more: Any
) -> Any:
    """What `read` finds in the journal, under a name of its own.

    It is read anew when the journal has grown: it may have megabytes. `more` is what
    else the result depends on.
    """
    seen = stamped(repository.path / "journal.jsonl"), *more
    return reread((repository.path, name), seen, read)


def journal_end(repository: Repository) -> list[Entry]:
    """The journal's end, as `Repository.journal` tells."""
    return of_journal(repository, "end", repository.journal)


def reread(what: tuple[Path, str], seen: Any, read: Callable[[], Any]) -> Any:
    """What was read before, while what was `seen` then is the same."""
    if what not in _kept or _kept[what][0] != seen:
        _kept[what] = seen, read()
    return _kept[what][1]


def stamped(path: Path) -> tuple[int, int, int] | None:
    """What tells whether a file or a directory has changed."""
    with suppress(OSError):
        about = path.stat()
        return about.st_ino, about.st_size, about.st_mtime_ns
    return None


#: events of the journal that are worth a line on the page
_TOLD = (
    "done", "failed", "asked", "refused", "cancelled",
    "found damage", "not proven", "not signed",
)  # fmt: skip


def journal_lines(repository: Repository, limit: int = 20) -> list[dict[str, Any]]:
    """The journal's last lines that people want to read, the newest first.

    `{time, what, event, of, things, user, address, forwarded, by, error, note}`;
    `forwarded` is what a proxy, or anybody, said of where it came from, `note` why it
    was done; `things` are the single ones that came back or went.
    """
    journal = journal_end(repository)
    # a restore's last line does not say of what
    sources = {e.operation: source for e in journal if (source := e.text("source"))}
    begun = {e.operation: e.text("things") for e in journal if e.event == "begin"}
    lines = []
    for entry in reversed(journal):
        what = entry.text("what")
        if entry.event not in _TOLD or not what or not is_stamp(entry.moment):
            continue
        told = asdict(entry.actor) | {"time": entry.moment, "what": what}
        told |= {"event": entry.event, "error": entry.text("error")}
        told["note"] = entry.text("note")
        told["things"] = entry.text("things") or begun.get(entry.operation, "")
        if told["things"] and what == "restore":
            told["what"] = "thing"
        of = entry.text("backup") or sources.get(entry.operation) or entry.operation
        told["of"] = one_line(of).removeprefix("backup ")
        lines.append({key: one_line(text) for key, text in told.items()})
        if len(lines) >= limit:
            break
    return lines


def history(repository: Repository, name: str) -> list[dict[str, Any]]:
    """The journal's lines of one backup, the newest first."""
    return [e for e in journal_lines(repository, 10_000) if e["of"] == name]
