"""The search index in bulk: core's documents, whatever is odd, and none is lost."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

import pytest

from .conftest import Portal
from .test_export import ODD, odd, plugins  # noqa: F401

SCHEMING = {
    "scheming.dataset_schemas": "ckanext.scheming:subfields.yaml",
    "scheming.dataset_fallback": "true",
}
#: what a document gets whenever it is written
_OWN = ("_version_", "indexed_ts")


def select(portal: Portal, **asked: Any) -> dict[str, Any]:
    asked = {"q": "*:*", "fq": f"site_id:{portal.options['ckan.site_id']}"} | asked
    url = f"{portal.options['solr_url']}/select?{urllib.parse.urlencode(asked, True)}"
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def documents(portal: Portal) -> dict[str, Any]:
    """Every stored field by id, and what is only indexed as facets."""
    found = select(portal, rows=100_000)["response"]["docs"]
    fields = ("permission_labels", "res_format", "tags", "organization", "groups")
    facets = select(
        portal, rows=0, facet="true", **{"facet.field": fields, "facet.limit": -1}
    )["facet_counts"]["facet_fields"]
    kept = {}
    for each in found:
        document = {k: v for k, v in each.items() if k not in _OWN}
        # the order of keys within them is another in each process of core's own
        for name in ("data_dict", "validated_data_dict"):
            document[name] = json.loads(document[name])
        kept[each["id"]] = document
    return kept | {"facets": facets}


@pytest.mark.smoke
def test_the_documents_are_core_s(portal: Portal) -> None:
    portal.sql(ODD)
    portal.ckan("search-index", "rebuild", "-i", "-q")
    theirs = documents(portal)
    portal.ckan("search-index", "clear")
    done = portal.db("reindex", code=None)
    assert documents(portal) == theirs
    # CKAN 2.12 cannot index those with relationships: each is named, the rest is there
    missing = done.stderr.count("not indexed: dataset id-")
    assert missing in (0, 6) and done.returncode == bool(missing)
    assert len(theirs) - 1 + missing == 39


@pytest.mark.parametrize(
    "enabled", ["", "hooks queries chained labels", "scheming_datasets"]
)
def test_with_every_oddity_and_plugins(
    odd: Portal,  # noqa: F811
    plugins: str,  # noqa: F811
    enabled: str,
) -> None:
    odd.write(**{"ckan.plugins": f"dbmanage {enabled}"} | SCHEMING)
    env = {"PYTHONPATH": plugins}
    odd.ckan("search-index", "clear", env=env)
    odd.ckan("search-index", "rebuild", "-i", "-q", env=env)
    theirs = documents(odd)
    assert len(theirs) > 900
    odd.ckan("search-index", "clear", env=env)
    odd.db("reindex", code=None, env=env)
    assert documents(odd) == theirs
    told = odd.db("reindex", "--deep", code=None, env=env).stderr
    assert f" 0 datasets indexed, 0 removed, {len(theirs) - 1} as they should" in told


def test_only_what_differs(portal: Portal) -> None:
    portal.sql(
        "INSERT INTO package (id, name, title, type, state, private, metadata_created, "
        "metadata_modified) VALUES ('id-gone', 'gone', 'Gone', 'dataset', 'active', "
        "false, now(), now())"
    )
    portal.db("reindex")
    # an orphan and one that is newer
    portal.sql(
        "DELETE FROM package WHERE id = 'id-gone';"
        "UPDATE package SET title = 'newer', metadata_modified = now() WHERE id = 'id-4'"
    )
    told = portal.db("reindex", "--changed").stderr
    assert "1 datasets indexed, 1 removed" in told
    found = select(portal, fq="title:newer")["response"]
    assert [each["id"] for each in found["docs"]] == ["id-4"]
    assert "0 datasets indexed, 0 removed" in portal.db("reindex", "--changed").stderr
    portal.sql("UPDATE \"group\" SET title = 'Renamed' WHERE name = 'org-1'")
    assert "0 datasets indexed" in portal.db("reindex", "--changed").stderr
    told = portal.db("reindex", "--deep").stderr
    there = portal.sql(
        'SELECT count(*) FROM package JOIN "group" g ON g.id = owner_org '
        "WHERE g.name = 'org-1' AND package.state <> 'deleted'"
    )[0][0]
    assert there and f"{there} datasets indexed, 0 removed" in told


def test_a_solr_that_is_down_is_said(portal: Portal) -> None:
    portal.db("reindex")
    before = documents(portal)
    url = portal.options["solr_url"]
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    for options in ([], ["--changed"], ["--deep"]):
        done = portal.db("reindex", *options, code=1)
        assert "the search index could not be brought up to date" in done.stderr
        assert "Traceback" not in done.stderr
    portal.write(solr_url=url)
    assert documents(portal) == before
    done = portal.db("reindex", "--deep", "--changed", code=2)
    assert "give one" in done.stderr
