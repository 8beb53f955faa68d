"""What is restored: a backup, a directory or a file, looked at before."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .. import layout, signature
from ..archive.contents import limit
from ..archive.file import File, refuse_other_formats
from ..archive.segments import Segments
from ..archive.unpack import read_to_end
from ..backup.manifest import segments_of
from ..backup.verify import changed_files, changed_lists, problems_of_foreign
from ..errors import Damaged, Refused, ToolFailed, Untrusted
from ..layout import UNSIGNED
from ..opened import open_plain
from ..report import Progress
from ..repository.backup import Backup
from ..repository.repository import Repository
from ..site import Site
from ..uploads.listing import Listing, of
from ..words import alike


@dataclass(frozen=True)
class Source:
    """What is to be restored: an archive for each database, and what is known of them.

    `backup` is None for a bare file; `uploads` the list
    of its uploads when they are to be restored. `signed`: a manifest of this site
    vouches for every byte; anything else is hostile until an operator trusts it.
    """

    name: str
    archives: Mapping[str, File | Segments]
    signed: bool
    backup: Backup | None = None
    uploads: Listing | None = None

    @property
    def parts(self) -> list[str]:
        """The parts that it brings."""
        return [*self.archives, *(["files"] if self.uploads else [])]

    def rows(self, part: str) -> dict[str, int] | None:
        """The manifest's exact row counts, None when nobody counted."""
        return self.backup.manifest["databases"][part]["rows"] if self.backup else None

    def sha256(self, part: str) -> str:
        """The checksum of the part's file, or list, as it was verified."""
        return self.archives[part].sha256

    def migrations(self, part: str) -> dict[str, list[str]] | None:
        """The alembic revisions in the archive, None when nobody noted them."""
        if self.backup is None:
            return None
        return self.backup.manifest["databases"][part]["migrations"]


def open_source(
    site: Site,
    repository: Repository,
    name: str,
    *,
    parts: tuple[str, ...] = (),
    trust: bool = False,
    progress: Progress = lambda *_: None,
    called: str = "",
    whole: bool = True,
) -> Source:
    """The backup of an id, a backup's directory, or a file of `pg_dump -Fc`; verified.

    An id is looked up in the repository alone; what has a slash is a path, so that
    nothing in the working directory is taken for a backup. `called` is what messages
    call a file whose name says nothing. Unless it is restored `whole`, the contents of
    a signed one are looked at where they are read. Raises Refused, Untrusted, Damaged.
    """
    if "/" not in name and name not in (os.curdir, os.pardir):
        try:
            found = repository.find(name)
        except Refused as error:
            if not os.path.lexists(name):
                if "." not in name:
                    raise
                raise Refused(f"{error}. There is no file {name} either") from error
            raise Refused(
                f"{error}. For the file {name} in this directory write ./{name}"
            ) from error
        return _of_backup(site, found, parts, trust, progress, whole)
    path = Path(os.path.realpath(name))
    if path.is_dir():
        if (path / "toc.dat").exists():
            raise Refused(
                f"{name} is an archive of pg_dump in directory format: make a single "
                "file with `pg_dump -Fc`"
            )
        named = layout.ID.fullmatch(path.name)
        if not named and not (path / layout.MANIFEST).exists():
            inside = Repository(str(path), site.secrets).names()
            one = f"such as {name.rstrip('/')}/{inside[0]}" if inside else "or a file"
            raise Refused(f"{name} is no backup: give the directory of one, {one}")
        found = Backup(path, site.secrets)
        if not found.objects.is_dir():  # it alone was copied
            found.objects = repository.path / layout.OBJECTS
        return _of_backup(site, found, parts, trust, progress, whole)
    if not path.exists():
        folder, others = os.path.dirname(name), list[str]()
        with suppress(OSError):
            others = [os.path.join(folder, each) for each in os.listdir(folder)]
        near = alike(name, others, 1)
        raise Refused(f"there is no file or directory {name!r}{near}")
    return _of_file(site, File(path, called=called), parts, trust)


def _of_backup(
    site: Site,
    found: Backup,
    parts: tuple[str, ...],
    trust: bool,
    progress: Progress,
    whole: bool,
) -> Source:
    if trust and not found.signed:
        problems = problems_of_foreign(found, site, progress)
    else:
        # a signed checksum vouches for every byte; that it can be read shows when it
        # is read into the scratch database, and an upload's when it is copied
        look = changed_files if whole else changed_lists
        problems = look(found, site, progress)
    if problems:
        if all(UNSIGNED in problem for problem in problems):
            raise Untrusted(problems[0] + site.advise("untrusted", ". "))
        raise Damaged(f"backup {found.id}", problems)
    chosen = [p for p in layout.PARTS if p in (parts or found.parts)]
    archives = {p: segments_of(found, p) for p in chosen if p != "files"}
    uploads = of(found) if "files" in chosen else None
    return Source(f"backup {found.id}", archives, found.signed, found, uploads)


def _of_file(site: Site, file: File, parts: tuple[str, ...], trust: bool) -> Source:
    part = parts[0] if parts else "database"
    if len(parts) > 1 or part == "files":
        raise Refused(f"a file holds one database{site.advise('other part')}")
    refuse_other_formats(file)
    if not trust:
        raise Untrusted(
            f"{file.name} carries no signature of this site"
            + site.advise("untrusted", ". ")
        )
    try:
        with open_plain(file.path) as opened:
            sha256 = signature.Hashed(opened).read_rest().sha256
        file = replace(file, sha256=sha256)
        with file.open(limit(file.size)) as stream:
            read_to_end(stream, file.name, site.pg_bin)
    except ToolFailed as error:
        raise Damaged(file.name, [str(error)]) from error
    return Source(file.name, {part: file}, signed=False)
