"""The sysadmin page: ckan-admin → Backups. What it does, it asks of the actions.

All that changes something is a form sent by POST, so that the pages work without
JavaScript; htmx, where core has it, keeps the running job on the screen up to date.
"""

from typing import Any

from ckan.plugins import toolkit as tk
from flask import make_response, redirect, request

from ..engine.layout import PARTS
from ..engine.redis.arming import DELETE, RELEASE, UNDO
from . import dump_page, looked_for, nights
from .guard import (
    armed_for,
    attempt,
    backup_url,
    index_url,
    joined,
    known_job,
    pages,
    read,
    submit,
)


@pages.route("/")
def index() -> Any:
    """The list, and whether all is well."""
    status = read("status", journal=8)
    job = next(iter(status["jobs"]), None)
    if job:  # it, or Redis, may have gone since
        job = attempt("job_show", id=job["id"], log=30)[0] or job
    extra = {
        "status": status,
        **looked_for.backups(),
        "chart": nights.chart(status["nights"], status["newest"]),
        "year": nights.year(status["year"]),
        "job": job,
        "parts": PARTS,
        "dumps": dump_page.published_set(),
    }
    return tk.render("dbmanage/admin/index.html", extra)


@pages.route("/tables")
def tables() -> Any:
    """What fills the databases, a fragment for htmx or a page of its own."""
    extra = {"tables": read("status", tables=True)["tables"]}
    part = "tables_live" if request.headers.get("HX-Request") else "tables"
    return tk.render(f"dbmanage/admin/{part}.html", extra)


@pages.route("/journal")
def journal() -> Any:
    """Who did what, and from where."""
    return tk.render("dbmanage/admin/journal.html", looked_for.journal())


@pages.route("/retention")
def retention() -> Any:
    """What rules of retention would forget, before they are written down."""
    extra = nights.retention() | {"status": read("status")}
    return tk.render("dbmanage/admin/retention.html", extra)


@pages.route("/history")
def history() -> Any:
    """In which backups a record stands."""
    return tk.render("dbmanage/admin/history.html", looked_for.history())


@pages.route("/job/<id>")
def job(id: str) -> Any:
    """One job, with its log."""
    return tk.render("dbmanage/admin/job.html", {"job": known_job(id, 1000)})


@pages.route("/job/<id>/live")
def job_live(id: str) -> Any:
    """What of a job changes, for htmx; 286 ends its asking."""
    seen = request.args.get("lines", "")
    had = int(seen) if seen.isdecimal() and len(seen) < 10 else 0
    found = known_job(id, 30)
    if found["lines"] > had + 30:  # much was told since the last look
        found = known_job(id, 1000)
    # a screen reader is told of a new phase, not of every tick
    said = f"{found['state']} {found['phase']}"
    extra = {"job": found, "live": True, "new": request.args.get("said") != said}
    more = found["lines"] - had
    extra["more"] = found["log"][-more:] if more > 0 else []
    made = make_response(tk.render("dbmanage/admin/job_live.html", extra))
    if found["state"] not in ("queued", "running"):
        made.status_code = 286
    return made


@pages.route("/job/<id>/cancel", methods=["POST"])
def job_cancel(id: str) -> Any:
    """Ends a job."""
    back = tk.url_for("dbmanage_admin.job", id=id)
    return submit("job_cancel", tk._("The job is being ended"), back, id=id)


def _job(name: str, **data: Any) -> Any:
    """An action that makes a job, then the job's page."""
    made, errors = attempt(name, **data)
    if errors:
        tk.h.flash_error(joined(errors))
        return redirect(backup_url(data["id"]) if "id" in data else index_url())
    return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))


@pages.route("/new", methods=["POST"])
def create() -> Any:
    """Asks for a backup."""
    note, keep = request.form.get("note", ""), "keep" in request.form
    return _job("backup_create", note=note, keep=keep, **_ticked())


def _ticked() -> dict[str, list[str]]:
    """The parts that a form with boxes for them asks for, perhaps none of them."""
    asked = request.form if request.method == "POST" else request.args
    return {"parts": asked.getlist("parts")} if "boxes" in asked else {}


@pages.route("/<id>/verify", methods=["POST"])
def verify(id: str) -> Any:
    """Asks for a verification, or for a proof."""
    return _job("backup_verify", id=id, prove="prove" in request.form)


@pages.route("/<id>/push", methods=["POST"])
def push(id: str) -> Any:
    """Asks for a copy at the other place."""
    return _job("backup_push", id=id)


@pages.route("/<id>/keep", methods=["POST"])
def keep(id: str) -> Any:
    """Holds a backup."""
    return submit("backup_keep", tk._("The backup is held"), backup_url(id), id=id)


@pages.route("/<id>/preview", methods=["POST"])
def preview(id: str) -> Any:
    """Asks what a restore would change."""
    return _job("restore", id=id, preview=True, **_ticked())


@pages.route("/<id>/delete", methods=["GET", "POST"])
def delete(id: str) -> Any:
    """Says what would be lost, and deletes once it is confirmed."""
    said = {"newest": "newest" in request.form}
    return _for_good(id, DELETE, "backup_delete", tk._("The backup is deleted"), **said)


@pages.route("/<id>/release", methods=["GET", "POST"])
def release(id: str) -> Any:
    """The same, for giving a backup back to retention."""
    done = tk._("The backup is no longer held")
    return _for_good(id, RELEASE, "backup_keep", done, release=True)


def _for_good(id: str, to: str, name: str, success: str, **data: Any) -> Any:
    """What cannot be taken back: armed by an operator, confirmed by the password."""
    backup, errors = read("backup_show", id=id), {}
    if request.method == "POST":
        password = request.form.get("password", "")
        errors = attempt(name, id=id, password=password, **data)[1]
        if not errors:
            tk.h.flash_success(success)
            return redirect(index_url() if to == DELETE else backup_url(id))
    armed = armed_for(backup["id"], to)
    extra = {
        "backup": backup,
        "to": to,
        "stays": backup["stays"] if to == DELETE else "",
        "newest": backup["newest"] if to == DELETE else "",
        "others": armed["status"]["count"] - 1,
        "errors": errors,
        **armed,
    }
    page = tk.render("dbmanage/admin/delete.html", extra)
    return make_response(page, 400 if errors else 200)


@pages.route("/export", methods=["POST"])
def export() -> Any:
    """Asks for an export."""
    kind = request.form.get("kind", "")
    return _job("export", kind=kind, all="all" in request.form)


@pages.route("/publish", methods=["POST"])
def publish() -> Any:
    """Asks for the public dumps."""
    return _job("publish")


@pages.route("/maintenance", methods=["POST"])
def maintenance() -> Any:
    """Sets or ends the maintenance."""
    level = request.form.get("level", "")
    return submit("maintenance_update", "", index_url(), level=level)


@pages.route("/<id>/restore", methods=["GET", "POST"])
def restore(id: str) -> Any:
    """Says what a restore would do, and does it once it is confirmed."""
    ticked = _ticked()
    known = [part for part in ticked.get("parts", ()) if part in PARTS]
    backup = read("backup_show", id=id, parts=known or "")
    extra = {
        "backup": backup,
        "blockers": backup["blockers"],
        # what somebody has left out stays left out
        "chosen": ticked.get("parts", backup["parts"]),
        "preview": _previewed(backup["id"]),
    }
    return _confirmed("restore", backup["id"], extra, id=backup["id"], **ticked)


@pages.route("/undo", methods=["GET", "POST"])
def undo() -> Any:
    """The same, for taking the last restore back."""
    return _confirmed("undo", UNDO, {}, operation=request.form.get("operation", ""))


# after all names of one word: CKAN 2.10 takes the first address that fits
@pages.route("/<id>")
def show(id: str) -> Any:
    """One backup."""
    backup = read("backup_show", id=id, compare="compare" in request.args)
    extra = {"backup": backup, "compared": "differing" in backup}
    return tk.render("dbmanage/admin/show.html", extra)


def _confirmed(name: str, wanted: str, extra: dict[str, Any], **data: Any) -> Any:
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        words = {k: request.form.get(k, "") for k in ("note", "confirm", "password")}
        made, errors = attempt(name, **data, **words)
        if not errors:
            return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))
    armed = armed_for(wanted)
    extra = {
        "backup": None,
        "status": armed["status"],
        "wanted": wanted,
        "armed": armed["open"],
        "errors": errors,
        "form": {k: request.form.get(k, "") for k in ("note", "confirm")},
        "blockers": armed["status"]["blockers"],
        **extra,
    }
    last = armed["status"]["undo"] if wanted == UNDO else None
    name = "undo_thing" if last and last["things"] else "restore"
    page = tk.render(f"dbmanage/admin/{name}.html", extra)
    return make_response(page, 400 if errors else 200)


def _previewed(id: str) -> dict[str, Any] | None:
    """The last preview of a backup, of the jobs that are known."""
    jobs, _ = attempt("job_list", limit=50)  # none when Redis is away
    previews = (each for each in jobs or () if each["kind"] == "preview")
    return next((each for each in previews if each["arguments"]["id"] == id), None)
