"""The title and the password again, before something is replaced."""

from __future__ import annotations

from typing import Any

from ckan import model
from ckan.plugins import toolkit as tk

from ..engine.redis.arming import RESTORE, TRIES, UNDO, Arming
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..portal.config import current
from .call import Context, Data, needs_password, note_of, told, user_of

#: wrong passwords of all sysadmins together within an hour
_TRIES = 10


def confirm(
    context: Context,
    data: Data,
    site: Site,
    repository: Repository,
    what: str,
    of: str,
) -> None:
    """The password of who is signed in by a cookie; for a switch the site's title too.

    Against whoever sits down at a browser that is signed in. It stops no stolen
    session, which can set another password: that is what arming is for. A token is a
    secret of its own, and the command line has no caller.
    """
    errors: Any = {}
    if what in (RESTORE, UNDO):
        title = current().site_title
        said = " ".join(str(data.get("confirm") or "").split())
        if said.casefold() != " ".join(title.split()).casefold():
            errors["confirm"] = [tk._("That is not the name of this site")]
    if needs_password(context):
        with told():
            wrong = _wrong_password(context, data, Arming(site))
        if wrong:
            errors["password"] = [tk._(wrong)]
            note_of(repository, what, of=of, event="refused", error=wrong)
    if errors:
        raise tk.ValidationError(errors)


def _(message: str) -> str:
    """Marks a message that is translated later, for the journal has it in English."""
    return message


def _wrong_password(context: Context, data: Data, arming: Arming) -> str:
    """What is wrong with the password that was given, empty when it is right."""
    user = model.User.get(user_of(context))
    password = str(data.get("password") or "")
    if not (user and password):
        return _("That is not your password")
    tried = arming.count_try()
    if tried > _TRIES:
        return _("Too many wrong passwords: try again in an hour")
    if user.validate_password(password):
        arming.right_password()
        return ""
    if tried >= TRIES:
        arming.off()
        return _("That is not your password; what was armed is off now")
    return _("That is not your password")
