"""A site with two backups, taken once; each test has a copy of its repository."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.backup import take
from ckanext.dbmanage.engine.backup.downloads import entries
from ckanext.dbmanage.engine.offsite.pull import chosen, pull
from ckanext.dbmanage.engine.offsite.push import push
from ckanext.dbmanage.engine.offsite.restic import Place, Restic, at
from ckanext.dbmanage.engine.offsite.snapshots import Snapshot, snapshots
from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import query
from ...support.heard import Heard
from ...support.offsite import SECRET, newer
from ...support.small import Small


@dataclass
class Copied:
    """A site with a repository of its own, and a place where restic keeps copies."""

    site: Site
    directory: Path
    address: str
    heard: Heard = field(default_factory=Heard)

    @property
    def repository(self) -> Repository:
        return Repository(self.site.repository, self.site.secrets)

    @property
    def path(self) -> Path:
        return Path(self.site.repository)

    @property
    def place(self) -> Place:
        password = self.directory / "password"
        password.write_text(SECRET)
        return Place(self.address, str(password))

    def op(self, id: str = "test") -> Operation:
        return Operation(self.site, self.repository, self.heard, id)

    def reached(self, place: Place | None = None):
        return at(place or self.place)

    def needed(self) -> list[Path]:
        """The contents that the latest backup needs."""
        found = entries(self.repository.find("latest"))
        return [each.path for each in found if each.name.startswith("objects/")]

    def init(self) -> None:
        with self.reached() as restic:
            restic.run("init")

    def push(
        self,
        name: str = "latest",
        place: Place | None = None,
        suspect: bool = False,
    ) -> Backup:
        """Copies a backup; unless they are suspect, on what is there already."""
        found = self.repository.find(name)
        work = self.directory / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with self.reached(place) as restic, self.repository.sending("push"):
            there = self.there(restic)
            parent = there[0].name if there and not suspect else ""
            push(self.op(found.id), restic, found, there, work, parent)
        return found

    def pull(self, name: str = "latest", place: Place | None = None) -> Backup:
        with self.reached(place) as restic, self.repository.lock("pull"):
            found = chosen(self.there(restic), name)
            return pull(self.op(found.id), restic, found)

    def there(self, restic: Restic) -> list[Snapshot]:
        return snapshots(restic, self.site.id)

    def lose(self) -> None:
        """The repository burns down."""
        shutil.rmtree(self.path)
        self.path.mkdir(mode=0o700)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("stock")
    small = Small(directory)
    uploads = directory / "uploads"
    uploads.mkdir()
    site = replace(small.site, uploads={"": str(uploads)})
    repository = Repository(site.repository, site.secrets)
    for number in range(2):
        (uploads / f"file{number}").write_bytes(b"content %d\n" % number * 1000)
        small.own(f"CREATE TABLE t{number} AS SELECT generate_series(1, 100) AS i")
        with repository.lock("backup"):
            take.take(Operation(site, repository))
    yield site
    query(f"DROP DATABASE {small.name} WITH (FORCE)")


@pytest.fixture(scope="module")
def stock_there(stock: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of restic's with both backups: to make one takes a second."""
    directory = tmp_path_factory.mktemp("there")
    made = Copied(stock, directory, str(directory / "there"))
    made.init()
    shutil.copytree(made.address, directory / "empty")
    made.push("oldest")
    made.push("latest")
    return directory


@pytest.fixture
def copied(stock: Site, stock_there: Path, tmp_path: Path) -> Copied:
    """A site with two backups, and an empty repository of restic's."""
    return _copied(stock, stock_there / "empty", tmp_path)


@pytest.fixture
def pushed(stock: Site, stock_there: Path, tmp_path: Path) -> Copied:
    """The same; both backups are there."""
    return _copied(stock, stock_there / "there", tmp_path)


def _copied(stock: Site, there: Path, directory: Path) -> Copied:
    shutil.copytree(stock.repository, directory / "backups")
    shutil.copytree(there, directory / "there")
    site = replace(stock, repository=str(directory / "backups"))
    return Copied(site, directory, str(directory / "there"))


@pytest.fixture(params=["Debian's", "newer"])
def each_restic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Debian's restic, and a newer one where it was installed."""
    if request.param == "newer":
        if not newer():
            pytest.skip("Debian 13's packages could not be fetched")
        monkeypatch.setenv("PATH", f"{newer()}:{os.environ['PATH']}")
    return request.param
