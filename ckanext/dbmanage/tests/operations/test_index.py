"""The search index after a restore."""

from __future__ import annotations

import pytest

from ..support.portal import DATASETS, Portal


def test_solr_down_is_a_warning_and_is_made_up_for(portal: Portal) -> None:
    portal.module("backup")
    solr = portal.options["solr_url"]
    before = portal.state()
    portal.damage()
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    assert "ckan db reindex" in done.stderr and "Warning" in done.stderr
    assert portal.state() == before
    portal.write(solr_url=solr)
    assert "`ckan db reindex --changed`" in portal.db("backups").stderr
    done = portal.db("keep", "latest")
    assert f"{DATASETS} datasets indexed" in done.stderr
    assert "search index" not in portal.db("backups").stderr
    done = portal.ckan("search-index", "check")
    assert "Packages not indexed = 0" in done.stdout


@pytest.mark.smoke
def test_only_what_differs_is_indexed_and_orphans_go(portal: Portal) -> None:
    portal.ckan("search-index", "rebuild", "-q")
    portal.db("backup")
    portal.sql(
        "UPDATE package SET metadata_modified = now() WHERE id IN ('id-3', 'id-4')"
    )
    portal.sql(
        "INSERT INTO package (id, name, title, state, type, private, metadata_created,"
        " metadata_modified) VALUES ('orphan', 'orphan', 'x', 'active', 'dataset', false, now(), now())"
    )
    for name in ("dataset-3", "dataset-4", "orphan"):
        portal.ckan("search-index", "rebuild", name)
    done = portal.db("restore", "latest", "--yes", "--no-backup")
    assert "search index: 2 datasets indexed, 1 removed" in done.stderr


def test_one_bad_dataset_does_not_stop_the_others(portal: Portal) -> None:
    # Solr takes no term of more than 32,766 bytes
    portal.sql(
        "UPDATE package SET title = repeat('\u00fc', 20000), name = 'dataset-5' WHERE id = 'id-5'"
    )
    portal.db("backup")
    done = portal.db("restore", "latest", "--yes", "--no-backup")
    assert "id-5" in done.stderr and "not indexed" in done.stderr
    assert f"{DATASETS - 1} datasets indexed" in done.stderr
