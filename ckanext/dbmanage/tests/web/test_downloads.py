"""Files of a backup are handed out once, to one user, whole."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.pages import BACKUPS
from ..support.portal import Portal
from ..support.site import PASSWORD, SYSADMIN, Session, Site, hosted


@pytest.fixture(scope="module")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosted(template, tmp_path_factory.mktemp("downloads")) as made:
        yield made


@pytest.fixture(scope="module")
def backup(site: Site) -> Path:
    return site.portal.backup()


@pytest.fixture(scope="module")
def browser(site: Site) -> Session:
    return site.session(SYSADMIN)


def link(site: Site, browser: Session, id: str, file: str) -> str:
    site.arm(id, "download")
    answer = browser.post(f"{BACKUPS}{id}/download", file=file, password=PASSWORD)
    assert answer.status_code == 200, answer.text
    return f"{BACKUPS}file/" + answer.text.split(f"{BACKUPS}file/")[1].split('"')[0]


def test_a_link_is_for_one_user(site: Site, browser: Session, backup: Path) -> None:
    site.portal.sql("UPDATE \"user\" SET sysadmin = true WHERE name = 'user-4'")
    path = link(site, browser, backup.name, "database.list")
    assert site.session("user-4").ask("GET", path).status_code == 404
    assert site.session().ask("GET", path).status_code == 302


def test_a_link_is_good_once_and_can_be_resumed(
    site: Site, browser: Session, backup: Path
) -> None:
    path = link(site, browser, backup.name, "database.list")
    assert browser.ask("HEAD", path).status_code == 200
    content = (backup / "database.list").read_bytes()
    # what sends nothing does not use it up
    there = browser.ask("GET", path, headers={"If-None-Match": "*"})
    assert (there.status_code, there.content) == (304, b"")
    beyond = browser.ask("GET", path, headers={"Range": f"bytes={10**12}-"})
    assert beyond.status_code == 416
    # cut after a while, taken up again, not begun again
    first = browser.ask("GET", path, headers={"Range": "bytes=0-999"})
    assert first.status_code == 206 and first.content == content[:1000]
    assert first.headers["Content-Disposition"].startswith("attachment")
    assert first.headers["Cache-Control"] == "no-store, private"
    rest = browser.ask("GET", path, headers={"Range": "bytes=1000-"})
    assert rest.status_code == 206 and first.content + rest.content == content
    assert browser.ask("GET", path).status_code == 410
    assert browser.ask("GET", path, headers={"Range": "bytes=0-"}).status_code == 410


def test_a_whole_backup_is_a_tar_that_the_command_line_restores(
    site: Site, browser: Session, tmp_path: Path
) -> None:
    backup = site.portal.backup()  # nobody was made a sysadmin since
    whole = browser.ask("GET", link(site, browser, backup.name, "all.tar"))
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    path = link(site, browser, backup.name, "all.tar")
    pieces = [browser.ask("GET", path, headers={"Range": "bytes=0-0"}).content]
    for begin in range(1, len(whole.content), 70_001):
        asked = {"Range": f"bytes={begin}-{begin + 70_000}"}
        pieces.append(browser.ask("GET", path, headers=asked).content)
    assert hashlib.sha256(b"".join(pieces)).digest() == (
        hashlib.sha256(whole.content).digest()
    )
    (tmp_path / "all.tar").write_bytes(whole.content)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", "../all.tar"], cwd=tmp_path / "out", check=True)
    unpacked = tmp_path / "out" / backup.name
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=unpacked, check=True,
                   capture_output=True)  # fmt: skip
    before = site.rows
    site.portal.damage()
    site.portal.module("restore", str(unpacked), "--yes")
    assert site.rows == before


def test_a_token_gets_the_address_that_visitors_see(site: Site, backup: Path) -> None:
    token = site.api_token()
    site.arm(backup.name, "download")
    made = site.act(
        "dbmanage_backup_download", token, id=backup.name, file="manifest.json"
    )
    base = site.portal.options["ckan.site_url"]
    assert made["url"].startswith(f"{base}{BACKUPS}file/")
    path = made["url"].removeprefix(base)
    answer = site.session().ask("GET", path, headers={"Authorization": token})
    assert answer.content == (backup / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    "file", ["../../journal.jsonl", "/etc/passwd", "state", "%2e%2e/x", ""]
)
def test_what_is_no_file_of_a_backup_gets_no_link(
    browser: Session, backup: Path, file: str
) -> None:
    path = f"{BACKUPS}{backup.name}/download"
    assert browser.post(path, file=file, password=PASSWORD).status_code == 400


def test_a_wrong_password_gets_no_link(browser: Session, backup: Path) -> None:
    path = f"{BACKUPS}{backup.name}/download"
    wrong = browser.post(path, file="all.tar", password="no")
    assert wrong.status_code == 400 and "not your password" in wrong.text
