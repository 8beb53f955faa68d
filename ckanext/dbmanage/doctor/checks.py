"""Checks that need no CKAN."""

import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path

from ..engine import owner
from ..engine.archive import extensions
from ..engine.postgres.database import closing, server_major
from ..engine.postgres.programs import dump_tools
from ..engine.postgres.tables import unreadable
from ..engine.redis.maintenance import Maintenance
from ..engine.report import name_of
from ..engine.repository import backup
from ..engine.repository.repository import Repository
from ..engine.restore.history import half_way
from ..engine.restore.preflight import may_create
from ..engine.restore.schema_public import open_in_a_copy
from ..engine.site import Site
from ..engine.uploads.folders import folders_of
from ..engine.words import size
from ..operations import ages, notify
from ..operations.ages import Age
from ..operations.context import Portal
from ..operations.in_use import why_empty
from ..operations.safety import GOOD, needed
from ..portal.doors import ping_url
from ..records import published as dumps
from .finding import HINT, OK, PROBLEM, Found, in_words


def databases(_: Portal, site: Site, __: Repository) -> Found:
    for part, database in site.databases.items():
        with closing(database.connect()) as connection:
            major = server_major(connection)
            closed = unreadable(connection)
        yield OK, f"the {name_of(part)} {database.name!r} answers, PostgreSQL {major}"
        if closed:
            yield (
                PROBLEM,
                f"CKAN's role may not read all of the {name_of(part)}, so no backup "
                f"can be taken: as the owner of the tables run {' '.join(closed)}",
            )


def rights(_: Portal, site: Site, __: Repository) -> Found:
    for database in site.databases.values():
        with closing(database.maintenance()) as connection:
            may_create(site, connection, database)
        if open_ := open_in_a_copy(site, database):
            yield PROBLEM, f"a restore of {database.name!r} would be refused: {open_}"
    yield OK, "copies can be made beside the live databases"
    for database in site.databases.values():
        for sentence, hinders in extensions.missing_in_copies(site, database):
            yield PROBLEM if hinders else HINT, sentence


def programs(_: Portal, site: Site, __: Repository) -> Found:
    majors = set()
    for database in site.databases.values():
        with closing(database.connect()) as connection:
            majors.add(server_major(connection))
    for major in sorted(majors):
        tools = dump_tools(major, site.pg_bin)
        yield OK, f"pg_dump {tools.major} serves PostgreSQL {major}"


def repository_directory(portal: Portal, site: Site, repository: Repository) -> Found:
    path = repository.path
    if why := why_empty(portal.options, site, repository):
        yield PROBLEM, why
        return
    if not path.is_dir():
        yield HINT, f"{path} is made by the first `ckan db backup`"
        return
    places = [path, *site.uploads.values()]
    if os.geteuid() == 0 and (found := owner.foreign(places)):
        directory, user = found
        yield (
            HINT,
            f"this runs as root, and {directory} belongs to the user {user}: what "
            f"writes is refused to root; run commands by `sudo -u {user}`",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        yield PROBLEM, f"{path} may not be written to by this user: chown it to CKAN's"
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield PROBLEM, f"{path} may be read by others: chmod 700 {path}"
    free = shutil.disk_usage(path).free
    described = (b.describe() for b in repository.backups() if b.signed)
    newest = next((each for each in described if each["state"] in GOOD), None)
    if newest and free < needed(newest):
        yield (
            PROBLEM,
            f"{size(free)} are free in {path}, and the next backup needs about "
            f"{size(needed(newest))}: make room, or `ckan db prune`",
        )
    elif not mode & 0o077:
        yield OK, f"{path} can be written to, {size(free)} are free"


def backups(portal: Portal, site: Site, repository: Repository) -> Found:
    described = [backup.describe() for backup in repository.backups()]
    good = [d for d in described if d["state"] in GOOD and not d["future"]]
    for each in described:
        if each["state"] == "unreadable":
            yield PROBLEM, f"backup {each['id']} {each['problems'][0]}"
        if each["future"]:
            yield (
                PROBLEM,
                f"backup {each['id']} has a date in the future: set the clock if it is "
                f"wrong; else it was wrong then, and `ckan db forget {each['id']}` "
                "deletes what nobody can date",
            )
        if each["state"] == "damaged":
            yield (
                PROBLEM,
                f"backup {each['id']} is damaged: `ckan db verify {each['id']}`",
            )
    if foreign := [each["id"] for each in described if each["state"] == "foreign"]:
        yield (
            HINT,
            f"backups that this site has not signed: {len(foreign)}, the newest is "
            f"{foreign[0]}. If another site keeps its backups here too, give each a "
            f"repository of its own: set {name_of('repository')}",
        )
    if sum(d["state"] == "unverified" for d in described) > len(good):
        yield HINT, "most backups were never read again: `ckan db verify --all`"
    if not good and why_empty(portal.options, site, repository):
        return  # which the check of the repository tells
    if not good:
        yield PROBLEM, "there is no verified backup: `ckan db backup` takes one"
        return
    age = Age(portal.options.limits[ages.BACKUP], ages.known_time(good[0]["created"]))
    mend = "`ckan db backup`, nightly by a timer"
    yield aged(age, "the newest verified backup", "is {} old", mend)


def aged(
    age: Age, what: str, how: str, mend: str, most: str = PROBLEM
) -> tuple[str, str]:
    """What a check says of an age; what is more than late is `most`."""
    if age.seconds is None:
        when = f"its date, {age.time}, is in the future" if age.time else "it has none"
        return HINT, f"nobody knows the age of {what}: {when}; {mend}"
    said = f"{what} {how.format(in_words(timedelta(seconds=age.seconds)))}"
    if not age.overdue:
        return OK, said
    return most if age.stale else HINT, f"{said}: {mend}"


def proof(portal: Portal, site: Site, repository: Repository) -> Found:
    described = [backup.describe() for backup in repository.backups()]
    proven = [d for d in described if d["state"] == "proven" and not d["future"]]
    if not proven:
        yield HINT, "no backup was proven yet: `ckan db verify --prove`"
        return
    age = Age(portal.options.limits[ages.PROOF], ages.known_time(proven[0]["proved"]))
    what, mend = f"backup {proven[0]['id']}", "`ckan db verify --prove`"
    yield aged(age, what, "was proven {} ago", mend, HINT)


def told(portal: Portal, site: Site, _: Repository) -> Found:
    doors = notify.all_doors(portal, site)
    yield from ((PROBLEM, f"{each.name}: {each.shut}") for each in doors if each.shut)
    if doors and not any(each.shut for each in doors):
        yield OK, f"{', '.join(each.name for each in doors)} would be told"
    if portal.options.notify_ping_file:
        ping_url(portal.options)


def switch(_: Portal, site: Site, repository: Repository) -> Found:
    half = half_way(site, repository)
    if half:
        yield (
            PROBLEM,
            f"operation {half[-1]} is half-way: `ckan db doctor --fix` "
            "finishes it or turns it back",
        )
    else:
        yield OK, "no restore is half-way"
    if repository.marked("reindex"):
        yield (
            PROBLEM,
            "the search index still shows the state before a restore: `ckan db doctor "
            "--fix`, or `ckan search-index rebuild`",
        )


def maintenance(_: Portal, site: Site, __: Repository) -> Found:
    keeper = Maintenance(site.redis_url, site.databases["database"].url)
    status = keeper.status()
    if status is None:
        yield OK, "the site is open"
        return
    yield (
        HINT,
        f"the site is {status['level']} ({status['reason']}), by {status['owner']} "
        f"since {status['since']}, for {status['seconds_left']:.0f} s more: "
        "`ckan db maintenance off` ends it",
    )


def configuration(portal: Portal, _: Site, __: Repository) -> Found:
    for sentence in portal.options.mistyped():
        yield PROBLEM, sentence


def plugin(_: Portal, site: Site, __: Repository) -> Found:
    plugins = site.versions.get("plugins")
    if isinstance(plugins, list) and "dbmanage" in plugins:
        yield OK, "the plugin is enabled"
    else:
        yield (
            PROBLEM,
            "dbmanage is not in ckan.plugins: visitors see no maintenance page",
        )


def uploads(_: Portal, site: Site, repository: Repository) -> Found:
    for sentence in site.uploads_elsewhere:
        yield HINT, f"{sentence}: it is in no backup"
    for folder in folders_of(site.uploads, repository.path):
        if not os.access(folder.path, os.W_OK | os.X_OK):
            yield PROBLEM, f"{folder.path} may not be written to by this user"
        else:
            yield OK, f"uploads in {folder.path}"
    for directory in site.uploads.values():
        if not Path(directory).is_dir():
            yield HINT, f"{directory} is not there yet"
    taken = (
        backup.files
        for backup in repository.backups()
        # not the ones of what a restore replaced
        if backup.signed and backup.manifest.get("reason") == "manual"
    )
    about = next((files for files in taken if files.get("included")), {})
    if about.get("missing"):
        yield (
            HINT,
            f"{about['missing']} uploads that the database names were not on the disk "
            f"at the last backup: {'; '.join(about['examples'][:3])}",
        )
    if why := backup.why_partial(about):
        yield PROBLEM, f"the last backup is not complete: {why}"
    if about.get("refused"):
        yield HINT, f"{about['refused']} links or special files are in no backup"


def public_dumps(portal: Portal, site: Site, __: Repository) -> Found:
    if not site.public_dir:
        return
    directory = Path(site.public_dir)
    for name in dumps.foreign(directory):
        yield (
            PROBLEM,
            f"{directory / name} was not published and is answered 404: remove it",
        )
    found = dumps.read(directory)
    if found is None:
        yield OK, "no public dumps: `ckan db publish` writes them"
        return
    for name in dumps.damaged(directory, found):
        yield (
            PROBLEM,
            f"the public dump {name} is not what was published: `ckan db publish`",
        )
    missing = {file.kind: file.failed for file in found.files.values() if file.failed}
    for kind, failed in missing.items():
        yield PROBLEM, f"{failed} {kind} are missing in the public dumps, unreadable"
    limit = portal.options.limits[ages.PUBLISH]
    age = Age(limit, ages.moment_of(found.document))
    mend = "`ckan db publish`, nightly by a timer"
    yield aged(age, "the public dumps", "are {} old", mend, HINT)
