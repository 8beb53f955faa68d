"""Kinds of work: the operation that a job does, and what its result says."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine import words
from ..engine.errors import DbmanageError
from ..engine.layout import DENIED
from ..engine.printable import one_line
from ..engine.restore.history import REDO
from ..engine.restore.restore import Restored
from ..operations.backup import take_backup, verify_backups, why_incomplete
from ..operations.context import Portal
from ..operations.export import export_for_page
from ..operations.locked import locked
from ..operations.offsite import run_push
from ..operations.preview import preview_restore
from ..operations.publish import run_publish
from ..operations.restore import run_restore, run_undo
from ..operations.thing_preview import preview_things
from ..operations.things import Brought, Selection, bring_back

#: letters of a text, and entries of a list, that a preview of one thing keeps
_LETTERS, _ENTRIES = 2000, 100


def _backup(portal: Portal, parts: list[str], note: str, keep: bool) -> dict[str, Any]:
    taken = take_backup(portal, tuple(parts), note, keep)
    portal.talk.say(f"backup {taken.id} is taken and verified")
    if why := why_incomplete(taken):
        raise DbmanageError(why)
    return {"backup": taken.id, "bytes": taken.bytes}


def _verify(portal: Portal, id: str, prove: bool) -> dict[str, Any]:
    ((found, problems),) = verify_backups(portal, id, prove)
    for problem in problems:
        portal.talk.warn(problem)
    state = "proven" if prove else "whole"
    if problems and problems[0].startswith(DENIED):
        raise DbmanageError(f"backup {found.id} {problems[0]}")
    if problems:
        raise DbmanageError(f"backup {found.id} is not {state}: {problems[0]}")
    portal.talk.say(f"backup {found.id} is {state}")
    return {"backup": found.id}


def _push(portal: Portal, id: str) -> dict[str, Any]:
    done = list(run_push(portal, id or None))
    for each in done:
        told = f"backup {each.id} is at the other place"
        portal.talk.warn(each.error) if each.error else portal.talk.say(told)
    if failed := [each for each in done if each.error]:
        raise DbmanageError(f"backup {failed[0].id} was not copied: {failed[0].error}")
    return {"backup": id, "bytes": sum(each.bytes for each in done)}


def _preview(portal: Portal, id: str, parts: list[str]) -> dict[str, Any]:
    found = preview_restore(portal, id, tuple(parts))
    about = asdict(found) | {"file": Path(found.file).name}
    return about | {"backup": id, "parts": parts}


def _restore(portal: Portal, id: str, parts: list[str], note: str) -> dict[str, Any]:
    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = run_restore(portal, id, tuple(parts))
    portal.talk.say(f"restored {words.parts(done.parts)} from {done.source}")
    return {"backup": id} | _switched(done)


def _undo(
    portal: Portal, note: str, operation: str, way: str = "undo"
) -> dict[str, Any]:
    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = run_undo(portal, operation)
    if isinstance(done, Brought):
        return _brought(portal, done)
    if done.what == REDO:
        said = f"redone: {words.parts(done.parts)} come from {done.source} again"
    else:
        said = f"undone: {words.parts(done.parts)} are what they were before"
    portal.talk.say(said)
    return _switched(done)


def _preview_thing(portal: Portal, id: str, **chosen: Any) -> dict[str, Any]:
    found = asdict(preview_things(portal, id, _selection(**chosen)))
    for each in found["things"]:
        each["counts"] = {k: len(v) for k, v in each.items() if isinstance(v, list)}
    return {"backup": id, "count": len(found["things"])} | _cut(found)


def _cut(value: Any) -> Any:
    """The same, small enough for Redis and for a page: of lists and texts the begin."""
    if isinstance(value, str):
        return value[:_LETTERS] + "…" * (len(value) > _LETTERS)
    if isinstance(value, (list, tuple)):
        return [_cut(each) for each in value[:_ENTRIES]]
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    return value


def _thing(portal: Portal, id: str, note: str, **chosen: Any) -> dict[str, Any]:
    portal.talk.say(f"reason: {note}" if note else "no reason was given")
    done = bring_back(portal, id, _selection(**chosen))
    return {"backup": id} | _brought(portal, done)


def _selection(names: list[str], **chosen: Any) -> Selection:
    return Selection(names=tuple(names), **chosen)


def _brought(portal: Portal, done: Brought) -> dict[str, Any]:
    keys = ("kind", "id", "name", "fate")
    things = [dict(zip(keys, each, strict=True)) for each in done.things]
    for each in things:
        portal.talk.say(f"{each['kind']} {one_line(each['name'])}: {each['fate']}")
    return {"things": things}


def _switched(done: Restored) -> dict[str, Any]:
    """What came of a restore or an undo; what visitors waited is in seconds."""
    waited = {"read_only": round(done.read_only, 1), "away": round(done.away, 1)}
    return {"parts": done.parts, "written": dict(done.written), **waited}


def _export(portal: Portal, kind: str, everything: bool) -> dict[str, Any]:
    path, done = export_for_page(portal, kind, everything)
    for sentence in done.failed:
        portal.talk.warn(sentence)
    if done.failed:
        raise DbmanageError(
            f"{len(done.failed)} {kind} could not be shown: see the log"
        )
    portal.talk.say(f"exported {done.rows} {kind}")
    return {"file": path.name, "rows": done.rows, "bytes": path.stat().st_size}


def _publish(portal: Portal) -> dict[str, Any]:
    done, changed = run_publish(portal)
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
    rows = {kind: each.rows for kind, each in done.items()}
    return {"rows": rows, "changed": list(changed)}


def _tidy(portal: Portal) -> dict[str, Any]:
    """After a job that could only be killed."""
    with locked(portal, "tidy"):
        return {}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "backup": _backup,
    "verify": _verify,
    "push": _push,
    "preview": _preview,
    "restore": _restore,
    "undo": _undo,
    "preview thing": _preview_thing,
    "thing": _thing,
    "export": _export,
    "publish": _publish,
    "tidy": _tidy,
}
