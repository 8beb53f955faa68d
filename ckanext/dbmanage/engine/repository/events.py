"""The events of the journal, and the fields of its lines: all there are.

`docs/journal.rst` is written out of this. A test looks at each line that a command of
the tests has left, so that an event or a field which is not here fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Event(NamedTuple):
    """What an event says, and the fields that its line may have beside `COMMON`."""

    says: str
    fields: tuple[str, ...] = ()


#: what moves databases and folders: signed and numbered, and acted upon by recovery,
#: undo and prune
MOVES = {
    "begin": Event(
        "a restore, an undo or an upgrade begins; what follows has the same "
        "`operation`",
        ("what", "source", "things"),
    ),
    "create": Event("a scratch database is about to be created", ("pair",)),
    "stage": Event("uploads are about to be laid out beside the live ones", ("moves",)),
    "switch": Event("live and copy are about to be switched", ("pairs", "moves")),
    "switched": Event(
        "the switch is over; `parts` is empty where it was turned back", ("parts",)
    ),
    "exchange": Event(
        "one thing's tables and uploads are about to be exchanged", ("exchange",)
    ),
    "exchanged": Event("that is over, done or turned back", ("done",)),
    "drop": Event(
        "a scratch or undo database, folder, or what an exchange replaced, is gone",
        ("database", "folder", "exchange"),
    ),
}
#: how something ended, or that somebody asked for it
EVENTS = MOVES | {
    "done": Event("it was done", ("what", "error")),
    "failed": Event("it failed; `error` says why", ("what", "error")),
    "cancelled": Event("somebody or a signal ended it", ("what",)),
    "found damage": Event("a backup that was read is not what it was", ("what",)),
    "not signed": Event("it is whole, but not this site's own", ("what",)),
    "not proven": Event(
        "a restore of it beside the live site did not come out right", ("what",)
    ),
    "forget": Event("a backup was deleted, with the reason", ("backup", "reason")),
    "asked": Event(
        "somebody asked for it on the page or by the API", ("what", "things")
    ),
    "refused": Event("what somebody asked for was refused", ("what", "error")),
    "took": Event(
        "how long the stages of an operation took, for the next one's estimate",
        ("what", "stages"),
    ),
}
#: what a line has beside these when it says how such a thing ended, by its `what`
ENDED = {
    "backup": ("reason", "bytes", "parts"),
    "verify": ("problems", "place"),
    "proof": ("backup", "problems", "place"),
    "push": ("bytes",),
    "prune": ("dropped", "forgotten", "by_itself"),
    "prune remote": ("forgotten",),
    "arm": ("to", "until"),
    "export": ("kind", "all", "secrets", "rows", "failed"),
    "import": ("kind", "there", "dry", "created", "changed", "refused"),
    "publish": ("rows",),
    "reindex": ("indexed", "removed", "failed", "agrees"),
    "clean": ("tables",),
    "nightly": (
        "begun", "ended", "seconds", "result", "missed", "late", "before", "backup",
        "steps",
    ),
    "notify": ("states", "doors"),
}  # fmt: skip
#: in each line
COMMON = {
    "time": "when, in UTC",
    "by": "the user of the system, and the host",
    "pid": "the process",
    "user": "who is signed in, for what the page or the API was asked",
    "address": "from where that was asked",
    "job": "the job of the page or the API that did it",
    "forwarded": "what a proxy said of that, which anybody could say",
    "note": "the note why, as `--note` or the page has it",
    "operation": "what belongs together: an id of its own, a backup's, or a name",
    "event": "one of the events",
    "number": "in a line that is acted upon: it rises from one to the next",
    "hmac": "the signature over the line before it, with the site's secret",
}
FIELDS = {
    "what": "what was done: `backup`, `restore`, `undo`, `proof`, …",
    "source": "where a restore's data comes from",
    "things": "what is brought back, where it is not all",
    "pair": "a database and its copy: names, numbers, the token in the comment",
    "pairs": "all databases that are switched, each as `pair`",
    "moves": "the folders of uploads that are renamed",
    "exchange": "the tables and uploads that are exchanged; in `drop` their name",
    "done": "whether an exchange was done; else it was turned back",
    "database": "the name of the database that is gone",
    "folder": "the path of the folder of uploads that is gone",
    "error": "why it failed or was refused, for people",
    "backup": "the id of the backup",
    "reason": "why a backup was taken, or was deleted",
    "bytes": "its size, or what was sent",
    "parts": "the parts of it: `database`, `datastore`, `files`",
    "problems": "how many problems were found",
    "place": "`remote` where the other place was looked at",
    "to": "what a backup is armed for",
    "until": "until when it is armed",
    "kind": "`datasets`, `organizations`, `groups` or `users`",
    "all": "whether an export has what is private, too",
    "secrets": "whether an export has hashes of passwords and keys",
    "there": "what an import does with what is there already",
    "dry": "whether an import kept nothing",
    "rows": "the records written, by kind where there are several",
    "failed": "the records that could not be shown or indexed",
    "indexed": "the datasets that were indexed",
    "removed": "the datasets that were removed from the search index",
    "agrees": "whether index and database have as many datasets",
    "created": "the records that an import made",
    "changed": "the records that an import changed",
    "refused": "the lines that an import refused",
    "tables": "how many tables were emptied",
    "dropped": "the databases and the things that were dropped",
    "forgotten": "the ids of the backups that were deleted",
    "by_itself": "whether no one had asked for it",
    "states": "the states that people were told of",
    "doors": "by which doors they were told",
    "begun": "when a night began",
    "ended": "when it ended",
    "seconds": "how long it took",
    "result": "how it ended",
    "missed": "the nights that were missed before it",
    "late": "whether it was made up for by day",
    "before": "when the night before began",
    "steps": "each step of it: name, result, seconds, message, backup",
    "stages": "each stage: its name, seconds, what was counted, what was expected",
}


def unknown(fields: Mapping[str, object]) -> list[str]:
    """What of a line is declared nowhere here."""
    event, what = str(fields.get("event")), str(fields.get("what"))
    if event not in EVENTS:
        return [event]
    known = {*COMMON, *EVENTS[event].fields, *ENDED.get(what, ())}
    return sorted({*fields} - known)
