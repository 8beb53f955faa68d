"""Configuration: one accessor an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..engine.errors import Refused
from ..engine.layout import PARTS
from ..engine.postgres.database import Database

Config = Mapping[str, Any]
PREFIX = "ckanext.dbmanage."


def public_path(config: Config) -> str:
    """The address of the public dumps on the site: `/dump`, no slash at its end."""
    path = text_of(config, PREFIX + "public_path") or "/dump"
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?", path):
        raise Refused(
            f"ckanext.dbmanage.public_path is {path!r}, not a path such as /dump"
        )
    return path.rstrip("/")


def public_root(config: Config) -> str:
    """Where the public dumps are on the host: `ckan.root_path`, and their address."""
    root = text_of(config, "ckan.root_path").replace("/{{LANG}}", "").rstrip("/")
    return root + public_path(config)


def public_licence(config: Config) -> str:
    """The id of the licence of the public dumps themselves, empty when none is said."""
    return text_of(config, PREFIX + "public_licence")


def public_contact(config: Config) -> str:
    """Whom to ask about the public dumps: an e-mail address or a URL, or empty."""
    return text_of(config, PREFIX + "public_contact")


def parts(config: Config) -> tuple[str, ...]:
    """The parts of a backup when the command names none; all when empty."""
    value = config.get(PREFIX + "parts") or ""
    return tuple(value.split() if isinstance(value, str) else value)


def jobs(config: Config) -> int:
    """How many tables a restore loads at the same time."""
    return _number(config, PREFIX + "jobs", 2, least=1)


def pg_bin(config: Config) -> str:
    """The directory of the client programs, empty to search for them."""
    return text_of(config, PREFIX + "pg_bin")


def scratch_templates(config: Config) -> dict[str, str]:
    """The databases that scratch databases are made from, by part."""
    return {
        "database": text_of(config, PREFIX + "scratch_template") or "template0",
        "datastore": text_of(config, PREFIX + "datastore_scratch_template")
        or "template0",
    }


def databases(config: Config) -> dict[str, Database]:
    """The site's databases by part, `database` first."""
    main = _url(config, "sqlalchemy.url")
    if main is None:
        raise Refused("sqlalchemy.url is not set in CKAN's configuration")
    admin = _url(config, PREFIX + "admin_url")
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


def locales(config: Config) -> list[str]:
    """The languages that the site offers, none when it offers all there are."""
    value = config.get("ckan.locales_offered") or []
    offered = value.split() if isinstance(value, str) else list(value)
    default = text_of(config, "ckan.locale_default")
    return list(
        dict.fromkeys([*offered, *([default] if default else [])] if offered else [])
    )


def redis_url(config: Config) -> str:
    """Redis, as CKAN itself finds it."""
    return text_of(config, "ckan.redis.url") or "redis://localhost:6379/0"


def undo_days(config: Config) -> int:
    """For how many days the databases and uploads that a switch replaced are kept."""
    return _number(config, PREFIX + "undo_days", 7)


def retention(config: Config) -> dict[str, int]:
    """How many backups are kept: `last`, `days`, `weeks`, `months`, at least `min`."""
    return {
        "last": _number(config, PREFIX + "keep_last", 3),
        "days": _number(config, PREFIX + "keep_days", 7),
        "weeks": _number(config, PREFIX + "keep_weeks", 4),
        "months": _number(config, PREFIX + "keep_months", 6),
        "min": _number(config, PREFIX + "keep_min", 1, least=1),
    }


def web_restore(config: Config) -> str:
    """`armed`, `always` or `never`: whether the web page restores, deletes, hands out.

    Raises Refused.
    """
    value = text_of(config, PREFIX + "web_restore") or "armed"
    if value not in ("armed", "always", "never"):
        raise Refused(
            f"ckanext.dbmanage.web_restore is {value!r}: choose from armed, always, "
            "never"
        )
    return value


def health_paths(config: Config) -> frozenset[str]:
    """The addresses that are answered with 200 while the site is away."""
    value = config.get(PREFIX + "health_paths")
    if value is None:
        return frozenset({"/api/action/status_show", "/api/3/action/status_show"})
    return frozenset(value.split() if isinstance(value, str) else value)


def secrets(config: Config) -> tuple[str, ...]:
    """What the site signs with, then what it signed with before. Raises Refused."""
    first = text_of(config, "SECRET_KEY") or text_of(config, "beaker.session.secret")
    older = config.get("SECRET_KEY_FALLBACKS") or []
    older = older.split() if isinstance(older, str) else older
    if not first:
        raise Refused("neither SECRET_KEY nor beaker.session.secret is set")
    return first, *map(str, older)


def text_of(config: Config, option: str) -> str:
    return str(config.get(option) or "").strip()


def _number(config: Config, option: str, default: int, least: int = 0) -> int:
    value = config.get(option)
    text = str(default if value in (None, "") else value).strip()
    if not text.isdecimal() or int(text) < least:
        raise Refused(f"{option} is {text!r}, not a number from {least} on")
    return int(text)


def _url(config: Config, option: str) -> URL | None:
    value = text_of(config, option)
    if not value:
        return None
    try:
        return make_url(value)
    except (ArgumentError, ValueError):  # its message holds the URL, so the password
        raise Refused(f"{option} is not a URL that SQLAlchemy understands") from None
