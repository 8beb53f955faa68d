"""The actions: all that the sysadmin page does, for sysadmins alone.

Each takes the parameters that its schema names and refuses others (ValidationError).
What is long is a job: the action returns what `dbmanage_job_show` does, at once. Times
are UTC, `2026-11-23T04:55:00Z`; sizes are bytes.

Every one of them raises NotAuthorized for whoever is no sysadmin, and, but for those
that only read, for a browser's session without its CSRF token and for a request that is
no POST; and a ValidationError
whose `message` says why and what to do when the configuration is wrong, or the disk,
PostgreSQL or Redis does not answer. What it raises besides stands at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, NoReturn

import psycopg2
from ckan import model
from ckan.lib import api_token
from ckan.plugins import toolkit as tk
from flask import g, has_request_context, session

from ...engine import errors, report
from ...engine.backup.downloads import names
from ...engine.clock import now
from ...engine.errors import DbmanageError, Refused
from ...engine.redis.arming import (
    DEEDS,
    DELETE,
    DOWNLOAD,
    RELEASE,
    RESTORE,
    TRIES,
    UNDO,
    Arming,
)
from ...engine.redis.links import Links
from ...engine.redis.maintenance import Maintenance
from ...engine.redis.sealed import FORM
from ...engine.repository.backup import Backup
from ...engine.repository.repository import Repository
from ...engine.site import Site
from ...jobs.queue import Jobs
from ...operations import restore
from ...operations.context import Portal, refuse_root
from ...operations.restore import unfit
from ...operations.retain import delete, keep
from ...portal import config
from ...portal.site import build_site
from .. import schema, status
from .. import status as overview

Context = Any
Data = dict[str, Any]
#: wrong passwords of all sysadmins together within an hour
_TRIES = 10
#: how long a restore waits for a worker where no arming says until when
_WAITS = timedelta(minutes=30)


# ------------------------------------------------------------------------- looking


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
    data, site, repository = _called(context, data_dict, "status", schema.status)
    with _told():
        found = status.status(site, repository, tk.config)
        armed = found["armed"]
        if armed:
            found["armed"] = {k: armed[k] for k in ("backup", "to", "until", "by")}
        if data["tables"]:
            found["tables"] = status.table_sizes(site)
        if data["journal"]:
            found["journal"] = status.lately(repository, data["journal"])
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
    data, _, repository = _called(context, data_dict, "backup_list", schema.backup_list)
    with _told():
        found = status.backups(repository)
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
    data, site, repository = _called(
        context, data_dict, "backup_show", schema.backup_show
    )
    found = _find(repository, data["id"])
    with _told():
        described = status.backups(repository)
        shown = dict(_among(described, found.id))
        manifest = found.manifest if found.signed else {}
        shown |= {
            "databases": {
                part: {"rows": about.get("rows") or {}, "bytes": about.get("bytes")}
                for part, about in manifest.get("databases", {}).items()
            },
            "contents": manifest.get("contents", {}),
            "made": {key: manifest.get(key) for key in ("site", "by", "skew_seconds")},
            "proof": found.state().get("proved"),
            "history": status.history(repository, found.id),
            "stays": _stays(site, shown, described),
            "fits": restore.unfit(tk.config, found),
        }
        unfit = shown["fits"]
        shown["instead"] = status.restorable(repository, tk.config) if unfit else ""
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
    data, *_ = _called(context, data_dict, "job_show", schema.job_show)
    with _told("id"):
        return Jobs(tk.config).show(data["id"], data["log"])


@tk.side_effect_free
def dbmanage_job_list(context: Context, data_dict: Data) -> list[dict[str, Any]]:
    """The jobs, the newest first, without their logs; they are known for 30 days.

    :param limit: at most so many, default 20
    """
    data, *_ = _called(context, data_dict, "job_list", schema.job_list)
    with _told():
        return Jobs(tk.config).list(data["limit"])


@tk.side_effect_free
def dbmanage_maintenance_show(context: Context, data_dict: Data) -> dict[str, Any]:
    """The maintenance: ``{level}``, and when it is on ``owner``, ``reason``, ``since``,
    ``seconds_left`` and ``held``: whether an operation renews and ends it. ``level`` is
    ``off``, ``read-only`` or ``away``.
    """
    _, site, _ = _called(context, data_dict, "maintenance_show", schema.nothing)
    with _told():
        return _maintenance(site).status() or {"level": "off"}


# -------------------------------------------------------------------------- acting


def dbmanage_backup_create(context: Context, data_dict: Data) -> dict[str, Any]:
    """Take a backup, as a job.

    :param parts: a list of ``database``, ``datastore``, ``files``; all by default
    :param note: a note to keep with it
    :param keep: hold it whatever retention says, default false

    What fails later, the job tells; so do the other jobs.
    """
    data, *_ = _called(context, data_dict, "backup_create", schema.backup_create)
    return _enqueue(context, "backup", data)


def dbmanage_backup_verify(context: Context, data_dict: Data) -> dict[str, Any]:
    """Read every byte of a backup again, as a job.

    :param id: the backup's id
    :param prove: also restore it beside the live site, and look, default false

    Raises ObjectNotFound.
    """
    data, _, repository = _called(
        context, data_dict, "backup_verify", schema.backup_verify
    )
    data["id"] = _find(repository, data["id"]).id
    return _enqueue(context, "verify", data)


def dbmanage_backup_keep(context: Context, data_dict: Data) -> dict[str, Any]:
    """Hold a backup whatever retention says: ``{id, keep}``.

    :param id: the backup's id, neither ``latest`` nor ``oldest``
    :param release: give it back to retention instead, when an operator has armed that
        (``ckan db arm ID --to release``), default false
    :param password: to release it the caller's own, again; not needed with an API token

    Raises ObjectNotFound; NotAuthorized when it is not armed; ValidationError for a
    wrong ``password``, and while somebody else is at work.
    """
    data, site, repository = _called(
        context, data_dict, "backup_keep", schema.backup_keep
    )
    found, release = _named(repository, data["id"]), data["release"]
    if release:
        _confirm(context, data, site, repository, RELEASE, found.id)
    once = _once(site, repository, RELEASE, found.id) if release else nullcontext()
    with once, _told():
        keep(_portal(context), found.id, not release)
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
    data, site, repository = _called(
        context, data_dict, "backup_delete", schema.backup_delete
    )
    found = _named(repository, data["id"])
    with _told("id"):
        described = status.backups(repository)
        if why := _stays(site, _among(described, found.id), described):
            raise Refused(f"backup {found.id} stays: {why}")
    _confirm(context, data, site, repository, DELETE, found.id)
    with _once(site, repository, DELETE, found.id), _told("id"):
        return {"id": delete(_portal(context), found.id).id}


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
    data, site, repository = _called(
        context, data_dict, "backup_download", schema.download
    )
    name = data.get("id")
    found = _find(repository, name) if name else None
    if data["file"] not in names(repository, found):
        raise tk.ValidationError({"file": [tk._("There is no such file")]})
    if _user(context) == tk.config.get("ckan.site_id"):
        who = tk._("A link is for a user: name one, or copy the file where it lies")
        raise tk.ValidationError({"message": [who]})
    id = found.id if found else ""
    if found:
        _confirm(context, data, site, repository, DOWNLOAD, id)
    _note(repository, DOWNLOAD, of=id or data["file"])
    once = _once(site, repository, DOWNLOAD, id) if found else nullcontext()
    with once, _told():
        link = Links(site).make(_user(context), id, data["file"])
    # a page stays on the address that its reader came by
    far = not (has_request_context() and tk.request.blueprint == "dbmanage_admin")
    url = tk.url_for(
        "dbmanage_admin.file", token=link["token"], name=link["name"], _external=far
    )
    return {"url": url, "until": link["until"]}


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
    data, site, repository = _called(context, data_dict, "restore", schema.restore)
    found = _find(repository, data["id"])
    chosen = {"id": found.id, "parts": data["parts"]}
    if data["preview"]:
        return _enqueue(context, "preview", chosen)
    with _told("id"):
        if why := unfit(tk.config, found):
            raise Refused(why)
    _confirm(context, data, site, repository, RESTORE, found.id)
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
    data, site, repository = _called(context, data_dict, "undo", schema.undo)
    with _told():
        days = config.undo_days(tk.config)
        last = status.undo(site, repository, days)
        if last is None:
            raise Refused(tk._("There is nothing to undo"))
    if data.get("operation", last["operation"]) != last["operation"]:
        other = tk._("Another switch was made since: look at what an undo takes back")
        raise tk.ValidationError({"operation": [other]})
    _confirm(context, data, site, repository, "undo", UNDO)
    job = {"note": data["note"], "operation": last["operation"]}
    return _armed(context, site, repository, "undo", job, None)


def dbmanage_export(context: Context, data_dict: Data) -> dict[str, Any]:
    """Export all records of a kind as JSON Lines, as a job.

    Its ``result`` has ``file``, for ``dbmanage_backup_download``; the next export of
    the kind replaces it.

    :param kind: ``datasets``, ``organizations``, ``groups`` or ``users``
    :param all: private, draft and deleted ones too, default false
    """
    data, *_ = _called(context, data_dict, "export", schema.export)
    chosen = {"kind": data["kind"], "everything": data["all"]}
    return _enqueue(context, "export", chosen)


def dbmanage_publish(context: Context, data_dict: Data) -> dict[str, Any]:
    """Write the public dumps, as a job."""
    _called(context, data_dict, "publish", schema.nothing)
    return _enqueue(context, "publish", {})


def dbmanage_job_cancel(context: Context, data_dict: Data) -> dict[str, Any]:
    """Take a job out of the queue, or end the one that runs; nothing of it stays.

    :param id: the job's id

    :returns: as ``dbmanage_job_show``

    Raises ValidationError for an ``id`` that is not known, has ended, or has come to
    its switch.
    """
    data, _, repository = _called(context, data_dict, "job_cancel", schema.one)
    jobs = Jobs(tk.config)
    with _told("id"):
        known = jobs.show(data["id"], log=0)
    _note(repository, "cancel", of=known["id"])
    with _told("id"):
        return jobs.cancel(known["id"])


def dbmanage_maintenance_update(context: Context, data_dict: Data) -> dict[str, Any]:
    """Set or end the maintenance; it ends by itself. As ``dbmanage_maintenance_show``.

    :param level: ``off``, ``read-only`` or ``away``; from *away* only its end, or the
        command line, leads back: this page and the API are away too
    :param seconds: for how long, default 1800

    Raises ValidationError while an operation holds the maintenance: it ends it.
    """
    data, site, repository = _called(
        context, data_dict, "maintenance_update", schema.maintenance_update
    )
    keeper = _maintenance(site)
    _note(repository, f"maintenance {data['level']}")
    with _told():
        keeper.by_hand(data["level"], data["seconds"])
        return keeper.status() or {"level": "off"}


# -------------------------------------------------------------------------- within


def _called(
    context: Context, data_dict: Data, name: str, made: Callable[[], Any]
) -> tuple[Data, Site, Repository]:
    tk.check_access(f"dbmanage_{name}", context, data_dict)
    reads = getattr(tk.get_action(f"dbmanage_{name}"), "side_effect_free", False)
    if not reads:
        _refuse_forged(context)
    taken = made()
    unknown: Any = {k: [tk._("Unknown parameter")] for k in data_dict if k not in taken}
    if unknown:
        raise tk.ValidationError(unknown)
    data, errors = tk.navl_validate(data_dict, taken, context)
    if errors:
        raise tk.ValidationError(errors)
    site, repository = _site_of(context)
    if not reads:
        with _told():
            refuse_root(site)
    return data, site, repository


def _refuse_forged(context: Context) -> None:
    """Core's API takes a form of another site from whoever is signed in: not here.

    By whatever cookie: only a token in a header is nothing that a browser adds. And by
    POST alone: CKAN refuses GET, but takes HEAD, and looks at no form's token then.
    """
    from ckan.config.middleware.flask_app import csrf
    from werkzeug.exceptions import BadRequest

    if not has_request_context():
        return
    if tk.request.method != "POST":
        raise tk.NotAuthorized(tk._("What changes something is asked for by POST"))
    if _by_token(context):
        return
    if tk.request.blueprint == "dbmanage_admin":  # its guard has looked
        return
    try:
        csrf.protect()
    except BadRequest as error:
        raise tk.NotAuthorized(str(error.description)) from error


@contextmanager
def _told(field: str = "message") -> Iterator[None]:
    """What the engine refuses, as CKAN's API says it."""
    try:
        yield
    except DbmanageError as error:
        raise tk.ValidationError({field: [str(error)]}) from error
    except (psycopg2.Error, OSError) as error:
        raise tk.ValidationError({field: [errors.told(error)]}) from error


def _find(repository: Repository, name: str) -> Backup:
    try:
        return repository.find(name)
    except DbmanageError as error:
        raise tk.ObjectNotFound(str(error)) from error


def actor(context: Context) -> dict[str, str]:
    """Who asks, and from where, for the journal."""
    known = {"user": _user(context)}
    if tk.request:
        known["address"] = str(tk.request.remote_addr or "")
        # what a proxy says, which anybody could: beside the one above, never instead
        if forwarded := tk.request.headers.get("X-Forwarded-For", ""):
            words = "".join(c for c in forwarded[:200] if c.isprintable())
            known["forwarded"] = words
    return known


def _among(described: list[dict[str, Any]], id: str) -> dict[str, Any]:
    for each in described:
        if each["id"] == id:
            return each
    raise tk.ObjectNotFound(tk._("Backup {} was deleted meanwhile").format(id))


def _stays(site: Site, about: Data, described: list[Data]) -> str:
    whole = status.having(described, status.wanted(site, tk.config))
    return status.must_stay(about, described, whole)


def _named(repository: Repository, id: str) -> Backup:
    """The backup of an id; `latest` is another one after each call."""
    found = _find(repository, id)
    if found.id != id:
        raise tk.ValidationError(
            {"id": [tk._("Name it by its id, {}").format(found.id)]}
        )
    return found


def _user(context: Context) -> str:
    return str(context.get("user") or "")


def _portal(context: Context) -> Portal:
    return Portal(tk.config, report.Silent(), None, actor(context))


def _maintenance(site: Site) -> Maintenance:
    return Maintenance(site.redis_url, site.databases["database"].url)


def _note(
    repository: Repository, what: str, of: str = "", event: str = "asked", **facts: str
) -> None:
    with _told():
        repository.record(of or what, event, what=what, **facts)


def _enqueue(context: Context, kind: str, arguments: Mapping[str, Any]) -> Data:
    _, repository = _site_of(context)
    what = "proof" if kind == "verify" and arguments.get("prove") else kind
    # first: a job that no line of the journal tells of must not run
    _note(repository, what, of=str(arguments.get("id") or kind))
    with _told():
        return Jobs(tk.config).enqueue(kind, arguments, actor(context))


def _site_of(context: Context) -> tuple[Site, Repository]:
    with _told():
        known = this_site()
    return known, Repository(known.repository, known.secrets, actor(context))


def this_site() -> Site:
    """The site as it is configured, made once for a request. Raises Refused."""
    if not has_request_context():
        return build_site(tk.config)
    if "dbmanage_site" not in g:
        g.dbmanage_site = build_site(tk.config)
    return g.dbmanage_site


def _confirm(
    context: Context,
    data: Data,
    site: Site,
    repository: Repository,
    what: str,
    of: str,
) -> None:
    """The password of who is signed in by a cookie; for a switch the site's title too.

    Against whoever sits down at a browser that is signed in. It stops no stolen
    session, which can set another password: that is what arming is for. A token is a
    secret of its own, and the command line has no caller.
    """
    errors: Any = {}
    if what in (RESTORE, UNDO):
        title = str(tk.config.get("ckan.site_title") or "CKAN")
        said = " ".join(str(data.get("confirm") or "").split())
        if said.casefold() != " ".join(title.split()).casefold():
            errors["confirm"] = [tk._("That is not the name of this site")]
    if _needs_password(context):
        with _told():
            wrong = _wrong_password(context, data, Arming(site))
        if wrong:
            errors["password"] = [tk._(wrong)]
            _note(repository, what, of=of, event="refused", error=wrong)
    if errors:
        raise tk.ValidationError(errors)


def _(message: str) -> str:
    """Marks a message that is translated later, for the journal has it in English."""
    return message


def _wrong_password(context: Context, data: Data, arming: Arming) -> str:
    """What is wrong with the password that was given, empty when it is right."""
    user = model.User.get(_user(context))
    password = str(data.get("password") or "")
    if not (user and password):
        return _("That is not your password")
    tried = arming.count_try()
    if tried > _TRIES:
        return _("Too many wrong passwords: try again in an hour")
    if user.validate_password(password):
        arming.right_password()
        return ""
    if tried >= TRIES:
        arming.off()
        return _("That is not your password; what was armed is off now")
    return _("That is not your password")


def _needs_password(context: Context) -> bool:
    """Whether the caller is a browser: no command line, and no API token."""
    if not has_request_context():
        return False
    return "_user_id" in session or not _by_token(context)


def _by_token(context: Context) -> bool:
    """Whether the request's header has an API token of the caller."""
    options = ("apitoken_header_name", "apikey_header_name")
    headers = [str(tk.config.get(option) or "") for option in options]
    for header in filter(None, [*headers, "Authorization"]):
        if token := tk.request.headers.get(header):
            user = api_token.get_user_from_token(token, update_access_time=False)
            if user is not None and user.name == _user(context):
                return True
    return False


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
    with _told():
        jobs, allowed = Jobs(tk.config), config.web_restore(tk.config)
        if again := jobs.active(kind, arguments):  # a second click
            return again
        known = Arming(site).armed() or {}
        wanted = (known.get("backup"), known.get("to")) == (name, RESTORE)
        armed = allowed == "armed" and wanted
        if not armed and allowed != "always":
            _not_armed(repository, kind, name, allowed)
        status = overview.status(site, repository, tk.config)
        parts = arguments.get("parts", ())
        if told := overview.blockers(site, repository, status, found, parts):
            raise Refused("; ".join(told))
        _note(repository, kind, of=name)
        until, used = f"{now() + _WAITS:{FORM}}", None
        if armed:
            used = Arming(site).use(name)
            if used is None:  # somebody else was faster
                _not_armed(repository, kind, name, allowed)
            until = used["until"]
        return jobs.enqueue(kind, arguments, actor(context), until, used)


@contextmanager
def _once(site: Site, repository: Repository, to: str, name: str) -> Iterator[None]:
    """What an operator has allowed once, done in the block; given back when it fails.

    Raises NotAuthorized when nobody has.
    """
    with _told():
        allowed = config.web_restore(tk.config)
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
    _note(repository, what, of=name, event="refused", error="not armed")
    to = f" --to {what}" if what in DEEDS[1:] else ""
    how = f"an operator runs `ckan db arm {name}{to}` on the server first"
    if allowed == "never":
        how = "ckanext.dbmanage.web_restore is `never`: do it on the server"
    raise tk.NotAuthorized(tk._("This is off on the web: {}").format(how))


def functions() -> dict[str, Callable[..., Any]]:
    """The actions by name."""
    return {k: v for k, v in globals().items() if k.startswith("dbmanage_")}
