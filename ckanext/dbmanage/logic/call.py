"""How an action is called: access, parameters, site, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from ckan.lib import api_token
from ckan.plugins import toolkit as tk
from flask import g, has_request_context, session

from ..engine import report
from ..engine.errors import DbmanageError, explanation_of
from ..engine.redis.maintenance import Maintenance
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..jobs.queue import Jobs
from ..operations.allowed import having, must_stay, wanted
from ..operations.context import Portal, refuse_root
from ..portal.config import current
from ..portal.site import build_site

Context = Any
Data = dict[str, Any]


def called(
    context: Context, data_dict: Data, name: str, made: Callable[[], Any]
) -> tuple[Data, Site, Repository]:
    tk.check_access(f"dbmanage_{name}", context, data_dict)
    reads = getattr(tk.get_action(f"dbmanage_{name}"), "side_effect_free", False)
    if not reads:
        _refuse_forged(context)
    taken = made()
    unknown: Any = {k: [tk._("Unknown parameter")] for k in data_dict if k not in taken}
    if unknown:
        raise tk.ValidationError(unknown)
    data, errors = tk.navl_validate(data_dict, taken, context)
    if errors:
        raise tk.ValidationError(errors)
    site, repository = _site_of(context)
    if not reads:
        with told():
            refuse_root(site)
    return data, site, repository


def _refuse_forged(context: Context) -> None:
    """Core's API takes a form of another site from whoever is signed in: not here.

    By whatever cookie: only a token in a header is nothing that a browser adds. And by
    POST alone: CKAN refuses GET, but takes HEAD, and looks at no form's token then.
    """
    from ckan.config.middleware.flask_app import csrf
    from werkzeug.exceptions import BadRequest

    if not has_request_context():
        return
    if tk.request.method != "POST":
        raise tk.NotAuthorized(tk._("What changes something is asked for by POST"))
    if _by_token(context):
        return
    if tk.request.blueprint == "dbmanage_admin":  # its guard has looked
        return
    try:
        csrf.protect()
    except BadRequest as error:
        raise tk.NotAuthorized(str(error.description)) from error


@contextmanager
def told(field: str = "message") -> Iterator[None]:
    """What the engine refuses, as CKAN's API says it."""
    try:
        yield
    except DbmanageError as error:
        raise tk.ValidationError({field: [str(error)]}) from error
    except (psycopg2.Error, OSError) as error:
        raise tk.ValidationError({field: [explanation_of(error)]}) from error


def find_backup(repository: Repository, name: str) -> Backup:
    try:
        return repository.find(name)
    except DbmanageError as error:
        raise tk.ObjectNotFound(str(error)) from error


def actor(context: Context) -> dict[str, str]:
    """Who asks, and from where, for the journal."""
    known = {"user": user_of(context)}
    if tk.request:
        known["address"] = str(tk.request.remote_addr or "")
        # what a proxy says, which anybody could: beside the one above, never instead
        if forwarded := tk.request.headers.get("X-Forwarded-For", ""):
            words = "".join(c for c in forwarded[:200] if c.isprintable())
            known["forwarded"] = words
    return known


def among(described: list[dict[str, Any]], id: str) -> dict[str, Any]:
    for each in described:
        if each["id"] == id:
            return each
    raise tk.ObjectNotFound(tk._("Backup {} was deleted meanwhile").format(id))


def stays(site: Site, about: Data, described: list[Data]) -> str:
    whole = having(described, wanted(site, current()))
    return must_stay(about, described, whole)


def named(repository: Repository, id: str) -> Backup:
    """The backup of an id; `latest` is another one after each call."""
    found = find_backup(repository, id)
    if found.id != id:
        raise tk.ValidationError(
            {"id": [tk._("Name it by its id, {}").format(found.id)]}
        )
    return found


def user_of(context: Context) -> str:
    return str(context.get("user") or "")


def portal_of(context: Context) -> Portal:
    return Portal(current(), report.Silent(), None, actor(context))


def maintenance_of(site: Site) -> Maintenance:
    return Maintenance(site.redis_url, site.databases["database"].url)


def note_of(
    repository: Repository, what: str, of: str = "", event: str = "asked", **facts: str
) -> None:
    with told():
        repository.record(of or what, event, what=what, **facts)


def enqueue(context: Context, kind: str, arguments: Mapping[str, Any]) -> Data:
    _, repository = _site_of(context)
    what = "proof" if kind == "verify" and arguments.get("prove") else kind
    # first: a job that no line of the journal tells of must not run
    note_of(repository, what, of=str(arguments.get("id") or kind))
    with told():
        return Jobs(current()).enqueue(kind, arguments, actor(context))


def _site_of(context: Context) -> tuple[Site, Repository]:
    with told():
        known = this_site()
    return known, Repository(known.repository, known.secrets, actor(context))


def this_site() -> Site:
    """The site as it is configured, made once for a request. Raises Refused."""
    if not has_request_context():
        return build_site(current())
    if "dbmanage_site" not in g:
        g.dbmanage_site = build_site(current())
    return g.dbmanage_site


def needs_password(context: Context) -> bool:
    """Whether the caller is a browser: no command line, and no API token."""
    if not has_request_context():
        return False
    return "_user_id" in session or not _by_token(context)


def _by_token(context: Context) -> bool:
    """Whether the request's header has an API token of the caller."""
    options = ("apitoken_header_name", "apikey_header_name")
    headers = [str(tk.config.get(option) or "") for option in options]
    for header in filter(None, [*headers, "Authorization"]):
        if token := tk.request.headers.get(header):
            user = api_token.get_user_from_token(token, update_access_time=False)
            if user is not None and user.name == user_of(context):
                return True
    return False
