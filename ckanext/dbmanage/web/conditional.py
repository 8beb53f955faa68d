"""Conditions and ranges of a request for a file (RFC 9110).

Werkzeug parses ETags and dates, compares ETags and cuts the range. What to answer is
decided here: `Response.make_conditional` of Werkzeug 2.0 to 3.1 would do that too, but

- answers `If-Match: *` with 412, and does not look at `If-Unmodified-Since`;
- answers a range with 206 where `If-None-Match` asks for 304;
- takes a weak ETag, or any later date, in `If-Range` for the same bytes;
- answers HEAD with a range; and with 416 what is no range, several ranges, and the
  last N bytes of a file that has fewer, where all of it is to be sent;
- answers `bytes=-0` with all of the file, where 416 is right;
- raises OverflowError or ValueError for numbers that no date and no file has.
"""

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
_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-([0-9]{1,18}))")


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
    if asked is None:
        return response
    range, last = asked[0], asked[1]
    if last:  # the last N bytes of fewer are all of them
        range = f"bytes=-{min(int(last), size)}"
    try:
        if range == "bytes=-0":
            raise RequestedRangeNotSatisfiable(size)
        ranged = {"REQUEST_METHOD": "GET", "HTTP_RANGE": range}
        response.make_conditional(ranged, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        response.close()
        refused = plain("416 Range Not Satisfiable", f"there are {size} bytes")
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
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


def _asked_range(
    environ: Mapping[str, Any], etag: str, moment: datetime
) -> re.Match[str] | None:
    """The range that is to be answered as one; nothing when the whole file is."""
    # a range that is none, or more than one, is not answered as a range (RFC 9110)
    asked = _RANGE.fullmatch(environ.get("HTTP_RANGE", "").strip())
    if environ["REQUEST_METHOD"] != "GET":
        return None
    condition = environ.get("HTTP_IF_RANGE", "").strip()
    if condition.startswith(('"', "W/")):
        same = condition == f'"{etag}"'  # a weak one is never the same bytes
    else:
        same = not condition or _date(condition) == moment
    return asked if same else None


def _date(text: str | None) -> datetime | None:
    """A date of HTTP; None when there is none, or it is none."""
    try:
        return parse_date(text)
    except OverflowError:  # of numbers that no date has
        return None


def plain(status: str, text: str) -> Response:
    response = Response(f"{text}\n", status, content_type="text/plain; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    return response
