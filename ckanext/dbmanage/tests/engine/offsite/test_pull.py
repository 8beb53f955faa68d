"""What comes back is hostile until it was looked at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Damaged, DbmanageError, Refused
from ckanext.dbmanage.engine.offsite import pull as pulling
from ckanext.dbmanage.engine.offsite.restic import Restic
from ckanext.dbmanage.engine.signature import sign

from ...support.offsite import Network, flip, packs, restic, served
from .conftest import Copied


def _tree(directory: Path) -> dict[str, bytes]:
    """The backups and contents of a repository; no journal, no locks."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.relative_to(directory).parts[0][0] in "2o"
    }


def test_there_and_back(pushed: Copied, each_restic: str) -> None:
    before = _tree(pushed.path)
    pushed.lose()
    assert pushed.pull("latest").describe()["state"] == "verified"
    pushed.pull("oldest")
    assert _tree(pushed.path) == before
    modes = {p.stat().st_mode & 0o777 for p in pushed.path.rglob("*") if p.is_file()}
    assert modes == {0o600}
    assert not list(pushed.path.glob(".*partial"))


def test_only_what_is_missing_is_fetched(
    pushed: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, name = _tree(pushed.path), pushed.repository.names()[0]
    gone = pushed.needed()[-1]
    gone.unlink()
    shutil.rmtree(pushed.path / name)
    (pushed.path / "state" / f"{name}.json").unlink()
    asked: list[tuple[str, ...]] = []
    run = Restic.run
    monkeypatch.setattr(
        Restic, "run", lambda s, *a, **o: (asked.append(a), run(s, *a, **o))[1]
    )
    pushed.pull()
    assert _tree(pushed.path) == before
    included = [a[a.index("--include") + 1] for a in asked if "--include" in a]
    assert included == [f"/{name}", f"/objects/{gone.name[:2]}/{gone.name}"]


def test_what_is_rotten_here_is_fetched_again(pushed: Copied) -> None:
    before, name = _tree(pushed.path), pushed.repository.names()[0]
    for path in pushed.needed():
        flip(path, 0)
    shutil.rmtree(pushed.path / name)
    pushed.pull()
    assert _tree(pushed.path) == before


# -- what somebody made by hand who has the password


def _forge(made: Path, name: str) -> None:
    path = made / name / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "forged"}))


def _sign(made: Path, name: str) -> None:
    path = made / name / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(sign(document, "another secret", "manifest")))


def _swap(made: Path, name: str) -> None:
    """Another backup's directory under this name."""
    other = next(p.name for p in made.iterdir() if p.name[0] == "2" and p.name != name)
    shutil.rmtree(made / name)
    (made / other).rename(made / name)


def _link(made: Path, name: str) -> None:
    outside = made.parent / "outside"
    outside.mkdir(exist_ok=True)
    shutil.rmtree(made / "objects")
    (made / "objects").symlink_to(outside)


def _link_content(made: Path, name: str) -> None:
    for path in (made / "objects").glob("*/*"):
        path.unlink()
        path.symlink_to("/etc/passwd")


def _pipe(made: Path, name: str) -> None:
    os.mkfifo(made / name / "database.dump")


def _pipe_content(made: Path, name: str) -> None:
    path = next((made / "objects").glob("*/*"))
    path.unlink()
    os.mkfifo(path)


def _name(made: Path, name: str) -> None:
    (made / name / "a\nb\x1b[31m").write_text("x")


def _name_content(made: Path, name: str) -> None:
    (made / "objects" / "ab").mkdir(exist_ok=True)
    (made / "objects" / "ab" / "..ssh").write_text("x")


def _double(made: Path, name: str) -> None:
    os.link(made / name / "manifest.json", made / name / "SHA256SUMS2")


def _content(made: Path, name: str) -> None:
    for path in (made / "objects").glob("*/*"):
        flip(path, 0)


def _shorter(made: Path, name: str) -> None:
    (made / name / "database.list").write_bytes(b"")


def _missing(made: Path, name: str) -> None:
    shutil.rmtree(made / "objects")
    (made / "objects").mkdir()


@pytest.mark.parametrize(
    "harm",
    [_forge, _sign, _swap, _link, _link_content, _pipe, _pipe_content, _name,
     _name_content, _double, _content, _shorter, _missing],
)  # fmt: skip
def test_a_snapshot_made_by_hand(
    copied: Copied, harm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "_FEW", 0)  # all contents are fetched
    made, name = copied.directory / "made", copied.repository.names()[0]
    shutil.copytree(copied.path, made)
    harm(made, name)
    others = [p.name for p in made.iterdir() if p.name[0] == "2" and p.name != name]
    assert len(others) < 2
    time = (
        f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    )
    restic(
        copied.address, "backup", name, "state", "objects", "--host", copied.site.id,
        "--tag", "dbmanage", "--tag", name, "--time", time,
        "--exclude", "/state/" + (others or ["-"])[0], cwd=made,
    )  # fmt: skip
    copied.lose()
    with pytest.raises((Damaged, Refused)) as told:
        copied.pull()
    assert not copied.repository.names()
    outside = copied.directory / "outside"
    assert not outside.exists() or not list(outside.iterdir())
    assert not list(copied.path.glob(".*.partial"))
    assert "\x1b" not in str(told.value)
    # nothing but contents whose names are true
    for path in copied.path.glob("objects/*/*"):
        assert path.is_file() and not path.is_symlink()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_snapshot_made_by_hand_is_no_parent(copied: Copied) -> None:
    """restic would take contents from there, for all that looks the same."""
    name, kept = copied.repository.names()[0], copied.directory / "kept"
    before = _tree(copied.path)
    shutil.copytree(copied.path, kept)
    for path in copied.needed():
        moment = path.stat()
        flip(path, 0)
        os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    time = (
        f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    )
    paths = [name, f"state/{name}.json", "objects"]
    options = ["--host", copied.site.id, "--tag", "dbmanage", "--time", time]
    restic(copied.address, "backup", *paths, *options, cwd=copied.path)
    shutil.rmtree(copied.path)
    shutil.copytree(kept, copied.path)
    copied.push(suspect=True)
    shutil.rmtree(copied.path)
    copied.path.mkdir(mode=0o700)
    copied.pull()
    needed = _tree(copied.path)
    assert {k: v for k, v in before.items() if k in needed} == needed


# -- what happened to it over there


def _flipped(there: Path) -> None:
    for path in packs(there):
        flip(path, len(path.read_bytes()) // 3)


def _gone(there: Path) -> None:
    for path in packs(there):
        path.unlink()


def _mixed(there: Path) -> None:
    first, *_, last = packs(there)
    for path in (first, last):
        path.chmod(0o600)
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(content)


@pytest.mark.parametrize("harm", [_flipped, _gone, _mixed])
def test_damage_over_there(pushed: Copied, harm: Callable[[Path], None]) -> None:
    harm(Path(pushed.address))
    pushed.lose()
    with pytest.raises(DbmanageError):
        pushed.pull()
    assert not pushed.repository.names()


def test_a_bad_network_brings_all_or_nothing(pushed: Copied) -> None:
    before = _tree(pushed.path)
    pushed.lose()
    with served(pushed.directory) as address:
        network = Network(address)
        fates = ["ok", "ok", "cut", "500", "truncate", "slow", "ok"]
        network.fate = lambda line: fates[(len(network.seen) * 5) % len(fates)]
        pushed.address = network.address.replace("/portal", "/there")
        for name in ("latest", "oldest"):
            try:
                pushed.pull(name)
            except DbmanageError:
                assert not list(pushed.path.glob(".*.partial"))
                network.fate = lambda _: "ok"
                pushed.pull(name)
        network.close()
    assert _tree(pushed.path) == before


def test_too_little_room(pushed: Copied, small_disk: Callable[[str], Path]) -> None:
    pushed.site = replace(pushed.site, repository=str(small_disk("1m")))
    with pytest.raises(Refused, match="too little room"):
        pushed.pull()


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """The disk has so much room, whatever others do there meanwhile."""
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda _: usage)


def test_zeros_without_end_are_not_brought(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost nothing over there, and come before the signature is looked at."""
    made, name = copied.directory / "made", copied.repository.names()[0]
    shutil.copytree(copied.path, made)
    os.truncate(made / name / "database.list", 512 << 20)
    time = (
        f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    )
    restic(
        copied.address, "backup", name, f"state/{name}.json", "--host", copied.site.id,
        "--tag", "dbmanage", "--tag", name, "--time", time, cwd=made,
    )  # fmt: skip
    copied.lose()
    leave(monkeypatch, 512 << 20)
    with pytest.raises(Refused, match="too little room"):
        copied.pull()


@pytest.mark.parametrize(
    ("few", "of_uploads", "said"),
    [
        (0, True, "too little room"),
        (0, False, "too little room"),
        (400, True, r"has \d+ bytes, not \d+"),
        (400, False, "more than its manifest tells"),
    ],
)
def test_contents_longer_than_promised_are_not_brought(
    copied: Copied,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
    of_uploads: bool,
    said: str,
) -> None:
    """They have the right names; what is in them is nothing, without end.

    Of an upload the size is promised, of the segments that of all of them.
    """
    monkeypatch.setattr(pulling, "_FEW", few)
    sizes = dict(pulling.objects_of(copied.repository.find("latest")))
    long = next(d for d, size in sizes.items() if (size is not None) == of_uploads)
    made, name = copied.directory / "made", copied.repository.names()[0]
    shutil.copytree(copied.path, made)
    os.truncate(pulling.object_path(made / "objects", long), 512 << 20)
    time = (
        f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    )
    restic(
        copied.address, "backup", name, f"state/{name}.json", "objects", "--host",
        copied.site.id, "--tag", "dbmanage", "--tag", name, "--time", time, cwd=made,
    )  # fmt: skip
    copied.lose()
    leave(monkeypatch, 512 << 20)
    with pytest.raises((Refused, Damaged), match=said):
        copied.pull()
    assert not copied.repository.names()


def test_a_disk_that_is_nearly_full_ends_it(
    pushed: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot may lie about sizes, and others write as well."""
    pushed.lose()
    free = shutil.disk_usage(pushed.path)
    monkeypatch.setattr(
        pulling.shutil, "disk_usage", lambda _: free._replace(free=next(left))
    )
    left = iter([1 << 40, *[1] * 10_000])
    slow = pushed.directory / "restic"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in *" restore "*)'
        # whoever was started in the background ignores SIGINT, and hands that on
        " exec env --default-signal=INT sleep 60;; esac\n"
        f'exec {shutil.which("restic")} "$@"\n'
    )
    slow.chmod(0o700)
    monkeypatch.setenv("PATH", f"{pushed.directory}:{os.environ['PATH']}")
    with pytest.raises(Refused, match="no room left"):
        pushed.pull()
    assert not pushed.repository.names()
    assert not list(pushed.path.glob(".*.partial"))


def test_a_disk_that_fills_up_meanwhile(
    pushed: Copied, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the files are short under their own names then."""
    monkeypatch.setattr(pulling, "_SPARE", -(1 << 40))
    pushed.site = replace(pushed.site, repository=str(small_disk("24k")))
    with pytest.raises((DbmanageError, OSError)):
        pushed.pull()
    assert not pushed.repository.names()
    assert not list(pushed.path.glob("2*"))
