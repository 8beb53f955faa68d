"""What holds for any condition and range: the answer is what RFC 9110 allows, no more."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response

from ckanext.dbmanage.web.conditional import finished

_MOMENT = datetime(2026, 11, 27, 4, 55, tzinfo=timezone.utc)
_MODIFIED = "2026-11-27T04:55:00Z"
_SUM = "5f" * 32
_ETAG = _SUM[:32]

#: about as many as there are bytes
_NUMBERS = (
    st.integers(0, 9) | st.integers(0, 70) | st.sampled_from((10**17, 10**18, 10**30))
)
_SPECS = st.one_of(
    st.builds("{}-{}".format, _NUMBERS, _NUMBERS),
    st.builds("{}-".format, _NUMBERS),
    st.builds("-{}".format, _NUMBERS),
    st.text("0123456789-, =x", max_size=6),
)
_RANGES = st.builds(
    lambda unit, specs, before: f"{before}{unit}{','.join(specs)}{before}",
    st.sampled_from(("bytes=", "bytes=", "bytes=", "Bytes=", "bytes", "lines=", "")),
    st.lists(_SPECS, min_size=1, max_size=2),
    st.sampled_from(("", "", " ", "\t")),
) | st.text(st.characters(codec="latin-1"), max_size=12)
_DATES = st.sampled_from((-86400, -1, 0, 1, 86400)).map(
    lambda seconds: http_date(_MOMENT + timedelta(seconds=seconds))
) | st.sampled_from(("", "0", "Sat, 99 Jan 2000 00:00:00 GMT", "never"))
_ETAGS = st.sampled_from((
    f'"{_ETAG}"', f'W/"{_ETAG}"', '"other"', 'W/"other"', "*", _ETAG, "",
    f'"other", "{_ETAG}"', f'"other", W/"{_ETAG}"',
))  # fmt: skip
_HEADERS = st.fixed_dictionaries({}, optional={
    "HTTP_RANGE": _RANGES,
    "HTTP_IF_RANGE": _DATES | _ETAGS,
    "HTTP_IF_MATCH": _ETAGS,
    "HTTP_IF_NONE_MATCH": _ETAGS,
    "HTTP_IF_MODIFIED_SINCE": _DATES,
    "HTTP_IF_UNMODIFIED_SINCE": _DATES,
})  # fmt: skip


def answer(content: bytes, method: str, headers: dict[str, str]) -> Any:
    """Status, headers and body of a file's answer."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "PATH_INFO": "/",
    } | headers  # fmt: skip
    response = finished(Response([content]), _SUM, _MODIFIED, len(content), environ)
    body, status, found = run_wsgi_app(response, environ)
    return int(status[:3]), found, b"".join(body)


def asked(text: str, size: int) -> tuple[int, int] | str:
    """The bytes that one range asks for, by the grammar of RFC 9110, section 14.

    Or why there are none: `none` for what is not one range of bytes, `invalid`,
    `unsatisfiable`.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip(" \t"), re.ASCII)
    if not found or found[0] == "bytes=-":
        return "none"
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
        return (start, end) if int(last) and size else "unsatisfiable"
    if last and int(last) < int(first):
        return "invalid"
    if int(first) >= size:
        return "unsatisfiable"
    return int(first), min(size, int(last) + 1 if last else size)


@given(st.binary(max_size=60), _RANGES)
def test_a_range_is_answered_by_its_bytes(content: bytes, range: str) -> None:
    status, headers, body = answer(content, "GET", {"HTTP_RANGE": range})
    wanted = asked(range, len(content))
    if status == 206:
        assert not isinstance(wanted, str)
        start, end = wanted
        assert body == content[start:end]
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(content)}"
        assert headers["Content-Length"] == str(len(body))
    elif status == 416:
        assert wanted in ("invalid", "unsatisfiable")
        assert headers["Content-Range"] == f"bytes */{len(content)}"
    else:
        assert status == 200 and body == content and "Content-Range" not in headers
        assert headers["Content-Length"] == str(len(content))
        # a server may send all; of a range as long as this only
        assert isinstance(wanted, str) or len(range) > 20
    assert status == 416 or headers["Accept-Ranges"] == "bytes"


@given(st.binary(max_size=60), st.sampled_from(("GET", "HEAD")), _HEADERS)
def test_conditions_come_before_ranges(
    content: bytes, method: str, headers: dict[str, str]
) -> None:
    """In the order of section 13.2.2, said another way."""
    status, found, body = answer(content, method, headers)
    said = {name[5:].lower(): value for name, value in headers.items()}
    expected = _expected(said)
    if expected is not None:
        assert status == expected
        assert body == (b"" if expected == 304 or method == "HEAD" else body)
        assert content == b"" or content not in body or len(content) < 20
    elif method == "HEAD" or "range" not in said or not _fits(said.get("if_range")):
        assert status == 200 and body == (content if method == "GET" else b"")
    else:
        alone = {"HTTP_RANGE": headers["HTTP_RANGE"]}
        assert (status, body) == (answer(content, "GET", alone)[0::2])
    if status in (200, 206, 304):
        assert found["ETag"] == f'"{_ETAG}"'


def _expected(said: dict[str, str]) -> int | None:
    """What the conditions lead to; None when they let the request pass."""
    if _tags(said.get("if_match")):
        if not _matches(said["if_match"], strong=True):
            return 412
    elif (date := _date(said.get("if_unmodified_since"))) and date < _MOMENT:
        return 412
    if _tags(said.get("if_none_match")):
        return 304 if _matches(said["if_none_match"], strong=False) else None
    date = _date(said.get("if_modified_since"))
    return 304 if date and date >= _MOMENT else None


def _tags(text: str | None) -> list[tuple[str, str]]:
    """The ETags of a header; those without quotes count too."""
    if text == "*":
        return [("", "*")]
    found = re.findall(r'(W/)?(?:"([^"]*)"|([^\s,"]+))', text or "")
    return [(weak, quoted or bare) for weak, quoted, bare in found]


def _matches(text: str, strong: bool) -> bool:
    tags = [tag for weak, tag in _tags(text) if not (weak and strong)]
    return text == "*" or _ETAG in tags


def _date(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", "%a, %d %b %Y %H:%M:%S GMT").replace(
            tzinfo=timezone.utc
        )
    except ValueError:
        return None


def _fits(condition: str | None) -> bool:
    """Whether If-Range names these very bytes."""
    return condition in (None, "", f'"{_ETAG}"', http_date(_MOMENT))
