"""The one builder of a `Site`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ..engine.site import Site
from .config import Options
from .directories import has_public_dir, public_dir, repository_directory
from .uploads import uploads


class Migrations(NamedTuple):
    """What the installed code of CKAN or a plugin knows of its schema's revisions."""

    heads: frozenset[str]
    revisions: frozenset[str]


def build_site(
    options: Options,
    migrations: Mapping[str, Migrations] | None = None,
    *,
    stored: bool = True,
) -> Site:
    """The site, as the engine wants to know it; unless `stored` without a repository.

    Raises Refused.
    """
    known = options.secrets
    token = options.text("api_token.jwt.decode.secret") or f"string:{known[0]}"
    directories, elsewhere = uploads(options)
    installed = migrations or {}
    return Site(
        id=options.site_id,
        url=options.text("ckan.site_url"),
        repository=repository_directory(options) if stored else "",
        databases=options.databases,
        secrets=known,
        token_secret=token,
        versions={
            "ckan": _version("ckan"),
            "dbmanage": _version("ckanext-dbmanage"),
            "plugins": options.plugins,
        },
        heads={table: each.heads for table, each in installed.items()},
        revisions={table: each.revisions for table, each in installed.items()},
        uploads=directories,
        uploads_elsewhere=elsewhere,
        public_dir=has_public_dir(options) and str(public_dir(options)),
        redis_url=options.redis_url,
        pg_bin=options.pg_bin,
        jobs=options.jobs,
        scratch_templates=options.scratch_templates,
        main_tables=frozenset({"package", "user"}),
    )


@lru_cache(maxsize=10)
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
