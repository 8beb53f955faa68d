"""Import: what an export has written is there again, and what is refused is told."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ckan.plugins import toolkit as tk

from ..support import forked
from ..support.cluster import BIN
from ..support.exports import AS_CKAN_MAKES, export
from ..support.lines import an_id, dataset, put
from ..support.portal import Portal
from ..support.waiting import end_group, wait_until

#: what CKAN itself sets
_OF_CKAN = {
    "metadata_created", "creator_user_id", "created", "number_created_packages",
    "position",
}  # fmt: skip
#: what CKAN sets where nothing was
_EMPTY_IS_NONE = ("description", "image_url", "image_display_url", "hash", "comment")


def names(portal: Portal, table: str = "package") -> list[str]:
    return [n for (n,) in portal.sql(f'SELECT name FROM "{table}" ORDER BY name')]


def kept(lines: list[bytes]) -> list[Any]:
    """Records without what CKAN itself sets."""

    def less(value: Any) -> Any:
        if isinstance(value, list):
            return sorted(map(less, value), key=str)
        if not isinstance(value, dict):
            return value
        found = {k: less(v) for k, v in value.items() if k not in _OF_CKAN}
        found = {k: v for k, v in found.items() if v or k not in _EMPTY_IS_NONE}
        if "vocabulary_id" in found or "__extras" in found:  # tags, relationships
            del found["id"]
        if "package_id" in found or tk.check_ckan_version(max_version="2.11.99"):
            found.pop("metadata_modified", None)
        return found

    return [less(json.loads(line)) for line in lines]


@pytest.mark.smoke
def test_there_and_back(portal: Portal, empty: Portal) -> None:
    portal.sql(AS_CKAN_MAKES)
    # no export has these
    empty.sql("INSERT INTO vocabulary (id, name) VALUES ('voc', 'genre')")
    given = {}
    for kind in ("users", "organizations", "groups", "datasets"):
        given[kind] = export(portal, kind, "--all", "--fresh")
        told = empty.db("import", kind, put(empty, given[kind])).stderr
        assert "refused" not in told, told
        assert ("5 relationships between datasets" in told) == (kind == "datasets")
        assert ("the file makes 1 sysadmin: user-1" in told) == (kind == "users")
    for kind, lines in given.items():
        found = export(empty, kind, "--all", "--fresh")
        assert lines and kept(found) == kept(lines), kind
    check = empty.ckan("search-index", "check").stdout
    assert "Packages not indexed = 0" in check
    assert not empty.sql(
        "SELECT 1 FROM tag GROUP BY name, vocabulary_id HAVING count(*) > 1"
    )


def test_what_is_there_is_refused_left_or_changed(owned: Portal) -> None:
    lines = [dataset(f"d-{n}", title=f"Title {n}") for n in range(3)]
    file = put(owned, lines)
    with open(file) as stdin:
        told = owned.db("import", "datasets", stdin=stdin, cwd=owned.directory).stderr
    assert "3 datasets created, from standard input" in told
    told = owned.db("import", "datasets", file, code=1).stderr
    assert "line 2: dataset d-1: is there already" in told
    refused = owned.directory / "some.refused.jsonl"
    assert f"ckan db import datasets {refused}" in told.replace("-c ", "").replace(
        f"{owned.ini} ", ""
    )
    assert refused.read_bytes() == Path(file).read_bytes()
    assert refused.stat().st_mode & 0o777 == 0o600
    assert (
        "3 left as they were" in owned.db("import", "datasets", file, "--resume").stderr
    )
    other = put(
        owned,
        [
            dataset("d-0", title="Other"),
            dataset("other", id=an_id("d-1"), title="x"),
            lines[2],
        ],
    )
    told = owned.db("import", "datasets", other, "--resume", code=1).stderr
    assert "line 2: dataset other: is there already, as the dataset 'd-1'" in told
    assert (owned.directory / "some.refused-2.jsonl").exists()
    told = owned.db("import", "datasets", other, "--create-only").stderr
    assert "0 datasets created, 3 left as they were" in told
    told = owned.db("import", "datasets", other, "--update").stderr
    assert "3 changed" in told
    assert owned.sql("SELECT name, title FROM package ORDER BY name") == [
        ("d-0", "Other"), ("d-2", "Title 2"), ("other", "x"),
    ]  # fmt: skip
    owned.db("import", "datasets", other, "--update", "--resume", code=2)


def test_a_relationship_to_what_is_not_there_waits(owned: Portal) -> None:
    def line(name: str, *others: str) -> bytes:
        told = [{"object": each, "type": "depends_on"} for each in others]
        return dataset(name, relationships_as_subject=told)

    file = put(owned, [line("one", "two", "three"), line("two")])
    told = owned.db("import", "datasets", file, code=1).stderr
    assert "line 1: dataset one: is imported, but not this: " in told
    assert "depends_on three: " in told and "1 relationship between" in told
    refused = owned.directory / "some.refused.jsonl"
    assert refused.read_bytes() == line("one", "two", "three") + b"\n"
    owned.db("import", "datasets", put(owned, [line("three")], "more.jsonl"))
    owned.db("import", "datasets", str(refused), "--resume")
    related = "SELECT o.name FROM package_relationship JOIN package o"
    related += " ON o.id = object_package_id ORDER BY 1"
    assert owned.sql(related) == [("three",), ("two",)]


def test_a_change_is_found_by_searching(owned: Portal) -> None:
    """Though the line has the time that the dataset has had."""
    owned.db("import", "datasets", put(owned, [dataset("d-0", title="First")]))
    (line,) = export(owned, "datasets")
    file = put(owned, [line.replace(b"First", b"Second")])
    owned.db("import", "datasets", file, "--update")
    (line,) = export(owned, "datasets")
    assert json.loads(line)["title"] == "Second"
    assert "0 datasets indexed" in owned.db("reindex", "--changed").stderr


def test_each_refused_line_is_named_and_takes_no_other_with_it(owned: Portal) -> None:
    owned.sql(
        f"INSERT INTO \"user\" (id, name, state) VALUES ('{an_id('u')}', 'u', 'active')"
    )
    good = dataset("good")
    bad = {
        b'{"name": "broken-\xff"}': "is not UTF-8: see its byte 18",
        b"{": "is not JSON",
        b"[" * 100_000: "is nested too deep",
        b'["a"]': "no object",
        b'{"title": "x"}': "neither an id nor a name",
        b'{"name": ["x"]}': "has as its name what is no text",
        dataset("UPPER CASE"): "name: Must be purely lowercase",
        dataset("no-org", owner_org=an_id("other")): "Organization does not exist",
        dataset("no-group", groups=[{"name": "gone"}]): "its group is not there: gone",
        dataset("of-org", id=an_id("org")): "has the id of the organization 'org'",
        dataset("of-user", id=an_id("u")): "has the id of the user 'u'",
        dataset("good", id=an_id("x")): "has the name of line 2",
        dataset("again", id=an_id("good")): "has the id of line 2",
        dataset("no-id", id="id-1"): "id: Invalid",
        dataset("\x1b[31mred\u202e"): "dataset ?[31mred?: name: ",
        dataset("null", title="a\x00b"): "dataset null: ",
        dataset("null\x00"): "has no name that a database can hold",
        dataset("half", id="\ud800"): "has no id that a database can hold",
        dataset("tagged", tags=[{"name": "a\x00\ud800"}]): "dataset tagged: ",
        dataset("url", resources=[{"url": "x"}, {"id": "y", "url": "x"}]): "resources 2.id: ",
    }  # fmt: skip
    lines = [b"", good, *bad, dataset("last")]
    told = owned.db(
        "import", "datasets", put(owned, lines), "--jobs", "1", code=1
    ).stderr
    for number, reason in enumerate(bad.values(), 3):
        (line,) = (each for each in told.splitlines() if f"line {number}: " in each)
        assert reason in line
    assert "\x1b" not in told and f"{len(bad)} lines refused" in told
    assert names(owned) == ["good", "last"]
    refused = owned.directory / "some.refused.jsonl"
    assert refused.read_bytes() == b"".join(line + b"\n" for line in bad)
    mended = refused.read_bytes().replace(b"UPPER CASE", b"lower-case")
    refused.write_bytes(mended)
    owned.db("import", "datasets", str(refused), code=1)
    assert names(owned) == ["good", "last", "lower-case"]


def test_parents_come_first(empty: Portal) -> None:
    def line(name: str, *parents: str) -> bytes:
        groups = [{"name": each, "capacity": "public"} for each in parents]
        record = {"id": an_id(name), "name": name, "groups": groups}
        return json.dumps(record).encode()

    lines = [
        line("leaf", "branch"), line("branch", "root"), line("one", "two"),
        line("two", "three"), line("three", "one"), line("under", "one"),
        line("root"), line("lost", "nowhere"), line("own", "own"),
    ]  # fmt: skip
    file = put(empty, lines, "organizations.jsonl")
    told = empty.db("import", "organizations", file, code=1).stderr
    assert names(empty, "group") == ["branch", "leaf", "root"]
    child = (
        'SELECT c.name, p.name FROM member JOIN "group" c ON c.id = group_id'
        " JOIN \"group\" p ON p.id = table_id WHERE table_name = 'group'"
    )
    assert sorted(empty.sql(child)) == [("branch", "root"), ("leaf", "branch")]
    for number, why in (
        (3, "is its own parent, by way of the lines 3 → 4 → 5 → 3"),
        (6, "its parent is not there: one"),
        (8, "its parent is not there: nowhere"),
        (9, "is its own parent, by way of the lines 9 → 9"),
    ):
        assert any(f"line {number}: " in e and why in e for e in told.splitlines()), (
            told
        )
    told = empty.db("import", "groups", file, "--update", code=1).stderr
    assert "line 7: group root: has the id of the organization 'root'" in told


def test_users_have_the_password_that_they_had_or_none(
    portal: Portal, empty: Portal
) -> None:
    portal.sql("UPDATE \"user\" SET password = '$pbkdf2-sha512$25000$a$b'")
    portal.sql('UPDATE "user" SET id = md5(id)::uuid::text')
    users = "SELECT name, password FROM \"user\" WHERE name LIKE 'user-%' ORDER BY name"
    told = ""
    for secrets in (["--secrets"], []):
        file = str(portal.directory / "users.jsonl.gz")
        portal.db("export", "users", *secrets, "-O", file)
        told += empty.db("import", "users", file).stderr
        before, after = portal.sql(users), empty.sql(users)
        assert len(after) == 5
        assert after == (before if secrets else [(name, None) for name, _ in before])
        # an update without them leaves them
        told += empty.db("import", "users", file, "--update").stderr
        assert empty.sql(users) == after
        empty.sql("DELETE FROM \"user\" WHERE name LIKE 'user-%'")
    assert "pbkdf2" not in told


def test_a_dry_run_keeps_nothing(owned: Portal) -> None:
    groups = [{"id": an_id(n), "name": n} for n in ("parent", "child")]
    groups[1]["groups"] = [{"name": "parent"}]  # type: ignore[assignment]
    file = put(owned, [json.dumps(each).encode() for each in groups])
    before = owned.state()
    told = owned.db("import", "groups", file, "--dry-run").stderr
    assert "would be imported, nothing is kept: 2 groups created" in told
    lines = [dataset("fine", tags=[{"name": "a new tag"}]), dataset("NOT")]
    told = owned.db("import", "datasets", put(owned, lines), "--dry-run", code=1).stderr
    assert "1 dataset created, 1 refused" in told
    after = owned.state()
    before = {k: v for k, v in before.items() if "activity" not in k}
    assert {k: v for k, v in after.items() if k in before} == before
    assert not list(owned.directory.glob("*refused*"))
    assert not (owned.repository / ".reindex").exists()


def test_killed_and_resumed(owned: Portal) -> None:
    lines = [dataset(f"d-{n:03}", tags=[{"name": f"tag {n % 7}"}]) for n in range(300)]
    file = put(owned, lines)
    command = [BIN / "ckan", "-c", owned.ini, "db", "import", "datasets", file, "-q"]
    command += ["--jobs", "1"]
    process = forked.start(
        command, env=owned.environment, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    count = "SELECT count(*) FROM package"
    wait_until(lambda: owned.sql(count) != [(0,)])
    end_group(process)
    assert 0 < owned.sql(count)[0][0] < 300
    told = owned.db("import", "datasets", file, "--resume").stderr
    assert "left as they were" in told and "refused" not in told
    assert len(names(owned)) == 300 and len(names(owned, "tag")) == 7
    assert owned.sql("SELECT count(*) FROM package_tag") == [(300,)]
    assert "Packages not indexed = 0" in owned.ckan("search-index", "check").stdout


def test_without_solr_the_index_is_owed(owned: Portal) -> None:
    solr = owned.options["solr_url"]
    owned.write(solr_url="http://127.0.0.1:9/solr/none")
    told = owned.db("import", "datasets", put(owned, [dataset("some")])).stderr
    assert "1 dataset created" in told and "The data is imported" in told
    assert (owned.repository / ".reindex").exists()
    owned.write(solr_url=solr)
    owned.db("reindex", "--changed")
    assert "Packages not indexed = 0" in owned.ckan("search-index", "check").stdout
    assert not (owned.repository / ".reindex").exists()


def test_a_disk_that_is_full_ends_it_and_says_how_to_go_on(
    owned: Portal, small_disk: Callable[[str], Path]
) -> None:
    folder = small_disk("2m")
    file = folder / "d.jsonl.gz"
    bad = [dataset(f"BAD {n}", notes="x" * 500_000) for n in range(8)]
    file.write_bytes(gzip.compress(b"\n".join([dataset("good"), *bad])))
    told = owned.db("import", "datasets", str(file), "--jobs", "1", code=1).stderr
    assert "d.refused.jsonl" in told and "No space left" in told
    assert f"import datasets {file} --resume" in told
    assert names(owned) == ["good"]
    assert [each.name for each in folder.iterdir()] == ["d.jsonl.gz"]


def test_plugins_that_tell_others_do_so_of_what_is_there(
    owned: Portal, plugins: str
) -> None:
    owned.write(**{"ckan.plugins": "dbmanage tells"})
    lines = [dataset(name) for name in ("a1", "b1", "ends", "c1")]
    told = owned.db(
        "import", "datasets", put(owned, lines), "--jobs", "1", code=1,
        env={"PYTHONPATH": plugins},
    ).stderr  # fmt: skip
    seen = [each for each in told.splitlines() if "others see" in each]
    assert seen == [f"others see {n}" for n in (0, 1, 2, 2)]
    assert "line 3: dataset ends: a plugin ended the transaction" in told
    assert names(owned) == ["a1", "b1", "c1"]


def test_where_refused_lines_cannot_go_nothing_is_imported(owned: Portal) -> None:
    folder = owned.storage / "storage"
    folder.mkdir(exist_ok=True)
    file = folder / "d.jsonl"
    file.write_bytes(dataset("some"))
    told = owned.db("import", "datasets", str(file), code=1).stderr
    assert "served to visitors" in told
    assert names(owned) == []
