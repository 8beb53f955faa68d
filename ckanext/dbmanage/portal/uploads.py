"""Configuration: one accessor an option, and the site as the engine wants it.

The only place that reads CKAN's configuration. Works from CKAN's own `config` object
and, when CKAN cannot start, from the dictionary that `ckan.cli.load_config` gives, so
it must not need an application, a database or loaded plugins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..engine.errors import Refused
from ..engine.layout import PARTS
from ..engine.postgres.database import Database
from ..engine.site import Site

Config = Mapping[str, Any]


class Migrations(NamedTuple):
    """What the installed code of CKAN or a plugin knows of its schema's revisions."""

    heads: frozenset[str]
    revisions: frozenset[str]


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
    if found := _serving(config, real):
        option, served = found
        raise Refused(
            f"the repository {path} is inside {served}, which CKAN serves to "
            f"visitors ({option}): set ckanext.dbmanage.repository to another place"
        )
    return str(real)


def refuse_public(config: Config, file: Path, private: bool) -> None:
    """Raises Refused when an export would be where visitors may read it."""
    found = _serving(config, file.parent.resolve())
    if found and (private or found[0] == _PREFIX + "public_dir"):
        option, served = found
        raise Refused(
            f"{file} is inside {served}, which is served to visitors ({option}): only "
            "`ckan db publish` writes there; choose another place"
        )


def _serving(config: Config, real: Path) -> tuple[str, str] | None:
    """The option and the served directory that a place is in, if it is in any."""
    within = {str(real), *map(str, real.parents)}
    for option, served in _served(config, _text(config, "ckan.storage_path")):
        # strings, for this is asked at each request of the page
        if os.path.realpath(os.path.expanduser(served)) in within:
            return option, served
    return None


def public_dir(config: Config) -> Path:
    """The directory of the published dumps. Raises Refused."""
    path = _text(config, _PREFIX + "public_dir")
    storage = _text(config, "ckan.storage_path")
    if not path and not storage:
        raise Refused(
            "no place for the public dumps: set ckanext.dbmanage.public_dir (or "
            "ckan.storage_path, then they go to dbmanage/public below it)"
        )
    path = path or os.path.join(storage, "dbmanage", "public")
    return Path(path).expanduser().resolve()


def _has_public_dir(config: Config) -> str:
    return _text(config, _PREFIX + "public_dir") or _text(config, "ckan.storage_path")


def public_path(config: Config) -> str:
    """The address of the public dumps on the site: `/dump`, no slash at its end."""
    path = _text(config, _PREFIX + "public_path") or "/dump"
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?", path):
        raise Refused(
            f"ckanext.dbmanage.public_path is {path!r}, not a path such as /dump"
        )
    return path.rstrip("/")


def public_root(config: Config) -> str:
    """Where the public dumps are on the host: `ckan.root_path`, and their address."""
    root = _text(config, "ckan.root_path").replace("/{{LANG}}", "").rstrip("/")
    return root + public_path(config)


def public_licence(config: Config) -> str:
    """The id of the licence of the public dumps themselves, empty when none is said."""
    return _text(config, _PREFIX + "public_licence")


def public_contact(config: Config) -> str:
    """Whom to ask about the public dumps: an e-mail address or a URL, or empty."""
    return _text(config, _PREFIX + "public_contact")


def sendfile(config: Config, backups: bool = False) -> tuple[str, str]:
    """The header by which a web server in front sends files, and what goes before
    their name in it: of public dumps, or of downloads from the repository.

    Empty what CKAN sends itself. Raises Refused.
    """
    words = _text(config, _PREFIX + "sendfile").split()
    if not words:
        return "", ""
    header, inside = words[0].lower(), [f"{word.rstrip('/')}/" for word in words[1:]]
    internal = 1 <= len(inside) <= 2 and all(word.startswith("/") for word in inside)
    if header == "x-accel-redirect" and internal:
        if not backups:
            return "X-Accel-Redirect", inside[0]
        return ("X-Accel-Redirect", inside[1]) if len(inside) == 2 else ("", "")
    if header == "x-sendfile" and not inside:
        return "X-Sendfile", f"{repository(config) if backups else public_dir(config)}/"
    raise Refused(
        "ckanext.dbmanage.sendfile is neither `X-Sendfile` nor `X-Accel-Redirect "
        "/internal-dumps [/internal-backups]`"
    )


def parts(config: Config) -> tuple[str, ...]:
    """The parts of a backup when the command names none; all when empty."""
    value = config.get(_PREFIX + "parts") or ""
    return tuple(value.split() if isinstance(value, str) else value)


def jobs(config: Config) -> int:
    """How many tables a restore loads at the same time."""
    return _number(config, _PREFIX + "jobs", 2, least=1)


def pg_bin(config: Config) -> str:
    """The directory of the client programs, empty to search for them."""
    return _text(config, _PREFIX + "pg_bin")


def scratch_templates(config: Config) -> dict[str, str]:
    """The databases that scratch databases are made from, by part."""
    return {
        "database": _text(config, _PREFIX + "scratch_template") or "template0",
        "datastore": _text(config, _PREFIX + "datastore_scratch_template")
        or "template0",
    }


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


def uploads(config: Config) -> tuple[dict[str, str], tuple[str, ...]]:
    """The directories of the uploads by prefix, and the storages that are no directory.

    The prefix is empty for `ckan.storage_path`, `@NAME` for a file storage of CKAN 2.12
    on local disk beside it. The others, a sentence for each.
    """
    storage = _text(config, "ckan.storage_path")
    found = {"": str(Path(storage).resolve())} if storage else {}
    elsewhere = []
    for name, (kind, path) in _storages(config).items():
        if not path:
            elsewhere.append(f"the storage {name!r} ({kind}) is on no local disk")
        elif _upload_path(path, found) is None:
            found[f"@{name}"] = path
    return found, tuple(elsewhere)


def upload_bases(config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """Where an upload's path begins: by kind (`resource`, `group` …), and by storage.

    What is on no local disk is left out. As `ckan.lib.files.collect_storages` does it.
    """
    directories, _ = uploads(config)
    storages = _storages(config)
    own = {"resource": "resources"} | {
        kind: f"storage/uploads/{kind}" for kind in ("group", "user", "admin")
    }
    option = "ckan.files.default_storages."
    default = storages.get(_text(config, f"{option}default") or "default")
    bases = {}
    for kind, below in own.items():
        named = storages.get(_text(config, option + kind) or f"{kind}s")
        root = directories.get("", "")
        if named or default:
            root = named[1] if named else default[1] if default else ""
        base = root and _upload_path(
            root if named else os.path.join(root, below), directories
        )
        if base:
            bases[kind] = base
    found = {n: _upload_path(path, directories) for n, (_, path) in storages.items()}
    return bases, {name: base for name, base in found.items() if base}


def _storages(config: Config) -> dict[str, tuple[str, str]]:
    """CKAN 2.12's file storages: type, and directory where it is on local disk."""
    found = {}
    for option in sorted(config):
        match = re.fullmatch(r"ckan\.files\.storage\.(\w+)\.type", option)
        if match is not None:
            name, kind = match[1], _text(config, option)
            path = _text(config, f"ckan.files.storage.{name}.path")
            local = path and kind in ("ckan:fs", "ckan:fs:public", "file_keeper:fs")
            found[name] = kind, str(Path(path).resolve()) if local else ""
    return found


def _upload_path(path: str, directories: Mapping[str, str]) -> str | None:
    """A directory as the beginning of an upload's path."""
    for prefix, root in directories.items():
        with suppress(ValueError):
            rest = str(Path(path).relative_to(root))
            return "/".join(filter(None, [prefix, rest if rest != "." else ""]))
    return None


def locales(config: Config) -> list[str]:
    """The languages that the site offers, none when it offers all there are."""
    value = config.get("ckan.locales_offered") or []
    offered = value.split() if isinstance(value, str) else list(value)
    default = _text(config, "ckan.locale_default")
    return list(
        dict.fromkeys([*offered, *([default] if default else [])] if offered else [])
    )


def redis_url(config: Config) -> str:
    """Redis, as CKAN itself finds it."""
    return _text(config, "ckan.redis.url") or "redis://localhost:6379/0"


def undo_days(config: Config) -> int:
    """For how many days the databases and uploads that a switch replaced are kept."""
    return _number(config, _PREFIX + "undo_days", 7)


def retention(config: Config) -> dict[str, int]:
    """How many backups are kept: `last`, `days`, `weeks`, `months`, at least `min`."""
    return {
        "last": _number(config, _PREFIX + "keep_last", 3),
        "days": _number(config, _PREFIX + "keep_days", 7),
        "weeks": _number(config, _PREFIX + "keep_weeks", 4),
        "months": _number(config, _PREFIX + "keep_months", 6),
        "min": _number(config, _PREFIX + "keep_min", 1, least=1),
    }


def web_restore(config: Config) -> str:
    """`armed`, `always` or `never`: whether the web page restores, deletes, hands out.

    Raises Refused.
    """
    value = _text(config, _PREFIX + "web_restore") or "armed"
    if value not in ("armed", "always", "never"):
        raise Refused(
            f"ckanext.dbmanage.web_restore is {value!r}: choose from armed, always, "
            "never"
        )
    return value


def health_paths(config: Config) -> frozenset[str]:
    """The addresses that are answered with 200 while the site is away."""
    value = config.get(_PREFIX + "health_paths")
    if value is None:
        return frozenset({"/api/action/status_show", "/api/3/action/status_show"})
    return frozenset(value.split() if isinstance(value, str) else value)


def secrets(config: Config) -> tuple[str, ...]:
    """What the site signs with, then what it signed with before. Raises Refused."""
    first = _text(config, "SECRET_KEY") or _text(config, "beaker.session.secret")
    older = config.get("SECRET_KEY_FALLBACKS") or []
    older = older.split() if isinstance(older, str) else older
    if not first:
        raise Refused("neither SECRET_KEY nor beaker.session.secret is set")
    return first, *map(str, older)


def site(
    config: Config,
    migrations: Mapping[str, Migrations] | None = None,
    *,
    stored: bool = True,
) -> Site:
    """The site, as the engine wants to know it; unless `stored` without a repository.

    Raises Refused.
    """
    known = secrets(config)
    token = _text(config, "api_token.jwt.decode.secret") or f"string:{known[0]}"
    directories, elsewhere = uploads(config)
    installed = migrations or {}
    return Site(
        id=_text(config, "ckan.site_id") or "default",
        url=_text(config, "ckan.site_url"),
        repository=repository(config) if stored else "",
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
        public_dir=_has_public_dir(config) and str(public_dir(config)),
        redis_url=redis_url(config),
        pg_bin=pg_bin(config),
        jobs=jobs(config),
        scratch_templates=scratch_templates(config),
    )


def _text(config: Config, option: str) -> str:
    return str(config.get(option) or "").strip()


def _number(config: Config, option: str, default: int, least: int = 0) -> int:
    value = config.get(option)
    text = str(default if value in (None, "") else value).strip()
    if not text.isdecimal() or int(text) < least:
        raise Refused(f"{option} is {text!r}, not a number from {least} on")
    return int(text)


def _url(config: Config, option: str) -> URL | None:
    value = _text(config, option)
    if not value:
        return None
    try:
        return make_url(value)
    except (ArgumentError, ValueError):  # its message holds the URL, so the password
        raise Refused(f"{option} is not a URL that SQLAlchemy understands") from None


@lru_cache(maxsize=10)
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
    if _has_public_dir(config):
        served.append((_PREFIX + "public_dir", str(public_dir(config))))
    public = _text(config, "ckan.base_public_folder") or "public"
    served.append((public, str(_package_directory() / public)))
    return served


def _package_directory() -> Path:
    from importlib.util import find_spec

    spec = find_spec("ckan")
    assert spec is not None and spec.submodule_search_locations
    return Path(list(spec.submodule_search_locations)[0])
