"""The page of the public dumps, for people.

From the published list on the disk alone: no query, no action. The files beside it are
answered before Flask, by `dump_files`.
"""

import re
from datetime import timedelta
from typing import Any

from ckan.plugins import toolkit as tk
from flask import Blueprint, redirect

from ..engine.errors import Refused
from ..portal.config import current
from ..portal.directories import public_dir
from ..records import published
from . import helpers

#: older than that, something has not run for a while
_STALE = timedelta(days=2)


def blueprint() -> Blueprint:
    """The extension's pages."""
    made = Blueprint("dbmanage", __name__)
    try:
        path = current().public_path
    except Refused:  # `dump_files` says so in the log, and `doctor`
        return made
    # Flask's own redirect would lose the language; 2.10 takes the first rule that fits
    made.add_url_rule(
        path, "dumps_slash", lambda: redirect(tk.url_for("dbmanage.dumps"), 308)
    )
    made.add_url_rule(f"{path}/", "dumps", dumps)
    return made


def dumps() -> str:
    """What is published: files, how to use them, licence."""
    root = current().public_root
    site = current().site_url
    contact = current().public_contact
    extra = {
        "root": root,
        "url": site + root,
        "contact": contact,
        "contact_url": _contact_url(contact),
        "dumps": published_set(),
    }
    return tk.render("dbmanage/dump.html", extra)


def published_set() -> dict[str, Any] | None:
    """The published set as the page shows it; None when nothing valid is published."""
    try:
        found = published.read(public_dir(current()))
    except (OSError, Refused):
        return None
    return _for_people(found) if found else None


def _for_people(found: published.Published) -> dict[str, Any]:
    kinds: dict[str, list[published.File]] = {}
    for file in found.files.values():
        kinds.setdefault(file.kind, []).append(file)
    snapshot = found.document["snapshot"]
    age = published.age(found)
    return {
        "snapshot": snapshot,
        "moment": helpers.moment(snapshot, "long"),
        "stale": age > _STALE,
        "age": helpers.duration(age.total_seconds()),
        "ago": helpers.since(age.total_seconds()),
        "licence": _licence(found.document.get("licence")),
        "kinds": [
            {
                "kind": kind,
                "rows": helpers.number(files[0].rows),
                "unpacked": helpers.size(files[0].uncompressed),
                "failed": files[0].failed,
                "failed_number": helpers.number(files[0].failed),
                "files": [
                    {
                        "name": file.name,
                        "suffix": file.name.rpartition(".")[2],
                        "size": helpers.size(file.bytes),
                        "sha256": file.sha256,
                    }
                    for file in files
                ],
            }
            for kind, files in kinds.items()
        ],
    }


def _licence(given: Any) -> dict[str, str] | None:
    """The licence as the list has it, its address only if it is one of the web."""
    if not isinstance(given, dict) or not isinstance(given.get("title"), str):
        return None
    url = str(given.get("url") or "")
    return {"title": given["title"], "url": url if _of_the_web(url) else ""}


def _contact_url(contact: str) -> str:
    """Where a contact's link goes, empty for what is neither address nor e-mail."""
    if _of_the_web(contact):
        return contact
    return f"mailto:{contact}" if re.fullmatch(r"[^\s@<>]+@[^\s@<>]+", contact) else ""


def _of_the_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))
