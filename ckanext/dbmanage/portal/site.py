"""The one builder of a `Site`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ..engine.site import Site
from .config import (
    Config,
    databases,
    jobs,
    pg_bin,
    plugins,
    redis_url,
    scratch_templates,
    secrets,
    text_of,
)
from .directories import has_public_dir, public_dir, repository_directory
from .uploads import uploads


class Migrations(NamedTuple):
    """What the installed code of CKAN or a plugin knows of its schema's revisions."""

    heads: frozenset[str]
    revisions: frozenset[str]


def build_site(
    config: Config,
    migrations: Mapping[str, Migrations] | None = None,
    *,
    stored: bool = True,
) -> Site:
    """The site, as the engine wants to know it; unless `stored` without a repository.

    Raises Refused.
    """
    known = secrets(config)
    token = text_of(config, "api_token.jwt.decode.secret") or f"string:{known[0]}"
    directories, elsewhere = uploads(config)
    installed = migrations or {}
    return Site(
        id=text_of(config, "ckan.site_id") or "default",
        url=text_of(config, "ckan.site_url"),
        repository=repository_directory(config) if stored else "",
        databases=databases(config),
        secrets=known,
        token_secret=token,
        versions={
            "ckan": _version("ckan"),
            "dbmanage": _version("ckanext-dbmanage"),
            "plugins": plugins(config),
        },
        heads={table: each.heads for table, each in installed.items()},
        revisions={table: each.revisions for table, each in installed.items()},
        uploads=directories,
        uploads_elsewhere=elsewhere,
        public_dir=has_public_dir(config) and str(public_dir(config)),
        redis_url=redis_url(config),
        pg_bin=pg_bin(config),
        jobs=jobs(config),
        scratch_templates=scratch_templates(config),
    )


@lru_cache(maxsize=10)
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
