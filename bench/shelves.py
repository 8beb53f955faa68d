"""Makes repositories of many backups, and looks into them; run by `inside.py`."""

from __future__ import annotations

import json
import os
import random
import time
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import zstandard
from ckan.cli import load_config

from ckanext.dbmanage.engine import clock, signature
from ckanext.dbmanage.engine.backup import records
from ckanext.dbmanage.engine.layout import LIST, RECORDS, SEGMENTS
from ckanext.dbmanage.engine.objects import object_path
from ckanext.dbmanage.engine.repository.prune import unnamed_objects
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.operations import nights as of_nights
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.site import build_site


def opened(ini: str) -> tuple[Options, Site, Repository]:
    options = Options(load_config(ini))
    site = build_site(options, migrations=True)
    return options, site, Repository(site.repository, site.secrets)


def many(ini: str, number: str) -> None:
    """Makes backups of the latest one's manifest, one a night."""
    _, site, repository = opened(ini)
    whole = repository.find("latest")
    night = datetime.strptime(whole.id, "%Y%m%dT%H%M%SZ")
    with repository.lock("benchmark"):
        for n in range(1, int(number)):
            moment = night - timedelta(days=n)
            about = {
                "id": f"{moment:%Y%m%dT%H%M%SZ}",
                "created": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            }
            directory = repository.path / about["id"]
            directory.mkdir(mode=0o700)
            for file in whole.path.iterdir():
                os.link(file, directory / file.name)
            signed = signature.sign(whole.manifest | about, site.secrets[0], "manifest")
            (directory / "manifest.json").unlink()
            (directory / "manifest.json").write_bytes(signature.dumped(signed))
            found = repository.find(about["id"])
            found.remember(verified={"time": about["created"]})


def nights(ini: str, number: str) -> None:
    """Makes backups of the latest one's manifest, each with an index of its own.

    Of a night to the one before 1 % of the datasets differ, and a resource of each.
    """
    _, site, repository = opened(ini)
    whole = repository.find("latest")
    index, kinds = records.of(whole), {}
    assert index is not None
    for kind, held in index.table().items():
        kinds[kind] = []
        for line in index.lines(held.blocks):
            facts = json.loads(line)
            row = [facts["id"].encode(), (facts["name"] or "").encode(), line]
            kinds[kind].append(row)
    night = datetime.strptime(whole.id, "%Y%m%dT%H%M%SZ")
    chance = random.Random(1)
    share = len(kinds["dataset"]) // 100
    with repository.lock("benchmark"):
        for n in range(1, int(number)):
            moment = night - timedelta(days=n)
            for kind in ("dataset", "resource"):
                for row in chance.sample(kinds[kind], share):
                    facts = json.loads(row[2])
                    facts["modified"] = f"{moment:%Y-%m-%dT}02:00:0{n % 10}.{n:06}"
                    row[2] = records.format_line(facts)
            directory = repository.path / f"{moment:%Y%m%dT%H%M%SZ}"
            directory.mkdir(mode=0o700)
            (directory / SEGMENTS["database"]).write_bytes(b"")
            with (directory / RECORDS).open("wb") as file:
                writer = records.Writer(file)
                for kind, rows in kinds.items():
                    writer.add(kind)
                    starts = range(0, len(rows), 1000)
                    writer.end(
                        b"".join(writer.frame(rows[n : n + 1000]) for n in starts)
                    )
                about = {RECORDS: writer.finish()}
            empty = {"bytes": 0, "sha256": sha256().hexdigest()}
            facts = {
                "id": directory.name,
                "created": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
                "contents": about | {SEGMENTS["database"]: empty},
            }
            signed = signature.sign(whole.manifest | facts, site.secrets[0], "manifest")
            (directory / "manifest.json").write_bytes(signature.dumped(signed))


def crowd(ini: str, backups: str, objects: str) -> None:
    """Makes so many backups of the latest one's manifest, and so many objects.

    Half of the objects are uploads, which two lists name; each backup has a list of
    segments of its own. What else is there nobody names.
    """
    _, site, repository = opened(ini)
    whole = repository.find("latest")
    names = [os.urandom(32).hex() for _ in range(int(objects))]
    for name in names:
        place = object_path(repository.path / "objects", name)
        place.parent.mkdir(exist_ok=True)
        place.touch()
    uploads, rest = names[: len(names) // 2], iter(names[len(names) // 2 :])
    lists = []
    for number in range(2):
        lines = (
            f'{{"path": "resources/{n}", "size": 0, "sha256": "{name}"}}\n'
            for n, name in enumerate(uploads[: len(uploads) - number])
        )
        packed = zstandard.ZstdCompressor().compress("".join(lines).encode())
        path = repository.path / f"list{number}"
        path.write_bytes(packed)
        lists.append((path, packed))
    common = [next(rest) for _ in range(18)]
    night = datetime.strptime(whole.id, "%Y%m%dT%H%M%SZ")
    for n in range(1, int(backups)):
        moment = night - timedelta(hours=n)
        directory = repository.path / f"{moment:%Y%m%dT%H%M%SZ}"
        directory.mkdir(mode=0o700)
        own = [*common, next(rest), next(rest)]
        listed = "".join(f'{name} - {name} 0 "public.t"\n' for name in own).encode()
        path, packed = lists[n % 2]
        os.link(path, directory / LIST)
        (directory / SEGMENTS["database"]).write_bytes(listed)
        facts = {
            "id": directory.name,
            "created": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            "files": {"included": True, "bytes": 0},
            "contents": {
                name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}
                for name, content in ((LIST, packed), (SEGMENTS["database"], listed))
            },
        }
        signed = signature.sign(whole.manifest | facts, site.secrets[0], "manifest")
        (directory / "manifest.json").write_bytes(signature.dumped(signed))


def sift(ini: str, left: str) -> dict[str, Any]:
    """Seconds in which is found what a prune would remove; nothing is removed.

    With a number only so many backups are there.
    """
    _, site, repository = opened(ini)
    with repository.lock("benchmark"):
        names = repository.names()
        others = set(names[int(left) :]) if int(left) else set[str]()
        begun = time.monotonic()
        found = unnamed_objects(repository, others)
        assert not found.problem, found.problem
        return {"seconds": time.monotonic() - begun, "count": found.count}


def year(ini: str) -> dict[str, Any]:
    """Makes a year of nights to an hour ago."""
    _, _, repository = opened(ini)
    begun = clock.now().replace(microsecond=0) - timedelta(hours=1)
    steps = tuple(
        of_nights.Step(name, "done", 60, "as it was") for name in of_nights.STEPS
    )
    made = []
    for number in range(366):
        at = begun - timedelta(days=number)
        free = 10**11 + number * 10**8
        made.append(of_nights.Night(at, at, steps, at - timedelta(days=1), free))
    of_nights.remember(repository, made[0], made[1:])
    return {"nights": len(of_nights.nights(repository))}
