"""Export: each line is what ckanapi writes, with whatever plugins, and none is lost."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.records.jsonl import new_file

from ..support import forked
from ..support.cluster import BIN
from ..support.exports import KINDS, ODD, by_name, ckanapi, export
from ..support.portal import Portal
from ..support.waiting import wait_until


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
    assert len(theirs) > 700
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
    assert "the search index did not answer" in done.stderr
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
    broken = [f"dataset-{n}" for n in (1007, 1017)]
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
    assert "7 of them shown again by CKAN's own action: equal" in told


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


def test_memory_is_bounded_by_bytes_and_not_by_rows(portal: Portal) -> None:
    """440 MB of long lines, from what is one batch of rows."""
    portal.sql("""
        INSERT INTO package (id, name, title, notes, state, type, private,
          metadata_created, metadata_modified)
        SELECT md5(g::text), 'long-' || g, 'Long', repeat('long ', 400000), 'active',
          'dataset', false, now(), now() FROM generate_series(1, 220) g""")

    def peak(*arguments: str) -> float:
        """MB of the largest of a command's processes."""
        process = subprocess.Popen(
            [BIN / "ckan", "-c", portal.ini, "db", *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=portal.environment,
        )  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        assert process.returncode == 0, said
        return usage.ru_maxrss / 1024

    bare = peak("version")
    assert peak("export", "datasets", "--check", "9", "-O", os.devnull) < bare + 64
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_counts_are_asked_once_and_the_reason_is_said(portal: Portal) -> None:
    portal.ckan("search-index", "rebuild", "-q")
    portal.sql("UPDATE package SET owner_org = NULL WHERE id IN ('id-1', 'id-2')")
    (line,) = export(portal, "organizations")
    assert json.loads(line)["package_count"] == 36  # as the index has it
    portal.write(solr_url="http://127.0.0.1:9/solr/none")
    done = portal.db("export", "organizations")
    assert "the search index did not answer" in done.stderr
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


def test_packed_by_its_name(portal: Portal, tmp_path: Path) -> None:
    plain = b"\n".join([*export(portal, "datasets"), b""])
    for suffix, program in (("gz", "gzip"), ("zst", "zstd")):
        target = tmp_path / f"d.jsonl.{suffix}"
        for _ in range(2):
            before = target.read_bytes() if target.exists() else None
            portal.db("export", "datasets", "-O", str(target))
            assert before in (None, target.read_bytes())
        unpacked = subprocess.run(
            [program, "-dc", target], capture_output=True, check=True
        )
        assert unpacked.stdout == plain


def test_a_reader_who_has_enough(portal: Portal) -> None:
    portal.sql("UPDATE package SET notes = repeat('x', 200000)")
    process = forked.start(
        [BIN / "ckan", "-c", portal.ini, "db", "export", "datasets", "-q"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=portal.environment,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait() == 1 and said == ""
    process.stderr.close()


def test_lines_of_five_megabytes(portal: Portal, tmp_path: Path) -> None:
    portal.sql(
        "UPDATE package SET notes = repeat('\u00fc\"', 2500000) WHERE id IN ('id-1', 'id-2')"
    )
    lines = by_name(export(portal, "datasets"))
    assert len(lines) == 36 and len(lines["dataset-1"]) > 5_000_000


def test_a_full_disk_leaves_what_was_there(
    portal: Portal, small_disk: Callable[[str], Path]
) -> None:
    target = small_disk("200k") / "d.jsonl"
    target.write_text("before\n")
    portal.sql(
        "UPDATE package SET notes = (SELECT string_agg(md5((g * length(name))::text || name), '')"
        " FROM generate_series(1, 500) g)"
    )
    done = portal.db("export", "datasets", "-O", str(target), code=1)
    assert "No space left" in done.stderr
    assert target.read_text() == "before\n" and os.listdir(target.parent) == ["d.jsonl"]


def test_killed_it_leaves_no_process_and_no_file(
    portal: Portal, tmp_path: Path
) -> None:
    """A reader that is killed is named; a parent that is killed takes them along."""
    portal.sql("INSERT INTO package (id, name, title, state, type, private, metadata_created, metadata_modified)"
               " SELECT md5(g::text), 'more-' || g, 'More', 'active', 'dataset', false, now(), now()"
               " FROM generate_series(1, 20000) g")  # fmt: skip
    into = tmp_path / "into"
    into.mkdir()
    target = into / "d.jsonl"

    def children(process: subprocess.Popen) -> list[int]:
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [int(n) for n in path.read_text().split()] if path.exists() else []

    def start() -> tuple[subprocess.Popen, list[int]]:
        before = set(into.iterdir())
        process = forked.start(
            [BIN / "ckan", "-c", portal.ini, "db", "export", "datasets", "-q", "-O", target],
            stderr=subprocess.PIPE, text=True, env=portal.environment,
        )  # fmt: skip
        # of its own: what was killed before is swept away a moment after the fork
        wait_until(lambda: len(children(process)) == 2 and {*into.iterdir()} - before)
        found = children(process)
        time.sleep(random.random() * 0.3)
        return process, found

    process, found = start()
    os.kill(found[0], signal.SIGKILL)
    assert process.wait() == 1
    assert process.stderr is not None
    assert "ended before its time (exit code -9)" in process.stderr.read()
    process.stderr.close()
    assert not any(into.iterdir())
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        # also of what the killed one left: it may hold secrets
        process, found = start()
        process.send_signal(number)
        assert process.wait() == code
        wait_until(
            lambda found=found: not any(Path(f"/proc/{pid}").exists() for pid in found)
        )
        process.communicate()
        left = [path.stat().st_mode & 0o777 for path in into.iterdir()]
        assert left == ([0o644] if number == signal.SIGKILL else [])


def test_one_moment(portal: Portal) -> None:
    """What is changed while it runs is in none of the lines."""
    portal.sql("UPDATE package SET notes = repeat('x', 400000)")
    process = forked.start(
        [BIN / "ckan", "-c", portal.ini, "db", "export", "datasets", "-q", "--fresh"],
        stdout=subprocess.PIPE, env=portal.environment,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.read(1)
    portal.sql("UPDATE package SET title = 'Later'; DELETE FROM package_tag")
    rest = process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    lines = (first + rest).splitlines()
    assert len(lines) == 36
    assert all(b"Later" not in line and b"air quality" in line for line in lines)


def test_where_a_file_goes(tmp_path: Path) -> None:
    """Into a pipe or a device as it is, where a link leads, whatever a name's length."""
    with new_file(os.devnull, 0o600) as write:
        write(b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe.gz"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with new_file(pipe, 0o600) as write:
        write(b"lines")
    reader.join()
    assert gzip.decompress(read[0]) == b"lines" and pipe.is_fifo()
    (tmp_path / "there").mkdir()
    link, there = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(there)
    for text in (b"first", b"second"):
        with new_file(link, 0o640) as write:
            write(text)
        assert link.is_symlink() and there.read_bytes() == text
        assert there.stat().st_mode & 0o777 == 0o640
    assert os.listdir(there.parent) == ["file"]
    for name in ("x" * 250, "\u00fc" * 125 + "x"):
        with new_file(tmp_path / name, 0o600) as write:
            write(b"long")
        assert (tmp_path / name).read_bytes() == b"long"
    with pytest.raises(Refused, match="no directory"), new_file("/no/where", 0o600):
        pass


def test_what_a_killed_command_left_is_removed(tmp_path: Path) -> None:
    """And nothing that somebody is writing, or that is another file's."""
    target = tmp_path / "users.jsonl"
    left = tmp_path / ".users.jsonl.12345678.partial"
    others = [
        tmp_path / name for name in (".users.jsonl", ".other.users.jsonl.1.partial")
    ]
    for path in (left, *others):
        path.write_text("secret")
    with new_file(target, 0o600) as one, new_file(target, 0o600) as other:
        assert not left.exists() and len(list(tmp_path.glob(".users.jsonl.*"))) == 2
        one(b"one")
        other(b"other")
    assert target.read_bytes() == b"one" and set(tmp_path.iterdir()) == {
        target,
        *others,
    }
