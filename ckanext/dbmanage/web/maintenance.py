"""Maintenance for visitors: one look into Redis a request, and a calm page.

Stands before Flask, so that a page is answered while the database is away. Redis that
does not answer lets everything through. Needs no application context.
"""

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import redis
from jinja2 import Environment, FileSystemLoader, Template
from werkzeug.wrappers import Response

from ..engine.redis.client import LIMIT, key_of
from ..engine.redis.maintenance import AWAY, READ_ONLY, understood
from ..portal.config import Options
from .address import Prefixes

Start = Callable[..., Any]

#: seconds until the next try, told to browsers and clients
_RETRY = {AWAY: "20", READ_ONLY: "5"}
#: what core's own plugins read by POST
_READING = re.compile(r"/datatables/(ajax|filtered-download)/")
#: the sysadmin page writes to no database, and ends the maintenance too
_OURS = re.compile(r"/ckan-admin/backups/|/api/(3/)?action/dbmanage_")
_ACTION = re.compile(r"/api/(?:3/)?action/([A-Za-z0-9_]+)/?")
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
        self._client: Any = None
        self._process = 0
        self._asleep = 0.0

    def __call__(
        self, environ: dict[str, Any], start_response: Start
    ) -> Iterable[bytes]:
        known = understood(self._value())
        answer = None if known is None else self._answer(known, environ)
        return (answer or self._app)(environ, start_response)

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

    def _answer(
        self, known: Mapping[str, Any], environ: Mapping[str, Any]
    ) -> Response | None:
        """The answer in place of the site's own; None where that one may be given."""
        level, method = known["level"], environ["REQUEST_METHOD"]
        language, path = self._language_and_path(environ)
        if level == AWAY and path in self._health:
            return _json(200, {"success": True, "result": {"maintenance": "away"}})
        if level != AWAY and _reads(method, path):
            return None
        if path.startswith("/api/"):
            message = (
                "The site is closed for maintenance: try again later"
                if level == AWAY
                else "Saving is paused and nothing was changed: try again in a moment"
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


def _page(
    options: Options, known: Mapping[str, Any], language: str, posted: bool
) -> Response:
    """The page, which allows nothing but its own style and script to be used."""
    texts = _texts(options)
    page = _template().render(
        site=options.site_title,
        texts=texts,
        t=texts[language],
        language=language,
        directions={
            k: "rtl" if k in ("ar", "fa", "he", "ur") else "ltr" for k in texts
        },
        level=known["level"],
        reason=known.get("reason"),
        began=str(known.get("since") or "")[11:16],
        reference=known.get("reference") or "",
        posted=posted,
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
