"""The title and the password again, before something is replaced."""

from typing import Any

from ckan import model
from ckan.plugins import toolkit as tk

from ..engine.redis.arming import RESTORE, TRIES, UNDO
from .call import Call, Data

#: wrong passwords of all sysadmins together within an hour
_TRIES = 10


def confirm(call: Call, data: Data, what: str, of: str) -> None:
    """The password of who is signed in by a cookie; for a switch the site's title too.

    Against whoever sits down at a browser that is signed in. It stops no stolen
    session, which can set another password: that is what arming is for. A token is a
    secret of its own, and the command line has no caller.
    Raises ValidationError, DbmanageError when Redis does not answer.
    """
    errors: Any = {}
    typed = str(data.get("confirm") or "")
    if what in (RESTORE, UNDO) and not call.options.is_site_title(typed):
        errors["confirm"] = [tk._("That is not the name of this site")]
    if call.in_browser and (wrong := _wrong_password(call, data)):
        errors["password"] = [tk._(wrong)]
        call.note(what, of=of, event="refused", error=wrong)
    if errors:
        raise tk.ValidationError(errors)


def _(message: str) -> str:
    """Marks a message that is translated later: the journal has it in English."""
    return message


def _wrong_password(call: Call, data: Data) -> str:
    """What is wrong with the password that was given, empty when it is right."""
    user = model.User.get(call.user)
    password = str(data.get("password") or "")
    if not (user and password):
        return _("That is not your password")
    tried = call.arming.count_try()
    if tried > _TRIES:
        return _("Too many wrong passwords: try again in an hour")
    if user.validate_password(password):
        call.arming.right_password()
        return ""
    if tried >= TRIES:
        call.arming.off()
        return _("That is not your password. What was armed is no longer armed")
    return _("That is not your password")
