"""A release: what `bin/release` refuses and makes, and how it works where it is put."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from .support.imports import PACKAGE
from .support.manual import DOCS, ROOT
from .support.portal import Portal
from .support.released import clone, git, installed, release, released, version, wheel
from .support.site import SYSADMIN, Site
from .support.waiting import wait_until
from .support.web import Web


def test_a_release_is_refused_for_what_nobody_would_find_again(tmp_path: Path) -> None:
    directory = clone(tmp_path)

    def refused() -> str:
        done = release(directory)
        assert done.returncode == 1 and not (directory / "dist").exists()
        (line,) = done.stderr.splitlines()
        return line

    (directory / "new.txt").touch()
    assert "not committed; look with: git status" in refused()
    (directory / "new.txt").unlink()
    changes = directory / "CHANGELOG.rst"
    whole = changes.read_text()
    changes.write_text(whole.replace(f"{version()} - ", "0.0.0 - "))
    assert "not committed" in refused()
    git(directory, "commit", "-qam", "Without the version")
    assert f'CHANGELOG.rst has no heading "{version()} - 20' in refused()
    git(directory, "revert", "--no-edit", "HEAD")
    git(directory, "tag", f"v{version()}")
    assert f"the tag v{version()} is there already" in refused()


def _listed(name: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_what_the_plugin_needs_and_no_more() -> None:
    own = {name for name in _listed("ckanext/dbmanage") if "/tests/" not in name}
    assert "ckanext/dbmanage/config_declaration.yaml" in own
    with zipfile.ZipFile(wheel()) as archive:
        names = set(archive.namelist())
        about, data = (
            f"ckanext_dbmanage-{version()}.{n}" for n in ("dist-info", "data")
        )
        points = archive.read(f"{about}/entry_points.txt").decode()
        told = message_from_bytes(archive.read(f"{about}/METADATA"))
    assert "dbmanage = ckanext.dbmanage.plugin:DbmanagePlugin" in points
    shipped = f"{data}/data/share/ckanext-dbmanage/"
    beside = {name.replace("contrib/", shipped, 1) for name in _listed("contrib")}
    assert {name for name in names if not name.startswith(about)} == own | beside
    assert f"{about}/licenses/LICENSE" in names
    assert told["License-Expression"] == "AGPL-3.0-or-later" and not told["License"]
    assert told["Description-Content-Type"] == "text/x-rst"
    assert told["Requires-Python"] == ">=3.10"
    assert told.get_all("Provides-Extra") == ["notify"]


def test_the_source_holds_the_manual_and_no_tests() -> None:
    (source,) = released().glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    pages = {str(page.relative_to(ROOT)) for page in DOCS.glob("*.rst")}
    assert pages | _listed("contrib") <= names
    assert not [n for n in names if re.match(r"bench|bin|.*/tests|\.", n)]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a CKAN into which pip has installed the wheel."""
    return installed(tmp_path_factory.mktemp("clean") / "venv")


@pytest.mark.smoke
def test_from_the_wheel_a_backup_is_proven_in_a_clean_ckan(
    portal: Portal, there: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = portal.environment | {"PATH": f"{there}:/usr/bin:/bin"}

    def run(program: str, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [there / program, *arguments], cwd=empty, env=environment,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + (done.stderr if code else "")

    where = run("python", "-c", "import ckanext.dbmanage as d; print(d.__file__)")
    assert where.startswith(f"{there.parent}/lib/")
    listed = run("python", "-c", "import sys; print(sys.path, sys.meta_path)")
    assert str(ROOT) not in listed and "editable" not in listed
    # the units, where the manual says
    beside = r"/usr/lib/ckan/default/(share/ckanext-dbmanage/[\w./-]+)"
    shown = {
        path
        for page in DOCS.glob("*.rst")
        for path in re.findall(beside, page.read_text())
    }
    assert shown and not [
        each for each in shown if not [*there.parent.glob(f"{each}*")]
    ]
    # what is of the tests alone, and what is an extra, is not there
    for name in ("ckanext.dbmanage.tests", "pytest", "apprise"):
        assert "ModuleNotFoundError" in run("python", "-c", f"import {name}", code=1)
    assert "verify" in run("python", "-m", "ckanext.dbmanage", "--help")
    assert "there is no verified backup" in run("ckan", "db", "doctor", code=1)
    name = run("ckan", "db", "backup", "-q").strip()
    assert run("ckan", "db", "verify", "--prove", "-q") == f"{name}  proven\n"
    (backup,) = yaml.safe_load(run("ckan", "db", "backups", "--json"))
    assert backup["id"] == name and backup["state"] == "proven"
    urls = tmp_path / "urls"
    urls.write_text("json://127.0.0.1:9\n")
    urls.chmod(0o600)
    portal.write(**{"ckanext.dbmanage.notify.apprise_file": str(urls)})
    told = run("python", "-m", "ckanext.dbmanage", "notify", "--test", code=1)
    assert "pip install 'ckanext-dbmanage[notify]'" in told


@pytest.mark.smoke
def test_from_the_wheel_the_page_has_its_looks_and_its_german(
    portal: Portal, there: Path
) -> None:
    web = []

    def serve(portal: Portal) -> Web:
        web.append(Web(portal, bin=there))
        wait_until(web[0].up)
        return web[0]

    try:
        browser = Site(portal, serve).session(SYSADMIN)
        page = browser.ask("GET", "/ckan-admin/backups/")
        assert page.status_code == 200
        german = browser.ask("GET", "/de/ckan-admin/backups/").text
        assert "Sicherungen" in german and "Sicherungen" not in page.text
        found = re.findall(r'(?:href|src)="(/webassets/dbmanage/[^"]+)"', page.text)
        looks = {name: browser.ask("GET", name) for name in found}
        assert {each.status_code for each in looks.values()} == {200}
        texts = "".join(each.text for each in looks.values())
        for asset in ("admin.css", "dbmanage.css", "dbmanage.js"):
            assert (PACKAGE / "assets" / asset).read_text()[:100] in texts
    finally:
        for each in web:
            each.process.terminate()
            each.process.wait()


#: what the catalogue takes for a kind of extension
_KINDS = (
    "theme", "dataset_type", "harvester", "visualization", "data_utility", "api",
    "workflow", "validation", "authentication", "storage", "federation", "general",
    "metadata",
)  # fmt: skip


def test_the_entry_in_ckan_s_catalogue_of_extensions_has_its_form() -> None:
    entry = yaml.safe_load((ROOT / "ckan-ecosystem.yaml").read_text())
    assert set(entry) == {
        "description", "detailed_info", "extension_type", "ckan_versions", "tags",
    }  # fmt: skip
    assert entry["description"] in (ROOT / "setup.cfg").read_text()
    assert len(entry["description"]) < 160  # more is cut in its lists
    assert entry["extension_type"] in _KINDS
    compatible = re.findall(r"(?m)^(2\.\d+) +yes", (ROOT / "README.rst").read_text())
    assert sorted(compatible) == sorted(entry["ckan_versions"]) != []
    assert all(re.fullmatch(r"[a-z-]+", tag) for tag in entry["tags"])
    assert "pip install ckanext-dbmanage" in entry["detailed_info"]


def test_the_readme_has_the_heads_of_ckan_s_template() -> None:
    page = (ROOT / "README.rst").read_text()
    heads = re.findall(r"(?m)^(.+)\n-{4,}$", page)
    template = [
        "Requirements", "Installation", "Config settings", "Developer installation",
        "Tests", "Releasing", "License",
    ]  # fmt: skip
    assert [head for head in heads if head in template] == template
