"""A file of a backup, to one user's link.

The link is made by the action `dbmanage_backup_download`, which says who may have what.
The bytes then come from `engine.backup.downloads`, which no action could stream.
"""

import hashlib
import re
from contextlib import suppress
from typing import Any

from ckan.plugins import toolkit as tk
from flask import make_response, request
from werkzeug.wrappers import Response
from werkzeug.wsgi import FileWrapper

from ..engine.backup import downloads
from ..engine.clock import stamp
from ..engine.errors import DbmanageError
from ..engine.layout import EXPORTS
from ..engine.redis.arming import DOWNLOAD
from ..engine.redis.links import RESUME, Links
from ..portal.config import current
from ..portal.directories import sendfile
from ..portal.site import build_site
from .conditional import finished
from .guard import POLICY, armed_for, attempt, pages, read

_INERT = f"{POLICY}; default-src 'none'; style-src 'unsafe-inline'; sandbox"


@pages.route("/<id>/download", methods=["GET", "POST"])
def download(id: str) -> Any:
    """The files of a backup, once an operator has armed that, or of the exports."""
    backup = None if id == EXPORTS else read("backup_show", id=id, sizes=True)
    exported = {} if backup else read("status")
    link, errors, file = None, {}, request.form.get("file", "")
    if request.method == "POST":
        password = request.form.get("password", "")
        data = {"id": id, "password": password} if backup else {}
        link, errors = attempt("backup_download", file=file, **data)
    extra = {
        "backup": backup,
        "files": backup["downloads"] if backup else exported["exports"],
        "sizes": backup["download_sizes"] if backup else exported["export_sizes"],
        "file": file,
        "link": link,
        "errors": errors,
        "all": downloads.ALL,
        **(armed_for(backup["id"], DOWNLOAD) if backup else {"open": True}),
    }
    page = tk.render("dbmanage/admin/download.html", extra)
    return make_response(page, 400 if errors else 200)


@pages.route("/<id>/evidence")
def evidence(id: str) -> Any:
    """The page that a backup's newest proof has written, which needs nothing else."""
    backup = read("backup_show", id=id)
    try:
        page = downloads.evidence(build_site(current()), backup["id"])
    except (DbmanageError, OSError):
        return tk.abort(404, tk._("There is no evidence: prove the backup first"))
    response = make_response(page)
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    # a file that lies on the disk, not signed: nothing in it may run
    response.headers["Content-Security-Policy"] = _INERT
    return response


@pages.route("/file/<token>/<name>")
def file(token: str, name: str) -> Any:
    """A file, for the user that its link was made for."""
    try:
        site = build_site(current())
        links = Links(site)
        link = links.find(token, tk.current_user.name)
        if link is None:
            return _no_more(404)
        opened = downloads.opened_of(site, link["backup"], link["file"])
    except (DbmanageError, OSError):
        return tk.abort(404, tk._("This file is no longer there"))
    response = _response(*opened, link["backup"])
    if request.method == "GET" and response.status_code in (200, 206):
        proof = _may_send(links, token, link)
        if proof is None:
            response.close()
            return _no_more(410, link, _used_at(links, token, link))
        if proof:
            response.set_cookie(
                _cookie(token), proof, max_age=RESUME, httponly=True,
                secure=request.is_secure, samesite="Lax",
            )  # fmt: skip
    # nothing that could end the header's file name
    plain = re.sub(r"[^0-9A-Za-z._-]", "", name)
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Disposition"] = f'attachment; filename="{plain}"'
    return response


def _no_more(
    status: int, link: dict[str, str] | None = None, used: str | None = None
) -> Response:
    """The page of a link that is not good any more: why, and where to ask anew."""
    extra = {
        "link": link,
        "used": used,
        # else the begin could not be noted
        "late": link is None or link["until"] <= stamp(),
        "again": (link["backup"] or EXPORTS) if link else "",
        "resume": RESUME,
    }
    page = tk.render("dbmanage/admin/link.html", extra)
    return make_response(page, status)


def _response(content: Any, place: str, etag: str, backup: str) -> Response:
    """The answer with an open file, or by the web server in front.

    `place` is its path below the repository, empty for what is made while it is sent.
    """
    header, inside = sendfile(current(), backups=True)
    if place and header:
        content.close()
        response = Response()
        response.headers[header] = inside + place
        return response
    size = content.seek(0, 2)
    content.seek(0)
    response = Response(FileWrapper(content, 1 << 18), direct_passthrough=True)
    response.call_on_close(content.close)
    return finished(response, etag, _moment(backup), size, request.environ)


def _may_send(links: Links, token: str, link: dict[str, str]) -> str | None:
    """The proof for whoever begins, empty for who goes on, None where neither may."""
    asked = request.headers.get("Range", "").strip()
    resumed = re.fullmatch(r"bytes=0*[1-9][0-9]{0,17}-[0-9]{0,18}", asked)
    proof = request.cookies.get(_cookie(token), "")
    try:
        if resumed and proof and links.begun(token, proof):
            return ""
        return links.begin(token, link) or None
    except (DbmanageError, OSError):
        return None


def _used_at(links: Links, token: str, link: dict[str, str]) -> str | None:
    with suppress(DbmanageError, OSError):
        return links.used_at(token, link["until"])
    return None


def _cookie(token: str) -> str:
    """The cookie of one link: who has it has begun the download."""
    return f"dbmanage-{hashlib.sha256(token.encode()).hexdigest()[:16]}"


def _moment(backup: str) -> str:
    """The time in a backup's id, any fixed one for an export."""
    id = backup or "20000101T000000Z"
    return f"{id[:4]}-{id[4:6]}-{id[6:8]}T{id[9:11]}:{id[11:13]}:{id[13:15]}Z"
