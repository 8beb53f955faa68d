"""The search index in bulk: core's documents, whatever is odd, and none is lost."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ..support.cluster import BIN
from ..support.exports import ODD
from ..support.portal import DATASETS, Portal, install_plugin
from ..support.waiting import wait_until

SCHEMING = {
    "scheming.dataset_schemas": "ckanext.scheming:subfields.yaml",
    "scheming.dataset_fallback": "true",
}
#: a plugin with a say in each document: says what it is told, once it is let go
PLUGIN = """
import os
import time
import ckan.plugins as p


class Documents(p.SingletonPlugin):
    p.implements(p.IPackageController, inherit=True)

    def before_dataset_index(self, document):
        document["extras_said"] = document["said"] = os.environ["SAID"]
        document["vocab_said"] = ["one", os.environ["SAID"]]
        document["said_date"] = "2020-02-03T04:05:06.700Z"
        if "BEGUN" in os.environ:
            open(os.environ["BEGUN"], "a").close()
            end = time.monotonic() + 60
            while not os.path.exists(os.environ["GO"]) and time.monotonic() < end:
                time.sleep(0.05)
        return document
"""


@pytest.fixture(scope="module")
def documents_plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("documents")
    files = {"__init__.py": "", "plugin.py": PLUGIN}
    return install_plugin(directory, "documents", files, "plugin:Documents")[
        "PYTHONPATH"
    ]


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
        portal, rows=0, facet="true",
        # another site of the same core has terms of its own
        **{"facet.field": fields, "facet.limit": -1, "facet.mincount": 1},
    )["facet_counts"]["facet_fields"]  # fmt: skip
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
    "enabled", ["", "hooks queries chained labels", "documents hooks scheming_datasets"]
)
def test_with_every_oddity_and_plugins(
    odd: Portal,
    plugins: str,
    documents_plugin: str,
    enabled: str,
) -> None:
    odd.write(**{"ckan.plugins": f"dbmanage {enabled}"} | SCHEMING)
    env = {"PYTHONPATH": f"{plugins}:{documents_plugin}", "SAID": "this"}
    odd.ckan("search-index", "clear", env=env)
    odd.ckan("search-index", "rebuild", "-i", "-q", env=env)
    theirs = documents(odd)
    assert len(theirs) > 250  # more than a batch
    odd.ckan("search-index", "clear", env=env)
    odd.db("reindex", code=None, env=env)
    assert documents(odd) == theirs
    told = odd.db("reindex", "--deep", code=None, env=env).stderr
    assert f" 0 datasets indexed, 0 removed, {len(theirs) - 1} unchanged" in told
    odd.write(**{"ckan.plugins": "dbmanage"})


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
    assert "1 dataset indexed, 1 removed" in told
    own = f"site_id:{portal.options['ckan.site_id']}"
    found = select(portal, fq=["title:newer", own])["response"]
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
        assert "Solr does not answer: is it up, and is solr_url right?" in done.stderr
        assert "Traceback" not in done.stderr
    portal.write(solr_url=f"{url}-nowhere")
    (told,) = portal.db("reindex", code=1).stderr.splitlines()[-1:]
    assert "Solr answers with the error 404: is solr_url right" in told
    assert len(told) < 250 and "<" not in told
    portal.write(solr_url=url)
    assert documents(portal) == before
    done = portal.db("reindex", "--deep", "--changed", code=2)
    assert "give one" in done.stderr


def test_what_a_plugin_says_otherwise_is_found(
    portal: Portal, documents_plugin: str
) -> None:
    portal.write(**{"ckan.plugins": "dbmanage datastore activity documents"})
    env = {"PYTHONPATH": documents_plugin, "SAID": "before"}
    portal.db("reindex", env=env)
    told = portal.db("reindex", "--deep", env=env).stderr
    assert f" 0 datasets indexed, 0 removed, {DATASETS} unchanged" in told
    told = portal.db("reindex", "--deep", env=env | {"SAID": "after"}).stderr
    assert f" {DATASETS} datasets indexed, 0 removed, 0 unchanged" in told
    found = select(portal, fq=f"site_id:{portal.options['ckan.site_id']}", rows=1)
    assert found["response"]["docs"][0]["vocab_said"] == ["one", "after"]


def test_what_is_saved_meanwhile_is_what_searches_find(
    portal: Portal, documents_plugin: str, tmp_path: Path
) -> None:
    portal.db("reindex")
    portal.write(**{"ckan.plugins": "dbmanage datastore activity documents"})
    begun, go = tmp_path / "begun", tmp_path / "go"
    environment = portal.environment | {
        "PYTHONPATH": documents_plugin, "SAID": "x", "BEGUN": str(begun), "GO": str(go)
    }  # fmt: skip
    command = [BIN / "ckan", "-c", portal.ini, "db", "reindex"]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(begun.exists)
        # searches have all that there was before
        assert select(portal, rows=0)["response"]["numFound"] == DATASETS
        portal.sql(
            "UPDATE package SET private = true, metadata_modified = now()"
            " WHERE id = 'id-1';"
            "UPDATE package SET state = 'deleted', metadata_modified = now()"
            " WHERE id = 'id-2';"
            "INSERT INTO package (id, name, title, type, state, private,"
            " metadata_created, metadata_modified) VALUES ('id-new', 'new', 'New',"
            " 'dataset', 'active', false, now(), now());"
            "DELETE FROM package_tag WHERE package_id = 'id-3';"
            "DELETE FROM member WHERE table_id = 'id-3';"
            "DELETE FROM resource WHERE package_id = 'id-3';"
            "DELETE FROM package WHERE id = 'id-3'"
        )
        go.touch()
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    found = documents(portal)
    assert found["id-1"]["capacity"] == "private"
    assert "id-3" not in found and "id-new" in found
    assert found["id-2"]["state"] == "deleted" if "id-2" in found else True
    assert "0 datasets indexed, 0 removed" in portal.db(
        "reindex", "--changed", env=environment
    ).stderr  # fmt: skip


@pytest.mark.smoke
def test_a_row_that_cannot_be_read_fails_its_own_dataset(portal: Portal) -> None:
    portal.sql(
        "UPDATE resource SET extras = 'no json' WHERE id = 'r-3';"
        "UPDATE resource SET url = 'http://[data/x.csv' WHERE id = 'r-4'"
    )
    done = portal.db("reindex", code=None)
    named = {
        f"id-{n}" for n in (3, 4) if f"not indexed: dataset id-{n}:" in done.stderr
    }
    assert "id-3" in named and done.returncode == 1, done.stderr
    there = documents(portal).keys() - {"facets"}
    assert len(there) == DATASETS - len(named) and not named & there
    # the export names it as well, and writes the others (id-10 to id-40 are private)
    file = portal.directory / "d.jsonl"
    done = portal.db("export", "datasets", "--fresh", "-O", str(file), code=1)
    lines = file.read_text().splitlines()
    told = {n for n in ("id-3", "id-4") if f"({n})" in done.stderr}
    assert "id-3" in told and len(lines) == DATASETS - 4 - len(told), done.stderr
