"""Configuration: CKAN's settings, frozen; one property an option.

The defaults of this extension's own options stand in config_declaration.yaml, and
nowhere else; what each option is for is said there too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.util import asbool

from ..engine.clock import seconds_of
from ..engine.errors import Refused
from ..engine.layout import PARTS
from ..engine.postgres.database import Database
from ..engine.printable import one_line
from ..engine.report import NAMES
from ..engine.words import alike

Config = Mapping[str, Any]
PREFIX = "ckanext.dbmanage."
#: of a number: with more days, hours or nights no date could be counted; its digits
_MOST, _DIGITS = 99_999, 20
_DECLARATION = Path(__file__).parent.parent / "config_declaration.yaml"

NAMES |= {
    "command": "ckan db",
    # parts of a backup; where they are typed, as after `--only`, their own names stand
    "datastore": "DataStore",
    "files": "uploads",
    # what CKAN keeps beside the uploads, and makes again
    "not uploads": "webassets i18n",
    "without uploads": "with `--only database`",
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


@cache
def _declared() -> Mapping[str, Config]:
    """This extension's options as they are declared; CKAN may not have started."""
    # libyaml, where PyYAML has it, is ten times as quick
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    declared = yaml.load(_DECLARATION.read_text("utf-8"), loader)  # noqa: S506
    options = [option for group in declared["groups"] for option in group["options"]]
    return {option["key"]: option for option in options}


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _text(option: str, default: str = "") -> cached_property[str]:
    """A property: a text. `default` is CKAN's, for an option of its own."""
    return cached_property(lambda options: options.text(option) or default)


def _words(option: str) -> cached_property[list[str]]:
    """A property: words, which spaces part."""
    return cached_property(lambda options: options.words(option))


def _number(option: str, least: int = 0, most: int = _MOST) -> cached_property[int]:
    """A property: a whole number, from the least to the most."""
    return cached_property(lambda options: options.number(option, least, most))


def _choice(option: str, *choices: str) -> cached_property[str]:
    """A property: one of some words."""

    def chosen(options: Options) -> str:
        value = options.text(option)
        if value not in choices:
            raise Refused(f"{option} is {value!r}: choose from {', '.join(choices)}")
        return value

    return cached_property(chosen)


@dataclass(frozen=True, eq=False, repr=False)
class Options:
    """The options of a site, each looked at once, when it is asked for.

    `settings` is CKAN's configuration as it was then; only what walks other plugins'
    options looks into it. Each property raises Refused where its option is not what it
    has to be.
    """

    settings: Config

    def __post_init__(self) -> None:
        frozen = MappingProxyType(dict(self.settings))
        object.__setattr__(self, "settings", frozen)

    # -- CKAN's own

    site_id = _text("ckan.site_id", "default")
    site_title = _text("ckan.site_title", "CKAN")
    storage_path = _text("ckan.storage_path")
    redis_url = _text("ckan.redis.url", "redis://localhost:6379/0")
    plugins = _words("ckan.plugins")

    def is_site_title(self, typed: str) -> bool:
        """Whether somebody has typed the site's name; capitals do not matter."""
        return _plain(typed) == _plain(self.site_title)

    @property
    def site_address(self) -> str:
        """What a site is told by: its address without `https://`, else its name."""
        return self.site_url.partition("://")[2] or self.site_title

    @cached_property
    def site_url(self) -> str:
        """The site's address, no slash at its end, or empty."""
        return self.text("ckan.site_url").rstrip("/")

    @cached_property
    def locales(self) -> list[str]:
        """The languages that the site offers, none when it offers all there are."""
        offered = self.words("ckan.locales_offered")
        default = self.words("ckan.locale_default") if offered else []
        return list(dict.fromkeys([*offered, *default]))

    @cached_property
    def hides_deleted(self) -> bool:
        """Whether deleted datasets are taken out of the search index."""
        value = self.settings.get("ckan.search.remove_deleted_packages")
        return asbool(True if value in (None, "") else value)

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What the site signs with, then what it signed with before."""
        first = self.text("SECRET_KEY") or self.text("beaker.session.secret")
        if not first:
            raise Refused("neither SECRET_KEY nor beaker.session.secret is set")
        return first, *self.words("SECRET_KEY_FALLBACKS")

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

    # -- backups

    repository = _text(PREFIX + "repository")
    jobs = _number(PREFIX + "jobs", least=1)
    pg_bin = _text(PREFIX + "pg_bin")
    undo_days = _number(PREFIX + "undo_days")
    prove_every = _number(PREFIX + "prove_every")
    web_restore = _choice(PREFIX + "web_restore", "armed", "always", "never")

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of a backup when the command names none; all when empty."""
        return tuple(self.words(PREFIX + "parts"))

    @cached_property
    def scratch_templates(self) -> dict[str, str]:
        """The databases that scratch databases are made from, by part."""
        return {
            "database": self.text(PREFIX + "scratch_template"),
            "datastore": self.text(PREFIX + "datastore_scratch_template"),
        }

    @cached_property
    def retention(self) -> dict[str, int]:
        """How many backups are kept: by the rules that `ruled` tells of, and `min`."""
        return {
            "last": self.number(PREFIX + "keep_last"),
            "within": self._seconds(PREFIX + "keep_within"),
            "hours": self.number(PREFIX + "keep_hourly"),
            "days": self.number(PREFIX + "keep_daily"),
            "weeks": self.number(PREFIX + "keep_weekly"),
            "months": self.number(PREFIX + "keep_monthly"),
            "years": self.number(PREFIX + "keep_yearly"),
            "min": self.number(PREFIX + "keep_min", least=1),
        }

    # -- the other place

    remote_repository = _text(PREFIX + "remote.repository")
    remote_password_file = _text(PREFIX + "remote.password_file")
    remote_env_file = _text(PREFIX + "remote.env_file")
    remote_limit_upload = _number(PREFIX + "remote.limit_upload", most=10**9)

    @cached_property
    def remote_retention(self) -> dict[str, int]:
        """How many backups are kept there, as `retention`; the last one in any case."""
        return {
            "last": self.number(PREFIX + "remote.keep_last", least=1),
            "within": self._seconds(PREFIX + "remote.keep_within"),
            "hours": self.number(PREFIX + "remote.keep_hourly"),
            "days": self.number(PREFIX + "remote.keep_daily"),
            "weeks": self.number(PREFIX + "remote.keep_weekly"),
            "months": self.number(PREFIX + "remote.keep_monthly"),
            "years": self.number(PREFIX + "remote.keep_yearly"),
        }

    # -- who watches, and who is told

    notify_email = _words(PREFIX + "notify.email")
    notify_apprise_file = _text(PREFIX + "notify.apprise_file")
    notify_ping_file = _text(PREFIX + "notify.ping_file")

    @cached_property
    def limits(self) -> dict[str, timedelta]:
        """How old things may be, by what: `backup`, `proof`, `push`, `publish`."""
        return {
            "backup": timedelta(hours=self.number(PREFIX + "watch.backup_hours")),
            "proof": timedelta(days=self.number(PREFIX + "watch.proof_days")),
            "push": timedelta(hours=self.number(PREFIX + "watch.push_hours")),
            "publish": timedelta(hours=self.number(PREFIX + "watch.publish_hours")),
        }

    @cached_property
    def health_paths(self) -> frozenset[str]:
        """The addresses that are answered with 200 while the site is away."""
        return frozenset(self.words(PREFIX + "health_paths"))

    # -- public dumps

    public_dir = _text(PREFIX + "public_dir")
    public_licence = _text(PREFIX + "public_licence")
    public_contact = _text(PREFIX + "public_contact")
    sendfile = _words(PREFIX + "sendfile")

    @cached_property
    def public_path(self) -> str:
        """The address of the public dumps on the site: `/dump`, no slash at its end."""
        path = self.text(PREFIX + "public_path")
        if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?", path):
            raise Refused(
                f"ckanext.dbmanage.public_path is {path!r}, not a path such as /dump"
            )
        return path.rstrip("/")

    @cached_property
    def public_root(self) -> str:
        """The path of the public dumps on the host, `ckan.root_path` before it."""
        return self.address(self.public_path)

    def address(self, path: str) -> str:
        """A path of the site on its host: `ckan.root_path` before it, no language."""
        root = self.text("ckan.root_path").replace("/{{LANG}}", "").rstrip("/")
        return root + path

    def mistyped(self) -> Iterator[str]:
        """A sentence for each option that is meant for this extension, and is none."""
        from difflib import get_close_matches

        before = {each.get("legacy_key") for each in _declared().values()}
        for option in sorted(self.settings.keys() - _declared().keys() - before):
            if get_close_matches("dbmanage", option.split("."), 1, 0.8):
                near = alike(option, _declared(), 1)
                yield f"{one_line(option)} is no option, and does nothing{near}"

    # -- any option, by its name

    def text(self, option: str) -> str:
        """An option as a text; its default where it is empty."""
        given = str(self.settings.get(option) or "").strip()
        return given or str(self._default(option))

    def words(self, option: str) -> list[str]:
        """An option as words, which spaces part; its default where it is not set."""
        value = self.settings.get(option)
        value = self._default(option) if value is None else value
        return value.split() if isinstance(value, str) else list(map(str, value))

    def number(self, option: str, least: int = 0, most: int = _MOST) -> int:
        """An option as a whole number. Raises Refused for one out of these bounds."""
        value = self.settings.get(option)
        if value in (None, "") and (before := _declared()[option].get("legacy_key")):
            value = self.settings.get(before)  # CKAN does this where it starts
        text = str(self._default(option) if value in (None, "") else value).strip()
        is_short = text.isdecimal() and len(text) <= _DIGITS
        if not is_short or not least <= int(text) <= most:
            raise Refused(
                f"{option} is {text[:_DIGITS]!r}, not a number from {least} to {most}"
            )
        return int(text)

    def _seconds(self, option: str) -> int:
        """An option as a time, 0 where it is empty. Raises Refused where it is none."""
        if not (text := self.text(option)):
            return 0
        try:
            return seconds_of(text)
        except ValueError as error:
            raise Refused(f"{option}: {error}") from None

    def _default(self, option: str) -> Any:
        if not option.startswith(PREFIX):
            return ""
        return _declared()[option].get("default", "")

    def _url(self, option: str) -> URL | None:
        value = self.text(option)
        if not value:
            return None
        try:
            return make_url(value)
        except (ArgumentError, ValueError):  # whose message holds the password
            raise Refused(
                f"{option} is not a URL that SQLAlchemy understands"
            ) from None
