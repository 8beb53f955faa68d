"""The sysadmin page: ckan-admin → Backups. What it does, it asks of the actions.

One guard stands before every route. All that changes something is a form sent by POST,
so that the pages work without JavaScript; htmx, where core has it, keeps the running
job on the screen up to date.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ckan.plugins import toolkit as tk
from flask import make_response, redirect, request

from ..engine.layout import PARTS
from ..engine.redis.arming import DELETE, RELEASE, RESTORE, UNDO
from ..engine.repository.repository import Repository
from ..jobs.record import ACTIVE
from ..logic.call import this_site
from ..logic.known import backups
from ..logic.status import blockers
from ..operations.allowed import having, must_stay, unfit, wanted
from ..portal.config import current
from . import dump_page, guard, helpers
from .guard import admin, call_action, do, errors_of, look, page_of, said, to_index

#: backups on one page of the list, nights in the chart
_PAGE, _NIGHTS = 10, 30


@admin.route("/")
def index() -> Any:
    """The list, and whether all is well."""
    before = request.args.get("before", "")
    status = look("status", journal=8)
    every = backups(repository_of_site())
    listed = [each for each in every if not before or each["id"] < before]
    shown = listed[:_PAGE]
    job = next(iter(status["jobs"]), None)
    with suppress(tk.ValidationError):  # gone since, or Redis is
        job = job and call_action("job_show", id=job["id"], log=30)
    parts = wanted(this_site(), current())
    whole = having(every, parts)
    said = {
        "status": status,
        "backups": shown,
        "older": listed[_PAGE - 1]["id"] if len(listed) > _PAGE else None,
        "before": before,
        "stays": {e["id"] for e in shown if must_stay(e, every, whole)},
        "nights": _chart([e for e in every if e["sizes"]][:_NIGHTS][::-1]),
        "job": job,
        "retention": current().retention | {"undo_days": current().undo_days},
        "parts": PARTS,
        "wanted": parts,
        "dumps": dump_page.published_set(),
    }
    return tk.render("dbmanage/admin/index.html", said)


def repository_of_site() -> Repository:
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
    said = {"tables": look("status", tables=True)["tables"]}
    part = "tables_live" if request.headers.get("HX-Request") else "tables"
    return tk.render(f"dbmanage/admin/{part}.html", said)


@admin.route("/journal")
def journal() -> Any:
    """Who did what, and from where."""
    said = {"journal": look("status", journal=1000)["journal"]}
    return tk.render("dbmanage/admin/journal.html", said)


@admin.route("/<id>")
def show(id: str) -> Any:
    """One backup."""
    backup = look("backup_show", id=id, compare="compare" in request.args)
    status = look("status")
    said = {"backup": backup, "status": status, "compared": "differing" in backup}
    return tk.render("dbmanage/admin/show.html", said)


@admin.route("/job/<id>")
def job(id: str) -> Any:
    """One job, with its log."""
    try:
        found = call_action("job_show", id=id, log=1000)
    except tk.ValidationError as error:
        return tk.abort(404, said(error))
    return tk.render("dbmanage/admin/job.html", {"job": found})


@admin.route("/job/<id>/live")
def job_live(id: str) -> Any:
    """What of a job changes, for htmx; 286 ends its asking."""
    seen = request.args.get("lines", "")
    had = int(seen) if seen.isdecimal() and len(seen) < 10 else 0
    try:
        found = call_action("job_show", id=id, log=30)
        if found["lines"] > had + 30:  # much was told since the last look
            found = call_action("job_show", id=id, log=1000)
    except tk.ValidationError as error:
        return tk.abort(404, guard.said(error))
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
    return do("job_cancel", tk._("The job is being ended"), back, id=id)


def _job(name: str, **data: Any) -> Any:
    """An action that makes a job, then the job's page."""
    try:
        made = call_action(name, **data)
    except tk.ValidationError as error:
        tk.h.flash_error(said(error))
        return redirect(page_of(data["id"]) if "id" in data else to_index())
    return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))


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
    return do("backup_keep", tk._("It is held"), page_of(id), id=id)


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
    backup, errors = look("backup_show", id=id), {}
    if request.method == "POST":
        password = request.form.get("password", "")
        errors = tried(name, id=id, password=password, **data)[1]
        if not errors:
            tk.h.flash_success(success)
            return redirect(to_index() if to == DELETE else page_of(id))
    said = {
        "backup": backup,
        "to": to,
        "stays": backup["stays"] if to == DELETE else "",
        "others": len(look("backup_list")) - 1,
        "errors": errors,
        **opened(backup["id"], to),
    }
    return make_response(
        tk.render("dbmanage/admin/delete.html", said), 400 if errors else 200
    )


def tried(name: str, **data: Any) -> tuple[Any, dict[str, list[str]]]:
    """What an action of a form returns, or what it refused, by field."""
    try:
        return call_action(name, **data), {}
    except tk.ValidationError as error:
        return None, errors_of(error)
    except tk.NotAuthorized as error:
        return None, {"armed": [str(error)]}


def opened(name: str, to: str = RESTORE) -> dict[str, Any]:
    """The status, and whether the page may do that now."""
    status = look("status")
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
    return do("maintenance_update", "", to_index(), level=level)


@admin.route("/<id>/restore", methods=["GET", "POST"])
def restore(id: str) -> Any:
    """Says what a restore would do, and does it once it is confirmed."""
    backup = look("backup_show", id=id)
    return _confirmed("restore", backup, id=backup["id"], **_ticked())


@admin.route("/undo", methods=["GET", "POST"])
def undo() -> Any:
    """The same, for taking the last restore back."""
    return _confirmed("undo", None, operation=request.form.get("operation", ""))


def _confirmed(name: str, backup: dict[str, Any] | None, **data: Any) -> Any:
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        words = {k: request.form.get(k, "") for k in ("note", "confirm", "password")}
        made, errors = tried(name, **data, **words)
        if not errors:
            return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))
    wanted = backup["id"] if backup else UNDO
    status, armed = opened(wanted).values()
    # what somebody has left out stays left out
    chosen = data.get("parts", backup["parts"] if backup else [])
    said = {
        "backup": backup,
        "status": status,
        "wanted": wanted,
        "armed": armed,
        "errors": errors,
        "form": {k: request.form.get(k, "") for k in ("note", "confirm")},
        "undo_days": current().undo_days,
        "preview": backup and _previewed(backup["id"]),
        "chosen": chosen,
        "blockers": _blockers(status, wanted, chosen),
    }
    page = tk.render("dbmanage/admin/restore.html", said)
    return make_response(page, 400 if errors else 200)


def _blockers(status: dict[str, Any], wanted: str, parts: list[str]) -> list[str]:
    """What stands in the way, said before anything is typed."""
    repository = repository_of_site()
    found = None if wanted == UNDO else repository.find(wanted)
    if found and unfit(current(), found):  # the page says why, and no more
        return []
    return blockers(this_site(), repository, status, found, parts)


def _previewed(id: str) -> dict[str, Any] | None:
    """The last preview of a backup, of the jobs that are known."""
    try:
        jobs = call_action("job_list", limit=50)
    except tk.ValidationError:  # Redis is away, as the page says
        return None
    for each in jobs:
        if each["kind"] == "preview" and each["arguments"]["id"] == id:
            return each
    return None
