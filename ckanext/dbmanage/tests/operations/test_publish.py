"""The public dumps: what visitors never get, and whole sets only."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.records import published

from ..support import forked
from ..support.cluster import BIN
from ..support.portal import Portal
from ..support.published import (
    GZ,
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
    assert "instead of the search index" in said
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
    said = portal.db("publish", code=1).stderr
    assert f"{disk / 'public' / '.next'}/" in said and "No space left" in said
    assert "make room" in said and not (disk / "public" / ".next").exists()
    assert (
        is_whole(disk / "public") == before and published.foreign(disk / "public") == []
    )


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
