"""A file of a backup, to one user's link."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ckan.plugins import toolkit as tk
from flask import Response, make_response, request
from werkzeug.wsgi import FileWrapper

from ..engine.backup import downloads
from ..engine.errors import DbmanageError
from ..engine.layout import EXPORTS
from ..engine.redis import links
from ..engine.redis.arming import DOWNLOAD
from ..logic.call import this_site
from ..portal.config import current
from ..portal.directories import sendfile
from .admin import opened, repository_of_site, tried
from .conditional import finished
from .guard import admin, look


@admin.route("/<id>/download", methods=["GET", "POST"])
def download(id: str) -> Any:
    """The files of a backup, once an operator has armed that, or of the exports."""
    backup = None if id == EXPORTS else look("backup_show", id=id)
    link, errors, file = None, {}, request.form.get("file", "")
    if request.method == "POST":
        password = request.form.get("password", "")
        data = {"id": id, "password": password} if backup else {}
        link, errors = tried("backup_download", file=file, **data)
    repository = repository_of_site()
    found = repository.find(id) if backup else None
    said = {
        "backup": backup,
        "files": downloads.names(repository, found),
        "file": file,
        "link": link,
        "errors": errors,
        "all": downloads.ALL,
        **(opened(backup["id"], DOWNLOAD) if backup else {"open": True}),
    }
    page = tk.render("dbmanage/admin/download.html", said)
    return make_response(page, 400 if errors else 200)


@admin.route("/file/<token>/<name>")
def file(token: str, name: str) -> Any:
    """A file, for the user that its link was made for."""
    known, repository = links.Links(this_site()), repository_of_site()
    user = tk.current_user.name
    try:
        found = known.find(token, user)
        if found is None:
            return tk.abort(404, tk._("This link is not good any more: make a new one"))
        opened, place, sum = downloads.open_download(
            repository, found["backup"], found["file"]
        )
    except (DbmanageError, OSError):
        return tk.abort(404, tk._("There is no such file any more"))
    size = opened.size if not place else _length(opened)
    header, inside = sendfile(current(), backups=True)
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
