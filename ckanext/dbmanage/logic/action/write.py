"""Actions that enqueue a job or note something."""

from contextlib import nullcontext

from ckan.plugins import toolkit as tk
from flask import has_request_context

from ...engine.backup.downloads import names, saved_as
from ...engine.errors import Refused
from ...engine.redis.arming import DELETE, DOWNLOAD, RELEASE
from ...engine.redis.links import Links
from ...engine.redis.maintenance import AWAY, READ_ONLY
from ...operations.retain import forget, keep
from ...portal.remote import is_set
from .. import schema
from ..call import Call, Data, action, refused_at
from ..confirm import confirm
from .read import described
from .restore import armed_once

KINDS = ("datasets", "organizations", "groups", "users")


@action(parts=schema.parts, note=schema.line, keep=schema.flag)
def dbmanage_backup_create(call: Call, data: Data) -> Data:
    """Take a backup, as a job.

    :param parts: a list of ``database``, ``datastore``, ``files``; all by default
    :param note: a note to keep with it
    :param keep: hold it whatever retention says, default false

    What fails later, the job tells; so do the other jobs.
    """
    return call.enqueue("backup", data)


@action(id=schema.needed, prove=schema.flag)
def dbmanage_backup_verify(call: Call, data: Data) -> Data:
    """Read every byte of a backup again, as a job.

    :param id: the backup's id
    :param prove: also restore it beside the live site, and look, default false

    Raises ObjectNotFound.
    """
    data["id"] = call.find(data["id"]).id
    return call.enqueue("verify", data)


@action(id=schema.optional)
def dbmanage_backup_push(call: Call, data: Data) -> Data:
    """Copy a backup to the other place, as a job.

    :param id: the backup's id; without it all that are missing there

    Raises ObjectNotFound; ValidationError where no other place is set.
    """
    if not is_set(call.options):
        raise tk.ValidationError({"id": [tk._("No other place is set")]})
    if data.get("id"):
        data["id"] = call.find(data["id"]).id
    return call.enqueue("push", {"id": data.get("id") or ""})


@action(id=schema.needed, release=schema.flag, password=schema.optional)
def dbmanage_backup_keep(call: Call, data: Data) -> Data:
    """Hold a backup whatever retention says: ``{id, keep}``.

    :param id: the backup's id, neither ``latest`` nor ``oldest``
    :param release: give it back to retention instead, when an operator has armed that
        (``ckan db arm ID --to release``), default false
    :param password: to release it the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError for a
    wrong ``password``, and while somebody else is at work.
    """
    id, once = call.named(data["id"]).id, nullcontext()
    if data["release"]:
        confirm(call, data, RELEASE, id)
        once = armed_once(call, RELEASE, id)
    with once:
        keep(call.portal, id, not data["release"])
    return {"id": id, "keep": not data["release"]}


@action(id=schema.needed, newest=schema.flag, password=schema.optional)
def dbmanage_backup_delete(call: Call, data: Data) -> Data:
    """Delete a backup and what only it named, when an operator has armed that (``ckan
    db arm ID --to delete``): ``{id}``.

    Refused for one that is held or cannot be read; and for the newest proven ones, of
    all backups and of those with all parts, unless ``newest`` says that they go.

    :param id: the backup's id, neither ``latest`` nor ``oldest``
    :param newest: delete it even as the newest proven one, default false
    :param password: the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError with why
    it stays, for a wrong ``password``, and while somebody else is at work.
    """
    found = call.named(data["id"])
    with refused_at("id"):
        about = described(call, found)
        if why := about["stays"]:
            raise Refused(f"backup {found.id} stays: {why}")
    if about["newest"] and not data["newest"]:
        words = tk._("{}: say that it is to be deleted all the same")
        raise tk.ValidationError({"newest": [words.format(about["newest"])]})
    confirm(call, data, DELETE, found.id)
    with armed_once(call, DELETE, found.id), refused_at("id"):
        forget(call.portal, [found.id], [found.id] if data["newest"] else [])
        return {"id": found.id}


@action(id=schema.optional, file=schema.needed, password=schema.optional)
def dbmanage_backup_download(call: Call, data: Data) -> Data:
    """A link to one file, for this user, once: of a backup, when an operator has armed
    that (``ckan db arm ID --to download``), or to an export.

    Good for some minutes; a download that was cut can be taken up again with it, with
    the same session or token, by whoever has the cookie of its begin. A backup holds
    password hashes and tokens; an export nothing that sysadmins cannot read anyway.

    :param id: the backup's id; without it ``file`` is an export
    :param file: the file's name, as ``contents`` of ``dbmanage_backup_show`` has it,
        ``manifest.json``, ``SHA256SUMS``, or ``all.tar``: the whole backup
    :param password: for a backup the caller's own, again; not needed with an API token

    :returns: ``{url, until}``

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError for a
    ``file`` that is not there and a wrong ``password``.
    """
    found = call.find(data["id"]) if data.get("id") else None
    if data["file"] not in names(call.repository, found):
        raise tk.ValidationError({"file": [tk._("There is no such file")]})
    if call.user == call.options.site_id:
        who = tk._("A link belongs to a user: name one, or copy the file on the server")
        raise tk.ValidationError({"message": [who]})
    id, once = "", nullcontext()
    if found:
        id, once = found.id, armed_once(call, DOWNLOAD, found.id)
        confirm(call, data, DOWNLOAD, id)
    call.note(DOWNLOAD, of=id or data["file"])
    with once:
        link = Links(call.site).make(call.user, id, data["file"])
    # a page stays on the address that its reader came by
    far = not (has_request_context() and tk.request.blueprint == "dbmanage_admin")
    name = saved_as(id, data["file"])
    url = tk.url_for(
        "dbmanage_admin.file", token=link["token"], name=name, _external=far
    )
    return {"url": url, "until": link["until"]}


@action(kind=schema.choice(*KINDS), all=schema.flag)
def dbmanage_export(call: Call, data: Data) -> Data:
    """Export all records of a kind as JSON Lines, as a job.

    Its ``result`` has ``file``, for ``dbmanage_backup_download``; the next export of
    the kind replaces it.

    :param kind: ``datasets``, ``organizations``, ``groups`` or ``users``
    :param all: private, draft and deleted ones too, default false
    """
    chosen = {"kind": data["kind"], "everything": data["all"]}
    return call.enqueue("export", chosen)


@action()
def dbmanage_publish(call: Call, data: Data) -> Data:
    """Write the public dumps, as a job."""
    return call.enqueue("publish", {})


@action(id=schema.needed)
def dbmanage_job_cancel(call: Call, data: Data) -> Data:
    """Take a job out of the queue, or end the one that runs; nothing of it stays.

    :param id: the job's id

    :returns: as ``dbmanage_job_show``

    Raises ValidationError for an ``id`` that is not known, has ended, or has come to
    its switch.
    """
    with refused_at("id"):
        id = call.jobs.show(data["id"], log=0)["id"]
    call.note("cancel", of=id)
    with refused_at("id"):
        return call.jobs.cancel(id)


@action(
    level=schema.choice("off", READ_ONLY, AWAY), seconds=schema.number(1800, 10, 86_400)
)
def dbmanage_maintenance_update(call: Call, data: Data) -> Data:
    """Set or end the maintenance; it ends by itself. As ``dbmanage_maintenance_show``.

    :param level: ``off``, ``read-only`` or ``away``; while *away* the pages are open
        to sysadmins who are signed in by a browser, and the API to nobody else
    :param seconds: for how long, default 1800

    Raises ValidationError while an operation holds the maintenance: it ends it.
    """
    call.note(f"maintenance {data['level']}")
    call.maintenance.by_hand(data["level"], data["seconds"])
    return call.maintenance.status() or {"level": "off"}
