"""Actions that enqueue a job or note something."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from ckan.plugins import toolkit as tk
from flask import has_request_context

from ...engine.backup.downloads import names, saved_as
from ...engine.errors import Refused
from ...engine.redis.arming import DELETE, DOWNLOAD, RELEASE
from ...engine.redis.links import Links
from ...jobs.queue import Jobs
from ...operations.retain import delete, keep
from ...portal.config import current
from .. import schema
from ..call import (
    Context,
    Data,
    among,
    called,
    enqueue,
    find_backup,
    maintenance_of,
    named,
    note_of,
    portal_of,
    stays,
    told,
    user_of,
)
from ..confirm import confirm
from ..known import backups
from .restore import armed_once


def dbmanage_backup_create(context: Context, data_dict: Data) -> dict[str, Any]:
    """Take a backup, as a job.

    :param parts: a list of ``database``, ``datastore``, ``files``; all by default
    :param note: a note to keep with it
    :param keep: hold it whatever retention says, default false

    What fails later, the job tells; so do the other jobs.
    """
    data, *_ = called(context, data_dict, "backup_create", schema.backup_create)
    return enqueue(context, "backup", data)


def dbmanage_backup_verify(context: Context, data_dict: Data) -> dict[str, Any]:
    """Read every byte of a backup again, as a job.

    :param id: the backup's id
    :param prove: also restore it beside the live site, and look, default false

    Raises ObjectNotFound.
    """
    data, _, repository = called(
        context, data_dict, "backup_verify", schema.backup_verify
    )
    data["id"] = find_backup(repository, data["id"]).id
    return enqueue(context, "verify", data)


def dbmanage_backup_keep(context: Context, data_dict: Data) -> dict[str, Any]:
    """Hold a backup whatever retention says: ``{id, keep}``.

    :param id: the backup's id, neither ``latest`` nor ``oldest``
    :param release: give it back to retention instead, when an operator has armed that
        (``ckan db arm ID --to release``), default false
    :param password: to release it the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError for a
    wrong ``password``, and while somebody else is at work.
    """
    data, site, repository = called(
        context, data_dict, "backup_keep", schema.backup_keep
    )
    found, release = named(repository, data["id"]), data["release"]
    if release:
        confirm(context, data, site, repository, RELEASE, found.id)
    once = armed_once(site, repository, RELEASE, found.id) if release else nullcontext()
    with once, told():
        keep(portal_of(context), found.id, not release)
    return {"id": found.id, "keep": not release}


def dbmanage_backup_delete(context: Context, data_dict: Data) -> dict[str, Any]:
    """Delete a backup and what only it named, when an operator has armed that (``ckan
    db arm ID --to delete``): ``{id}``.

    Refused for one that is held, and for the newest proven ones: of all backups, and
    of those with all parts.

    :param id: the backup's id, neither ``latest`` nor ``oldest``
    :param password: the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError with why
    it stays, for a wrong ``password``, and while somebody else is at work.
    """
    data, site, repository = called(
        context, data_dict, "backup_delete", schema.backup_delete
    )
    found = named(repository, data["id"])
    with told("id"):
        described = backups(repository)
        if why := stays(site, among(described, found.id), described):
            raise Refused(f"backup {found.id} stays: {why}")
    confirm(context, data, site, repository, DELETE, found.id)
    with armed_once(site, repository, DELETE, found.id), told("id"):
        return {"id": delete(portal_of(context), found.id).id}


def dbmanage_backup_download(context: Context, data_dict: Data) -> dict[str, Any]:
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
    data, site, repository = called(
        context, data_dict, "backup_download", schema.download
    )
    name = data.get("id")
    found = find_backup(repository, name) if name else None
    if data["file"] not in names(repository, found):
        raise tk.ValidationError({"file": [tk._("There is no such file")]})
    if user_of(context) == tk.config.get("ckan.site_id"):
        who = tk._("A link is for a user: name one, or copy the file where it lies")
        raise tk.ValidationError({"message": [who]})
    id = found.id if found else ""
    if found:
        confirm(context, data, site, repository, DOWNLOAD, id)
    note_of(repository, DOWNLOAD, of=id or data["file"])
    once = armed_once(site, repository, DOWNLOAD, id) if found else nullcontext()
    with once, told():
        link = Links(site).make(user_of(context), id, data["file"])
    # a page stays on the address that its reader came by
    far = not (has_request_context() and tk.request.blueprint == "dbmanage_admin")
    name = saved_as(id, data["file"])
    url = tk.url_for(
        "dbmanage_admin.file", token=link["token"], name=name, _external=far
    )
    return {"url": url, "until": link["until"]}


def dbmanage_export(context: Context, data_dict: Data) -> dict[str, Any]:
    """Export all records of a kind as JSON Lines, as a job.

    Its ``result`` has ``file``, for ``dbmanage_backup_download``; the next export of
    the kind replaces it.

    :param kind: ``datasets``, ``organizations``, ``groups`` or ``users``
    :param all: private, draft and deleted ones too, default false
    """
    data, *_ = called(context, data_dict, "export", schema.export)
    chosen = {"kind": data["kind"], "everything": data["all"]}
    return enqueue(context, "export", chosen)


def dbmanage_publish(context: Context, data_dict: Data) -> dict[str, Any]:
    """Write the public dumps, as a job."""
    called(context, data_dict, "publish", schema.nothing)
    return enqueue(context, "publish", {})


def dbmanage_job_cancel(context: Context, data_dict: Data) -> dict[str, Any]:
    """Take a job out of the queue, or end the one that runs; nothing of it stays.

    :param id: the job's id

    :returns: as ``dbmanage_job_show``

    Raises ValidationError for an ``id`` that is not known, has ended, or has come to
    its switch.
    """
    data, _, repository = called(context, data_dict, "job_cancel", schema.one)
    jobs = Jobs(current())
    with told("id"):
        known = jobs.show(data["id"], log=0)
    note_of(repository, "cancel", of=known["id"])
    with told("id"):
        return jobs.cancel(known["id"])


def dbmanage_maintenance_update(context: Context, data_dict: Data) -> dict[str, Any]:
    """Set or end the maintenance; it ends by itself. As ``dbmanage_maintenance_show``.

    :param level: ``off``, ``read-only`` or ``away``; from *away* only its end, or the
        command line, leads back: this page and the API are away too
    :param seconds: for how long, default 1800

    Raises ValidationError while an operation holds the maintenance: it ends it.
    """
    data, site, repository = called(
        context, data_dict, "maintenance_update", schema.maintenance_update
    )
    keeper = maintenance_of(site)
    note_of(repository, f"maintenance {data['level']}")
    with told():
        keeper.by_hand(data["level"], data["seconds"])
        return keeper.status() or {"level": "off"}
