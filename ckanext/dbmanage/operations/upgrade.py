"""An upgrade: planned, rehearsed on copies, switched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..engine.backup.take import take
from ..engine.errors import Busy, Refused, Written
from ..engine.operation import Operation
from ..engine.postgres import sessions
from ..engine.postgres.database import closing
from ..engine.postgres.locks import live_lock
from ..engine.redis.maintenance import READ_ONLY, Maintenance
from ..engine.repository import prune, retention
from ..engine.repository.repository import Repository
from ..engine.restore import written
from ..engine.restore.copies import loaded_copies, stages_of
from ..engine.restore.preflight import changed_owners, may_create, preflight
from ..engine.restore.restore import Restored, restore_backup
from ..engine.restore.source import Source, open_source
from ..engine.site import Site
from ..portal import blockers, migrate, signals
from ..portal.migrate import Report
from ..portal.plan import Plan, Wanted, plan
from ..portal.site import build_site
from .context import Portal
from .in_use import refuse_empty
from .index import catch_up, open_to_change, owing_an_index
from .locked import let_go, settle
from .restore import OWES_INDEX, after_switch
from .stages import OF_PRUNE, of_backup, staged

#: copies that are made, one after the other, because somebody wrote meanwhile
_COPIES = 3
#: what CKAN writes when somebody who is signed in, or has a token, reads a page
_TOUCHED = {"public.user": "last_active", "public.api_token": "last_access"}


@signals.failures("upgrade")
def run_upgrade(
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
    talk, options = portal.talk, portal.options
    # a portal that is at its head needs no place for backups
    site = build_site(options, migrations=True, stored=False)
    known = plan(options, site, wanted)
    if not known.steps and not known.blockers:
        planned(known)
        return None
    site, repository = open_to_change(portal, heads=True)
    refuse_empty(options, site, repository)
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
        settle(site, repository, talk)
        planned(known)
        let_go()
        keeper = Maintenance(site.redis_url, site.databases["database"].url)
        what = "rehearsal" if rehearse else "in place" if in_place else "upgrade"
        with staged(portal, repository, what, _ahead(portal, site, what, no_backup)):
            if rehearse:
                with _backed_up(portal, known, repository, report, no_backup) as source:
                    _rehearse(portal, known, repository, source, report)
                return None
            with keeper.held("upgrade", "upgrade", talk.warn) as to:
                if in_place:
                    _in_place(portal, known, repository, report, no_backup, to)
                    return None
                switched = _upgraded(portal, known, repository, report, no_backup, to)
            after_switch(portal, repository, switched)
    return switched


def _ahead(portal: Portal, site: Site, what: str, no_backup: bool) -> list[str]:
    """The stages of an upgrade, of its rehearsal, or of one `in place`."""
    parts = list(site.databases)
    copies = [] if what == "in place" else stages_of(parts)
    after = {"in place": [], "rehearsal": ["check"], "upgrade": ["check", "switch"]}
    forget = OF_PRUNE if no_backup else ()
    index = ["index"] if portal.app and what != "rehearsal" else []
    return [*of_backup(parts), *copies, "migrate", *after[what], *forget, *index]


def _in_place(
    portal: Portal,
    known: Plan,
    repository: Repository,
    report: Report,
    no_backup: bool,
    to: Callable[[str], None],
) -> None:
    """Migrates the live databases themselves, after a backup."""
    site, talk = known.site, portal.talk
    to(READ_ONLY)
    with (
        _backed_up(portal, known, repository, report, no_backup),
        live_lock(site.main),
    ):
        repository.mark("reindex", True)  # before: who ends this may be quick
        talk.standing.owed[:] = [OWES_INDEX]
        talk.standing.done = (
            "Some migrations may be in the live database: `ckan db upgrade "
            "--in-place` goes on, a restore of the backup goes back"
        )
        talk.progress("migrate", 0, 0)
        migrate.migrate_live(portal.options, known, report, portal.talk.warn)
        talk.standing.done = "The live database is migrated"
    catch_up(portal, repository)
    talk.standing.owed.clear()


def _may_copy(site: Site) -> None:
    for database in site.databases.values():
        with closing(database.maintenance()) as connection:
            try:
                may_create(site, connection, database)
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
    talk = portal.talk
    report.lap("")
    op = Operation(known.site, repository, talk)
    taken = take(op, parts=tuple(known.site.databases), reason="before upgrade")
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
            try:
                prune.prune_backups(repository, decisions, talk.progress)
            except Busy as error:
                talk.warn(f"backup {taken.id}, of the state before, is kept: {error}")
            else:
                talk.standing.made.clear()
        else:
            talk.say(f"the state before is backup {taken.id}")


def _rehearse(
    portal: Portal, known: Plan, repository: Repository, source: Source, report: Report
) -> None:
    talk = portal.talk
    preflight(known.site, repository, source)
    _refuse_other_owners(known.site, source)
    prepare = migrate.migrated(portal.options, known, report, talk)
    with loaded_copies(Operation(known.site, repository, talk), source, prepare):
        report.lap("statistics")


def _refuse_other_owners(site: Site, source: Source) -> None:
    """Nobody asked for a restore: what is live stays its owner's."""
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
    site, talk = known.site, portal.talk
    to(READ_ONLY)
    sessions.settle(site.databases)
    since = written.since(site, _TOUCHED)
    with _backed_up(portal, known, repository, report, forget) as source:
        preflight(site, repository, source)
        _refuse_other_owners(site, source)
        try:
            talk.standing.owed[:] = [OWES_INDEX]
            with owing_an_index(site, repository, True):
                switched = restore_backup(
                    Operation(site, repository, talk), source,
                    migrate.migrated(portal.options, known, report, talk),
                    what="upgrade", since=since,
                )  # fmt: skip
        except Written as error:
            if copies == 1:
                raise
            talk.warn(f"{error}. Another copy is made")
        else:
            report.lap("statistics and switch")
            return switched
    return _upgraded(portal, known, repository, report, forget, to, copies - 1)
