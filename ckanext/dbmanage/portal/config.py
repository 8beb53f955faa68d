"""Configuration: CKAN's settings, read once; one property an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..engine.errors import Refused
from ..engine.layout import PARTS
from ..engine.postgres.database import Database
from ..engine.report import NAMES

Config = Mapping[str, Any]
PREFIX = "ckanext.dbmanage."

NAMES |= {
    "command": "ckan db",
    "database_template": "ckan_template",
    "redis_url": "ckan.redis.url",
    "storage_path": "ckan.storage_path",
    **{
        name: PREFIX + name
        for name in (
            "admin_url", "pg_bin", "repository", "scratch_template",
            "datastore_scratch_template",
        )
    },
}  # fmt: skip


def current() -> Options:
    """The options of the CKAN that runs."""
    from ckan.common import config

    return Options(config)


class Options:
    """The options of a site, each looked at once, when it is asked for.

    `settings` is CKAN's configuration as it was then. Each property raises Refused
    where its option is not what it has to be.
    """

    def __init__(self, settings: Config) -> None:
        self.settings = MappingProxyType(dict(settings))

    @cached_property
    def site_title(self) -> str:
        """What the site calls itself."""
        return self.text("ckan.site_title") or "CKAN"

    @cached_property
    def site_url(self) -> str:
        """The site's address, no slash at its end, or empty."""
        return self.text("ckan.site_url").rstrip("/")

    @cached_property
    def site_id(self) -> str:
        """The site's id."""
        return self.text("ckan.site_id") or "default"

    @cached_property
    def public_path(self) -> str:
        """The address of the public dumps on the site: `/dump`, no slash at its end."""
        path = self.text(PREFIX + "public_path") or "/dump"
        if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?", path):
            raise Refused(
                f"ckanext.dbmanage.public_path is {path!r}, not a path such as /dump"
            )
        return path.rstrip("/")

    @cached_property
    def public_root(self) -> str:
        """The path of the public dumps on the host, `ckan.root_path` before it."""
        root = self.text("ckan.root_path").replace("/{{LANG}}", "").rstrip("/")
        return root + self.public_path

    @cached_property
    def public_licence(self) -> str:
        """The id of the licence of the public dumps themselves, or empty."""
        return self.text(PREFIX + "public_licence")

    @cached_property
    def public_contact(self) -> str:
        """Whom to ask about the public dumps: an e-mail address or a URL, or empty."""
        return self.text(PREFIX + "public_contact")

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of a backup when the command names none; all when empty."""
        value = self.settings.get(PREFIX + "parts") or ""
        return tuple(value.split() if isinstance(value, str) else value)

    @cached_property
    def jobs(self) -> int:
        """How many tables a restore loads at the same time."""
        return self._number(PREFIX + "jobs", 2, least=1)

    @cached_property
    def pg_bin(self) -> str:
        """The directory of the client programs, empty to search for them."""
        return self.text(PREFIX + "pg_bin")

    @cached_property
    def scratch_templates(self) -> dict[str, str]:
        """The databases that scratch databases are made from, by part."""
        return {
            "database": self.text(PREFIX + "scratch_template") or "template0",
            "datastore": self.text(PREFIX + "datastore_scratch_template")
            or "template0",
        }

    @cached_property
    def databases(self) -> dict[str, Database]:
        """The site's databases by part, `database` first."""
        main = self._url("sqlalchemy.url")
        if main is None:
            raise Refused("sqlalchemy.url is not set in CKAN's configuration")
        admin = self._url(PREFIX + "admin_url")
        found = {"database": Database("database", main, "sqlalchemy.url", None, admin)}
        option = "ckan.datastore.write_url"
        write = self._url(option)
        if write is not None and "datastore" in self.plugins:
            # an admin_url is a way to the main database's server and to no other
            ours = (write.host, write.port) == (main.host, main.port)
            read = self._url("ckan.datastore.read_url")
            found["datastore"] = Database(
                "datastore", write, option, read, admin if ours else None
            )
        assert set(found) <= set(PARTS)
        return found

    @cached_property
    def plugins(self) -> list[str]:
        """The enabled plugins."""
        value = self.settings.get("ckan.plugins") or []
        return value.split() if isinstance(value, str) else list(value)

    @cached_property
    def locales(self) -> list[str]:
        """The languages that the site offers, none when it offers all there are."""
        value = self.settings.get("ckan.locales_offered") or []
        offered = value.split() if isinstance(value, str) else list(value)
        default = self.text("ckan.locale_default")
        return list(
            dict.fromkeys(
                [*offered, *([default] if default else [])] if offered else []
            )
        )

    @cached_property
    def redis_url(self) -> str:
        """Redis, as CKAN itself finds it."""
        return self.text("ckan.redis.url") or "redis://localhost:6379/0"

    @cached_property
    def undo_days(self) -> int:
        """For how many days what a switch replaced is kept."""
        return self._number(PREFIX + "undo_days", 7)

    @cached_property
    def retention(self) -> dict[str, int]:
        """How many backups are kept: `last`, `days`, `weeks`, `months`, `min`."""
        return {
            "last": self._number(PREFIX + "keep_last", 3),
            "days": self._number(PREFIX + "keep_days", 7),
            "weeks": self._number(PREFIX + "keep_weeks", 4),
            "months": self._number(PREFIX + "keep_months", 6),
            "min": self._number(PREFIX + "keep_min", 1, least=1),
        }

    @cached_property
    def web_restore(self) -> str:
        """`armed`, `always` or `never`: what the web page may do."""
        value = self.text(PREFIX + "web_restore") or "armed"
        if value not in ("armed", "always", "never"):
            raise Refused(
                f"ckanext.dbmanage.web_restore is {value!r}: choose from armed, "
                "always, never"
            )
        return value

    @cached_property
    def health_paths(self) -> frozenset[str]:
        """The addresses that are answered with 200 while the site is away."""
        value = self.settings.get(PREFIX + "health_paths")
        if value is None:
            return frozenset({"/api/action/status_show", "/api/3/action/status_show"})
        return frozenset(value.split() if isinstance(value, str) else value)

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What the site signs with, then what it signed with before. Raises Refused."""
        first = self.text("SECRET_KEY") or self.text("beaker.session.secret")
        older = self.settings.get("SECRET_KEY_FALLBACKS") or []
        older = older.split() if isinstance(older, str) else older
        if not first:
            raise Refused("neither SECRET_KEY nor beaker.session.secret is set")
        return first, *map(str, older)

    def text(self, option: str) -> str:
        return str(self.settings.get(option) or "").strip()

    def _number(self, option: str, default: int, least: int = 0) -> int:
        value = self.settings.get(option)
        text = str(default if value in (None, "") else value).strip()
        if not text.isdecimal() or int(text) < least:
            raise Refused(f"{option} is {text!r}, not a number from {least} on")
        return int(text)

    def _url(self, option: str) -> URL | None:
        value = self.text(option)
        if not value:
            return None
        try:
            return make_url(value)
        except (
            ArgumentError,
            ValueError,
        ):  # its message holds the URL, so the password
            raise Refused(
                f"{option} is not a URL that SQLAlchemy understands"
            ) from None
