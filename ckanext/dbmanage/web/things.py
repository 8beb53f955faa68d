"""One thing back: what would come back is looked at, confirmed, and brought back.

What it does, it asks of the actions. All that begins a job is a form sent by POST.
"""

import json
from typing import Any

from ckan.plugins import toolkit as tk
from flask import make_response, redirect, request

from ..engine.printable import one_line, printable
from .guard import armed_for, attempt, joined, known_job, pages


@pages.route("/thing", methods=["POST"])
def look() -> Any:
    """Asks what would come back."""
    form = request.form
    asked = {field: form.get(field, "") for field in ("id", "kind")}
    names, more = form.getlist("name"), "with_datasets" in form
    made, errors = attempt(
        "bring_back", preview=True, names=names, with_datasets=more, **asked
    )
    if errors:
        tk.h.flash_error(joined(errors))
        found = {"kind": asked["kind"], "name": next(iter(names), "")}
        return redirect(tk.url_for("dbmanage_admin.history", **found))
    return redirect(tk.url_for("dbmanage_admin.thing", id=made["id"]))


@pages.route("/thing/<id>", methods=["GET", "POST"])
def thing(id: str) -> Any:
    """What would come back, and brings it back once it is confirmed."""
    job = known_job(id, 1000)
    if job["kind"] != "preview thing":
        return tk.abort(404)
    asked, errors, found = job["arguments"], {}, None
    if job["state"] == "done" and job["result"]:
        found = _shown(job["result"])
    form = {k: request.form.get(k, "").strip() for k in ("as_name", "note")}
    if request.method == "POST" and found:
        made, errors = _bring_back(asked, found, form)
        if not errors:
            return redirect(tk.url_for("dbmanage_admin.job", id=made["id"]))
    extra: dict[str, Any] = {"job": job, "asked": asked, "form": form, "errors": errors}
    if found:
        extra |= {"found": found, "user": asked["kind"] == "user"}
        extra |= armed_for(asked["id"])
    page = tk.render("dbmanage/admin/thing.html", extra)
    return make_response(page, 400 if errors else 200)


def _bring_back(
    asked: dict[str, Any], found: dict[str, Any], form: dict[str, str]
) -> tuple[Any, dict[str, list[str]]]:
    """Asks for what was looked at. As `attempt`."""
    if found["things"][0]["taken"] and not form["as_name"]:
        return None, {"as_name": [tk._("Give it another name")]}
    password = request.form.get("password", "")
    return attempt("bring_back", password=password, **asked, **form)


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    """What a preview found, as it may be shown."""
    for each in result["things"]:
        resources = [field for res in each["resources"] for field in res["fields"]]
        for field in (*each["fields"], *resources):
            field["field"] = one_line(field["field"])
            field |= {when: _text(field[when]) for when in ("then", "now")}
        for entries in each["lists"]:
            entries |= {k: [one_line(e) for e in entries[k]] for k in ("back", "gone")}
    return result


def _text(value: Any) -> str | None:
    """A value of a record, None where there is none."""
    if value is None or isinstance(value, str):
        return value and printable(value)
    return printable(json.dumps(value, ensure_ascii=False, indent=1))
