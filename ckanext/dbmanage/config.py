"""Configuration: one accessor an option, and the site as the engine wants it.

The only place that reads CKAN's configuration. Works from CKAN's own `config` object
and, when CKAN cannot start, from the dictionary that `ckan.cli.load_config` gives, so
it must not need an application, a database or loaded plugins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .engine import Site
from .engine.backup import PARTS
from .engine.errors import Refused
from .engine.postgres import Database

Config = Mapping[str, Any]
_PREFIX = "ckanext.dbmanage."


def repository(config: Config) -> str:
    """The directory of the backups. Raises Refused when visitors could read it."""
    path = _text(config, _PREFIX + "repository")
    storage = _text(config, "ckan.storage_path")
    if not path:
        if not storage:
            raise Refused(
                "no place for backups: set ckanext.dbmanage.repository (or "
                "ckan.storage_path, then they go to dbmanage/backups below it)"
            )
        path = os.path.join(storage, "dbmanage", "backups")
    real = Path(path).expanduser().resolve()
    for option, served in _served(config, storage):
        folder = Path(served).expanduser().resolve()
        if real == folder or folder in real.parents:
            raise Refused(
                f"the repository {path} is inside {served}, which CKAN serves to "
                f"visitors ({option}): set ckanext.dbmanage.repository to another place"
            )
    return str(real)


def parts(config: Config) -> tuple[str, ...]:
    """The parts of a backup when the command names none; all when empty."""
    value = config.get(_PREFIX + "parts") or ""
    return tuple(value.split() if isinstance(value, str) else value)


def jobs(config: Config) -> int:
    """How many tables a restore loads at the same time."""
    value = _text(config, _PREFIX + "jobs") or "2"
    if not value.isdecimal() or value == "0":
        raise Refused(f"{_PREFIX}jobs is {value!r}, not a number from 1 on")
    return int(value)


def pg_bin(config: Config) -> str:
    """The directory of the client programs, empty to search for them."""
    return _text(config, _PREFIX + "pg_bin")


def scratch_template(config: Config) -> str:
    """The database that scratch databases are made from."""
    return _text(config, _PREFIX + "scratch_template") or "template0"


def databases(config: Config) -> dict[str, Database]:
    """The site's databases by part, `database` first."""
    main = _url(config, "sqlalchemy.url")
    if main is None:
        raise Refused("sqlalchemy.url is not set in CKAN's configuration")
    admin = _url(config, _PREFIX + "admin_url")
    found = {"database": Database("database", main, "sqlalchemy.url", None, admin)}
    option = "ckan.datastore.write_url"
    write = _url(config, option)
    if write is not None and "datastore" in plugins(config):
        # an admin_url is a way to the main database's server and to no other
        ours = (write.host, write.port) == (main.host, main.port)
        read = _url(config, "ckan.datastore.read_url")
        found["datastore"] = Database(
            "datastore", write, option, read, admin if ours else None
        )
    assert set(found) <= set(PARTS)
    return found


def plugins(config: Config) -> list[str]:
    """The enabled plugins."""
    value = config.get("ckan.plugins") or []
    return value.split() if isinstance(value, str) else list(value)


def site(config: Config, heads: Mapping[str, frozenset[str]] | None = None) -> Site:
    """The site, as the engine wants to know it. Raises Refused."""
    first = _text(config, "SECRET_KEY") or _text(config, "beaker.session.secret")
    older = config.get("SECRET_KEY_FALLBACKS") or []
    older = older.split() if isinstance(older, str) else older
    if not first:
        raise Refused("neither SECRET_KEY nor beaker.session.secret is set")
    token = _text(config, "api_token.jwt.decode.secret") or f"string:{first}"
    return Site(
        id=_text(config, "ckan.site_id") or "default",
        url=_text(config, "ckan.site_url"),
        repository=repository(config),
        databases=databases(config),
        secrets=(first, *map(str, older)),
        token_secret=token,
        versions={
            "ckan": _version("ckan"),
            "dbmanage": _version("ckanext-dbmanage"),
            "plugins": plugins(config),
        },
        heads=heads or {},
        pg_bin=pg_bin(config),
        jobs=jobs(config),
        scratch_template=scratch_template(config),
    )


def _text(config: Config, option: str) -> str:
    return str(config.get(option) or "").strip()


def _url(config: Config, option: str) -> URL | None:
    value = _text(config, option)
    if not value:
        return None
    try:
        return make_url(value)
    except (ArgumentError, ValueError):  # its message holds the URL, so the password
        raise Refused(f"{option} is not a URL that SQLAlchemy understands") from None


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _served(config: Config, storage: str) -> list[tuple[str, str]]:
    """Options and directories whose files CKAN hands to visitors."""
    served = []
    if storage:
        served += [
            ("ckan.storage_path", os.path.join(storage, name))
            for name in ("storage", "resources", "webassets")
        ]
    for option in ("extra_public_paths", "plugin_public_paths", "ckan.webassets.path"):
        value = config.get(option) or []
        folders = value.split(",") if isinstance(value, str) else value
        served += [(option, str(folder).strip()) for folder in folders if folder]
    served += [
        (option, str(value))
        for option, value in config.items()
        if value
        and option.startswith("ckan.files.storage.")
        and option.endswith(".path")
    ]
    public = _text(config, "ckan.base_public_folder") or "public"
    served.append((public, str(_package_directory() / public)))
    return served


def _package_directory() -> Path:
    from importlib.util import find_spec

    spec = find_spec("ckan")
    assert spec is not None and spec.submodule_search_locations
    return Path(list(spec.submodule_search_locations)[0])
