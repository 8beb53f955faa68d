"""Conditions and ranges of a request for a file (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_date, parse_etags
from werkzeug.wrappers import Response

from ..engine.clock import parse_stamp

#: for how long a cache may hand out a file without asking for a newer one
FRESH = "public, max-age=300, must-revalidate"
_RANGE = re.compile(r"bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")


def finished(
    response: Response, sum: str, modified: str, size: int, environ: dict[str, Any]
) -> Response:
    """A response with its headers, as the request's conditions and range want it.

    In the order of RFC 9110, section 13.2.2. A condition that is none, like a date that
    nobody can read, is as if it were not there.
    """
    etag = sum[:32]
    moment = parse_stamp(modified)
    response.set_etag(etag)
    response.last_modified = moment
    response.headers["Cache-Control"] = FRESH
    response.headers["Accept-Ranges"] = "bytes"
    response.content_length = size
    status = _condition(environ, etag, moment)
    if status == 412:
        response.close()
        return plain("412 Precondition Failed", "it has changed")
    if status == 304:
        response.status_code = status
        return response
    asked = _asked_range(environ, etag, moment)
    if not asked:
        return response
    if asked == "bytes=-0":
        return _unsatisfiable(response, size)
    if asked.startswith("bytes=-") and int(asked[7:]) > size:
        asked = "bytes=0-"  # its last N bytes are all of it
    ranged = {"REQUEST_METHOD": "GET", "HTTP_RANGE": asked}
    try:
        response.make_conditional(ranged, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        return _unsatisfiable(response, size)
    response.headers.pop("Date", None)  # servers give one of their own
    return response


def _condition(environ: Mapping[str, Any], etag: str, moment: datetime) -> int:
    """The status that the request's conditions lead to, 200 when they let it pass."""
    required = parse_etags(environ.get("HTTP_IF_MATCH"))
    if required:
        if not required.contains(etag):
            return 412
    elif (before := _date(environ.get("HTTP_IF_UNMODIFIED_SINCE"))) and moment > before:
        return 412
    known = parse_etags(environ.get("HTTP_IF_NONE_MATCH"))
    if known:
        return 304 if known.contains_weak(etag) else 200
    since = _date(environ.get("HTTP_IF_MODIFIED_SINCE"))
    return 304 if since and moment <= since else 200


def _asked_range(environ: Mapping[str, Any], etag: str, moment: datetime) -> str:
    """The range that is to be answered as one; nothing when the whole file is."""
    asked = environ.get("HTTP_RANGE", "").strip()
    # a range that is none, or more than one, is not answered as a range (RFC 9110)
    if environ["REQUEST_METHOD"] != "GET" or not _RANGE.fullmatch(asked):
        return ""
    condition = environ.get("HTTP_IF_RANGE", "").strip()
    if condition.startswith(('"', "W/")):
        same = condition == f'"{etag}"'  # a weak one is never the same bytes
    else:
        same = not condition or _date(condition) == moment
    return asked if same else ""


def _date(text: str | None) -> datetime | None:
    """A date of HTTP; None when there is none, or it is none."""
    try:
        return parse_date(text)
    except OverflowError:  # of numbers that no date has
        return None


def _unsatisfiable(response: Response, size: int) -> Response:
    response.close()
    refused = plain("416 Range Not Satisfiable", f"there are {size} bytes")
    refused.headers["Content-Range"] = f"bytes */{size}"
    return refused


def plain(status: str, text: str) -> Response:
    response = Response(f"{text}\n", status, content_type="text/plain; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    return response
