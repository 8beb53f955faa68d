"""Maintenance for visitors: one look into Redis a request, and a calm page.

Stands before Flask, so that a page is answered while the database is away. Redis that
does not answer lets everything through. What was set by hand lets sysadmins in, to look
and to end it; what an operation holds lets nobody in. Needs no application context.
"""

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import redis
from babel import Locale
from jinja2 import Environment, FileSystemLoader, Template
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response

from ..engine.clock import now, parse_stamp
from ..engine.errors import ConnectionFailed
from ..engine.redis.client import LIMIT, key_of
from ..engine.redis.maintenance import AWAY, READ_ONLY, understood
from ..portal.config import Options
from . import helpers
from .address import Prefixes
from .sysadmins import KNOWN, MAINTENANCE, PAGE, Marks

Start = Callable[..., Any]

#: seconds until the next try, told to browsers and clients
_RETRY = {AWAY: "20", READ_ONLY: "5"}
#: what core's own plugins read by POST
_READING = re.compile(r"/datatables/(ajax|filtered-download)/")
#: the sysadmin page writes to no database, and ends the maintenance too
_OURS = re.compile(r"/ckan-admin/backups/|/api/(3/)?action/dbmanage_")
_ACTION = re.compile(r"/api/(?:3/)?action/([A-Za-z0-9_]+)/?")
#: the form that makes somebody known, and what its page needs to look like one
_SIGN_IN = "/user/login"
_LOOKS = re.compile(r"/(webassets|base)/")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
#: up to so many seconds are a moment; a person can say for how long
_MOMENT = 60
#: for how long a Redis that did not answer is not asked again
_REST = 1.0


class MaintenanceMiddleware:
    """A WSGI application that asks for the site's maintenance before another one."""

    def __init__(self, app: Callable[..., Any], options: Options) -> None:
        self._app = app
        self._options = options
        self._key = key_of(options.databases["database"].url)
        self._health = options.health_paths
        self._prefixes = Prefixes(options)
        self._marks = Marks(options)
        self._client: Any = None
        self._process = 0
        self._asleep = 0.0

    def __call__(
        self, environ: dict[str, Any], start_response: Start
    ) -> Iterable[bytes]:
        known = understood(self._value())
        if known is None:
            return self._app(environ, start_response)
        environ[MAINTENANCE] = known
        method = environ["REQUEST_METHOD"]
        language, path = self._language_and_path(environ)
        if known["level"] != AWAY and _reads(method, path):
            return self._app(environ, start_response)
        page = partial(self._page, known, method, language, path)
        answer: Any = None
        if not known["token"]:  # else an operation may be renaming the databases
            if _signs_in(environ, path):
                answer = self._let_in(environ)
            elif self._marks.of(environ) and _reads(method, path):
                environ[PAGE] = page  # for whoever is no sysadmin any more
                answer = self._let_in(environ)
        return (answer or page())(environ, start_response)

    def _value(self) -> bytes | None:
        if self._asleep and time.monotonic() < self._asleep:
            return None
        try:
            if self._process != os.getpid():  # a connection does not survive a fork
                self._client = redis.Redis.from_url(
                    self._options.redis_url,
                    socket_timeout=0.25,
                    socket_connect_timeout=0.25,
                )
                # after the client: another thread may be asking already
                self._process = os.getpid()
            found = self._client.getrange(self._key, 0, LIMIT - 1)
        except (redis.RedisError, ValueError):  # ValueError: the URL is none
            self._asleep = time.monotonic() + _REST
            return None
        self._asleep = 0.0
        return found

    def _let_in(self, environ: dict[str, Any]) -> Callable[..., Iterable[bytes]] | None:
        """The site's own answer; None where its database is away, or nobody is let in.

        A wrong password gets its form again, whoever's it is; a right one of somebody
        who is no sysadmin gets nothing.
        """
        seen = environ[KNOWN] = {}
        try:
            body, status, headers = run_wsgi_app(self._app, environ)
        except Exception:
            if self._has_database():
                raise
            return None
        if environ["REQUEST_METHOD"] == "POST" and PAGE not in environ:
            fits = status.startswith("200") or seen.get("sysadmin", False)
        else:
            fits = not status.startswith("5") or self._has_database()
        if not fits:
            getattr(body, "close", int)()
            return None

        def answer(_: dict[str, Any], start_response: Start) -> Iterable[bytes]:
            start_response(status, list(headers))
            return body

        return answer

    def _has_database(self) -> bool:
        try:
            self._options.databases["database"].connect(connect_timeout=2).close()
        except ConnectionFailed:
            return False
        return True

    def _page(
        self, known: Mapping[str, Any], method: str, language: str, path: str
    ) -> Response:
        """What is answered in place of the site's own."""
        level = known["level"]
        if level == AWAY and path in self._health:
            return _json(200, {"success": True, "result": {"maintenance": "away"}})
        if path.startswith("/api/"):
            end = f"until about {known['until']}" if _lasts(known) else "for a moment"
            message = (
                f"The site is closed for maintenance {end}: try again"
                if level == AWAY
                else f"Saving is paused {end}, and nothing was changed: try again"
            )
            error = {"__type": "Service Unavailable", "message": message}
            response = _json(503, {"success": False, "error": error})
        else:
            posted = method not in ("GET", "HEAD")
            response = _page(self._options, known, language, posted)
        response.headers["Retry-After"] = _RETRY[level]
        return response

    def _language_and_path(self, environ: Mapping[str, Any]) -> tuple[str, str]:
        """The language that the visitor wants, and the path without its prefixes."""
        language, path = self._prefixes.split(environ)
        # CKAN 2.10 and 2.11 take the language off the path before us
        given = environ.get("CKAN_LANG_IS_DEFAULT") is False
        wanted = [str(environ.get("CKAN_LANG"))] if given else []
        wanted += [language] if language else []
        for each in environ.get("HTTP_ACCEPT_LANGUAGE", "").split(","):
            wanted.append(each.split(";")[0].strip())
        wanted += [self._options.text("ckan.locale_default"), "en"]
        offered = set(_texts(self._options))
        for each in wanted:
            short = re.split("[-_]", each)[0].lower()
            if short in offered:
                return short, path
        return next(iter(offered)), path


def _reads(method: str, path: str) -> bool:
    """Whether a request only reads: API actions that are `side_effect_free` do."""
    action = _ACTION.fullmatch(path)
    # CKAN refuses a saving action by GET, but not by HEAD
    if method in ("GET", "OPTIONS") or (method == "HEAD" and action is None):
        return True
    if _READING.match(path) or _OURS.match(path):
        return True
    if method not in ("POST", "HEAD") or action is None:
        return False
    from ckan.logic import get_action

    try:
        return bool(getattr(get_action(action[1]), "side_effect_free", False))
    except KeyError:
        return True  # core answers that there is none


def _signs_in(environ: Mapping[str, Any], path: str) -> bool:
    """Whether a request is for the form that makes a sysadmin known, or sends it."""
    if environ["REQUEST_METHOD"] == "POST":
        kind = environ.get("CONTENT_TYPE", "")
        return path == _SIGN_IN and kind.startswith(_FORMS)
    reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
    return reads and (path == _SIGN_IN or bool(_LOOKS.match(path)))


def _lasts(known: Mapping[str, Any]) -> bool:
    """Whether a person said how long it is, and that is more than a moment."""
    if known["reason"] in ("restore", "upgrade") or not known["until"]:
        return False
    return (parse_stamp(known["until"]) - now()).total_seconds() > _MOMENT


def _json(status: int, document: Mapping[str, Any]) -> Response:
    return _response(status, "application/json", json.dumps(document))


def _response(status: int, kind: str, body: str) -> Response:
    response = Response(body, status, content_type=kind)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


# ------------------------------------------------------------------------- the page


_DIRECTORY = Path(__file__).parent.parent / "templates" / "dbmanage"


@cache
def _template() -> Template:
    environment = Environment(loader=FileSystemLoader(_DIRECTORY), autoescape=True)
    return environment.get_template("maintenance.html")


@cache
def _all_texts() -> dict[str, dict[str, str]]:
    return json.loads((_DIRECTORY / "maintenance.json").read_text("utf-8"))


def _texts(options: Options) -> dict[str, dict[str, str]]:
    """The page's words by language, of the languages that the site offers."""
    every = _all_texts()
    offered = {re.split("[-_]", each)[0] for each in options.locales}
    return {k: v for k, v in every.items() if k in offered or not offered} or {
        "en": every["en"]
    }


def _words(options: Options, known: Mapping[str, Any], language: str) -> dict[str, str]:
    """What the page says in a language."""
    t, about = dict(_all_texts()[language]), known["reason"]
    about = about if about in ("restore", "upgrade") else "by_hand"
    where, zone = Locale.parse(language), helpers.zone_of(options)
    until = helpers.hour(known["until"], zone, where) if _lasts(known) else ""
    away = "away" if known["level"] == AWAY else "reading"
    how_long = "until" if until else "moment" if about != "upgrade" else "soon"
    heading, what = t[f"{away}_{how_long}"], t[f"{away}_{how_long}_what"]
    if away == "away":
        what = f"{t[about]} {what}"
    t |= {"heading": heading, "what": what}
    began = helpers.hour(known["since"], zone, where)
    known_words = {"{s}": options.site_title, "{a}": began, "{u}": until}
    shown = (
        "name", "heading", "what", "when", "self", "again", "still", "late", "post",
        "reference", "back", "sign_in",
    )  # fmt: skip
    return {
        each: re.sub("{[sau]}", lambda match: known_words[match[0]], t[each])
        for each in shown
    }


def _page(
    options: Options, known: Mapping[str, Any], language: str, posted: bool
) -> Response:
    """The page, which allows nothing but its own style and script to be used."""
    texts = {each: _words(options, known, each) for each in _texts(options)}
    by_hand = known["level"] == AWAY and not known["token"]
    page = _template().render(
        site=options.site_title,
        texts=texts,
        t=texts[language],
        language=language,
        directions={
            k: "rtl" if k in ("ar", "fa", "he", "ur") else "ltr" for k in texts
        },
        away=known["level"] == AWAY,
        lasts=_lasts(known),
        reference=known["reference"],
        posted=posted,
        sign_in=options.address(_SIGN_IN) if by_hand else "",
    )
    policy = ["default-src 'none'", "img-src data:", "connect-src 'self'"]
    for tag in ("style", "script"):
        blocks = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [hashlib.sha256(block.encode()).digest() for block in blocks]
        hashes = [f"'sha256-{base64.b64encode(d).decode()}'" for d in digests]
        policy.append(f"{tag}-src {' '.join(hashes)}")
    response = _response(503, "text/html; charset=utf-8", page)
    response.headers["Content-Security-Policy"] = "; ".join(policy)
    return response
