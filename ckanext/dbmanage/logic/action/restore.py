"""Restore and undo, once an operator has armed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from ckan.plugins import toolkit as tk

from ...engine.clock import now, stamp
from ...engine.errors import Refused
from ...engine.redis.arming import DEEDS, RESTORE, UNDO, Arming
from ...engine.repository.backup import Backup
from ...engine.repository.repository import Repository
from ...engine.site import Site
from ...jobs.queue import Jobs
from ...operations.allowed import unfit
from ...portal.config import current
from .. import call, schema, status
from ..call import Context, Data, actor, called, enqueue, find_backup, note_of, told
from ..confirm import confirm
from ..status import blockers, status_of

#: how long a restore waits for a worker where no arming says until when
_WAITS = timedelta(minutes=30)


def dbmanage_restore(context: Context, data_dict: Data) -> dict[str, Any]:
    """Restore a backup, as a job, when an operator has armed that (``ckan db arm ID``).

    A worker must begin it while it is armed, or the job fails. Armed is one restore: a
    job that fails before its switch gives that back.

    :param id: the backup's id
    :param parts: a list of ``database``, ``datastore``, ``files``; all that the backup
        has by default
    :param preview: only count what would be lost and gained: a job that needs no
        arming; its ``result`` is ``{rows: [{kind, now, then, lost, gained, changed}]}``
    :param note: why, for the journal
    :param confirm: the site's title
    :param password: the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError for a
    wrong ``confirm`` or ``password``, and with what stands in the way: of this backup
    at ``id``, else (no worker, another job, no room, no right) at ``message``.
    """
    data, site, repository = called(context, data_dict, "restore", schema.restore)
    found = find_backup(repository, data["id"])
    chosen = {"id": found.id, "parts": data["parts"]}
    if data["preview"]:
        return enqueue(context, "preview", chosen)
    with told("id"):
        if why := unfit(current(), found):
            raise Refused(why)
    confirm(context, data, site, repository, RESTORE, found.id)
    job = chosen | {"note": data["note"]}
    return _armed(context, site, repository, "restore", job, found)


def dbmanage_undo(context: Context, data_dict: Data) -> dict[str, Any]:
    """Take the last restore back, as a job, when armed (``ckan db arm undo``).

    As with ``dbmanage_restore`` a worker must begin it while it is armed.

    :param operation: the switch to take back, as ``undo`` of ``dbmanage_status`` names
        it; refused when it is not the last one (any more). The last one by default
    :param note: why, for the journal
    :param confirm: the site's title
    :param password: the caller's own, again; not needed with an API token

    Raises NotAuthorized when it is not armed; ValidationError when there is nothing to
    undo, for a wrong ``operation``, ``confirm`` or ``password``, and with what stands
    in the way.
    """
    data, site, repository = called(context, data_dict, "undo", schema.undo)
    with told():
        days = current().undo_days
        last = status.undo(site, repository, days)
        if last is None:
            raise Refused(tk._("There is nothing to undo"))
    if data.get("operation", last["operation"]) != last["operation"]:
        other = tk._("Another switch was made since: look at what an undo takes back")
        raise tk.ValidationError({"operation": [other]})
    confirm(context, data, site, repository, "undo", UNDO)
    job = {"note": data["note"], "operation": last["operation"]}
    return _armed(context, site, repository, "undo", job, None)


def _armed(
    context: Context,
    site: Site,
    repository: Repository,
    kind: str,
    arguments: Mapping[str, Any],
    found: Backup | None,
) -> Data:
    """The job of a restore or an undo, once nothing that is known speaks against it.

    What an operator has armed is used up last. Raises NotAuthorized, ValidationError.
    """
    name = found.id if found else UNDO
    with call.told():
        jobs, allowed = Jobs(current()), current().web_restore
        if again := jobs.active(kind, arguments):  # a second click
            return again
        known = Arming(site).armed() or {}
        wanted = (known.get("backup"), known.get("to")) == (name, RESTORE)
        armed = allowed == "armed" and wanted
        if not armed and allowed != "always":
            _not_armed(repository, kind, name, allowed)
        status = status_of(site, repository, current())
        parts = arguments.get("parts", ())
        if told := blockers(site, repository, status, found, parts):
            raise Refused("; ".join(told))
        note_of(repository, kind, of=name)
        until, used = stamp(now() + _WAITS), None
        if armed:
            used = Arming(site).use(name)
            if used is None:  # somebody else was faster
                _not_armed(repository, kind, name, allowed)
            until = used["until"]
        return jobs.enqueue(kind, arguments, actor(context), until, used)


@contextmanager
def armed_once(
    site: Site, repository: Repository, to: str, name: str
) -> Iterator[None]:
    """What an operator has allowed once, done in the block; given back when it fails.

    Raises NotAuthorized when nobody has.
    """
    with told():
        allowed = current().web_restore
        used = Arming(site).use(name, to) if allowed == "armed" else None
    if used is None and allowed != "always":
        _not_armed(repository, to, name, allowed)
    try:
        yield
    except BaseException:
        if used is not None:
            with suppress(Exception):  # what it failed with is what is told
                Arming(site).again(used)
        raise


def _not_armed(repository: Repository, what: str, name: str, allowed: str) -> NoReturn:
    note_of(repository, what, of=name, event="refused", error="not armed")
    to = f" --to {what}" if what in DEEDS[1:] else ""
    how = f"an operator runs `ckan db arm {name}{to}` on the server first"
    if allowed == "never":
        how = "ckanext.dbmanage.web_restore is `never`: do it on the server"
    raise tk.NotAuthorized(tk._("This is off on the web: {}").format(how))
