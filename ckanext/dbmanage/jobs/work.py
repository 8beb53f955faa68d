"""Kinds of work: the operation that a job does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engine.errors import DbmanageError, Refused
from ..engine.repository.repository import Repository
from ..engine.restore.history import last_switch
from ..engine.site import Site
from ..operations.backup import backup, incomplete, verify
from ..operations.context import Portal, tidy
from ..operations.index import open_to_change
from ..operations.restore import preview, restore, undo


def _backup(portal: Portal, parts: list[str], note: str, keep: bool) -> dict[str, Any]:
    taken = backup(portal, tuple(parts), note, keep)
    portal.talk.say(f"backup {taken.id} is there, verified")
    if why := incomplete(taken):
        raise DbmanageError(why)
    return {"backup": taken.id, "bytes": taken.bytes}


def _verify(portal: Portal, id: str, prove: bool) -> dict[str, Any]:
    site, repository = open_to_change(portal, heads=prove)
    found = repository.find(id)
    problems = verify(portal, site, repository, found, prove)
    for problem in problems:
        portal.talk.warn(problem)
    if problems:
        raise DbmanageError(
            f"backup {found.id} is not {'proven' if prove else 'whole'}: {problems[0]}"
        )
    portal.talk.say(f"backup {found.id} is {'proven' if prove else 'whole'}")
    return {"backup": found.id}


def _preview(portal: Portal, id: str, parts: list[str]) -> dict[str, Any]:
    rows = preview(portal, id, tuple(parts))
    return {"backup": id, "parts": parts, "rows": rows}


def _restore(portal: Portal, id: str, parts: list[str], note: str) -> dict[str, Any]:
    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = restore(portal, id, tuple(parts))
    portal.talk.say(f"restored {' and '.join(done.parts)} from {done.source}")
    return {"backup": id, "parts": done.parts, "written": dict(done.written)}


def _undo(portal: Portal, note: str, operation: str) -> dict[str, Any]:
    def agree(site: Site, repository: Repository, _: Any) -> None:
        last = last_switch(site, repository) or {}
        if last.get("operation") != operation:
            raise Refused(
                "another switch was made since this was confirmed; nothing was "
                "touched: look at what an undo would take back now, and confirm that"
            )

    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = undo(portal, agree)
    portal.talk.say(f"undone: {' and '.join(done.parts)} as before")
    return {"parts": done.parts, "written": dict(done.written)}


def _export(portal: Portal, kind: str, everything: bool) -> dict[str, Any]:
    from ..records.export import Export
    from ..records.jsonl import new_file
    from ..records.kinds import Wanted

    _, repository = open_to_change(portal)
    with repository.exports() as directory:
        path = directory / export_name(kind, everything)
        wanted = Wanted(everything, False, False)
        with (
            Export(portal.app, portal.options, wanted, portal.options.jobs) as moment,
            new_file(path, 0o600) as write,
        ):
            done = moment.write(kind, write, 0, portal.talk.rows)
    repository.record(path.name, "done", what="export", rows=done.rows)
    for sentence in done.failed:
        portal.talk.warn(sentence)
    if done.failed:
        raise DbmanageError(
            f"{len(done.failed)} {kind} could not be shown: see the log"
        )
    portal.talk.say(f"exported {done.rows} {kind}")
    return {"file": path.name, "rows": done.rows, "bytes": path.stat().st_size}


def export_name(kind: str, everything: bool) -> str:
    """The file of an export, in the repository's folder `exports`."""
    return f"{kind}{'-all' if everything else ''}.jsonl.gz"


def _publish(portal: Portal) -> dict[str, Any]:
    from ..operations import publish

    _, repository = open_to_change(portal)
    options = portal.options
    done, changed = publish.publish(
        portal.app,
        options,
        False,
        options.jobs,
        portal.talk.rows,
    )
    rows = {kind: each.rows for kind, each in done.items()}
    repository.record("publish", "done", what="publish", rows=rows)
    failed = {kind: each.failed for kind, each in done.items() if each.failed}
    for kind, sentences in failed.items():
        for sentence in sentences:
            portal.talk.warn(f"{kind}: {sentence}")
    if failed:
        raise DbmanageError(
            f"published, but {' and '.join(failed)} that could not be shown are "
            "missing: see the log"
        )
    portal.talk.say(f"new: {', '.join(changed) or 'nothing has changed'}")
    return {"rows": rows, "changed": list(changed)}


def _tidy(portal: Portal) -> dict[str, Any]:
    """After a job that could only be killed."""
    site, repository = open_to_change(portal)
    with repository.lock("tidy"):
        tidy(site, repository, portal.talk)
    return {}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "backup": _backup,
    "verify": _verify,
    "preview": _preview,
    "restore": _restore,
    "undo": _undo,
    "export": _export,
    "publish": _publish,
    "tidy": _tidy,
}
