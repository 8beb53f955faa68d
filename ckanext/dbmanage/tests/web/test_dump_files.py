"""The files of `/dump/`, as visitors fetch them."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.records import published

from ..support.cluster import query
from ..support.portal import Portal
from ..support.published import GZ, HOSTILE, NO_DATES, ZST, Client, fabricate, folder
from ..support.web import Web


def test_conditions_and_ranges(tmp_path: Path) -> None:
    fabricate(tmp_path, "a")
    client = Client(tmp_path)
    status, headers, whole = client.ask(f"/dump/{ZST}")
    size = len(whole)
    etag, modified = headers["ETag"], headers["Last-Modified"]
    assert status == 200 and headers["Content-Type"] == "application/zstd"
    assert not etag.startswith("W/") and "Content-Encoding" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Accept-Ranges"] == "bytes" and "max-age" in headers["Cache-Control"]
    assert client.ask(f"/dump/{ZST}", "HEAD")[1:] == (headers, b"")
    assert client.ask(f"/dump/{ZST}", "POST")[0] == 405
    for conditions, expected in (
        ({"if_none_match": etag}, 304),
        ({"if_none_match": '"other"'}, 200),
        ({"if_modified_since": modified}, 304),
        ({"if_modified_since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
        ({"range": "bytes=0-99"}, 206),
        ({"range": "bytes=0-99", "if_range": etag}, 206),
        ({"range": "bytes=0-99", "if_range": '"old"'}, 200),
        ({"range": "bytes=0-99", "if_range": f"W/{etag}"}, 200),
        ({"range": "bytes=0-99", "if_range": modified}, 206),
        ({"range": "bytes=0-99", "if_range": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
        ({"range": "bytes=0-99", "if_none_match": etag}, 304),
        ({"range": "bytes=0-99", "if_none_match": f'"x", W/{etag}'}, 304),
        ({"range": "bytes=0-99", "if_none_match": '"other"'}, 206),
        ({"range": "bytes=0-99", "if_modified_since": modified}, 304),
        # the first says that it has changed: the second is not asked
        ({"if_none_match": '"other"', "if_modified_since": modified}, 200),
        ({"if_match": etag}, 200), ({"if_match": "*"}, 200),
        ({"if_match": f"W/{etag}"}, 412), ({"if_match": '"old"'}, 412),
        ({"range": "bytes=0-99", "if_match": '"old"'}, 412),
        ({"range": "bytes=0-99", "if_match": etag}, 206),
        ({"if_unmodified_since": modified}, 200),
        ({"if_unmodified_since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 412),
        ({"if_match": etag, "if_unmodified_since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
        ({"range": f"bytes={size}-"}, 416), ({"range": "bytes=-0"}, 416),
        *[({name: date}, 200) for date in NO_DATES for name in (
            "if_modified_since", "if_unmodified_since", "if_range",
        )],
        *[({"range": "bytes=0-99", "if_range": date}, 200) for date in NO_DATES],
        *[({"range": garbage}, 200) for garbage in (
            "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2,", "bytes=0-1,5-6", "lines=1-2",
            "bytes=--1", "\xff", "bytes=1-2-3", "bytes= 1", "0-1",
        )],
    ):  # fmt: skip
        status, headers, body = client.ask(f"/dump/{ZST}", **conditions)
        assert status == expected, conditions
        if status == 200:
            assert body == whole
    for asked, part in (
        ("bytes=10-19", whole[10:20]), ("bytes=-5", whole[-5:]), ("bytes=100-", whole[100:]),
        (f"bytes={size - 1}-{size + 99}", whole[-1:]), (f"bytes=-{size * 2}", whole),
    ):  # fmt: skip
        status, headers, body = client.ask(f"/dump/{ZST}", range=asked)
        assert (status, body) == (206, part) and headers["ETag"] == etag
        assert int(headers["Content-Length"]) == len(part)
    # a range is of what GET sends
    status, headers, body = client.ask(f"/dump/{ZST}", "HEAD", range="bytes=0-99")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(size))


def test_the_web_server_in_front_may_send_them(tmp_path: Path) -> None:
    fabricate(tmp_path, "a")
    client = Client(tmp_path, sendfile="X-Accel-Redirect /internal")
    status, headers, body = client.ask(f"/dump/{GZ}")
    assert (status, body) == (200, b"")
    assert headers["X-Accel-Redirect"] == f"/internal/{GZ}"
    assert client.ask("/dump/index.json")[2]
    client = Client(tmp_path, sendfile="X-Sendfile", public_path="/catalogue/all")
    assert client.ask(f"/catalogue/all/{GZ}")[1]["X-Sendfile"] == str(tmp_path / GZ)
    assert client.ask(f"/dump/{GZ}")[0] == 299
    assert client.ask("/dump/x", root="")[0] == 299
    assert Client(tmp_path, public_path="no/slash ").ask("/dump/index.json")[0] == 299


def test_nothing_else_is_handed_out(portal: Portal) -> None:
    directory = folder(portal)
    fabricate(directory, "a")
    client = Client(directory)
    for name in HOSTILE:
        assert client.ask(f"/dump/{name}")[0] == 404, name
    by_hand = {
        "database.dump": b"PGDMP" + b"\0" * 100, "x.sql": b"DROP TABLE x", "users.jsonl.gz": b"x",
        ".hidden": b"x", "other.jsonl.gz": b"x", GZ: b"PGDMP" + b"\0" * 100,
    }  # fmt: skip
    for name, content in by_hand.items():
        (directory / name).write_bytes(content)
    (directory / "sub").mkdir()
    (directory / "sub" / GZ).write_bytes(b"x")
    listed = published.read(directory)
    assert listed is not None
    outside = portal.directory / "outside"
    shutil.copy2(directory / ZST, outside)
    (directory / ZST).unlink()
    (directory / ZST).symlink_to(outside)  # even to the very bytes
    os.mkfifo(directory / "groups.jsonl.gz.pipe")
    (directory / "groups.jsonl.gz").unlink()
    os.mkfifo(directory / "groups.jsonl.gz")
    for name in (
        *by_hand,
        ZST,
        f"sub/{GZ}",
        "sub/",
        "groups.jsonl.gz",
        "groups.jsonl.gz.pipe",
    ):
        assert client.ask(f"/dump/{name}")[0] == 404, name
    assert client.ask("/dump/groups.jsonl.zst")[0] == 200
    said = portal.module("doctor", code=1).stdout
    for name in (*by_hand, ZST, "sub", "groups.jsonl.gz", "groups.jsonl.gz.pipe"):
        assert f"{directory / name} was not published" in said, name
    # a list put there by hand names no others
    document = json.loads((directory / "index.json").read_bytes())
    for change in (
        {"name": "x.sql"},
        {"name": "../x"},
        {"bytes": -1},
        {"sha256": "no"},
        {"modified": 1},
    ):
        forged = document | {"files": [document["files"][0] | change]}
        (directory / "index.json").write_text(json.dumps(forged))
        assert client.ask("/dump/index.json")[0] == 404, change
    for content in (b"", b"[]", b"\xff", b"[" * 100000, b'{"files": 1}'):
        (directory / "index.json").write_bytes(content)
        assert client.ask("/dump/index.json")[0] == 404
    os.chmod(directory, 0)
    assert client.ask("/dump/index.json")[0] == 404
    os.chmod(directory, 0o700)


def test_thousands_of_requests_without_an_error(tmp_path: Path) -> None:
    fabricate(tmp_path, "a")
    client = Client(tmp_path)
    dice = random.Random(5)
    pieces = [
        *HOSTILE,
        *published.NAMES,
        "index.json",
        "SHA256SUMS",
        "feed.atom",
        "de",
        "dump",
        "/",
        ".",
    ]
    ranges = [
        "bytes=0-10",
        "bytes=-1",
        "bytes=9-",
        "",
        "x",
        "bytes=99999999999999999999-",
        "bytes=5-1",
        "bytes=-0",
    ]
    dates = [*NO_DATES, "Sat, 01 Jan 2000 00:00:00 GMT", "Mon, 01 Jan 9999 0:0:0 +9959"]
    for _ in range(500):  # and some that nobody has thought of
        date = list(dice.choice(dates[-3:]))
        for _ in range(dice.randrange(1, 4)):
            date[dice.randrange(len(date))] = dice.choice("0919+-:, \x00\xb2aGMT")
        dates.append("".join(date))
    seen = set()
    for _ in range(25_000):
        path = "/dump/" + "".join(dice.choices(pieces, k=dice.choice((1, 1, 1, 2, 3))))
        path = "/de" * (dice.random() < 0.1) + path
        headers = {"range": dice.choice(ranges)} if dice.random() < 0.3 else {}
        for name in ("if_none_match", "if_match", "if_range"):
            if dice.random() < 0.1:
                headers[name] = dice.choice(['"x"', "*", "\xff", '"', "W/", *NO_DATES])
        for name in ("if_modified_since", "if_unmodified_since", "if_range"):
            if dice.random() < 0.1:
                headers[name] = dice.choice(dates)
        status, _, _ = client.ask(path, dice.choice(("GET", "HEAD", "POST")), **headers)
        seen.add(status)
    assert seen <= {200, 206, 299, 304, 404, 405, 412, 416} and {200, 206, 404} <= seen


def test_a_file_replaced_while_it_is_read(tmp_path: Path) -> None:
    fabricate(tmp_path, "old")
    client = Client(tmp_path)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/dump/{GZ}"}
    body = client.app(environ, lambda *_: None)
    parts = iter(body)
    fabricate(tmp_path, "new" * 50)
    assert b"".join(parts) == f"{GZ} old\n".encode() * 2000
    body.close()  # type: ignore[attr-defined]
    assert b"newnew" in client.ask(f"/dump/{GZ}")[2]


def test_a_file_cut_short_while_it_is_read(tmp_path: Path) -> None:
    """What was announced does not come: the answer breaks off, and never looks whole."""
    fabricate(tmp_path, "old" * 500)
    client = Client(tmp_path)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/dump/{GZ}"}
    for change in (10, 10**8):
        body = client.app(environ, lambda *_: None)
        parts = iter(body)
        read = len(next(parts))
        size = (tmp_path / GZ).stat().st_size
        assert read < size
        os.truncate(tmp_path / GZ, change)
        if change < size:
            with pytest.raises(OSError, match="cut short"):
                b"".join(parts)
            assert client.ask(f"/dump/{GZ}")[0] == 404
        else:
            assert read + len(b"".join(parts)) == size
        body.close()  # type: ignore[attr-defined]
        fabricate(tmp_path, "old" * 500)


def test_read_while_new_sets_appear(tmp_path: Path) -> None:
    """No listed file is missing for a moment, and each is of one set."""
    fabricate(tmp_path, "0")
    child = os.fork()
    if child == 0:
        for number in range(1, 400):
            fabricate(tmp_path, str(number))
        os._exit(0)
    plain, sent = Client(tmp_path), Client(tmp_path, sendfile="X-Accel-Redirect /sent")
    wrong, answers, seen = [], 0, set()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        for name in (*published.NAMES, "index.json", "SHA256SUMS"):
            for client in (plain, sent):
                status, headers, body = client.ask(f"/dump/{name}")
                answers += 1
                place = headers.get("X-Accel-Redirect")
                # what nginx opens later must be there later
                if status != 200 or place not in (None, f"/sent/{name}"):
                    wrong.append((name, status, place))
                elif place is None and len(body) != int(headers["Content-Length"]):
                    wrong.append((name, len(body), headers["Content-Length"]))
                seen.add(body.split()[1] if place is None else b"")
    assert not wrong and answers > 500 and len(seen) > 50, (wrong[:20], answers)


def test_a_new_set_while_a_request_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list was read, and then there are other files: the list is read again."""
    fabricate(tmp_path, "old")
    client, finding, times = Client(tmp_path), published.find, iter(["newer", "newest"])

    def late(*arguments: Any) -> Any:
        if text := next(times, None):
            monkeypatch.undo()
            fabricate(tmp_path, text)
            monkeypatch.setattr(published, "find", late)
        return finding(*arguments)

    monkeypatch.setattr(published, "find", late)
    status, _, body = client.ask(f"/dump/{GZ}")
    assert status == 200 and b"newest" in body


def test_answered_while_the_database_is_away(
    portal: Portal, serve: Callable[[Portal], Web]
) -> None:
    portal.db("publish")
    web = serve(portal)
    portal.module("maintenance", "on", "--for", "60s")
    assert web.ask("/dump/").status == 503
    assert web.ask("/dump/index.json").status == 200
    portal.module("maintenance", "off")
    query(f'DROP DATABASE "{portal.names["database"]}" WITH (FORCE)')
    for name in (*published.NAMES, "index.json", "SHA256SUMS"):
        assert web.ask(f"/dump/{name}", "HEAD").status == 200
