"""What the engine and the jobs say, in the visitor's language where they say it often.

They speak English, in the journal, in logs and on the terminal too. A sentence that is
known here is translated for a page, with what was filled into it as it stands. Any
other one, and what a program said, is shown as it is: translated by halves it could not
be looked up.
"""

import re
from functools import cache, lru_cache

from babel.units import format_unit
from ckan.plugins import toolkit as tk
from flask_babel import get_locale
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
    _(
        "the repository {} was in use until {}, and is empty now: mount its disk. If "
        "it is to begin anew there, run `{}` as CKAN's user"
    ),
    # what the steps of a night say, and the rules of retention
    _("there is no backup of tonight to prove"),
    _("restored beside the live site, and read"),
    _("no other place is set"),
    _("all backups are there"),
    _("the site does not publish: `ckan db publish` begins"),
    _("nothing new"),
)

#: why retention keeps a backup or forgets it: a reason has some of them
REASONS = (
    _("no rule keeps it"),
    _("no rule"),
    _("held"),
    _("it is here too"),
    _("the last {}"),
    _("within {}"),
    _("hour {}"),
    _("day {}"),
    _("week {}"),
    _("month {}"),
    _("year {}"),
    _("at least {} verified"),
    _("the newest proven of {}"),
    _("what was replaced, for {} days"),
    _("its date is in the future: never touched"),
    _("cannot be read ({}): never touched"),
    _("its name is not a time: never touched"),
    _("another site's: never touched"),
    _("damaged and not signed by us: never touched"),
    _("of another version's format: never touched"),
    _("neither compared nor signed by this site: never touched"),
    _("damaged: {}"),
    _("folders of uploads were left out: counts for no rule"),
    _("not verified: counts for no rule"),
    _("stays until {} newer verified one is there"),
    _("stays until {} newer verified ones are there"),
    _("{} newer verified one is there"),
    _("{} newer verified ones are there"),
)
#: words that are filled into them
_FILLED = {
    "database": _("database"),
    "DataStore": _("DataStore"),
    "uploads": _("uploads"),
    "and": _("and"),
}
_SPAN = re.compile(r"(\d+) (day|hour|minute|second)s?")
_WORD = re.compile(rf"\b(?:{'|'.join(_FILLED)})\b")
#: what may be filled in where that is more than a word or two
_LONG = {
    "the newest proven of {}": r"((?:\w+(?:, \w+)* and )?\w+)",
    "damaged: {}": "(.+(?=; )|.+)",
}


def told(text: str | None) -> Markup:
    """A sentence of the engine's or of a job's, translated where it is known.

    What it has in backticks, a command or an option, stands as such.
    """
    text = text or ""
    if known := _known(text):
        said = tk._(known[0]).format(*known[1])
    else:
        pieces = _pieces(text) if len(text) <= _MOST else None
        said = "".join(map(_translated, pieces)) if pieces else text
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


@cache
def _reasons() -> list[tuple[str, re.Pattern[str]]]:
    found = []
    for each in REASONS:
        filled = _LONG.get(each, "([^,;]+?)").join(map(re.escape, each.split("{}")))
        found.append((each, re.compile(f"{filled}(?:(, |; )(.+))?", re.DOTALL)))
    return found


@lru_cache(maxsize=1000)
def _pieces(text: str) -> tuple[tuple[str, str, str], ...] | None:
    """The pieces of a reason, each with what it fills in and what stands behind it.

    None where not all are known.
    """
    for sentence, pattern in _reasons():
        if not (match := pattern.fullmatch(text)):
            continue
        *filled, between, rest = match.groups()
        piece = sentence, filled[0] if filled else "", between or ""
        if not rest:
            return (piece,)
        if after := _pieces(rest):
            return piece, *after
    return None


def _translated(piece: tuple[str, str, str]) -> str:
    sentence, filled, between = piece
    if sentence == "within {}":
        filled = _SPAN.sub(_unit, filled)
    elif sentence == "the newest proven of {}":
        filled = _WORD.sub(lambda word: tk._(_FILLED[word[0]]), filled)
    return tk._(sentence).format(filled) + between


def _unit(found: re.Match[str]) -> str:
    return format_unit(int(found[1]), f"duration-{found[2]}", locale=get_locale())
