"""What the engine and the jobs say, in the visitor's language where they say it often.

They speak English, in the journal, in logs and on the terminal too. A sentence that is
known here is translated for a page, with what was filled into it as it stands. Any
other one, and what a program said, is shown as it is: translated by halves it could not
be looked up.
"""

import re
from functools import cache, lru_cache

from ckan.plugins import toolkit as tk
from markupsafe import Markup, escape

#: letters of what is looked up, at most
_MOST = 2000
_CODE = re.compile(r"`([^`\n]+)`")


def _(message: str) -> str:
    """Marks a message that is translated later."""
    return message


#: as the code has them, with `{}` for what it fills in; a test looks for each there
SENTENCES = (
    _("its manifest cannot be read: it is damaged"),
    _(
        "it is not signed by this site: restore it on the command line, with "
        "`--trust` if you do trust its SQL"
    ),
    _("it is damaged: {}"),
    _("it holds the DataStore, this site has none"),
    _("it has no index of records"),
    _("it holds only {}"),
    _("it is held: stop holding it first"),
    _("it is the newest {} one"),
    _("no worker runs, so nobody would begin it: start one on the server, `{}`"),
    _(
        "no worker runs that takes these jobs ({} of this site take others only), so "
        "nobody would begin it: start one on the server, `{}`"
    ),
    _("another job is under way, {} {}: let it end"),
    _("the repository is in use by {}: let it end"),
    _(
        "the uploads need {} beside the live ones, and {} are free: make room, or "
        "leave the uploads out"
    ),
    _(
        "no worker came to it until {}, for which it was allowed; nothing was "
        "touched: confirm it anew"
    ),
    _("its worker ended without a word: the worker's own log says why"),
    _("this job was begun before; nothing was touched: confirm it anew"),
    _("the worker was stopped before the job had ended. {}"),
    _("backup {} is not {}: {}"),
    _("{} {} could not be shown: see the log"),
    _("Redis does not answer ({}): is it up, and is {} right?"),
    _(
        "an operation holds the maintenance, and ends it by itself: wait for its end, "
        "or run `{} maintenance off` on the server"
    ),
    # what the steps of a night say, and the rules of retention
    _("there is no backup of tonight to prove"),
    _("restored beside the live site, and read"),
    _("no other place is set"),
    _("all backups are there"),
    _("the site does not publish: `ckan db publish` begins"),
    _("nothing new"),
    _("no rule keeps it"),
    _("held"),
    _("another site's: never touched"),
)


def told(text: str | None) -> Markup:
    """A sentence of the engine's or of a job's, translated where it is known.

    What it has in backticks, a command or an option, stands as such.
    """
    known = _known(text or "")
    said = tk._(known[0]).format(*known[1]) if known else text or ""
    return Markup(_CODE.sub(r'<code dir="ltr">\1</code>', str(escape(said))))  # noqa: S704


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    return [
        (each, re.compile("(.+?)".join(map(re.escape, each.split("{}"))), re.DOTALL))
        for each in SENTENCES
    ]


@lru_cache(maxsize=1000)
def _known(text: str) -> tuple[str, tuple[str, ...]] | None:
    if len(text) > _MOST:
        return None
    for sentence, pattern in _patterns():
        if match := pattern.fullmatch(text):
            return sentence, match.groups()
    return None
