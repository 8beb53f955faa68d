"""One site for what is looked at: backups of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from ckanext.dbmanage.jobs.queue import Jobs
from ckanext.dbmanage.jobs.record import DONE, QUEUED
from ckanext.dbmanage.jobs.worker import Log

from ...support.browser import LOOKS, aged
from ...support.nights import year
from ...support.portal import Portal
from ...support.site import SYSADMIN, Session, Site, hosted_with_redis


@pytest.fixture(scope="package")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    shutil.rmtree(LOOKS, ignore_errors=True)
    with hosted_with_redis(template, tmp_path_factory.mktemp("looks")) as made:
        yield made


@pytest.fixture(scope="package")
def shelf(site: Site) -> dict[str, str]:
    """Backups of each kind by a name: a dozen, some with notes, one of another site."""
    portal = site.portal
    table = "00000000-0000-4000-8000-000000000000"
    portal.sql(f"UPDATE resource SET id = '{table}', name = 'Luftqualität, stündlich"
               " seit 1999 (alle Messstellen)' WHERE id = 'upload-1'")  # fmt: skip
    newest = portal.backup("--note", "before bulk import").name
    portal.module("verify", newest, "--prove")
    names = {"proven": newest}
    for days in range(1, 13):
        note = ("", "before bulk import", "Vor dem Umzug nach Köln")[days % 3]
        reason = "before restore of x" if days == 4 else "manual"
        names[f"day {days}"] = aged(site, newest, days, note=note, reason=reason)
    portal.db("keep", names["day 2"])
    damaged = portal.repository / names["day 5"] / "database.list"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    portal.module("verify", names["day 5"], code=1)
    foreign = portal.repository / "20200101T000000Z"
    shutil.copytree(portal.repository / newest, foreign)
    site.act("dbmanage_backup_create", note="waits for a worker")
    (job,) = site.act("dbmanage_job_list")
    site.act("dbmanage_job_cancel", id=job["id"])
    year(portal.engine()[1])
    own = {"job": job["id"], "foreign": foreign.name, "thing": looked_at(site, newest)}
    return names | own


def looked_at(site: Site, backup: str) -> str:
    """The job of a preview that found a change of every kind, as a worker leaves it."""
    asked = {"id": backup, "kind": "dataset", "names": ["dataset-7"], "preview": True}
    job = site.act("dbmanage_bring_back", **asked)["id"]
    fields = [
        {"field": "title", "then": "Luftqualität 東京", "now": "Parks of Köln"},
        {"field": "notes", "then": "Words\n\nand more " * 40, "now": None},
        {"field": "extra spatial", "then": {"type": "Point"}, "now": "x" * 300},
    ]
    sizes = {"then": 1_200_000, "now": None, "changed": True}
    one = {
        "kind": "dataset", "id": "id-7", "name": "dataset-7", "then": "active",
        "now": "deleted", "fields": fields, "taken": True,
        "lists": [{"field": "tags", "back": ["air quality"], "gone": ["x", "y" * 200]}],
        "resources": [
            {"id": "r-7", "name": "File", "change": "changed", "fields": [*fields]},
            {"id": "r-8", "name": "", "change": "back", "fields": []},
            {"id": "r-9", "name": "New", "change": "gone", "fields": []},
        ],
        "tables": [sizes | {"name": "00000000-0000-4000-8000-000000000000"}],
        "uploads": [sizes | {"name": f"resources/upl/oad/{'-7' * 60}"}],
        "needs": [{"kind": "organization", "name": "org-9"}],
    }  # fmt: skip
    one["counts"] = {k: len(v) + 3 for k, v in one.items() if isinstance(v, list)}
    found = {"backup": backup, "count": 2, "moment": "2026-11-23T04:55:00Z"}
    found |= {"things": [one], "lacking": ["the upload x of dataset y is not in it"]}
    jobs = Jobs(site.portal.settings)
    Log(jobs.redis, jobs.job_key(job), jobs.secrets).result(found)
    assert jobs.move(job, QUEUED, DONE, "ended")
    return job


@pytest.fixture(scope="package")
def me(site: Site) -> Session:
    return site.session(SYSADMIN)
