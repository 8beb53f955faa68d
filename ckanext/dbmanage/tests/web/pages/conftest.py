"""One site for the pages that begin with an empty repository, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from ...support.cluster import PG_BIN
from ...support.portal import Portal
from ...support.site import Site, hosted


@pytest.fixture(scope="package")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosted(template, tmp_path_factory.mktemp("pages")) as made:
        made.token = made.api_token()
        yield made


@pytest.fixture(autouse=True)
def as_it_was(site: Site) -> Iterator[None]:
    """Each test finds no backup, no job and no worker, and programs that do not wait."""
    with site.left_as_it_was():
        yield
    site.portal.write(**{"ckanext.dbmanage.pg_bin": str(PG_BIN)})
    shutil.rmtree(site.portal.directory / "slow", ignore_errors=True)
