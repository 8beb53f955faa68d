"""How an action is called: access, parameters, site, errors.

    @action(id=schema.needed, release=schema.flag)
    def dbmanage_backup_keep(call: Call, data: Data) -> Data: ...

is an action of CKAN's that says only what it takes and what it does. Core's
`tk.side_effect_free` above that marks one that changes nothing: GET gets it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, wraps
from types import SimpleNamespace
from typing import Any

import psycopg2
from ckan.lib import api_token
from ckan.plugins import toolkit as tk
from flask import g, has_request_context, session

from ..engine import errors, report
from ..engine.errors import DbmanageError
from ..engine.redis.arming import Arming
from ..engine.redis.maintenance import Maintenance
from ..engine.repository.backup import Backup
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..jobs.queue import Jobs
from ..operations.context import Portal, refuse_root
from ..operations.in_use import refuse_empty
from ..portal.command import on_server, pasted
from ..portal.config import Options, current
from ..portal.site import build_site
from .schema import Parameter

Context = Any
Data = dict[str, Any]


def action(
    **parameters: Parameter,
) -> Callable[[Callable[[Call, Data], Any]], Callable[[Context, Data], Any]]:
    """Makes a CKAN action of a function of the call and its validated parameters.

    Any other parameter is refused. The action raises NotAuthorized, ValidationError,
    and what the engine refuses as a ValidationError.
    """

    def decorate(does: Callable[[Call, Data], Any]) -> Callable[[Context, Data], Any]:
        @wraps(does)
        def called(context: Context, data_dict: Data) -> Any:
            tk.check_access(does.__name__, context, data_dict)
            reads = getattr(called, "side_effect_free", False)
            if not reads:
                _refuse_forged(context)
            schema = {name: make() for name, make in parameters.items()}
            data = _validated(schema, context, data_dict)
            with refused_at("message"):
                call = Call(context)
                if not reads:
                    refuse_root(call.site)
                return does(call, data)

        return called

    return decorate


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
        raise tk.NotAuthorized(tk._("An action that changes something needs POST"))
    if _by_token(context):
        return
    if tk.request.blueprint == "dbmanage_admin":  # its guard has looked
        return
    try:
        csrf.protect()
    except BadRequest as error:
        raise tk.NotAuthorized(str(error.description)) from error


def _validated(schema: Data, context: Context, data_dict: Data) -> Data:
    unknown: Any = {
        k: [tk._("Unknown parameter")] for k in data_dict if k not in schema
    }
    if unknown:
        raise tk.ValidationError(unknown)
    data, wrong = tk.navl_validate(data_dict, schema, context)
    if wrong:
        raise tk.ValidationError(wrong)
    return data


@contextmanager
def refused_at(field: str) -> Iterator[None]:
    """Makes what the engine raises in the block a ValidationError of a field."""
    try:
        yield
    except (DbmanageError, psycopg2.Error, OSError) as error:
        said = pasted(errors.explanation_of(error), on_server(current()))
        raise tk.ValidationError({field: [said]}) from error


class Call:
    """One call of an action: who asks, and the site that it is about.

    `actor` is what the journal notes of who asks: `{user, address, forwarded}`, the
    last two in a request only. Raises Refused where the site is not set up.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.user = _user(context)
        self.actor = {"user": self.user, **_origin()}
        kept = g if has_request_context() else SimpleNamespace()
        if not hasattr(kept, "dbmanage_site"):  # a page calls several actions
            options = current()
            kept.dbmanage_site = options, build_site(options)
        self.options: Options
        self.site: Site
        self.options, self.site = kept.dbmanage_site
        self.repository = Repository(
            self.site.repository, self.site.secrets, self.actor
        )

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self.options)

    @cached_property
    def arming(self) -> Arming:
        return Arming(self.site)

    @cached_property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.site.redis_url, self.site.databases["database"].url)

    @cached_property
    def portal(self) -> Portal:
        """The site for an operation that is done at once, not as a job."""
        return Portal(self.options, report.Silent(), None, self.actor)

    @property
    def in_browser(self) -> bool:
        """Whether a browser asks: no command line, and no API token."""
        if not has_request_context():
            return False
        return "_user_id" in session or not _by_token(self._context)

    def find(self, name: str) -> Backup:
        """The backup of an id, `latest` or `oldest`. Raises ObjectNotFound."""
        try:
            return self.repository.find(name)
        except DbmanageError as error:
            raise tk.ObjectNotFound(str(error)) from error

    def named(self, id: str) -> Backup:
        """The backup of an id; `latest` is another one after each call.

        Raises ObjectNotFound, ValidationError.
        """
        found = self.find(id)
        if found.id != id:
            by_id = tk._("Name it by its id, {}").format(found.id)
            raise tk.ValidationError({"id": [by_id]})
        return found

    def note(self, what: str, of: str = "", event: str = "asked", **facts: str) -> None:
        """Adds a line to the journal. Raises OSError."""
        self.repository.record(of or what, event, what=what, **facts)

    def enqueue(self, kind: str, arguments: Mapping[str, Any]) -> Data:
        """Asks for a job, and notes who does; as `Jobs.show` tells it."""
        refuse_empty(self.options, self.site, self.repository)
        what = "proof" if kind == "verify" and arguments.get("prove") else kind
        # first: a job that no line of the journal tells of must not run
        why = {"note": note} if (note := arguments.get("note")) else {}
        self.note(what, of=str(arguments.get("id") or kind), **why)
        return self.jobs.enqueue(kind, arguments, self.actor)


def _user(context: Context) -> str:
    return str(context.get("user") or "")


def _origin() -> dict[str, str]:
    """From where somebody asks, for the journal; nothing on the command line."""
    if not tk.request:
        return {}
    found = {"address": str(tk.request.remote_addr or "")}
    # what a proxy says, which anybody could: beside the one above, never instead
    if forwarded := tk.request.headers.get("X-Forwarded-For", ""):
        found["forwarded"] = "".join(c for c in forwarded[:200] if c.isprintable())
    return found


def _by_token(context: Context) -> bool:
    """Whether the request's header has an API token of the caller."""
    options = ("apitoken_header_name", "apikey_header_name")
    headers = [str(tk.config.get(option) or "") for option in options]
    for header in filter(None, [*headers, "Authorization"]):
        if token := tk.request.headers.get(header):
            user = api_token.get_user_from_token(token, update_access_time=False)
            if user is not None and user.name == _user(context):
                return True
    return False
