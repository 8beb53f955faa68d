"""That a repository was in use, remembered where its disk is not.

A disk that is not mounted leaves an empty directory behind, on the disk of the system.
Without a memory the next night would take a whole backup there, and nobody would see
those of before. It stands below `ckan.storage_path`, which may be on the same disk, and
in Redis, which may forget. Only an empty repository is asked about, and only at the
place where it was: a first one, a copy and another place need no word.
"""

import os
import shlex
from contextlib import suppress
from pathlib import Path

from redis import RedisError

from ..engine.clock import day_and_time, is_stamp, parse_stamp, stamp
from ..engine.disk import make_directories, write_file
from ..engine.errors import DbmanageError, Refused
from ..engine.layout import OBJECTS
from ..engine.opened import read_plain
from ..engine.redis.client import LIMIT, connect, key_of
from ..engine.redis.sealed import seal, unseal
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..portal.config import Options

_NAME = "in-use"
#: the marker of a repository that is to begin anew where one was in use
_ANEW = "anew"


def remember(options: Options, site: Site, repository: Repository) -> None:
    """Notes that there are backups. What cannot be noted is not: it raises nothing."""
    key = key_of(site.main.url, _NAME)
    facts = {"path": str(repository.path), "time": stamp()}
    sealed = seal(key, facts, site.secrets)
    with suppress(RedisError):
        connect(site.redis_url).set(key, sealed)
    if place := _place(options):
        with suppress(OSError):
            make_directories(place.parent)
            write_file(place, sealed.encode())
    with suppress(OSError):
        repository.mark(_ANEW, False)


def why_empty(options: Options, site: Site, repository: Repository) -> str:
    """Why nothing may be written to a repository that is empty; empty where it may."""
    try:
        # who has deleted all backups has the directory of their contents still
        if repository.names() or os.path.isdir(repository.path / OBJECTS):
            return ""
    except DbmanageError:  # who comes to it tells why it cannot be read
        return ""
    until = _until(options, site, repository)
    if not until or repository.marked(_ANEW):
        return ""
    path, last = shlex.quote(str(repository.path)), day_and_time(parse_stamp(until))
    command = f"mkdir -pm 700 {path} && touch {path}/.{_ANEW}"
    return (
        f"the repository {repository.path} was in use until {last}, and is empty now: "
        f"mount its disk. If it is to begin anew there, run `{command}` as CKAN's user"
    )


def refuse_empty(options: Options, site: Site, repository: Repository) -> None:
    """Raises Refused for a repository whose disk seems to be away."""
    if why := why_empty(options, site, repository):
        raise Refused(why)


def _until(options: Options, site: Site, repository: Repository) -> str:
    """Until when the repository was in use at its place, a stamp; or empty."""
    key, found = key_of(site.main.url, _NAME), list[bytes | None]()
    with suppress(RedisError):
        found.append(connect(site.redis_url).getrange(key, 0, LIMIT - 1))
    if place := _place(options):
        with suppress(OSError):
            found.append(read_plain(place, LIMIT))
    known = [unseal(key, each, site.secrets) or {} for each in found]
    times = [e["time"] for e in known if e.get("path") == str(repository.path)]
    return max(filter(is_stamp, times), default="")


def _place(options: Options) -> Path | None:
    storage = options.storage_path
    return Path(storage, "dbmanage", f"{_NAME}.json") if storage else None
