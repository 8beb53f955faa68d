"""The sysadmin page: ckan-admin → Backups. What it does, it asks of the actions.

One guard stands before every route. All that changes something is a form sent by POST,
so that the pages work without JavaScript; htmx, where core has it, keeps the running
job on the screen up to date.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ckan.plugins import toolkit as tk
from flask import Blueprint, Response, make_response, redirect, request
from flask_wtf.csrf import CSRFError
from werkzeug.wsgi import FileWrapper

from ..engine.backup import downloads
from ..engine.errors import DbmanageError
from ..engine.layout import EXPORTS, PARTS
from ..engine.redis import links
from ..engine.redis.arming import DELETE, DOWNLOAD, RELEASE, RESTORE, UNDO
from ..engine.repository.repository import Repository
from ..jobs.record import ACTIVE
from ..logic.call import this_site
from ..logic.known import backups
from ..logic.status import blockers, having, must_stay, wanted
from ..operations.restore import unfit
from ..portal import config
from . import dump_page, helpers
from .dump_files import finished

admin = Blueprint("dbmanage_admin", __name__, url_prefix="/ckan-admin/backups")

#: backups on one page of the list, nights in the chart
_PAGE, _NIGHTS = 10, 30
_POLICY = (
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)


# ------------------------------------------------------------------------- the guard


@admin.before_request
def guard() -> Any:
    """Sysadmins only, and no form that another site has sent."""
    from ckan.config.middleware.flask_app import csrf

    user = tk.current_user
    if not user.is_authenticated:
        if request.method not in ("GET", "HEAD"):
            return _again(), 403
        if not request.path.endswith("/live"):
            return tk.redirect_to("user.login", came_from=request.full_path)
        return tk.abort(403, tk._("Sign in, then try again"))
    try:
        tk.check_access("sysadmin", _context(), {})  # type: ignore[arg-type]
    except tk.NotAuthorized:
        return tk.abort(403, tk._("Need to be system administrator to administer"))
    # 2.10 and 2.11 exempt the blueprints of plugins
    csrf.protect()
    return None


@admin.errorhandler(CSRFError)
def expired(_: Exception) -> Any:
    """A form that stood open for too long; 2.12 looks before the guard does."""
    return _again(), 400


def _again() -> str:
    """The page that says what to do instead of sending the form once more."""
    # a path of a form only is not the page that has it
    came = urlsplit(request.referrer or "")
    own = came.netloc == request.host and came.path.startswith(_index())
    page = came.path if own else _index()
    extra = {"page": page, "signed_in": tk.current_user.is_authenticated}
    return tk.render("dbmanage/admin/again.html", extra)


@admin.after_request
def headers(response: Response) -> Response:
    """What keeps these pages out of frames and caches."""
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "no-store"
    request.environ["__no_cache__"] = True  # else core calls it public
    return response


def _context() -> dict[str, Any]:
    return {"user": tk.current_user.name, "auth_user_obj": tk.current_user}


def _call(name: str, **data: Any) -> Any:
    """An action; what is not there is 404, what is not allowed 403."""
    try:
        return tk.get_action(f"dbmanage_{name}")(_context(), data)  # type: ignore[arg-type]
    except tk.ObjectNotFound as error:
        return tk.abort(404, str(error))


def _look(name: str, **data: Any) -> Any:
    """An action that reads; why it cannot is the page then."""
    try:
        return _call(name, **data)
    except tk.ValidationError as error:
        return tk.abort(503, _said(error))


def _said(error: Any) -> str:
    """A ValidationError in one sentence."""
    return "; ".join(
        str(each) for told in error.error_dict.values() for each in _listed(told)
    )


def _errors(error: Any) -> dict[str, list[str]]:
    return {k: [str(each) for each in _listed(v)] for k, v in error.error_dict.items()}


def _listed(told: Any) -> list[Any]:
    return told if isinstance(told, list) else [told]


def _do(name: str, success: str, back: str, **data: Any) -> Any:
    """An action of a form, what came of it said on the next page."""
    try:
        _call(name, **data)
        if success:
            tk.h.flash_success(success)
    except tk.ValidationError as error:
        tk.h.flash_error(_said(error))
    except tk.NotAuthorized as error:
        tk.h.flash_error(str(error))
    return redirect(back)


def _index() -> str:
    return tk.url_for("dbmanage_admin.index")


def _page_of(id: str) -> str:
    return tk.url_for("dbmanage_admin.show", id=id)


# -------------------------------------------------------------------------- the pages


@admin.route("/")
def index() -> Any:
    """The list, and whether all is well."""
    before = request.args.get("before", "")
    status = _look("status", journal=8)
    every = backups(_repository())
    listed = [each for each in every if not before or each["id"] < before]
    shown = listed[:_PAGE]
    job = next(iter(status["jobs"]), None)
    with suppress(tk.ValidationError):  # gone since, or Redis is
        job = job and _call("job_show", id=job["id"], log=30)
    parts = wanted(this_site(), tk.config)
    whole = having(every, parts)
    said = {
        "status": status,
        "backups": shown,
        "older": listed[_PAGE - 1]["id"] if len(listed) > _PAGE else None,
        "before": before,
        "stays": {e["id"] for e in shown if must_stay(e, every, whole)},
        "nights": _chart([e for e in every if e["sizes"]][:_NIGHTS][::-1]),
        "job": job,
        "retention": config.retention(tk.config)
        | {"undo_days": config.undo_days(tk.config)},
        "parts": PARTS,
        "wanted": parts,
        "dumps": dump_page.published_set(),
    }
    return tk.render("dbmanage/admin/index.html", said)


def _repository() -> Repository:
    known = this_site()
    return Repository(known.repository, known.secrets)


def _chart(nights: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Size and duration over time, as the inline SVG wants it: heights out of 100."""
    if len(nights) < 2:
        return None
    largest = max(sum(each["sizes"].values()) for each in nights) or 1
    longest = max(each["seconds"] or 0 for each in nights) or 1
    width = round(290 / len(nights) * 0.8, 2)
    bars = []
    for number, each in enumerate(nights):
        at, pieces = 0.0, []
        for part in PARTS:
            height = each["sizes"].get(part, 0) / largest * 100
            pieces.append({"part": part, "y": round(at, 2), "height": round(height, 2)})
            at += height
        x, seconds = number * 290 / len(nights), each["seconds"] or 0
        bars.append(
            {
                "x": round(x, 2),
                "created": helpers.moment(each["created"]),
                "size": helpers.size(sum(each["sizes"].values())),
                "clock": helpers.clock(seconds),
                "pieces": pieces,
                "point": f"{x + width / 2:.1f},{195 - seconds / longest * 50:.1f}",
            }
        )
    return {"bars": bars, "width": width, "largest": largest, "longest": longest}


@admin.route("/tables")
def tables() -> Any:
    """What fills the databases, a fragment for htmx or a page of its own."""
    said = {"tables": _look("status", tables=True)["tables"]}
    part = "tables_live" if request.headers.get("HX-Request") else "tables"
    return tk.render(f"dbmanage/admin/{part}.html", said)


@admin.route("/journal")
def journal() -> Any:
    """Who did what, and from where."""
    said = {"journal": _look("status", journal=1000)["journal"]}
    return tk.render("dbmanage/admin/journal.html", said)


@admin.route("/<id>")
def show(id: str) -> Any:
    """One backup."""
    backup = _look("backup_show", id=id, compare="compare" in request.args)
    status = _look("status")
    said = {"backup": backup, "status": status, "compared": "differing" in backup}
    return tk.render("dbmanage/admin/show.html", said)


# ------------------------------------------------------------------------------ jobs


@admin.route("/job/<id>")
def job(id: str) -> Any:
    """One job, with its log."""
    try:
        found = _call("job_show", id=id, log=1000)
    except tk.ValidationError as error:
        return tk.abort(404, _said(error))
    return tk.render("dbmanage/admin/job.html", {"job": found})


@admin.route("/job/<id>/live")
def job_live(id: str) -> Any:
    """What of a job changes, for htmx; 286 ends its asking."""
    seen = request.args.get("lines", "")
    had = int(seen) if seen.isdecimal() and len(seen) < 10 else 0
    try:
        found = _call("job_show", id=id, log=30)
        if found["lines"] > had + 30:  # much was told since the last look
            found = _call("job_show", id=id, log=1000)
    except tk.ValidationError as error:
        return tk.abort(404, _said(error))
    # a screen reader is told of a new phase, not of every tick
    said = f"{found['state']} {found['phase']}"
    extra = {"job": found, "live": True, "new": request.args.get("said") != said}
    more = found["lines"] - had
    extra["more"] = found["log"][-more:] if more > 0 else []
    made = make_response(tk.render("dbmanage/admin/job_live.html", extra))
    if found["state"] not in ACTIVE:
        made.status_code = 286
    return made


@admin.route("/job/<id>/cancel", methods=["POST"])
def job_cancel(id: str) -> Any:
    """Ends a job."""
    back = tk.url_for("dbmanage_admin.job", id=id)
    return _do("job_cancel", tk._("The job is being ended"), back, id=id)


def _job(name: str, **data: Any) -> Any:
    """An action that makes a job, then the job's page."""
    try:
        made = _call(name, **data)
    except tk.ValidationError as error:
        tk.h.flash_error(_said(error))
        return redirect(_page_of(data["id"]) if "id" in data else _index())
    return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))


# --------------------------------------------------------------------------- actions


@admin.route("/new", methods=["POST"])
def create() -> Any:
    """Asks for a backup."""
    note, keep = request.form.get("note", ""), "keep" in request.form
    return _job("backup_create", note=note, keep=keep, **_ticked())


def _ticked() -> dict[str, list[str]]:
    """The parts that a form with boxes for them asks for, perhaps none of them."""
    asked = request.form if request.method == "POST" else request.args
    return {"parts": asked.getlist("parts")} if "boxes" in asked else {}


@admin.route("/<id>/verify", methods=["POST"])
def verify(id: str) -> Any:
    """Asks for a verification, or for a proof."""
    return _job("backup_verify", id=id, prove="prove" in request.form)


@admin.route("/<id>/keep", methods=["POST"])
def keep(id: str) -> Any:
    """Holds a backup."""
    return _do("backup_keep", tk._("It is held"), _page_of(id), id=id)


@admin.route("/<id>/preview", methods=["POST"])
def preview(id: str) -> Any:
    """Asks what a restore would change."""
    return _job("restore", id=id, preview=True, **_ticked())


@admin.route("/<id>/delete", methods=["GET", "POST"])
def delete(id: str) -> Any:
    """Says what would be lost, and deletes once it is confirmed."""
    return _for_good(id, DELETE, "backup_delete", tk._("The backup is deleted"))


@admin.route("/<id>/release", methods=["GET", "POST"])
def release(id: str) -> Any:
    """The same, for giving a backup back to retention."""
    done = tk._("It is given back to retention")
    return _for_good(id, RELEASE, "backup_keep", done, release=True)


def _for_good(id: str, to: str, name: str, success: str, **data: Any) -> Any:
    """What cannot be taken back: armed by an operator, confirmed by the password."""
    backup, errors = _look("backup_show", id=id), {}
    if request.method == "POST":
        password = request.form.get("password", "")
        errors = _tried(name, id=id, password=password, **data)[1]
        if not errors:
            tk.h.flash_success(success)
            return redirect(_index() if to == DELETE else _page_of(id))
    said = {
        "backup": backup,
        "to": to,
        "stays": backup["stays"] if to == DELETE else "",
        "others": len(_look("backup_list")) - 1,
        "errors": errors,
        **_open(backup["id"], to),
    }
    return make_response(
        tk.render("dbmanage/admin/delete.html", said), 400 if errors else 200
    )


def _tried(name: str, **data: Any) -> tuple[Any, dict[str, list[str]]]:
    """What an action of a form returns, or what it refused, by field."""
    try:
        return _call(name, **data), {}
    except tk.ValidationError as error:
        return None, _errors(error)
    except tk.NotAuthorized as error:
        return None, {"armed": [str(error)]}


def _open(name: str, to: str = RESTORE) -> dict[str, Any]:
    """The status, and whether the page may do that now."""
    status = _look("status")
    known = status["armed"] or {}
    armed = (known.get("backup"), known.get("to")) == (name, to)
    allowed = {"armed": armed, "always": True}
    return {"status": status, "open": allowed.get(status["web_restore"], False)}


@admin.route("/export", methods=["POST"])
def export() -> Any:
    """Asks for an export."""
    kind = request.form.get("kind", "")
    return _job("export", kind=kind, all="all" in request.form)


@admin.route("/publish", methods=["POST"])
def publish() -> Any:
    """Asks for the public dumps."""
    return _job("publish")


@admin.route("/maintenance", methods=["POST"])
def maintenance() -> Any:
    """Sets or ends the maintenance."""
    level = request.form.get("level", "")
    return _do("maintenance_update", "", _index(), level=level)


# --------------------------------------------------------------------------- restore


@admin.route("/<id>/restore", methods=["GET", "POST"])
def restore(id: str) -> Any:
    """Says what a restore would do, and does it once it is confirmed."""
    backup = _look("backup_show", id=id)
    return _confirmed("restore", backup, id=backup["id"], **_ticked())


@admin.route("/undo", methods=["GET", "POST"])
def undo() -> Any:
    """The same, for taking the last restore back."""
    return _confirmed("undo", None, operation=request.form.get("operation", ""))


def _confirmed(name: str, backup: dict[str, Any] | None, **data: Any) -> Any:
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        words = {k: request.form.get(k, "") for k in ("note", "confirm", "password")}
        made, errors = _tried(name, **data, **words)
        if not errors:
            return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))
    wanted = backup["id"] if backup else UNDO
    status, armed = _open(wanted).values()
    # what somebody has left out stays left out
    chosen = data.get("parts", backup["parts"] if backup else [])
    said = {
        "backup": backup,
        "status": status,
        "wanted": wanted,
        "armed": armed,
        "errors": errors,
        "form": {k: request.form.get(k, "") for k in ("note", "confirm")},
        "undo_days": config.undo_days(tk.config),
        "preview": backup and _previewed(backup["id"]),
        "chosen": chosen,
        "blockers": _blockers(status, wanted, chosen),
    }
    page = tk.render("dbmanage/admin/restore.html", said)
    return make_response(page, 400 if errors else 200)


def _blockers(status: dict[str, Any], wanted: str, parts: list[str]) -> list[str]:
    """What stands in the way, said before anything is typed."""
    repository = _repository()
    found = None if wanted == UNDO else repository.find(wanted)
    if found and unfit(tk.config, found):  # the page says why, and no more
        return []
    return blockers(this_site(), repository, status, found, parts)


def _previewed(id: str) -> dict[str, Any] | None:
    """The last preview of a backup, of the jobs that are known."""
    try:
        jobs = _call("job_list", limit=50)
    except tk.ValidationError:  # Redis is away, as the page says
        return None
    for each in jobs:
        if each["kind"] == "preview" and each["arguments"]["id"] == id:
            return each
    return None


# -------------------------------------------------------------------------- downloads


@admin.route("/<id>/download", methods=["GET", "POST"])
def download(id: str) -> Any:
    """The files of a backup, once an operator has armed that, or of the exports."""
    backup = None if id == EXPORTS else _look("backup_show", id=id)
    link, errors, file = None, {}, request.form.get("file", "")
    if request.method == "POST":
        password = request.form.get("password", "")
        data = {"id": id, "password": password} if backup else {}
        link, errors = _tried("backup_download", file=file, **data)
    repository = _repository()
    found = repository.find(id) if backup else None
    said = {
        "backup": backup,
        "files": downloads.names(repository, found),
        "file": file,
        "link": link,
        "errors": errors,
        "all": downloads.ALL,
        **(_open(backup["id"], DOWNLOAD) if backup else {"open": True}),
    }
    page = tk.render("dbmanage/admin/download.html", said)
    return make_response(page, 400 if errors else 200)


@admin.route("/file/<token>/<name>")
def file(token: str, name: str) -> Any:
    """A file, for the user that its link was made for."""
    known, repository = links.Links(this_site()), _repository()
    user = tk.current_user.name
    try:
        found = known.find(token, user)
        if found is None:
            return tk.abort(404, tk._("This link is not good any more: make a new one"))
        opened, place, sum = downloads.opened(
            repository, found["backup"], found["file"]
        )
    except (DbmanageError, OSError):
        return tk.abort(404, tk._("There is no such file any more"))
    size = opened.size if not place else _length(opened)
    header, inside = config.sendfile(tk.config, backups=True)
    if place and header:
        opened.close()
        response = Response()
        response.headers[header] = inside + place
    else:
        body = FileWrapper(opened, 1 << 18)
        response = Response(body, direct_passthrough=True)
        response.call_on_close(opened.close)
        moment = _id_time(found["backup"])
        response = finished(response, sum, moment, size, request.environ)
    if request.method == "GET" and response.status_code in (200, 206):
        proof = _may_send(known, token, found)
        if proof is None:
            response.close()
            return tk.abort(410, tk._("This link was used already: make a new one"))
        if proof:
            response.set_cookie(
                _cookie(token), proof, max_age=links.RESUME, httponly=True,
                secure=request.is_secure, samesite="Lax",
            )  # fmt: skip
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Disposition"] = f'attachment; filename="{name_of(name)}"'
    return response


def _may_send(known: links.Links, token: str, found: dict[str, str]) -> str | None:
    """The proof for whoever begins, empty for who goes on, None where neither may."""
    asked = request.headers.get("Range", "").strip()
    resumed = re.fullmatch(r"bytes=0*[1-9][0-9]{0,17}-[0-9]{0,18}", asked)
    proof = request.cookies.get(_cookie(token), "")
    try:
        if resumed and proof and known.begun(token, proof):
            return ""
        return known.begin(token, found) or None
    except (DbmanageError, OSError):
        return None


def _cookie(token: str) -> str:
    """The cookie of one link: who has it has begun the download."""
    return f"dbmanage-{hashlib.sha256(token.encode()).hexdigest()[:16]}"


def name_of(name: str) -> str:
    """A file's name without what would end a header's."""
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-._"))


def _length(opened: Any) -> int:
    end = opened.seek(0, 2)
    opened.seek(0)
    return end


def _id_time(id: str) -> str:
    if not id:
        return "2000-01-01T00:00:00Z"
    return f"{id[:4]}-{id[4:6]}-{id[6:8]}T{id[9:11]}:{id[11:13]}:{id[13:15]}Z"
