"""A portal comes back on a new machine: an address and a password are all there is.

CKAN's configuration file comes out of the same place, and with it the secret that signs
the backups. Each step can be done again: what was brought stays, and a database that
a restore has put in its place is not restored a second time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy.engine import URL

from ..engine.clock import has_come, parse_stamp
from ..engine.disk import make_directories, write_file
from ..engine.errors import Damaged, DbmanageError, Refused, ToolFailed
from ..engine.layout import ALONG, MANIFEST, OBJECTS
from ..engine.offsite import pull
from ..engine.offsite.look import remembered
from ..engine.offsite.restic import Place, Restic, at
from ..engine.offsite.snapshots import Snapshot, snapshots
from ..engine.operation import Operation
from ..engine.postgres import roles
from ..engine.postgres.database import closing, quoted
from ..engine.postgres.tables import tables_of
from ..engine.printable import one_line
from ..engine.report import Listener
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..engine.restore.history import oid_of, operations_of, switches
from ..engine.restore.preflight import may_switch
from ..engine.signature import signed_by
from ..engine.site import Site
from ..engine.uploads.folders import folders_of, paths
from ..engine.words import listed
from ..portal.config import PREFIX, Options
from ..portal.directories import repository_directory
from ..portal.ini import differing, loaded, untrusted, with_repository
from .context import Portal, find_site
from .in_use import why_empty
from .index import catch_up, open_to_change
from .locked import locked
from .offsite import note
from .stages import staged
from .there import There

#: bytes of a configuration file, and of a manifest
_INI, _MANIFEST = 1 << 20, 1 << 26
_NAME = "ckan.ini"
#: sites that are told by name; whoever has the password may have made up any number
_HOSTS = 50


class _Another(Refused):
    """A backup is whole, and signed with another secret than that of the file here."""


@dataclass(frozen=True)
class Candidate:
    """A backup there that may be brought back: signed, as far as it was looked at.

    `options` are those of the configuration file here, or else of the one that came
    along, whose text is `ini`; it was `made` at this time, with these `versions`.
    """

    snapshot: Snapshot
    options: Options
    ini: str
    made: datetime | None
    versions: dict[str, Any]


class Recovery:
    """The other place, and the file of this machine: `ini` may not be there yet.

    `to` is a directory for the backups, empty for the one that the file names.
    """

    def __init__(self, talk: Listener, restic: Restic, ini: Path, to: str) -> None:
        self.talk, self.ini, self.to = talk, ini, to
        self._restic, self._repository = restic, restic.opened()
        self.own = _own(ini)
        there = repository_directory(self.own) if self.own else ""
        if there and to and there != str(Path(to).resolve()):
            raise Refused(
                f"{ini} has the backups in another directory: leave --to out, or set "
                f"{PREFIX}repository there"
            )

    # -- what there is

    def candidates(self, id: str, host: str) -> Iterator[Candidate]:
        """Those that may be brought back, the newest first; of `id` alone, if given.

        What is bad about the others is told. Raises Refused, ToolFailed.
        """
        there = self._of_one_site(host)
        if id:
            there = [each for each in there if each.id == pull.chosen(there, id).id]
        elif any(has_come(each.id) for each in there):
            there = [each for each in there if has_come(each.id)]
        for snapshot in there:
            try:
                yield self._looked_at(snapshot)
            except (Damaged, ToolFailed, _Another) as error:
                self.pass_over(error)
        raise Refused(
            f"no backup at {self._restic.place.shown} can be brought back: why stands "
            "above"
        )

    def pass_over(self, error: DbmanageError) -> None:
        """Tells what is bad about one. Raises ToolFailed where the place is away."""
        self.talk.end()
        self.talk.warn(f"{error}. Another copy is looked for")
        self._restic.opened()

    def _of_one_site(self, host: str) -> list[Snapshot]:
        there, where = snapshots(self._restic), self._restic.place.shown
        hosts = sorted({each.host for each in there})
        host = host or (self.own.site_id if self.own else "")
        if not there:
            raise Refused(f"there is no backup at {where}")
        known = listed(map(one_line, hosts[:_HOSTS]))
        if host and host not in hosts:
            raise Refused(
                f"{where} has no backup of the site {one_line(host)!r}, but of {known}"
            )
        if not host and len(hosts) > 1:
            raise Refused(
                f"{where} has backups of several sites: say --host and one of {known}"
            )
        return [each for each in there if each.host == (host or hosts[0])]

    def _looked_at(self, snapshot: Snapshot) -> Candidate:
        """Its signature, and the file that came along. Raises Damaged, ToolFailed."""
        named = f"backup {snapshot.id} from the other place"
        said = self._restic.read(snapshot.name, f"{snapshot.id}/{MANIFEST}", _MANIFEST)
        manifest: Any = None
        with suppress(ValueError):
            manifest = orjson.loads(said)
        brought = None
        try:
            ini = self._restic.read(snapshot.name, f"{ALONG}/{_NAME}", _INI).decode()
            if self.to and not self.own:
                ini = with_repository(ini, str(Path(self.to).resolve()))
            brought = Options(untrusted(ini, self.ini))
            brought_secrets = brought.secrets
        except (ToolFailed, Refused, ValueError) as error:
            if not self.own:
                raise Damaged(
                    named, [f"{error}, and {self.ini} is not there"]
                ) from error
            ini, brought_secrets = "", ()
        options = self.own or brought
        assert options is not None
        if options.site_id != snapshot.host:
            raise Damaged(
                named,
                [f"its {_NAME} is of another site, {one_line(options.site_id)!r}"],
            )
        own = isinstance(manifest, dict) and manifest.get("id") == snapshot.id
        if not (own and signed_by(manifest, options.secrets, "manifest")):
            if own and signed_by(manifest, brought_secrets, "manifest"):
                shown = self._restic.place.by_hand(
                    "dump", snapshot.name, f"/{ALONG}/{_NAME}"
                )
                # no end: whoever has the password may have put it before the others
                raise _Another(
                    f"{named} is not this site's: {self.ini} has another SECRET_KEY "
                    f"than the {_NAME} of backup {snapshot.id}. If you know that it "
                    "is, take SECRET_KEY and beaker.session.secret from there, or move "
                    "this file away, and run this again; without them API tokens do "
                    f"not work and users are signed out. `{shown}` shows it"
                )
            raise Damaged(named, [f"it is not signed with the secret of its {_NAME}"])
        made = None
        with suppress(ValueError, TypeError):
            made = parse_stamp(manifest["created"])
        versions = manifest.get("versions")
        return Candidate(
            snapshot, options, ini, made, versions if isinstance(versions, dict) else {}
        )

    # -- what is done

    def lay_down_ini(self, chosen: Candidate) -> None:
        """Writes the configuration file where none is; else tells what differs."""
        if self.ini.exists():
            if not chosen.ini:
                return
            here = self.ini.read_text("utf-8", "replace")
            try:
                lines = list(differing(here, chosen.ini, self.ini))
            except Refused as error:
                lines = [str(error)]
            if lines:
                shown = "".join(f"\n  {line}" for line in lines)
                self.talk.warn(
                    f"{self.ini} stays as it is, and is used. It is not the one that "
                    f"came along with the backup:{shown}"
                )
            return
        make_directories(self.ini.parent)
        write_file(self.ini.parent.resolve() / self.ini.name, chosen.ini.encode())
        self.talk.say(f"wrote {self.ini}, which only this user may read")

    def refuse_lacking(self, chosen: Candidate) -> None:
        """Refuses a site whose plugins are not installed here."""
        installed = {each.name for each in entry_points(group="ckan.plugins")}
        if lacking := sorted(set(chosen.options.plugins) - installed):
            made = one_line(chosen.versions.get("ckan"))[:40]
            raise Refused(
                f"its {_NAME} enables plugins that are not installed here: "
                f"{', '.join(map(one_line, lacking))}. Install them (the backup was "
                f"made with CKAN {made}), then run this again"
            )

    def make_roles(self, portal: Portal, admin: URL | None) -> None:
        """Makes the roles that the server lacks, where somebody here may.

        Raises Refused with the SQL, ConnectionFailed.
        """
        site = find_site(portal)[0]
        left = []
        for role in roles.missing(site.databases):
            if roles.make(role, admin):
                self.talk.say(f"made the role {role.name!r}")
            else:
                left.append(role)
        if left:
            lines = [
                line
                for role in left
                for line in (role.statement, f"\\password {quoted(role.name)}")
            ]
            port = left[0].url.port or 5432
            raise Refused(
                f"{listed(repr(role.name) for role in left)} cannot connect to "
                f"PostgreSQL ({left[0].reason}), and nobody here may make roles. In "
                f"`sudo -u postgres psql -p {port}` run this, with the passwords that "
                f"{self.ini} has in its URLs; then run this again:\n"
                + "\n".join(f"  {line}" for line in lines)
                + "\nOr name who may: --admin postgresql://USER@HOST, with the "
                "password in PGPASSWORD or ~/.pgpass"
            )
        may_switch(site, site.databases)

    def bring(self, portal: Portal, chosen: Candidate) -> Backup:
        """Brings the backup into the site's own repository, which may be empty.

        Raises Damaged, ToolFailed for one that is bad; Refused, OSError.
        """
        site, repository = open_to_change(portal)
        snapshot = chosen.snapshot
        with repository.lock("recover"):
            if snapshot.id in repository.names():
                return repository.find(snapshot.id)
            op = Operation(site, repository, self.talk, snapshot.id)
            objects = repository.path / OBJECTS
            fresh = not objects.exists() or not any(objects.iterdir())
            with staged(portal, repository, "pull", ["pull", "verify"]):
                backup = pull.pull(op, self._restic, snapshot)
            note(op, "done", "pull")
            seen = remembered(repository).at(self._restic.place.shown, self._repository)
            there = There(site, repository, self._restic, seen, [])
            with suppress(DbmanageError):  # the next one that looks sees it
                there.look()
                # all of it came from there, and is what was signed: what is copied
                # there from now on may stand on it
                if fresh:
                    there.note(whole={**seen.whole, snapshot.id: snapshot.name})
        return backup


def _own(ini: Path) -> Options | None:
    """The options of this machine's file, None where there is none. Raises Refused."""
    from ckan.exceptions import CkanConfigurationException

    if not ini.exists():
        return None
    try:
        return Options(loaded(str(ini)))
    except CkanConfigurationException as error:
        raise Refused(f"{ini}: {error}") from error


def run_recover(
    talk: Listener,
    place: Place,
    ini: Path,
    *,
    to: str = "",
    id: str = "",
    host: str = "",
    admin: URL | None = None,
    ask: Callable[[Recovery, Candidate], None],
) -> tuple[Portal, Backup]:
    """Brings the newest backup that is whole, and readies this machine for it.

    The configuration file, the roles, the backup in the site's own repository: nothing
    that is live is touched. `ask` is to raise where somebody does not want one. Raises
    Refused, ConnectionFailed, ToolFailed, OSError.
    """
    talk.standing.made.append("what was brought stays: the same command goes on")
    with at(place) as restic:
        recovery, asked = Recovery(talk, restic, ini, to), ""
        for chosen in recovery.candidates(id, host):
            if asked != chosen.snapshot.id:
                ask(recovery, chosen)
                asked = chosen.snapshot.id
            recovery.refuse_lacking(chosen)
            portal = Portal(chosen.options, talk)
            try:
                recovery.make_roles(portal, admin)
            except Refused:  # which names passwords that stand in there
                recovery.lay_down_ini(chosen)
                raise
            try:
                backup = recovery.bring(portal, chosen)
            except (Damaged, ToolFailed) as error:
                recovery.pass_over(error)
                continue
            recovery.lay_down_ini(chosen)
            return replace(portal, options=_own(ini) or chosen.options), backup
    raise AssertionError("candidates raise when there are no more")


def holds(portal: Portal) -> list[str]:
    """What of a portal is live here already, a clause for each."""
    site, repository = find_site(portal)
    found = []
    for database in site.databases.values():
        if not database.is_missing():
            with closing(database.connect()) as connection:
                if tables_of(connection):
                    found.append(f"the database {database.name!r} has tables")
    if any(True for _ in paths(folders_of(site.uploads, repository.path))):
        found.append(f"uploads are in {listed(site.uploads.values())}")
    return found


def is_restored(portal: Portal, id: str) -> bool:
    """Whether what is live is what a restore of this backup has put there.

    Then only what follows it may be missing. What a killed command left half-way is
    finished, or turned back, first.
    """
    if why_empty(portal.options, *find_site(portal)):  # what was there is to come back
        return False
    with locked(portal, "recover") as (site, repository):
        return _is_switched(site, repository, id)


def _is_switched(site: Site, repository: Repository, id: str) -> bool:
    done = switches(site, repository)
    facts = operations_of(site, repository)[done[-1]] if done else {}
    if not facts or facts["begun"].text("source") != f"backup {id}":
        return False
    for pair in facts["switch"]:
        with closing(site.databases[pair.part].maintenance()) as connection:
            if oid_of(connection, pair.live) != pair.scratch_oid:
                return False
    return bool(facts["switch"])


def follow(portal: Portal) -> None:
    """Does what a restore owes that was ended after its switch."""
    repository = find_site(portal)[1]
    with repository.lock("recover"):
        catch_up(portal, repository)


def is_root() -> bool:
    """Whether all of it belongs to root now, which CKAN's user cannot read."""
    return os.geteuid() == 0
