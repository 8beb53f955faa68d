"""Files of lines: packed by their names, whole or not at all."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.records.jsonl import is_written, new_file

from ..support import forked
from ..support.cluster import BIN
from ..support.exports import by_name, export
from ..support.portal import Portal


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
    done = portal.db("export", "datasets", "-O", str(target), "--yes", code=1)
    assert f"{target}: No space left" in " ".join(done.stderr.split())
    assert target.read_text() == "before\n" and os.listdir(target.parent) == ["d.jsonl"]


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


def test_a_file_that_was_written_here_is_known_by_how_it_begins(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"):
        path = tmp_path / name
        assert not is_written(path)
        path.write_bytes(b"")
        assert is_written(path)
        with new_file(path, 0o600) as write:
            write(b'{"name":"x"}\n')
        assert is_written(path)
        path.write_bytes(b"thesis, the only copy")
        assert not is_written(path)
    (tmp_path / "package.json").write_bytes(b'{\n  "name": "x"\n}\n')
    assert not is_written(tmp_path / "package.json")
    assert not is_written("/dev/null")
