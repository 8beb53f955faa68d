"""The sysadmin's blueprint: for sysadmins alone, and how a page calls an action.

One guard stands before every route.
"""

from typing import Any
from urllib.parse import urlsplit

from ckan.plugins import toolkit as tk
from flask import Blueprint, Response, redirect, request
from flask_wtf.csrf import CSRFError

from ..engine.redis.arming import RESTORE, UNDO
from .helpers import translated
from .told import told

pages = Blueprint("dbmanage_admin", __name__, url_prefix="/ckan-admin/backups")

POLICY = (
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)


@pages.before_request
def only_sysadmins() -> Any:
    """Sysadmins only, and no form that another site has sent."""
    from ckan.config.middleware.flask_app import csrf

    user = tk.current_user
    if not user.is_authenticated:
        if request.method not in ("GET", "HEAD"):
            return _nothing_was_done(), 403
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


@pages.context_processor
def words() -> dict[str, Any]:
    """What the templates of these pages translate by."""
    return {"_": translated}


@pages.errorhandler(CSRFError)
def form_too_old(_: Exception) -> Any:
    """A form that stood open for too long; 2.12 looks before the guard does."""
    return _nothing_was_done(), 400


def _nothing_was_done() -> str:
    """The page that says what to do instead of sending the form once more."""
    # a path of a form only is not the page that has it
    came = urlsplit(request.referrer or "")
    own = came.netloc == request.host and came.path.startswith(index_url())
    page = came.path if own else index_url()
    extra = {"page": page, "signed_in": tk.current_user.is_authenticated}
    return tk.render("dbmanage/admin/again.html", extra)


@pages.after_request
def add_headers(response: Response) -> Response:
    """What keeps these pages out of frames and caches."""
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers["Cache-Control"] = "no-store"
    request.environ["__no_cache__"] = True  # else core calls it public
    return response


# ------------------------------------------------------------------- calling actions


def read(name: str, /, **data: Any) -> Any:
    """What an action that reads returns; why it cannot is the page then."""
    try:
        return _act(name, data)
    except tk.ValidationError as error:
        return tk.abort(503, joined(_by_field(error)))


def attempt(name: str, /, **data: Any) -> tuple[Any, dict[str, list[str]]]:
    """What the action of a form returns, or why it is refused, by field."""
    try:
        return _act(name, data), {}
    except tk.ValidationError as error:
        return None, _by_field(error)
    except tk.NotAuthorized as error:
        return None, {"armed": [str(error)]}


def known_job(id: str, log: int) -> Any:
    """A job with the last lines of its log; one that is not known is 404."""
    found, errors = attempt("job_show", id=id, log=log)
    return found or tk.abort(404, joined(errors))


def submit(name: str, success: str, back: str, **data: Any) -> Any:
    """The action of a form; the page `back` says what came of it."""
    _, errors = attempt(name, **data)
    if errors:
        tk.h.flash_error(joined(errors))
    elif success:
        tk.h.flash_success(success)
    return redirect(back)


def armed_for(name: str, to: str = RESTORE) -> dict[str, Any]:
    """The status, and whether the page may do that to a backup now."""
    status = read("status", undo=name == UNDO)
    known = status["armed"] or {}
    armed = (known.get("backup"), known.get("to")) == (name, to)
    allowed = {"armed": armed, "always": True}
    return {"status": status, "open": allowed.get(status["web_restore"], False)}


def joined(errors: dict[str, list[str]]) -> str:
    """Why an action is refused, in one sentence."""
    return "; ".join(each for found in errors.values() for each in found)


def _act(name: str, data: dict[str, Any]) -> Any:
    """What an action returns; what is not there is 404."""
    try:
        return tk.get_action(f"dbmanage_{name}")(_context(), data)  # type: ignore[arg-type]
    except tk.ObjectNotFound as error:
        return tk.abort(404, str(error))


def _by_field(error: Any) -> dict[str, list[str]]:
    return {
        field: [told(str(e)) for e in (found if isinstance(found, list) else [found])]
        for field, found in error.error_dict.items()
    }


def _context() -> dict[str, Any]:
    return {"user": tk.current_user.name, "auth_user_obj": tk.current_user}


def index_url() -> str:
    return tk.url_for("dbmanage_admin.index")


def backup_url(id: str) -> str:
    return tk.url_for("dbmanage_admin.show", id=id)
