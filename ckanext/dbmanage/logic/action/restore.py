"""Restore and undo, once an operator has armed them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from ckan.plugins import toolkit as tk

from ...engine.clock import now, stamp
from ...engine.errors import Refused
from ...engine.redis.arming import DEEDS, RESTORE, UNDO
from ...engine.repository.backup import Backup
from ...operations.allowed import lacking_rights, of_a_restore, unfit
from ...portal.command import on_server
from .. import schema, status
from ..call import Call, Data, action, refused_at
from ..confirm import confirm

#: what bringing one thing back is called as a job, and in the journal
THING = "thing"
#: how long a restore waits for a worker where no arming says until when
_WAITS = timedelta(minutes=30)


@action(
    id=schema.needed, parts=schema.parts, preview=schema.flag, note=schema.line,
    confirm=schema.optional, password=schema.optional,
)  # fmt: skip
def dbmanage_restore(call: Call, data: Data) -> Data:
    """Restore a backup, as a job, when an operator has armed that (``ckan db arm ID``).

    A worker must begin it while it is armed, or the job fails. Armed is one restore: a
    job that fails before its switch gives that back.

    :param id: the backup's id
    :param parts: a list of ``database``, ``datastore``, ``files``; all that the backup
        has by default
    :param preview: only say what would be lost and gained: a job that needs no arming;
        its ``result`` is ``{rows: [{kind, now, then, lost, gained, changed}], names,
        editors: [{name, count}], count, file}``: ``names`` by kind and by ``lost``,
        ``changed`` or ``gained`` the first twenty, ``[{id, name, title, by}]``;
        ``editors`` who changed last what would be lost or go back; ``file`` has all
        ``count`` names, for ``dbmanage_backup_download``
    :param note: why, for the journal
    :param confirm: the site's title
    :param password: the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError for a
    wrong ``confirm`` or ``password``, and with what stands in the way: of this backup
    at ``id``, else (no worker, another job, no room, no right) at ``message``.
    """
    found = call.find(data["id"])
    chosen = {"id": found.id, "parts": data["parts"]}
    if data["preview"]:
        return call.enqueue("preview", chosen)
    with refused_at("id"):
        if why := unfit(call.options, found):
            raise Refused(why)
    confirm(call, data, RESTORE, found.id)
    return _enqueue_armed(call, "restore", chosen | {"note": data["note"]}, found)


@action(
    operation=schema.optional, note=schema.line, confirm=schema.optional,
    password=schema.optional,
)  # fmt: skip
def dbmanage_undo(call: Call, data: Data) -> Data:
    """Take the last restore back, as a job, when armed (``ckan db arm undo``); after
    an undo this is a redo.

    As with ``dbmanage_restore`` a worker must begin it while it is armed. One thing
    that ``dbmanage_bring_back`` brought needs neither arming nor ``confirm`` nor
    ``password``; a user all but ``confirm``.

    :param operation: the switch to take back, as ``undo`` of ``dbmanage_status`` names
        it; refused when it is not the last one (any more). The last one by default
    :param note: why, for the journal
    :param confirm: the site's title
    :param password: the caller's own, again; not needed with an API token

    Raises NotAuthorized when it is not armed; ValidationError when there is nothing to
    undo, for a wrong ``operation``, ``confirm`` or ``password``, and with what stands
    in the way.
    """
    last = status.undo(call.site, call.repository, call.options.undo_days)
    if last is None:
        raise Refused(tk._("There is nothing to undo"))
    if data.get("operation", last["operation"]) != last["operation"]:
        other = tk._(
            "Another switch was made since: see what an undo would take back now"
        )
        raise tk.ValidationError({"operation": [other]})
    job = {"note": data["note"], "operation": last["operation"]}
    job["way"] = last["way"]
    if last["things"]:
        # not known: then perhaps
        people = "user" in (last["kinds"] or ["user"])
        if people:
            confirm(call, data, THING, UNDO)
        return enqueue_once(call, "undo", job, UNDO, armed=people)
    confirm(call, data, UNDO, UNDO)
    return _enqueue_armed(call, "undo", job, None)


def _enqueue_armed(
    call: Call, kind: str, arguments: Mapping[str, Any], found: Backup | None
) -> Data:
    """The job of a restore or an undo, once nothing that is known speaks against it.

    Raises NotAuthorized, DbmanageError.
    """
    name = found.id if found else UNDO
    if again := call.jobs.active(kind, arguments):  # a second click
        return again
    _refuse_unless_armed(call, kind, name)
    blockers = status.read_status(call.site, call.repository, call.options)["blockers"]
    if found:
        blockers += of_a_restore(call.site, call.repository, found, arguments["parts"])
    else:
        blockers += lacking_rights(call.site)
    if blockers:
        raise Refused("; ".join(blockers))
    return enqueue_once(call, kind, arguments, name)


def enqueue_once(
    call: Call, kind: str, arguments: Mapping[str, Any], name: str, armed: bool = True
) -> Data:
    """A job that a worker must begin while what was confirmed is fresh.

    What an operator has armed is used up last, where it is to be `armed`. Raises
    NotAuthorized, DbmanageError.
    """
    if again := call.jobs.active(kind, arguments):  # a second click
        return again
    if armed:
        _refuse_unless_armed(call, kind, name)
    about = {"note": arguments["note"]}
    if names := arguments.get("names"):
        about["things"] = " ".join([arguments["kind"], *names[:3]])
    call.note(arguments.get("way", kind), of=name, **about)
    until, used = stamp(now() + _WAITS), None
    if armed and call.options.web_restore != "always":
        used = call.arming.use(name)
        if used is None:  # somebody else was faster
            _refuse_unarmed(call, kind, name)
        until = used["until"]
    return call.jobs.enqueue(kind, arguments, call.actor, until, used)


def _refuse_unless_armed(call: Call, kind: str, name: str) -> None:
    known, allowed = call.arming.armed() or {}, call.options.web_restore
    wanted = (known.get("backup"), known.get("to")) == (name, RESTORE)
    if allowed != "always" and not (allowed == "armed" and wanted):
        _refuse_unarmed(call, kind, name)


@contextmanager
def armed_once(call: Call, to: str, name: str) -> Iterator[None]:
    """What an operator has allowed once, done in the block; given back when it fails.

    Raises NotAuthorized when nobody has.
    """
    allowed = call.options.web_restore
    used = call.arming.use(name, to) if allowed == "armed" else None
    if used is None and allowed != "always":
        _refuse_unarmed(call, to, name)
    try:
        yield
    except BaseException:
        if used is not None:
            with suppress(Exception):  # what it failed with is what is told
                call.arming.again(used)
        raise


def _refuse_unarmed(call: Call, what: str, name: str) -> NoReturn:
    call.note(what, of=name, event="refused", error="not armed")
    to = f" --to {what}" if what in DEEDS[1:] else ""
    line = f"{on_server(call.options)} db arm {name}{to}"
    how = f"an operator runs `{line}` on the server first"
    if call.options.web_restore == "never":
        how = "ckanext.dbmanage.web_restore is `never`: do it on the server"
    raise tk.NotAuthorized(tk._("This is off on the web: {}").format(how))
