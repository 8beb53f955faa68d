"""One site for what is looked at: backups of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

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
    return names | {"job": job["id"], "foreign": foreign.name}


@pytest.fixture(scope="package")
def me(site: Site) -> Session:
    return site.session(SYSADMIN)
