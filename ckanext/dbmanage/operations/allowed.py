"""What may be done with a backup, by what is known of it: restored here, deleted.

The sysadmin page asks this of each backup that it shows.
"""

from collections.abc import Set
from typing import Any

from ..engine.errors import Refused
from ..engine.repository.backup import Backup, why_partial
from ..engine.site import Site
from ..portal.config import Options
from ..portal.site import build_site

Described = dict[str, Any]


def unfit(options: Options, found: Backup) -> str:
    """Why a backup cannot be restored here, empty when nothing is known against it."""
    # what reads archives and migrations: no `ckan` command needs it to start
    from ..engine.restore.preflight import outdated

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
    try:
        site = build_site(options, migrations=True)
        for part, about in found.manifest["databases"].items():
            if part not in site.databases:
                raise Refused("it holds the DataStore, this site has none")
            if part == "database":
                outdated(found.id, about["migrations"], site)
    except Refused as error:
        return str(error)
    return ""


def wanted(site: Site, options: Options) -> set[str]:
    """The parts that a whole backup of the site has."""
    there = {*site.databases, *(["files"] if site.uploads else [])}
    return set(options.parts) or there


def having(described: list[Described], parts: Set[str]) -> list[Described]:
    """Those of the backups that have all of the parts, and all of the uploads."""
    return [
        each
        for each in described
        if parts <= set(each["parts"]) and not why_partial(each["files"])
    ]


def must_stay(
    about: Described, described: list[Described], whole: list[Described]
) -> str:
    """Why a backup may not be deleted by hand, empty when it may.

    It stays while it is held, and as the newest proven one (without any proven one:
    the newest verified) of those `described`, or of those that are `whole`. Both are
    sorted, the newest first, as `Backup.describe` tells.
    """
    if about["keep"]:
        return "it is held: stop holding it first"
    for among in (described, whole):
        for state in ("proven", "verified"):
            newest = next((each for each in among if each["state"] == state), None)
            if newest is not None:
                if newest["id"] == about["id"]:
                    return f"it is the newest {state} one"
                break
    return ""
