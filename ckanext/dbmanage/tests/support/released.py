"""What a release is made of, and a CKAN to install it beside: nothing of the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .manual import ROOT

_SERVICES = Path(os.environ["DBMANAGE_SERVICES"])


def version() -> str:
    """The version in setup.cfg."""
    cfg = ConfigParser()
    cfg.read(ROOT / "setup.cfg")
    return cfg["metadata"]["version"]


def git(directory: Path, *arguments: str) -> str:
    """What git says, of no configuration but a name of its own."""
    who = ("-c", "user.name=test", "-c", "user.email=test@test.invalid")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=directory, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    return done.stdout


def files() -> list[Path]:
    """The files of the checkout, those that are not committed yet too."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = (ROOT / name for name in listed.split("\0") if name)
    return sorted(path for path in paths if path.exists())


def clone(directory: Path) -> Path:
    """A checkout of its own with all that this one holds, ready to be released."""
    for path in files():
        copy = directory / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    changes = directory / "CHANGELOG.rst"
    heading, text = f"{version()} - 2026-01-01", changes.read_text()
    if f"\n{version()} - " not in text:
        title = f"{heading}\n{'-' * len(heading)}"
        changes.write_text(text.replace("Unreleased\n----------", title, 1))
    git(directory, "init", "-q")
    git(directory, "add", "--all")
    git(directory, "commit", "-qm", "All of it")
    return directory


def release(directory: Path) -> subprocess.CompletedProcess[str]:
    """What `bin/release` says in a clone."""
    return subprocess.run(
        [directory / "bin/release"], cwd="/", capture_output=True, text=True
    )


def released() -> Path:
    """A directory with the files of a release of what the checkout holds now.

    Made once for all runs of the tests that find it so, each on a CKAN of its own.
    """
    summed = hashlib.sha256()
    for path in files():
        summed.update(f"{path}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
    kept = _SERVICES / "release"
    kept.mkdir(exist_ok=True)
    made = kept / summed.hexdigest()
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for older in filter(Path.is_dir, kept.iterdir()):
                shutil.rmtree(older)
            with tempfile.TemporaryDirectory() as directory:
                done = release(clone(Path(directory)))
                assert done.returncode == 0, done.stdout + done.stderr
                shutil.move(Path(directory, "dist"), made)
    return made


def wheel() -> Path:
    """The wheel of a release."""
    (found,) = released().glob("*.whl")
    return found


# ------------------------------------------------------------------- a CKAN beside it


def _needed(*wanted: str) -> Iterator[metadata.Distribution]:
    """What these requirements need, themselves included, as it is installed here."""
    seen, ask = set(), [Requirement(each) for each in wanted]
    while ask:
        requirement = ask.pop()
        key = canonicalize_name(requirement.name), *sorted(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        found = metadata.distribution(requirement.name)
        yield found
        for each in map(Requirement, found.requires or []):
            extras = requirement.extras or {""}
            if not each.marker or any(
                each.marker.evaluate({"extra": e}) for e in extras
            ):
                ask.append(each)


def put_ckan(site: Path, *more: str, put: Callable[[Path, Path], Any]) -> None:
    """Fills a directory of packages with the CKAN of these tests, and no tool of them.

    `more` are requirements beside it; `put` links or copies each file of theirs.
    """
    for distribution in _needed("ckan[requirements]", *more):
        for file in distribution.files or []:
            there = site / file
            if ".." not in file.parts and not os.path.lexists(there):
                there.parent.mkdir(parents=True, exist_ok=True)
                put(Path(str(distribution.locate_file(file))), there)


def requirements(package: Path) -> list[str]:
    """What a wheel asks for, without its extras."""
    (found,) = metadata.distributions(path=[str(package)])
    return [each for each in found.requires or [] if "extra ==" not in each]


#: as pip writes it
_CKAN = "#!{python}\nimport sys\nfrom ckan.cli.cli import ckan\nsys.exit(ckan())\n"


def write_ckan(path: Path, python: str) -> None:
    """The program `ckan` for a Python."""
    path.write_text(_CKAN.format(python=python))
    path.chmod(0o755)


def installed(directory: Path) -> Path:
    """A virtual environment with CKAN, where pip has installed the wheel; its `bin`."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", directory], check=True
    )
    (site,) = directory.glob("lib/python*/site-packages")
    put_ckan(site, *requirements(wheel()), put=os.symlink)
    python = directory / "bin/python"
    write_ckan(directory / "bin/ckan", str(python))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-index",
         "--no-warn-script-location", wheel()],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return python.parent
