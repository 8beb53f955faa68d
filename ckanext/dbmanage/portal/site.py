"""The one builder of a `Site`."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from ..engine.site import Site
from .advice import ADVICE, MAIN_TABLES
from .config import Options
from .directories import has_public_dir, public_dir, repository_directory
from .indexed import INDEXED
from .uploads import uploads


def build_site(
    options: Options, *, migrations: bool = False, stored: bool = True
) -> Site:
    """The site, as the engine wants to know it. Raises Refused.

    With `migrations` it knows the installed ones, which takes a moment; unless `stored`
    it has no repository.
    """
    installed = {}
    if migrations:  # alembic is slow to import
        from .installed import installed_migrations

        installed = installed_migrations(options.plugins)
    token = options.text("api_token.jwt.decode.secret")
    directories, elsewhere, named = uploads(options)
    return Site(
        id=options.site_id,
        url=options.text("ckan.site_url"),
        repository=repository_directory(options) if stored else "",
        databases=options.databases,
        secrets=options.secrets,
        token_secret=token or f"string:{options.secrets[0]}",
        versions={
            "ckan": _version("ckan"),
            "dbmanage": _version("ckanext-dbmanage"),
            "plugins": options.plugins,
        },
        heads={table: each.heads for table, each in installed.items()},
        revisions={table: each.revisions for table, each in installed.items()},
        uploads=directories,
        uploads_elsewhere=elsewhere,
        named_uploads=named,
        indexed=INDEXED,
        public_dir=str(public_dir(options)) if has_public_dir(options) else "",
        redis_url=options.redis_url,
        pg_bin=options.pg_bin,
        jobs=options.jobs,
        scratch_templates=options.scratch_templates,
        main_tables=MAIN_TABLES,
        advice=ADVICE,
    )


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
