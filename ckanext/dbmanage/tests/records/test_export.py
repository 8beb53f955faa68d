"""Export: each line is what ckanapi writes, with whatever plugins, and none is lost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ..support.exports import KINDS, ODD, by_name, ckanapi, export
from ..support.portal import Portal


@pytest.mark.smoke
def test_each_line_is_what_ckanapi_writes(portal: Portal) -> None:
    portal.sql(ODD)
    for kind in KINDS:
        own = export(portal, kind, *(["--secrets"] if kind == "users" else []))
        assert own and by_name(own) == by_name(ckanapi(portal, kind)), kind
        names = [json.loads(line)["name"] for line in own]
        assert names == sorted(names)
    portal.ckan("search-index", "rebuild", "-i", "-q")
    told = portal.db(
        "export", "datasets", "-O", str(portal.directory / "d.jsonl")
    ).stderr
    # one has a time in whole seconds, for which core itself never asks the index; and
    # CKAN 2.12 cannot index the 6 that have relationships
    counts = ((27, 7), (33, 1))
    expected = [f"{a} from the search index, {b} from the database" for a, b in counts]
    assert any(each in told for each in expected), told
    warm = (portal.directory / "d.jsonl").read_bytes().splitlines()
    assert warm == ckanapi(portal, "datasets")


@pytest.mark.parametrize(
    "enabled",
    ["", "hooks queries chained labels", "scheming_datasets"],
)  # fmt: skip
def test_plugins_have_their_say(odd: Portal, plugins: str, enabled: str) -> None:
    odd.write(
        **{
            "ckan.plugins": f"dbmanage {enabled}",
            "scheming.dataset_schemas": "ckanext.scheming:subfields.yaml",
            "scheming.dataset_fallback": "true",
        }
    )
    theirs = ckanapi(odd, "datasets", PYTHONPATH=plugins)
    assert len(theirs) > 200  # more than a batch
    assert export(odd, "datasets", PYTHONPATH=plugins) == theirs
    assert (b'"chained"' in theirs[0]) == ("chained" in enabled)


def test_the_index_has_its_say_too(odd: Portal, plugins: str) -> None:
    """Once indexed, what the site shows comes from there, changed or not by plugins."""
    odd.write(**{"ckan.plugins": "dbmanage"})
    odd.ckan("search-index", "rebuild", "-i", "-q")
    # known to the index only as it was
    odd.sql("UPDATE \"group\" SET title = 'Renamed' WHERE name = 'org-3'")
    fresh = export(odd, "datasets", "--fresh")
    assert b"Renamed" in b"".join(fresh)
    for enabled in ("", "hooks chained labels"):
        odd.write(**{"ckan.plugins": f"dbmanage {enabled}"})
        warm = export(odd, "datasets", "--check", "20", PYTHONPATH=plugins)
        assert warm == ckanapi(odd, "datasets", PYTHONPATH=plugins)
        assert warm != fresh
    # stale: what changed since comes from the database
    odd.write(**{"ckan.plugins": "dbmanage"})
    odd.sql(
        "UPDATE package SET title = 'Changed', metadata_modified = now()"
        " WHERE name IN ('dataset-3', 'dataset-4');"
        "UPDATE package SET private = true WHERE name = 'dataset-6';"
        "UPDATE package SET state = 'deleted' WHERE name = 'dataset-7'"
    )
    stale = by_name(export(odd, "datasets"))
    assert json.loads(stale["dataset-3"])["title"] == "Changed"
    assert not stale.keys() & {"dataset-6", "dataset-7"}
    # and a Solr that is away costs time, not lines
    odd.write(solr_url="http://127.0.0.1:9/solr/none")
    done = odd.db("export", "datasets", "-O", str(odd.directory / "away.jsonl"))
    assert "instead of the search index" in done.stderr
    away = (odd.directory / "away.jsonl").read_bytes().splitlines()
    assert by_name(away) == by_name(export(odd, "datasets", "--fresh"))
    odd.write(solr_url=os.environ["CKAN_SOLR_URL"])


def test_a_record_that_cannot_be_shown_is_named_and_counted(
    odd: Portal, plugins: str
) -> None:
    odd.write(**{"ckan.plugins": "dbmanage form"})
    target = odd.directory / "some.jsonl"
    done = odd.db(
        "export",
        "datasets",
        "--fresh",
        "-O",
        str(target),
        code=1,
        env={"PYTHONPATH": plugins},
    )
    broken = [f"dataset-{n}" for n in (257, 267)]
    assert all(name in done.stderr for name in broken)
    total = len(target.read_bytes().splitlines())
    assert f"2 of {total + 2} datasets could not be shown" in done.stderr
    assert not by_name(target.read_bytes().splitlines()).keys() & set(broken)
    odd.write(**{"ckan.plugins": "dbmanage"})


def test_who_fails_is_named_and_never_taken_for_hidden(
    portal: Portal, plugins: str
) -> None:
    """Nor is what a plugin prints taken for a line."""
    portal.write(**{"ckan.plugins": "dbmanage prints fails labels"})
    done = portal.db(
        "export", "datasets", "--check", "100", code=1, text=False,
        env={"PYTHONPATH": plugins},
    )  # fmt: skip
    said = done.stderr.decode()
    lines = by_name(done.stdout.splitlines())
    assert "a hook speaks" in said and "and louder" in said
    # visitors may not read three others: 5, 15, 25, 35
    assert "(4 that a visitor may not read left out)" in said
    assert lines.keys() == {
        f"dataset-{n}" for n in range(1, 41) if n % 10 and n % 10 != 5 and n > 4
    } | {"dataset-1"}
    for name, why in (
        ("dataset-2", "its page"),
        ("dataset-3", "NotAuthorized"),
        ("dataset-4", "not JSON compliant"),
    ):
        assert re.search(rf"datasets: {name} \(\S+\): .*{why}", said), said
    assert "3 of 32 datasets could not be shown" in said


def test_a_check_names_what_differs(portal: Portal, plugins: str) -> None:
    portal.write(**{"ckan.plugins": "dbmanage fails"})
    portal.sql("DELETE FROM package_tag WHERE package_id IN ('id-2', 'id-3', 'id-4')")
    portal.sql(
        "UPDATE package SET state = 'draft' WHERE id IN ('id-2', 'id-3', 'id-4')"
    )
    env = {"PYTHONPATH": plugins}
    told = portal.db("export", "datasets", "--check", "100", code=1, env=env).stderr
    assert "1 of 33 datasets differ from what CKAN shows: dataset-5" in told
    portal.write(**{"ckan.plugins": "dbmanage"})
    told = portal.db("export", "datasets", "--check", "7").stderr
    assert "7 of them compared with CKAN's own action: no difference" in told


@pytest.mark.parametrize("enabled", ["told checked", "replaced", "keyed"])
def test_more_plugins_have_their_say(
    portal: Portal, plugins: str, enabled: str
) -> None:
    portal.write(**{"ckan.plugins": f"dbmanage {enabled}"})
    lines = export(portal, "datasets", PYTHONPATH=plugins)
    assert lines == ckanapi(portal, "datasets", PYTHONPATH=plugins)
    words = {
        "told checked": [b'"told":true', b"https://example.com/dataset-1"],
        "replaced": [b"its own"],
        "keyed": [b' 11"', b'True"'],
    }
    assert all(word in lines[0] for word in words[enabled])


def test_validators_made_anew_are_told_apart() -> None:
    """By what they hold; two that hold the same are one, so that schemas are kept."""
    from ckanext.dbmanage.records import validation

    def ended(end: Any, start: Any = 0) -> Any:
        def validator(value: Any, context: Any = start) -> str:
            return f"{value}{end}{context}"

        return validator

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, value: Any) -> Any:
            return value

    values = [1, True, 1.0, 0, None, "1", ["1"], ["1", "2"], Path, ended, {}]
    made = [ended(value) for value in values] + [ended(0, value) for value in values]
    made += [Unhashable(), Unhashable()]
    known = {validation._identity(each) for each in made}
    assert len(known) == len(made) - 1  # 0 and its default 0 are there twice
    for value in values[:-1]:
        assert validation._identity(ended(value)) == validation._identity(ended(value))


def test_a_schema_of_scheming_and_a_warm_index(portal: Portal) -> None:
    portal.write(
        **{
            "ckan.plugins": "dbmanage scheming_datasets",
            "scheming.dataset_schemas": "ckanext.scheming:subfields.yaml",
            "scheming.dataset_fallback": "true",
        }
    )
    portal.sql("""UPDATE package SET type = 'subfields', extras = jsonb_build_object('citation',
        '[{"originator": ["Ren\u00e9"], "publication_date": "2016-09-15"}]')""")
    portal.ckan("search-index", "rebuild", "-q")
    done = portal.db("export", "datasets", text=False)
    assert b"36 from the search index, 0 from the database" in done.stderr
    assert done.stdout.splitlines() == ckanapi(portal, "datasets")
    assert '"originator":["René"]'.encode() in done.stdout


def test_counts_are_asked_once_and_the_reason_is_said(portal: Portal) -> None:
    portal.ckan("search-index", "rebuild", "-q")
    portal.sql("UPDATE package SET owner_org = NULL WHERE id IN ('id-1', 'id-2')")
    (line,) = export(portal, "organizations")
    assert json.loads(line)["package_count"] == 36  # as the index has it
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    done = portal.db("export", "organizations")
    assert "instead of the search index" in done.stderr
    assert json.loads(done.stdout)["package_count"] == 34


def test_private_draft_and_deleted_only_when_asked_for(portal: Portal) -> None:
    portal.sql(ODD)
    public = by_name(export(portal, "datasets"))
    every = by_name(export(portal, "datasets", "--all"))
    hidden = {
        "dataset-10",
        "dataset-20",
        "dataset-30",
        "dataset-40",
        "dataset-9",
        "dataset-11",
    }
    assert every.keys() - public.keys() == hidden
    assert not public.keys() & hidden
    portal.write(**{"ckanext.dbmanage.public_dir": str(portal.storage / "public")})
    (portal.storage / "public").mkdir()
    (portal.storage / "link").symlink_to("public")
    for place in ("public", "link"):
        target = portal.storage / place / "datasets.jsonl.gz"
        done = portal.db("export", "datasets", "--all", "-O", str(target), code=1)
        assert "served to visitors" in done.stderr
    assert not list((portal.storage / "public").iterdir())
    portal.db(
        "export", "users", "-O", str(portal.storage / "storage/users.jsonl"), code=1
    )


def test_users_without_secrets_unless_asked_for(portal: Portal) -> None:
    portal.sql(
        "UPDATE \"user\" SET password = '$hash$', apikey = 'key-' || id, reset_key = 'k'"
    )
    target = portal.directory / "users.jsonl"
    portal.db("export", "users", "-O", str(target))
    assert target.stat().st_mode & 0o777 == 0o600
    text = target.read_text()
    assert "u1@example.com" in text
    assert not any(
        word in text for word in ("$hash$", "key-user", "reset_key", "apikey")
    )
    portal.db("export", "users", "--secrets", "-O", str(target))
    assert "$hash$" in target.read_text() and "key-user" in target.read_text()
    portal.db("export", "datasets", "--secrets", code=2)
