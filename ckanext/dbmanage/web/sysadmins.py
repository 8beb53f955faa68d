"""Who is let in while visitors see the maintenance: sysadmins, and who signs in as one.

Before Flask a cookie of our own tells the browser of a sysadmin, for a database may be
away there. It opens nothing by itself: behind it CKAN says who somebody is, and who is
no sysadmin gets the maintenance page all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from ckan.plugins import toolkit as tk
from flask import has_request_context, request
from itsdangerous import BadSignature, URLSafeSerializer
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Request, Response

from ..portal.config import Options

COOKIE = "dbmanage_sysadmin"
#: in a request's environment: the maintenance that is on; what makes its page, for one
#: that is let in by its cookie; whether CKAN knows a sysadmin
MAINTENANCE, PAGE, KNOWN = (
    f"dbmanage.{name}" for name in ("maintenance", "page", "sysadmin")
)


class Marks:
    """The cookie that tells the browser of a sysadmin, signed by the site."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @cached_property
    def _signer(self) -> URLSafeSerializer:
        # the newest last, which signs
        keys = list(reversed(self._options.secrets))
        return URLSafeSerializer(keys, salt="dbmanage: browser of a sysadmin")

    def of(self, environ: Mapping[str, Any]) -> str:
        """The id of the user whose browser asks, empty where that is no sysadmin's."""
        value = Request(dict(environ)).cookies.get(COOKIE, "")
        try:
            return str(self._signer.loads(value))
        except BadSignature:
            return ""

    def put(self, response: Any) -> None:
        """Adds the cookie for the user of this request; it goes with the browser."""
        value = self._signer.dumps(tk.current_user.id)
        response.set_cookie(
            COOKIE, str(value), httponly=True, samesite="Lax", secure=request.is_secure
        )


def is_sysadmin() -> bool:
    """Whether CKAN knows the one who asks as a sysadmin."""
    try:
        user = tk.current_user
        known = user.is_authenticated and user.is_active
        return bool(known and getattr(user, "sysadmin", False))
    except SQLAlchemyError:  # the database went away
        return False


def watch(app: Any, options: Options) -> None:
    """Has the application know its sysadmins' browsers, and keep others out."""
    marks = Marks(options)

    @app.before_request
    def only_sysadmins() -> Any:
        page: Callable[[], Response] | None = request.environ.get(PAGE)
        return page() if page and not is_sysadmin() else None

    @app.after_request
    def mark(response: Any) -> Any:
        known = is_sysadmin()
        request.environ.get(KNOWN, {})["sysadmin"] = known
        # a program with a token needs none, and no cache may hand it to others
        page = not (request.path.startswith("/api/") or response.cache_control.public)
        if known and page and marks.of(request.environ) != tk.current_user.id:
            request.environ["__no_cache__"] = True
            marks.put(response)
        return response


def maintenance_by_hand() -> dict[str, str] | None:
    """For a sysadmin's pages: `{level, until}` of what was set by hand, or None."""
    known = request.environ.get(MAINTENANCE) if has_request_context() else None
    if not known or known["token"] or not is_sysadmin():
        return None
    return {key: known[key] for key in ("level", "until")}
