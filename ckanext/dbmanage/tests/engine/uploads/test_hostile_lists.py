"""Lists of uploads that somebody else wrote."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Damaged, Refused
from ckanext.dbmanage.engine.layout import LIST
from ckanext.dbmanage.engine.signature import dumped, sign
from ckanext.dbmanage.engine.uploads.folders import folders_of
from ckanext.dbmanage.engine.uploads.listing import Listing, checked
from ckanext.dbmanage.engine.uploads.staging import room

from ...support.portal import Portal, refused
from ...support.uploads import LAST, line, lines_of, write_lines


def test_one_upload_is_fetched_by_its_path(portal: Portal, tmp_path: Path) -> None:
    path = portal.backup()
    whole = (portal.storage / LAST).read_bytes()
    (portal.storage / LAST).unlink()
    done = portal.module("backups", "latest", "--fetch", LAST, text=False)
    assert done.stdout == whole
    out = tmp_path / "out.csv"
    fetch = ["backups", path.name, "--fetch", LAST, "-O", str(out), "--yes"]
    out.write_text("somebody's")
    assert f"{out} is there already" in portal.module(*fetch[:-1], code=2).stderr
    assert out.read_text() == "somebody's"
    portal.module(*fetch)
    assert out.read_bytes() == whole and out.stat().st_mode & 0o777 == 0o600
    done = portal.module("backups", "latest", "--fetch", "../../etc/passwd", code=1)
    assert "holds no upload" in done.stderr


@pytest.mark.parametrize(
    "lines",
    [
        [line("/etc/passwd")],
        [line("a/../../b")],
        [line("a//b")],
        [line("./a")],
        [line("a\0b")],
        [line("a" * 5000)],
        [line("/".join(["a"] * 3000))],
        [line("b"), line("a")],
        [line("a"), line("a")],
        [line("a"), line("a/b")],
        [line("dbmanage/backups/x")],
        [line(".dbm_00000000_undo/x")],
        [line("a", sha256="../../../etc/passwd")],
        [line("a", size=-1)],
        [line("a", size=True)],
        [line("a", sha256=None)],
        [{"path": 1}],
        [[]],
        [None],
    ],
)
def test_a_poisoned_list_is_refused(lines: list, tmp_path: Path) -> None:
    path = tmp_path / "files.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(Damaged), path.open("rb") as file:
        list(checked(file))


def test_a_storage_that_is_not_here_has_no_place(tmp_path: Path) -> None:
    path = tmp_path / LIST
    content = write_lines(path, [json.dumps(line("@nosuch/a")).encode() + b"\n"])
    sum = hashlib.sha256(content).hexdigest()
    among = folders_of({"": str(tmp_path)}, tmp_path / "repository")
    with pytest.raises(Refused, match="@nosuch"):
        room(Listing(path, len(content), sum), tmp_path, among)


def test_a_poisoned_list_of_a_foreign_backup(portal: Portal) -> None:
    path = portal.backup()
    content = write_lines(
        path / LIST,
        [
            each.replace(b'"resources/upl/oad/-1"', b'"resources/../../escaped"')
            for each in lines_of(path / LIST)
        ],
    )
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["contents"][LIST] = {
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    written = dumped(sign(manifest, "somebody else's secret", "manifest"))
    (path / "manifest.json").write_bytes(written)
    names = sorted([*manifest["contents"], "manifest.json"])
    (path / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n"
            for name in names
        )
    )
    said = refused(portal, "latest", "--trust")
    assert "line 1 names 'resources/../../escaped'" in said
    assert not list(portal.storage.parent.rglob("escaped"))


def test_many_lines_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "files.jsonl"
    with path.open("w") as out:
        for number in range(200_000):
            out.write(json.dumps(line(f"resources/{number:07}")) + "\n")
    script = (
        "import resource, sys, pathlib;"
        "from ckanext.dbmanage.engine.uploads import listing;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "file = pathlib.Path(sys.argv[1]).open('rb');"
        "assert sum(1 for _ in listing.checked(file)) == 200_000;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8_000  # KB
