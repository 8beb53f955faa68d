"""A restore brings back every row, whether CKAN can start or not."""

from __future__ import annotations

import pytest

from ...support.cluster import query
from ...support.portal import DATASETS, Portal


@pytest.mark.smoke
def test_restore_brings_back_every_row_and_nothing_else(portal: Portal) -> None:
    portal.db("backup")
    before = portal.state()
    portal.damage()
    portal.sql("CREATE TABLE stray (a int); ALTER TABLE stray OWNER TO ckan_default")
    done = portal.db("restore", "latest", "--yes")
    assert done.stdout.startswith("restored database, DataStore")
    assert portal.state() == before
    # the replaced state is a backup too, and its databases are kept
    reasons = [one["reason"] for one in portal.backups()]
    assert len(reasons) == 2 and reasons[0].startswith("before restore of")
    assert not {n for n in portal.copies() if n.endswith("scratch")}
    found = portal.ckan("search-index", "check").stdout
    assert f"Packages not indexed = 0 out of {DATASETS}" in found


@pytest.mark.smoke
def test_it_works_without_ckan(portal: Portal) -> None:
    """`ckan` cannot start when its database is gone; `python -m` brings it back."""
    portal.db("backup")
    before = portal.state()
    for name in portal.names.values():
        query(f'DROP DATABASE "{name}" WITH (FORCE)')
    assert portal.ckan("db", "backups", code=1).returncode == 1
    assert portal.module("verify").stdout.strip().endswith("verified")
    portal.module("restore", "latest", "--yes")
    assert portal.state() == before
    assert portal.db("backups").returncode == 0


def test_without_a_terminal_and_yes_it_refuses(portal: Portal) -> None:
    portal.backup()
    done = portal.module("restore", "latest", code=2)
    assert "--yes" in done.stderr
    done = portal.module("load", "nosuch.dump", code=2)
    assert "--yes" in done.stderr
