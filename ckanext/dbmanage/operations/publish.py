"""The public dumps: exports of what everyone may read, written for `/dump/`.

Knows CKAN, not the web.
"""

import contextlib
import functools
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from ..engine.clock import precise_stamp, stamp
from ..engine.disk import FULL, named
from ..engine.errors import DbmanageError, Refused, explanation_of
from ..engine.postgres.again import again
from ..engine.signals import uninterrupted
from ..engine.signature import Hashed
from ..portal import signals
from ..portal.config import Options
from ..portal.directories import public_dir
from ..portal.site import build_site
from ..records import published
from ..records.export import Export, Exported
from ..records.jsonl import compressed
from ..records.kinds import Wanted
from ..records.published import Published
from .context import Portal, refuse_root
from .index import catch_up
from .journal import journalled
from .stages import staged

FORMAT = 1
#: so many records of a kind, or a tenth of them, may be missing in a set that replaces
#: one in which they are not
_FEW = 10


class Incomplete(DbmanageError):
    """Too many records could not be shown: the set of before stays published.

    `exported` is what was exported by kind, with what failed.
    """

    def __init__(self, exported: Mapping[str, Exported], before: Published) -> None:
        self.exported = exported
        short = [
            f"{len(each.failed)} of {each.rows + len(each.failed)} {kind} could not be "
            f"shown (the first: {each.failed[0]})"
            for kind, each in exported.items()
            if each.failed
        ]
        super().__init__(
            f"not published: {', '.join(short)}. The set of "
            f"{before.document['published']} stays; to replace it by one without "
            f"these, remove {published.INDEX} from ckanext.dbmanage.public_dir before"
        )


@signals.failures("publish")
def run_publish(
    portal: Portal, fresh: bool = False, jobs: int | None = None
) -> tuple[dict[str, Exported], list[str]]:
    """Writes the public dumps anew; what was exported by kind, and which files changed.

    A file whose content is the same stays. All files appear at once, or none. It needs
    no repository. Raises Refused when visitors may not read the site, and for root
    where a directory is another user's; Incomplete, Busy, and OSError, of a full disk
    DbmanageError.
    """
    refuse_root(build_site(portal.options, stored=False))
    with journalled(portal, "publish", "publish") as (repository, facts):
        if repository:
            try:
                catch_up(portal, repository)
            except OSError as error:  # a repository may be there to be read only
                portal.talk.warn(
                    f"the search index is still out of date: {explanation_of(error)}"
                )
        _refuse_a_closed_site(portal.app, portal.options)
        with (
            _room(public_dir(portal.options)),
            staged(portal, repository, "publish", published.KINDS),
        ):
            done, changed = again(
                "the publication",
                lambda: _publish(portal, fresh, jobs or portal.options.jobs),
                portal.talk.warn,
            )
        facts["rows"] = {kind: each.rows for kind, each in done.items()}
    return done, changed


def _publish(
    portal: Portal, fresh: bool, jobs: int
) -> tuple[dict[str, Exported], list[str]]:
    options = portal.options
    directory = public_dir(options)
    done, files = {}, []
    with (
        published.writing(directory) as upcoming,
        Export(portal.app, options, Wanted(fresh=fresh), jobs) as moment,
    ):
        for kind in published.KINDS:
            with contextlib.ExitStack() as stack:
                targets = [
                    stack.enter_context(_new(upcoming / f"{kind}.jsonl.{suffix}"))
                    for suffix in published.TYPES
                ]
                writes = [
                    stack.enter_context(compressed(target, path.name))
                    for path, target in targets
                ]
                done[kind] = moment.write(
                    kind,
                    functools.partial(_each, writes),
                    progress=portal.talk.rows,
                )
            files += [
                published.File(
                    name=path.name,
                    kind=kind,
                    rows=done[kind].rows,
                    failed=len(done[kind].failed),
                    bytes=target.bytes,
                    uncompressed=done[kind].bytes,
                    sha256=target.sha256,
                    modified=stamp(),
                )
                for path, target in targets
            ]
        before = published.read(directory)
        if before and _is_worse(before, done) and _may_stay(directory, before, moment):
            raise Incomplete(done, before)
        about = {
            "version": FORMAT,
            "title": options.site_title,
            "url": f"{options.site_url}{options.public_root}/",
            "snapshot": precise_stamp(moment.moment),
            "published": stamp(),
            "licence": _licence(options.public_licence),
        }
        with uninterrupted():
            _, changed = published.commit(directory, files, about)
            portal.talk.standing.done = "The public dumps are published"
    return done, changed


def _each(writes: list[Callable[[bytes], Any]], lines: bytes) -> None:
    for write in writes:
        write(lines)


@contextlib.contextmanager
def _new(path: Path) -> Any:
    with named(path), open(path, "xb") as file:
        yield path, Hashed(file)


@contextlib.contextmanager
def _room(directory: Path) -> Iterator[None]:
    """Says what to do when the disk is full: the set of before is untouched."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DbmanageError(
            f"not published: {explanation_of(error)}. What was published stays; make "
            f"room for a second set in {directory}, then `ckan db publish`"
        ) from error


def _licence(id: str) -> dict[str, str] | None:
    if not id:
        return None
    from ckan import model

    found = model.Package.get_license_register().get(id)
    if found is None:
        raise Refused(
            f"ckanext.dbmanage.public_licence is {id!r}, which is not among the "
            "licences of `license_list`"
        )
    return {"id": id, "title": found.title, "url": found.url or ""}


def _is_worse(before: Published, done: Mapping[str, Exported]) -> bool:
    """Whether so much fails of a kind that the set of before serves visitors better.

    What is gone, private or hidden now does not count: it is to be missing.
    """
    for file in before.files.values():
        now = done[file.kind]
        failed = len(now.failed)
        many = failed > max(_FEW, (now.rows + failed) // 10, file.failed)
        if file.rows and failed and (many or not now.rows):
            return True
    return False


def _may_stay(directory: Path, before: Published, moment: Export) -> bool:
    """Whether visitors may still read every record of the set of before."""
    try:
        return not any(
            moment.refused(file.kind, _ids(directory, file))
            for file in before.files.values()
            if file.name.endswith(".gz")
        )
    except (OSError, EOFError, zlib.error, ValueError, KeyError):
        return False  # nobody knows what is in it


def _ids(directory: Path, file: published.File) -> Iterator[str]:
    found = published.find(directory, file)
    if found is None:
        raise ValueError(file.name)
    with found[1] as packed, gzip.open(packed) as lines:
        for line in lines:
            yield orjson.loads(line)["id"]


def _refuse_a_closed_site(app: Any, options: Options) -> None:
    """A site that visitors may not read has nothing to publish."""
    from ckan.authz import auth_functions_list
    from ckan.logic import NotAuthorized, check_access

    # 2.12 has none any more; a plugin may still bring it
    if "site_read" in auth_functions_list():
        with app.test_request_context():
            try:
                check_access("site_read", {"user": ""}, {})
            except NotAuthorized:
                raise Refused(
                    "visitors who are not signed in may not read this site: nothing of "
                    "it is published"
                ) from None
    # what a plugin demands before a request is no rule of access that CKAN knows
    for action in ("package_search?rows=0", "package_list?limit=1"):
        path = f"/api/3/action/{action}"
        address = options.text("ckan.site_url") or None
        status = app.test_client().get(path, base_url=address).status_code
        if status == 200:
            return
        # a search engine that is away says nothing of who may read
        if status < 500 and status != 409:
            break
    raise Refused(
        f"a visitor who is not signed in and asks for {path} is answered {status}: "
        "nothing of this site is published. If everyone may read it, let visitors read "
        "its API; if not, stop the timer of `ckan db publish`"
    )
