"""What the commands and the sysadmin page do: the engine, with CKAN's help.

The one way in for both: takes the repository's lock, finishes what was left half-way,
calls the engine, and does what is to be done afterwards (search index, backup of what
was replaced). Knows neither click nor the web.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.report import Listener

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup
    from ..engine.repository.repository import Repository
    from ..engine.restore.restore import Restored
    from ..engine.restore.source import Source
    from ..engine.site import Site
    from ..portal.migrate import Report
    from ..portal.plan import Plan, Wanted


#: asked before anything is touched; raises what ends the command
Agree = Callable[["Site", "Repository", "Source | None"], None]


@dataclass(frozen=True)
class Portal:
    """A CKAN site, as an operation works on it.

    `app` is CKAN's Flask application, None where CKAN was not started; `actor` what
    the journal notes of who asked: `{user, address}`.
    """

    settings: Mapping[str, Any]
    talk: Listener
    app: Any = None
    actor: Mapping[str, str] = field(default_factory=dict)


def open_site(
    portal: Portal, heads: bool = False, *, writes: bool = True
) -> tuple[Site, Repository]:
    """The site and its repository; brings the index up to date where that is owed.

    With `writes` off that is only told, else root is refused where not all of it is
    root's. Raises Refused.
    """
    from ..engine.repository.repository import Repository
    from ..portal import config
    from ..portal.plan import installed_migrations
    from ..portal.site import build_site
    from ..portal.uploads import named_uploads, upload_bases

    settings = portal.settings
    known = installed_migrations(config.plugins(settings)) if heads else None
    named = named_uploads(*upload_bases(settings))
    site = replace(build_site(settings, known), named_uploads=named)
    if writes:
        refuse_root(site)
    repository = Repository(site.repository, site.secrets, portal.actor)
    if portal.app is not None and repository.marked("reindex"):
        if writes:
            reindex(portal, repository)
        else:
            portal.talk.say(
                "searches still show an old state: `ckan db reindex --changed` brings "
                "the search index up to date"
            )
    return site, repository


def refuse_root(site: Site) -> None:
    """Refuses to write as root where a directory is another user's. Raises Refused."""
    from ..engine import owner
    from ..engine.uploads.folders import folders_of

    among = folders_of(site.uploads, Path(site.repository))
    places = [site.repository, site.public_dir, *site.uploads.values()]
    words = [sys.executable, *sys.orig_argv[1:]]
    if ini := os.environ.get("CKAN_INI"):  # sudo takes the environment away
        words = ["env", f"CKAN_INI={ini}", *words]
    places += [str(folder.path) for folder in among]
    owner.refuse_root(filter(None, places), shlex.join(words))


def tidy(site: Site, repository: Repository, talk: Listener) -> None:
    """Finishes or turns back what a killed command left behind."""
    from ..engine.errors import Busy
    from ..engine.postgres.locks import live_lock
    from ..engine.restore.recover import recover

    try:
        with live_lock(site):
            recover(site, repository, talk.warn)
    except Busy:
        pass  # its owner is alive and does it


def backup(
    portal: Portal, parts: tuple[str, ...] = (), note: str = "", keep: bool = False
) -> Backup:
    """Takes a backup of the parts, by default of those that the configuration says."""
    from ..engine.backup.take import take
    from ..portal import config

    site, repository = open_site(portal)
    with repository.lock("backup"):
        tidy(site, repository, portal.talk)
        taken = take(
            site, repository,
            parts=parts or config.parts(portal.settings), note=note, keep=keep,
            progress=portal.talk.progress, warn=portal.talk.warn,
        )  # fmt: skip
    portal.talk.end()
    return taken


def incomplete(taken: Backup) -> str:
    """Why a backup that was taken does not hold all uploads, empty when it does."""
    from ..engine.repository.backup import why_partial

    why = why_partial(taken.files)
    return why and f"backup {taken.id} was taken, but is not complete: {why}"


def verify(
    portal: Portal, site: Site, repository: Repository, found: Backup, prove: bool
) -> list[str]:
    """Reads a backup again, with `prove` restores it beside the live site: problems."""
    from ..engine.backup.verify import verify_backup
    from ..engine.restore import proof
    from ..portal import isolated, migrate

    talk = portal.talk
    if prove:
        with repository.lock("proof"):
            tidy(site, repository, talk)
            record = proof.prove(
                site,
                repository,
                found,
                prepare=migrate.prepare(portal.settings),
                read=isolated.sample(portal.settings),
                progress=talk.progress,
                warn=talk.warn,
            )
        talk.say(f"the evidence is in {repository.path / 'state' / found.id}.html")
        problems = record["problems"]
    else:
        problems = verify_backup(found, site, talk.progress)
        with suppress(OSError):  # a repository may be there to be read only
            repository.record(found.id, "done", what="verify", problems=len(problems))
    talk.end()
    return problems


def preview(
    portal: Portal, name: str, only: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """What a restore would lose, gain and change, by kind (`engine.preview`)."""
    from ..engine.restore.preflight import (
        changed_owners,
        differences,
        links_lost,
        refuse_strange_part,
    )
    from ..engine.restore.source import open_source

    site, repository = open_site(portal, heads=True)
    with repository.lock("preview"):
        source = open_source(
            site, repository, name, parts=only, trust=True,
            progress=portal.talk.progress,
        )  # fmt: skip
        refuse_strange_part(site, source)
        for sentence in differences(site, source):
            portal.talk.warn(sentence)
        for sentence in changed_owners(site, source):
            portal.talk.warn(sentence)
        for sentence in links_lost(site, repository, source):
            portal.talk.warn(sentence)
        rows = previewed(site, repository, source)
    portal.talk.end()
    return rows


def previewed(
    site: Site, repository: Repository, source: Source
) -> list[dict[str, Any]]:
    """The same, of a source that is open already."""
    from ..engine.restore import preview as engine
    from ..records.kinds import KINDS

    return engine.preview(site, repository, source, KINDS)


def restore(
    portal: Portal,
    name: str,
    only: tuple[str, ...] = (),
    *,
    trust: bool = False,
    no_backup: bool = False,
    agree: Agree | None = None,
) -> Restored:
    """Restores a backup or a file, indexes, and backs up what was replaced.

    Without `agree` there is nobody to ask, and what needs an answer is refused.
    """
    from ..engine.errors import Refused
    from ..engine.restore.preflight import (
        changed_owners,
        differences,
        links_lost,
        preflight,
    )
    from ..engine.restore.restore import restore_backup
    from ..engine.restore.source import open_source
    from ..portal import migrate

    talk = portal.talk
    site, repository = open_site(portal, heads=True)
    with repository.lock("restore"):
        tidy(site, repository, talk)
        source = open_source(
            site, repository, name, parts=only, trust=trust, progress=talk.progress
        )
        for sentence in differences(site, source):
            talk.warn(sentence)
        preflight(site, repository, source)
        changed = list(changed_owners(site, source))
        if changed and agree is None:
            raise Refused(
                f"{'; '.join(changed)}. Nobody can be asked here: restore it on the "
                "command line"
            )
        for sentence in changed:
            talk.warn(sentence)
        for sentence in links_lost(site, repository, source):
            talk.warn(sentence)
        if agree is not None:
            agree(site, repository, source)
        let_go()
        with _owing_an_index(site, repository, "database" in source.archives):
            restored = restore_backup(
                site,
                repository,
                source,
                prepare=migrate.prepare(portal.settings),
                progress=talk.progress,
                warn=talk.warn,
            )
        _switched(portal, repository, restored)
        if restored.replaced.parts and not no_backup:
            _back_up_replaced(site, repository, restored, talk, source.name)
    return restored


def undo(portal: Portal, agree: Agree = lambda *_: None) -> Restored:
    """Switches back what the last restore replaced."""
    from ..engine.restore.history import undoable
    from ..engine.restore.restore import undo_switch

    talk = portal.talk
    site, repository = open_site(portal)
    with repository.lock("undo"):
        # what is half-way may be turned back: only then is it known which is the last
        tidy(site, repository, talk)
        undoable(site, repository)
        agree(site, repository, None)
        let_go()
        with _owing_an_index(site, repository, True):
            undone = undo_switch(
                site, repository, progress=talk.progress, warn=talk.warn
            )
        _switched(portal, repository, undone)
    return undone


#: copies that are made, one after the other, because somebody wrote meanwhile
_COPIES = 3


#: what CKAN writes when somebody who is signed in, or has a token, reads a page
_TOUCHED = {"public.user": "last_active", "public.api_token": "last_access"}


def upgrade(
    portal: Portal,
    wanted: Wanted,
    report: Report,
    *,
    rehearse: bool = False,
    in_place: bool = False,
    no_backup: bool = False,
    planned: Callable[[Plan], None] = lambda _: None,
) -> Restored | None:
    """Migrates a copy of the live databases, looks at it, and switches it in.

    With `rehearse` all but the switch, while saving goes on; with `in_place` the live
    databases themselves are migrated, after a backup. `planned` is told what is to be
    done once nothing is known to stand in its way; `report` is filled as far as the
    upgrade came. Returns None where nothing was switched. Raises Refused, and what a
    backup and a restore raise.
    """
    from ..engine.errors import Refused
    from ..engine.postgres.database import closing
    from ..engine.postgres.locks import live_lock
    from ..engine.redis.maintenance import READ_ONLY, Maintenance
    from ..portal import blockers, config, migrate
    from ..portal.plan import installed_migrations, plan
    from ..portal.site import build_site

    talk, settings = portal.talk, portal.settings
    installed = installed_migrations(config.plugins(settings))
    # a portal that is at its head needs no place for backups
    site = build_site(settings, installed, stored=False)
    known = plan(settings, site, wanted)
    if not known.steps and not known.blockers:
        planned(known)
        return None
    site, repository = open_site(portal, heads=True)
    known = replace(known, site=replace(site, heads=known.site.heads))
    problems = list(known.blockers)
    with closing(site.databases["database"].maintenance()) as connection:
        names = [database.name for database in site.databases.values()]
        problems += blockers.room(connection, names, repository.path)
    if problems:
        raise Refused(
            "the upgrade would fail; nothing was touched. What stands in its way, and "
            "what CKAN's role can run to mend it:\n"
            + "\n".join(f"- {sentence}" for sentence in problems)
        )
    if not in_place:
        _may_copy(site)
    with repository.lock("upgrade"):
        tidy(site, repository, talk)
        planned(known)
        let_go()
        if rehearse:
            with _backed_up(portal, known, repository, report, no_backup) as source:
                _rehearse(portal, known, repository, source, report)
            return None
        keeper = Maintenance(site.redis_url, site.databases["database"].url)
        with keeper.held("upgrade", "upgrade", talk.warn) as to:
            if in_place:
                to(READ_ONLY)
                with (
                    _backed_up(portal, known, repository, report, no_backup),
                    live_lock(site),
                ):
                    migrate.migrate_live(portal.settings, known, report)
                repository.mark("reindex", True)
                reindex(portal, repository)
                return None
            switched = _upgraded(portal, known, repository, report, no_backup, to)
        _switched(portal, repository, switched)
    return switched


def clean(portal: Portal, no_backup: bool, agree: Agree) -> list[str]:
    """Takes a backup of the database, unless there is nothing in it, and empties it.

    The search index is emptied too; that it cannot be is told, and before anything is
    asked what goes along with CKAN's tables. Returns what stays, a sentence each.
    Raises Refused, and what a backup raises.
    """
    from ckan.lib.search import clear_all

    from ..engine.backup.take import take
    from ..engine.postgres.database import closing
    from ..engine.postgres.emptying import emptying
    from ..engine.postgres.locks import live_lock
    from ..engine.postgres.tables import drop_tables, tables_of

    talk = portal.talk
    site, repository = open_site(portal)
    with repository.lock("clean"):
        tidy(site, repository, talk)
        database = site.databases["database"]
        with closing(database.connect()) as connection:
            for goes in emptying(connection).along:
                talk.warn(f"this goes too, for it needs CKAN's tables: the {goes}")
        agree(site, repository, None)
        let_go()
        with closing(database.connect()) as connection:
            tables = tables_of(connection)
            planned = emptying(connection)
            connection.rollback()
            if planned.tables and not no_backup:
                taken = take(
                    site, repository, parts=("database",), reason="before clean",
                    progress=talk.progress, warn=talk.warn,
                )  # fmt: skip
                talk.end()
                talk.say(f"what was there is backup {taken.id}")
            with live_lock(site):
                drop_tables(connection, planned.tables)
        repository.record("clean", "done", what="clean", tables=len(tables))
    try:
        with _application(portal):
            clear_all()
    except Exception as error:
        talk.warn(
            "the search index still shows what was there, for it could not be emptied "
            f"({type(error).__name__}): `ckan search-index clear` does it later"
        )
    return planned.stays


def _may_copy(site: Site) -> None:
    from ..engine.errors import Refused
    from ..engine.postgres.database import closing
    from ..engine.restore.preflight import may_create

    for database in site.databases.values():
        with closing(database.maintenance()) as connection:
            try:
                may_create(connection, database)
            except Refused as error:
                raise Refused(
                    f"{error}\nor migrate the live database itself: "
                    "`ckan db upgrade --in-place`"
                ) from error


@contextmanager
def _backed_up(
    portal: Portal, known: Plan, repository: Repository, report: Report, forget: bool
) -> Iterator[Source]:
    """A backup of the databases, which the copy is made of.

    To be forgotten it must not be needed any more: it stays when the rest fails.
    """
    from ..engine.backup.take import take
    from ..engine.repository import prune, retention
    from ..engine.restore.source import open_source

    talk = portal.talk
    report.lap("")
    taken = take(
        known.site, repository, parts=tuple(known.site.databases),
        reason="before upgrade", progress=talk.progress, warn=talk.warn,
    )  # fmt: skip
    report.lap("back up")
    try:
        yield open_source(known.site, repository, taken.id)
    except BaseException:
        forget = False
        raise
    finally:
        talk.end()
        if forget:
            decisions = [
                retention.Decision(each, each.id == taken.id, "not wanted")
                for each in repository.backups()
            ]
            prune.prune_backups(repository, decisions, talk.progress)
        else:
            talk.say(f"the state before is backup {taken.id}")


def _rehearse(
    portal: Portal, known: Plan, repository: Repository, source: Source, report: Report
) -> None:
    from ..engine.restore.copies import loaded_copies
    from ..engine.restore.preflight import preflight
    from ..portal import migrate

    talk = portal.talk
    preflight(known.site, repository, source)
    _refuse_other_owners(known.site, source)
    prepare = migrate.migrated(portal.settings, known, report, talk)
    with loaded_copies(
        known.site, repository, source, secrets.token_hex(4), prepare,
        talk.progress, talk.warn,
    ):  # fmt: skip
        report.lap("statistics")


def _refuse_other_owners(site: Site, source: Source) -> None:
    """Nobody asked for a restore: what is live stays its owner's."""
    from ..engine.errors import Refused
    from ..engine.restore.preflight import changed_owners

    changed = list(changed_owners(site, source))
    if changed:
        raise Refused(
            f"the copy would not be what is live: {'; '.join(changed)}. Or migrate the "
            "live database itself: `ckan db upgrade --in-place`"
        )


def _upgraded(
    portal: Portal,
    known: Plan,
    repository: Repository,
    report: Report,
    forget: bool,
    to: Callable[[str], None],
    copies: int = _COPIES,
) -> Restored:
    from ..engine.errors import Written
    from ..engine.postgres import sessions
    from ..engine.redis.maintenance import READ_ONLY
    from ..engine.restore import written
    from ..engine.restore.preflight import preflight
    from ..engine.restore.restore import restore_backup
    from ..portal import migrate

    site, talk = known.site, portal.talk
    to(READ_ONLY)
    sessions.settle(site)
    since = written.since(site, _TOUCHED)
    with _backed_up(portal, known, repository, report, forget) as source:
        preflight(site, repository, source)
        _refuse_other_owners(site, source)
        try:
            with _owing_an_index(site, repository, True):
                switched = restore_backup(
                    site, repository, source, what="upgrade", since=since,
                    prepare=migrate.migrated(portal.settings, known, report, talk),
                    progress=talk.progress, warn=talk.warn,
                )  # fmt: skip
        except Written as error:
            if copies == 1:
                raise
            talk.warn(f"{error}. Another copy is made")
        else:
            report.lap("statistics and switch")
            return switched
    return _upgraded(portal, known, repository, report, forget, to, copies - 1)


@contextmanager
def _owing_an_index(site: Site, repository: Repository, owed: bool) -> Iterator[None]:
    """Marks, before a switch, that the index must follow; not when there was none."""
    from ..engine.restore.history import half_way, switches

    before = repository.marked("reindex")
    repository.mark("reindex", before or owed)
    done = len(switches(site, repository))
    try:
        yield
    except BaseException:
        with suppress(Exception):
            if len(switches(site, repository)) == done and not (
                half_way(site, repository)
            ):
                repository.mark("reindex", before)
        raise


def mend(portal: Portal, preview: bool) -> None:
    """Repairs what can be repaired without losing anything, and says what.

    With `preview` it only says.
    """
    from ..engine.restore.history import half_way
    from ..portal import datastore

    talk = portal.talk
    # opening brings an index up to date that is owed
    site, repository = open_site(replace(portal, app=None) if preview else portal)

    def to_do(sentence: str) -> bool:
        talk.say(f"{'would ' if preview else ''}{sentence}")
        return not preview

    with repository.lock("doctor"):
        if not preview:
            tidy(site, repository, talk)
        elif half_way(site, repository):
            to_do("finish or turn back the switch that is half-way")
        mode = repository.path.stat().st_mode & 0o777
        if mode & 0o077 and to_do(f"close {repository.path} to others"):
            repository.path.chmod(0o700)
        store, main = site.databases.get("datastore"), site.databases["database"]
        if (
            store is not None
            and list(datastore.unset_permissions(store, main))
            and to_do("set the DataStore's permissions")
        ):
            datastore.set_permissions(store, main)
            if left := list(datastore.unset_permissions(store, main)):
                talk.warn(
                    "CKAN's role may not set all of the DataStore's permissions "
                    f"({'; '.join(left)}). As PostgreSQL's superuser run what "
                    "`ckan datastore set-permissions` prints"
                )
        owed = repository.marked("reindex") or _is_behind(portal)
        if owed and to_do("bring the search index up to date"):
            reindex(portal, repository)


def _is_behind(portal: Portal) -> bool:
    if portal.app is None:
        return False
    from ..records.search_index import differing

    try:
        with _application(portal):
            return any(differing())
    except Exception:  # the check itself tells
        return False


def keep(portal: Portal, name: str, kept: bool) -> Backup:
    """Holds a backup whatever retention says, or gives it back."""
    _, repository = open_site(portal)
    with repository.lock("keep"):
        found = repository.find(name)
        found.remember(keep=kept)
        repository.record(found.id, "done", what="keep" if kept else "release")
    return found


def delete(portal: Portal, name: str) -> Backup:
    """Forgets one backup, and what only it named. Raises Refused for one that is held,
    and for the newest one that is proven (or, without any, verified)."""
    from ..engine.errors import Refused
    from ..engine.repository import prune, retention

    _, repository = open_site(portal)
    with repository.lock("delete"):
        found, there = repository.find(name), repository.backups()
        described = [each.describe() for each in there]
        about = next(each for each in described if each["id"] == found.id)
        if why := must_stay(about, described):
            raise Refused(f"backup {found.id} stays: {why}")
        decisions = [
            retention.Decision(each, each.id == found.id, "deleted by hand")
            for each in there
        ]
        prune.prune_backups(repository, decisions, portal.talk.progress)
        repository.record(found.id, "done", what="delete")
    return found


def must_stay(about: dict[str, Any], described: list[dict[str, Any]]) -> str:
    """Why a backup may not be deleted by hand, empty when it may.

    `described` are all of them, the newest first, as `Backup.describe` tells.
    """
    if about["keep"]:
        return "it is held; release it first"
    for state in ("proven", "verified"):
        newest = next((each for each in described if each["state"] == state), None)
        if newest is not None:
            own = newest["id"] == about["id"]
            return f"it is the newest {state} one" if own else ""
    return ""


def unfit(settings: Mapping[str, Any], found: Backup) -> str:
    """Why a backup cannot be restored here, empty when nothing is known against it."""
    from ..engine.errors import Refused
    from ..engine.restore.preflight import outdated
    from ..portal import config
    from ..portal.plan import installed_migrations
    from ..portal.site import build_site

    if not found.readable:
        return "its manifest cannot be read: it is damaged"
    if not found.signed:
        return (
            "it is not signed by this site: restore it on the command line, with "
            "`--trust` if you do trust its SQL"
        )
    problems = (found.state().get("verified") or {}).get("problems")
    if problems:
        return f"it is damaged: {problems[0]}"
    known = installed_migrations(config.plugins(settings))
    try:
        site = build_site(settings, known)
        for part, about in found.manifest["databases"].items():
            if part not in site.databases:
                raise Refused("it holds the DataStore, this site has none")
            if part == "database":
                outdated(found.id, about["migrations"], site)
    except Refused as error:
        return str(error)
    return ""


def _switched(portal: Portal, repository: Repository, restored: Restored) -> None:
    let_go()
    portal.talk.end()
    for table, rows in sorted(restored.written.items()):
        portal.talk.warn(
            f"{rows} rows of {table} were written while the switch was prepared: they "
            "are in what was replaced, not in what is live"
        )
    if repository.marked("reindex"):
        reindex(portal, repository)


def let_go() -> None:
    """Gives this process's own connections to the databases back."""
    from ckan import model

    model.Session.remove()
    if model.meta.engine is not None:
        model.meta.engine.dispose()
    backend: Any = sys.modules.get("ckanext.datastore.backend.postgres")
    for engine in getattr(backend, "_engines", {}).values():
        engine.dispose()


def _back_up_replaced(
    site: Site, repository: Repository, restored: Restored, talk: Listener, name: str
) -> None:
    from ..engine.backup.take import take
    from ..engine.errors import DbmanageError

    try:
        taken = take(
            site,
            repository,
            replaced=restored.replaced,
            reason=f"before restore of {name}",
            progress=talk.progress,
        )
        talk.say(f"the replaced state is backup {taken.id}")
        if why := incomplete(taken):
            talk.warn(why)
    except DbmanageError as error:
        talk.warn(f"what was replaced is kept, but was not backed up: {error}")


def reindex(portal: Portal, repository: Repository) -> None:
    """Indexes what differs; what fails is told with the command and tried again."""
    from ..engine.errors import DbmanageError
    from ..records.reindex import reindex_changed

    talk = portal.talk
    try:
        with _application(portal):
            done = reindex_changed(talk.progress)
    except DbmanageError as error:
        talk.warn(
            f"{error}. The data is restored; searches will show the old state until "
            "the next `ckan db` command that changes something, or `ckan db reindex`"
        )
        return
    repository.mark("reindex", False)
    talk.say(f"search index: {done.indexed} datasets indexed, {done.removed} removed")
    for dataset, why in done.failed.items():
        talk.warn(f"not indexed: dataset {dataset}: {why}")
    if not done.agrees:
        talk.warn(
            f"the index has {done.documents} datasets, the database {done.datasets}: "
            "`ckan db reindex` rebuilds it"
        )


@contextmanager
def _application(portal: Portal) -> Iterator[None]:
    """CKAN's application context, its application made where that was not done yet."""
    from ..engine.errors import DbmanageError, words

    app = portal.app
    if app is None:
        from ckan.config.middleware import make_app

        try:
            made: Any = make_app(portal.settings)  # type: ignore[arg-type]
            app = made._wsgi_app
        except Exception as error:
            raise DbmanageError(f"CKAN could not be started: {words(error)}") from error
    with app.test_request_context():
        yield
