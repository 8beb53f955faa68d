"""The blueprint: for sysadmins alone, and how a page calls an action."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ckan.plugins import toolkit as tk
from flask import Blueprint, Response, redirect, request
from flask_wtf.csrf import CSRFError

admin = Blueprint("dbmanage_admin", __name__, url_prefix="/ckan-admin/backups")

_POLICY = (
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)


@admin.before_request
def guard() -> Any:
    """Sysadmins only, and no form that another site has sent."""
    from ckan.config.middleware.flask_app import csrf

    user = tk.current_user
    if not user.is_authenticated:
        if request.method not in ("GET", "HEAD"):
            return _again(), 403
        if not request.path.endswith("/live"):
            return tk.redirect_to("user.login", came_from=request.full_path)
        return tk.abort(403, tk._("Sign in, then try again"))
    try:
        tk.check_access("sysadmin", _context(), {})  # type: ignore[arg-type]
    except tk.NotAuthorized:
        return tk.abort(403, tk._("Need to be system administrator to administer"))
    # 2.10 and 2.11 exempt the blueprints of plugins
    csrf.protect()
    return None


@admin.errorhandler(CSRFError)
def expired(_: Exception) -> Any:
    """A form that stood open for too long; 2.12 looks before the guard does."""
    return _again(), 400


def _again() -> str:
    """The page that says what to do instead of sending the form once more."""
    # a path of a form only is not the page that has it
    came = urlsplit(request.referrer or "")
    own = came.netloc == request.host and came.path.startswith(to_index())
    page = came.path if own else to_index()
    extra = {"page": page, "signed_in": tk.current_user.is_authenticated}
    return tk.render("dbmanage/admin/again.html", extra)


@admin.after_request
def headers(response: Response) -> Response:
    """What keeps these pages out of frames and caches."""
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "no-store"
    request.environ["__no_cache__"] = True  # else core calls it public
    return response


def _context() -> dict[str, Any]:
    return {"user": tk.current_user.name, "auth_user_obj": tk.current_user}


def call_action(name: str, **data: Any) -> Any:
    """An action; what is not there is 404, what is not allowed 403."""
    try:
        return tk.get_action(f"dbmanage_{name}")(_context(), data)  # type: ignore[arg-type]
    except tk.ObjectNotFound as error:
        return tk.abort(404, str(error))


def look(name: str, **data: Any) -> Any:
    """An action that reads; why it cannot is the page then."""
    try:
        return call_action(name, **data)
    except tk.ValidationError as error:
        return tk.abort(503, said(error))


def said(error: Any) -> str:
    """A ValidationError in one sentence."""
    return "; ".join(
        str(each) for told in error.error_dict.values() for each in _listed(told)
    )


def errors_of(error: Any) -> dict[str, list[str]]:
    return {k: [str(each) for each in _listed(v)] for k, v in error.error_dict.items()}


def _listed(told: Any) -> list[Any]:
    return told if isinstance(told, list) else [told]


def do(name: str, success: str, back: str, **data: Any) -> Any:
    """An action of a form, what came of it said on the next page."""
    try:
        call_action(name, **data)
        if success:
            tk.h.flash_success(success)
    except tk.ValidationError as error:
        tk.h.flash_error(said(error))
    except tk.NotAuthorized as error:
        tk.h.flash_error(str(error))
    return redirect(back)


def to_index() -> str:
    return tk.url_for("dbmanage_admin.index")


def page_of(id: str) -> str:
    return tk.url_for("dbmanage_admin.show", id=id)
