"""The public dumps: what visitors get, what they never get, and whole sets only."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import Busy
from ckanext.dbmanage.records import published

from ..support import forked
from ..support.cluster import BIN, query
from ..support.portal import Portal
from ..support.published import (
    GZ,
    HOSTILE,
    NO_DATES,
    ZST,
    Client,
    fabricate,
    files_of,
    folder,
    is_whole,
    lines_of,
    unpacked,
)
from ..support.waiting import end_group, wait_until
from ..support.web import Web


@pytest.mark.smoke
def test_published_and_fetched(
    portal: Portal, serve: Callable[[Portal], Web], tmp_path: Path
) -> None:
    portal.write(**{"ckanext.dbmanage.public_licence": "cc-by"})
    web = serve(portal)
    assert "The first dump is not made yet" in web.ask("/dump/").body
    assert web.ask("/dump/index.json").status == 404
    portal.db("publish")

    index = web.ask("/dump/index.json")
    assert index.headers["Content-Type"] == "application/json"
    files = {file["name"]: file for file in index.json["files"]}
    assert list(files) == list(published.NAMES)
    assert files[GZ]["rows"] == 36 and index.json["licence"]["id"] == "cc-by"
    page = web.ask("/dump/")
    assert page.status == 200 and web.ask("/dump").headers["Location"].endswith(
        "/dump/"
    )
    for file in files.values():
        assert (
            file["sha256"] in page.body and f'href="/dump/{file["name"]}"' in page.body
        )
    assert "style=" not in page.body.split("<main")[1].split("</main")[0]
    assert web.ask("/de/dump/").body.count(f'href="/dump/{GZ}"') == 1

    url = f"http://127.0.0.1:{web.port}/dump"
    script = f"""
    curl -fsS -O {url}/SHA256SUMS
    for name in {" ".join(files)}; do curl -fsSO {url}/$name; done
    sha256sum -c SHA256SUMS
    head -c 1000 {GZ} >part; cp part wget.gz; cp part curl.gz
    curl -fsS -C - -o curl.gz {url}/{GZ}; cmp curl.gz {GZ}
    wget -q -c -O wget.gz {url}/{GZ}; cmp wget.gz {GZ}
    aria2c -q -x4 -k1M --no-conf -o aria.gz {url}/{GZ}; cmp aria.gz {GZ}
    curl -fsS -z {GZ} -R -o again.gz {url}/{GZ}
    """
    subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, check=True, capture_output=True
    )
    assert sorted(f["name"] for f in unpacked((tmp_path / GZ).read_bytes())) == sorted(
        name for (name,) in portal.sql("SELECT name FROM package WHERE NOT private")
    )
    lines = subprocess.run(
        ["zstd", "-dc", ZST], cwd=tmp_path, capture_output=True, check=True
    )
    assert lines.stdout == b"\n".join(
        [*portal.db("export", "datasets", "-q", text=False).stdout.splitlines(), b""]
    )
    feed = web.ask("/dump/feed.atom").body
    assert all(f"urn:sha256:{file['sha256']}" in feed for file in files.values())


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


def test_a_hundred_thousand_requests_without_an_error(tmp_path: Path) -> None:
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
    for _ in range(100_000):
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


def test_what_the_index_still_knows_is_gone_too(portal: Portal) -> None:
    """Made private, deleted, or set aside, while the index has them as they were."""
    portal.db("reindex", code=None)
    portal.sql("UPDATE \"group\" SET title = 'Renamed' WHERE name = 'org-1'")
    portal.db("publish")
    before = lines_of(folder(portal))
    assert len(before) == 36
    # so the lines are the index's
    assert before["dataset-3"]["organization"]["title"] == "An organization"
    portal.sql(
        "UPDATE package SET private = true WHERE name = 'dataset-3';"
        "UPDATE package SET state = 'deleted' WHERE name = 'dataset-4';"
        "UPDATE package SET state = 'draft' WHERE name = 'dataset-5'"
    )
    portal.db("publish")
    after = lines_of(folder(portal))
    assert before.keys() - after.keys() == {"dataset-3", "dataset-4", "dataset-5"}
    assert is_whole(folder(portal)) is not None


def test_a_set_with_few_that_fail_and_one_with_many(
    portal: Portal,
    plugins: str,
) -> None:
    """What only fails stays as it was published; what is private now never does."""
    directory = folder(portal)
    portal.db("publish")

    def publish(code: int) -> tuple[str, dict[str, Any]]:
        done = portal.db("publish", code=code, env={"PYTHONPATH": plugins})
        document = json.loads((directory / "index.json").read_bytes())
        assert is_whole(directory) is not None and published.foreign(directory) == []
        return done.stderr, {each["name"]: each for each in document["files"]}

    portal.write(**{"ckan.plugins": "dbmanage fails"})
    said, files = publish(1)
    assert "datasets: dataset-2 (id-2): NotFound" in said
    assert "3 of 36 datasets could not be shown and are missing" in said
    assert [files[name]["failed"] for name in (GZ, ZST)] == [3, 3]
    assert files[GZ]["rows"] == 33 and "dataset-2" not in lines_of(directory)
    # as many as before is no reason to keep an older one
    portal.sql("UPDATE package SET notes = 'Later' WHERE name = 'dataset-1'")
    publish(1)
    assert lines_of(directory)["dataset-1"]["notes"] == "Later"

    portal.sql("UPDATE package SET title = 'Broken' WHERE name LIKE 'dataset-2%'")
    before = files_of(directory)
    said, _ = publish(1)
    assert "dataset-21 (id-21): KeyError: 'no such field'" in said
    assert "not published: 12 of 36 datasets could not be shown" in said
    assert "stays; to replace it" in said and "index.json" in said
    assert files_of(directory) == before
    # so it is not served any more, whatever else is missing
    portal.sql("UPDATE package SET private = true WHERE name = 'dataset-31'")
    said, files = publish(1)
    assert "12 of 35 datasets could not be shown and are missing" in said
    assert files[GZ]["rows"] == 23 and "dataset-31" not in lines_of(directory)
    # all fail; and then there are none, which is nobody's failure
    portal.sql("UPDATE package SET title = 'Broken'")
    before = files_of(directory)
    assert "not published: 35 of 35 datasets" in publish(1)[0]
    assert files_of(directory) == before
    portal.sql("UPDATE package SET private = true")
    said, files = publish(0)
    assert files[GZ]["rows"] == files[GZ]["failed"] == 0 and not lines_of(directory)


def test_a_portal_whose_datasets_are_all_hidden(
    portal: Portal,
    plugins: str,
) -> None:
    portal.db("publish")
    portal.write(**{"ckan.plugins": "dbmanage labels"})
    portal.sql("UPDATE package SET name = name || '-5'")
    told = portal.db("publish", env={"PYTHONPATH": plugins}).stderr
    assert "0 datasets (36 that a visitor may not read left out)" in told
    assert not lines_of(folder(portal))


def test_a_closed_site_publishes_nothing(
    portal: Portal,
    plugins: str,
) -> None:
    """Also when it is a plugin that sends visitors away; not when only Solr is away."""
    env = {"PYTHONPATH": plugins}
    portal.write(**{"ckan.plugins": "dbmanage closed"})
    said = portal.db("publish", code=1, env=env).stderr
    assert "asks for /api/3/action/package_search?rows=0 is answered 302" in said
    assert "nothing of this site is published" in said
    assert not (folder(portal) / "index.json").exists()
    portal.write(
        **{"ckan.plugins": "dbmanage", "solr_url": "http://127.0.0.1:9/solr/none"}
    )
    said = portal.db("publish").stderr
    assert "the search index did not answer" in said
    assert len(lines_of(folder(portal))) == 36


def test_publish_killed_leaves_the_old_set_or_the_new(portal: Portal) -> None:
    """The command itself, with all its processes, at any moment."""
    directory = folder(portal)
    portal.db("publish")
    texts, killed = {"0"}, 0
    for number in range(1, 9):
        portal.sql(
            "UPDATE package SET version = %s, notes = (SELECT string_agg(md5(g::text"
            " || name), ' ') FROM generate_series(1, 6000) g)".replace(
                "%s", f"'{number}'"
            )
        )
        process = forked.start(
            [BIN / "ckan", "-c", portal.ini, "db", "publish", "-q"],
            env=portal.environment, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: (directory / ".next").is_dir())
        if number % 2:
            time.sleep(random.random())
        else:  # about when the new set gets its name
            upcoming = directory / ".next" / "index.json"
            while not upcoming.exists() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(random.random() * 0.05)
        end_group(process)
        killed += process.returncode == -signal.SIGKILL
        texts.add(str(number))
        assert is_whole(directory) is not None
        client = Client(directory)
        for name in (GZ, ZST):
            status, _, body = client.ask(f"/dump/{name}")
            assert status == 200
            program = "gzip" if name == GZ else "zstd"
            lines = subprocess.run(
                [program, "-dc"], input=body, capture_output=True, check=True
            ).stdout.splitlines()
            versions = {json.loads(line)["version"] or "0" for line in lines}
            assert len(lines) == 36 and len(versions) == 1 and versions <= texts
    assert killed >= 3
    portal.db("publish")
    assert {each["version"] for each in lines_of(directory).values()} == {"8"}
    assert published.foreign(directory) == [] and not (directory / ".next").exists()


def test_unchanged_files_stay_and_private_ones_go(portal: Portal) -> None:
    directory = folder(portal)
    portal.db("publish")
    first = {name: (directory / name).stat() for name in published.NAMES}
    done = portal.db("publish")
    assert "nothing has changed" in done.stderr
    for name, about in first.items():
        now = (directory / name).stat()
        assert (now.st_mtime_ns, now.st_ino) == (about.st_mtime_ns, about.st_ino)
    portal.sql(
        "UPDATE package SET private = true WHERE name = 'dataset-3';"
        "UPDATE package SET state = 'deleted' WHERE name = 'dataset-4'"
    )
    assert f"new: {GZ}" in portal.db("publish").stderr
    client = Client(directory)
    names = {each["name"] for each in unpacked(client.ask(f"/dump/{GZ}")[2])}
    assert len(names) == 34 and not names & {"dataset-3", "dataset-4"}
    every = b"".join(
        path.read_bytes() for path in directory.rglob("*") if path.is_file()
    )
    packed = subprocess.run(
        ["zstd", "-dc", directory / ZST], capture_output=True, check=True
    )
    assert b'dataset-3"' not in packed.stdout + every
    assert (directory / GZ).stat().st_mtime_ns > first[GZ].st_mtime_ns


def test_killed_at_any_moment_a_whole_set_stays(tmp_path: Path) -> None:
    fabricate(tmp_path, "0")
    killed = half = 0
    for number in range(1, 120):
        child = os.fork()
        if child == 0:
            fabricate(tmp_path, str(number))
            os._exit(0)
        time.sleep(random.random() * 0.012)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        half += (tmp_path / ".next").exists()
        found = is_whole(tmp_path)
        assert found is not None
        client = Client(tmp_path)
        texts = set()
        for name in published.NAMES:
            status, _, body = client.ask(f"/dump/{name}")
            assert status == 200
            texts.add(body.split()[1])
        assert len(texts) == 1, "files of two sets"
    assert killed > 20 and half > 5
    fabricate(tmp_path, "end")
    assert published.foreign(tmp_path) == [] and not (tmp_path / ".next").exists()
    subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True
    )


def test_two_at_once(tmp_path: Path) -> None:
    with published.writing(tmp_path), pytest.raises(Busy), published.writing(tmp_path):
        pass


def test_a_full_disk_leaves_the_old_set(
    portal: Portal, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("300k")
    portal.write(**{"ckanext.dbmanage.public_dir": str(disk / "public")})
    portal.db("publish")
    before = is_whole(disk / "public")
    portal.sql(
        "UPDATE package SET notes = (SELECT string_agg(md5((g * length(name))::text || name), '')"
        " FROM generate_series(1, 500) g)"
    )
    assert "No space left" in portal.db("publish", code=1).stderr
    assert (
        is_whole(disk / "public") == before and published.foreign(disk / "public") == []
    )


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


def test_what_cannot_be_opened_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process out of file handles answers 503, and throws away no committed file."""
    fabricate(tmp_path, "old")
    before = (tmp_path / "index.json").read_bytes()
    opening, moving = os.open, Path.replace

    def out_of_handles(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(published.NAMES):
            raise OSError(errno.EMFILE, "Too many open files")
        return opening(path, *arguments, **options)

    def listed_only(self: Path, target: Path) -> Path:
        moved = moving(self, target)
        if target.name == "index.json":  # committed, nothing moved up yet
            monkeypatch.setattr(os, "open", out_of_handles)
        return moved

    monkeypatch.setattr(Path, "replace", listed_only)
    with pytest.raises(OSError, match="Too many open files"):
        fabricate(tmp_path, "new")
    assert (tmp_path / "index.json").read_bytes() != before
    status, headers, _ = Client(tmp_path).ask(f"/dump/{GZ}")
    assert (status, headers["Retry-After"]) == (503, "5")
    monkeypatch.undo()
    assert b"new" in Client(tmp_path).ask(f"/dump/{GZ}")[2]
    assert is_whole(tmp_path) is not None
    fabricate(tmp_path, "newer")
    assert published.foreign(tmp_path) == []


def test_what_nobody_may_open_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as what root has put there under one of the names."""
    fabricate(tmp_path, "old")
    opening, number = os.open, (tmp_path / GZ).stat().st_ino

    def not_allowed(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path) == tmp_path / GZ and os.stat(path).st_ino == number:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opening(path, *arguments, **options)

    monkeypatch.setattr(os, "open", not_allowed)
    assert Client(tmp_path).ask(f"/dump/{GZ}")[0] == 503
    fabricate(tmp_path, "old")
    assert b"old" in Client(tmp_path).ask(f"/dump/{GZ}")[2]
    assert is_whole(tmp_path) is not None and published.foreign(tmp_path) == []


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


def test_the_page_tells_of_what_is_old_or_missing(
    portal: Portal, serve: Callable[[Portal], Web]
) -> None:
    portal.write(
        **{
            "ckanext.dbmanage.public_contact": "open@example.org",
            "ckanext.dbmanage.public_path": "/all/dumps",
        }
    )
    web = serve(portal)
    fabricate(folder(portal), "a", datetime.now(timezone.utc) - timedelta(days=3))
    page = web.ask("/all/dumps/")
    assert (
        "These files are 3 days old" in page.body
        and "mailto:open@example.org" in page.body
    )
    index = folder(portal) / "index.json"
    document = json.loads(index.read_bytes())
    document["files"][0]["failed"] = 2
    document["licence"] = {"title": "<script>x</script>", "url": "javascript:x"}
    index.write_text(json.dumps(document))
    page = web.ask("/all/dumps/")
    assert "2 more could not be read and are missing" in page.body
    assert "<script>x" not in page.body and "javascript:x" not in page.body
    index.write_text("broken")
    assert "not made yet" in web.ask("/all/dumps/").body
    assert web.ask("/dump/").status == 404
