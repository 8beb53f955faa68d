"""Actions that change nothing."""

from __future__ import annotations

from typing import Any

from ckan.plugins import toolkit as tk

from ...jobs.queue import Jobs
from ...operations.allowed import unfit
from ...portal.config import current
from .. import schema, status
from ..call import (
    Context,
    Data,
    among,
    called,
    find_backup,
    maintenance_of,
    stays,
    told,
)
from ..known import backups, history, lately


@tk.side_effect_free
def dbmanage_status(context: Context, data_dict: Data) -> dict[str, Any]:
    """Whether the portal's data is safe.

    :param tables: also what fills the databases (queries them), default false
    :param journal: so many of the journal's last lines, default 0

    :returns: ``{state, site, count, newest, proven, expected_by, failed: {time,
        error}, bytes, uploads_bytes, disk: {total, free}, undo: {operation, what,
        source, user, time, until}, worker: {count, seen, waiting, command}, jobs,
        ended, maintenance, armed: {backup, to, until, by}, web_restore, redis,
        half_way, exports}`` and, when asked for, ``tables`` and ``journal``. ``state``
        is the worst of ``failed``, ``offline``, ``empty``, ``overdue``, ``unproven``,
        ``running``, ``ok``. ``newest`` and ``proven`` have all parts that a backup of
        this site has; ``jobs`` wait or run, ``ended`` is the last one of all when it
        failed or was lost; ``redis`` says why Redis does not answer, then ``worker``,
        ``jobs``, ``maintenance`` and ``armed`` are not known; ``exports`` are names for
        ``dbmanage_backup_download``.

    Raises ValidationError for ``tables`` that PostgreSQL does not tell of.
    """
    data, site, repository = called(context, data_dict, "status", schema.status)
    with told():
        found = status.status_of(site, repository, current())
        armed = found["armed"]
        if armed:
            found["armed"] = {k: armed[k] for k in ("backup", "to", "until", "by")}
        if data["tables"]:
            found["tables"] = status.table_sizes(site)
        if data["journal"]:
            found["journal"] = lately(repository, data["journal"])
    return found


@tk.side_effect_free
def dbmanage_backup_list(context: Context, data_dict: Data) -> list[dict[str, Any]]:
    """The backups, the newest first.

    :param limit: at most so many, default 1000
    :param before: only those older than this id

    :returns: a list of ``{id, state, parts, bytes, sizes, created, seconds, verified,
        proved, reason, note, keep, versions, problems, files, path}``

    Raises ValidationError for a repository that cannot be read.
    """
    data, _, repository = called(context, data_dict, "backup_list", schema.backup_list)
    with told():
        found = backups(repository)
    before = data.get("before")
    listed = [e for e in found if not before or e["id"] < before]
    return [dict(each) for each in listed[: data["limit"]]]


@tk.side_effect_free
def dbmanage_backup_show(context: Context, data_dict: Data) -> dict[str, Any]:
    """One backup.

    :param id: the backup's id, ``latest`` or ``oldest``
    :param compare: also count the live rows, in 20 seconds at most, default false

    :returns: as ``dbmanage_backup_list``, and ``databases`` (rows by table),
        ``contents`` (bytes and sha256 by file), ``made`` (what made it), ``proof``,
        ``history`` (lines of the journal), ``stays`` (why it may not be deleted, or
        empty), ``fits`` (why it may not be restored, or empty), ``instead`` (the newest
        that may, where it may not); with ``compare`` ``differing``: ``[{part, table,
        then, now}]``, or None where counting took too long: a preview of the restore
        (``dbmanage_restore``) takes its time

    Raises ObjectNotFound.
    """
    data, site, repository = called(
        context, data_dict, "backup_show", schema.backup_show
    )
    found = find_backup(repository, data["id"])
    with told():
        described = backups(repository)
        shown = dict(among(described, found.id))
        manifest = found.manifest if found.signed else {}
        shown |= {
            "databases": {
                part: {"rows": about.get("rows") or {}, "bytes": about.get("bytes")}
                for part, about in manifest.get("databases", {}).items()
            },
            "contents": manifest.get("contents", {}),
            "made": {key: manifest.get(key) for key in ("site", "by", "skew_seconds")},
            "proof": found.state().get("proved"),
            "history": history(repository, found.id),
            "stays": stays(site, shown, described),
            "fits": unfit(current(), found),
        }
        why = shown["fits"]
        shown["instead"] = status.restorable(repository, current()) if why else ""
        if data["compare"]:
            shown["differing"] = status.rows_now(site, found)
    return shown


@tk.side_effect_free
def dbmanage_job_show(context: Context, data_dict: Data) -> dict[str, Any]:
    """One job: what it does, how far it is, and the end of its log.

    :param id: the job's id
    :param log: so many of the log's last lines, default 100

    :returns: ``{id, kind, arguments, state, asked, until, begun, ended, user, address,
        forwarded, phase, phases, done, about, unit, rate, seconds_left, seen,
        cancellable, armed, result, error, lines, log}``; ``state`` is ``queued``,
        ``running``, ``done``, ``failed``, ``cancelled`` or ``lost`` (its worker died);
        one that has not begun at ``until`` has failed; ``lines`` is how many the log
        has had, also those that are forgotten

    Raises ValidationError for an ``id`` that is not known (any more).
    """
    data, *_ = called(context, data_dict, "job_show", schema.job_show)
    with told("id"):
        return Jobs(current()).show(data["id"], data["log"])


@tk.side_effect_free
def dbmanage_job_list(context: Context, data_dict: Data) -> list[dict[str, Any]]:
    """The jobs, the newest first, without their logs; they are known for 30 days.

    :param limit: at most so many, default 20
    """
    data, *_ = called(context, data_dict, "job_list", schema.job_list)
    with told():
        return Jobs(current()).list(data["limit"])


@tk.side_effect_free
def dbmanage_maintenance_show(context: Context, data_dict: Data) -> dict[str, Any]:
    """The maintenance: ``{level}``, and when it is on ``owner``, ``reason``, ``since``,
    ``seconds_left`` and ``held``: whether an operation renews and ends it. ``level`` is
    ``off``, ``read-only`` or ``away``.
    """
    _, site, _ = called(context, data_dict, "maintenance_show", schema.nothing)
    with told():
        return maintenance_of(site).status() or {"level": "off"}
