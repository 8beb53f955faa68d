"""The public dumps: exports of what everyone may read, written for `/dump/`.

Knows CKAN, not the web.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import config
from .engine import Progress, published
from .engine.errors import Refused
from .engine.lines import Written, compressed
from .export import Export, Exported, Wanted

FORMAT = 1


def publish(
    app: Any,
    settings: Mapping[str, Any],
    fresh: bool = False,
    jobs: int = 2,
    progress: Progress = lambda *_: None,
) -> tuple[dict[str, Exported], list[str]]:
    """Writes the public dumps anew; what was exported by kind, and which files changed.

    A file whose content is the same stays. All files appear at once, or none. Raises
    Refused when visitors may not read the site, Busy, and OSError.
    """
    _refuse_a_closed_site(app)
    directory = config.public_dir(settings)
    done, files = {}, []
    with (
        published.writing(directory) as upcoming,
        Export(app, Wanted(fresh=fresh), jobs) as moment,
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
                    kind, functools.partial(_each, writes), progress=progress
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
                    modified=_now(),
                )
                for path, target in targets
            ]
        snapshot = moment.moment.astimezone(timezone.utc).replace(tzinfo=None)
        site = str(settings.get("ckan.site_url") or "").rstrip("/")
        about = {
            "version": FORMAT,
            "title": str(settings.get("ckan.site_title") or ""),
            "url": f"{site}{config.public_root(settings)}/",
            "snapshot": f"{snapshot.isoformat(timespec='microseconds')}Z",
            "published": _now(),
            "licence": _licence(config.public_licence(settings)),
        }
        _, changed = published.commit(directory, files, about)
    return done, changed


def _each(writes: list[Callable[[bytes], Any]], lines: bytes) -> None:
    for write in writes:
        write(lines)


@contextlib.contextmanager
def _new(path: Path) -> Any:
    with open(path, "xb") as file:
        yield path, Written(file)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


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


def _refuse_a_closed_site(app: Any) -> None:
    """A site that visitors may not read has nothing to publish."""
    from ckan.authz import auth_functions_list
    from ckan.logic import NotAuthorized, check_access

    # 2.12 has none any more; a plugin may still bring it
    if "site_read" not in auth_functions_list():
        return
    with app.test_request_context():
        try:
            check_access("site_read", {"user": ""}, {})
        except NotAuthorized:
            raise Refused(
                "visitors who are not signed in may not read this site: nothing of it "
                "is published"
            ) from None
