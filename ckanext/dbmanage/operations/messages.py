"""What people are told, in the site's language: what is wrong, since when, what to do.

A message for each state of `safety.SENTENCES` that somebody is to be told of; the
manual's page `docs/watched.rst` has an entry for each. Must not know by which doors
they go.
"""

import gettext
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.clock import parse_stamp, who
from ..engine.printable import one_line
from ..portal.command import on_server, pasted
from ..portal.config import Options
from .safety import RED, SENTENCES

_I18N = Path(__file__).parent.parent / "i18n"
_DOMAIN = "ckanext-dbmanage"
PAGE = "docs/watched.rst"


def _(message: str) -> str:
    """Marks a message that is translated later."""
    return message


#: what a state means, and the command that mends it or says more
ADVICE: dict[str, tuple[str, str]] = {
    "away": (_("Is the disk of the backups there?"), "ckan db doctor"),
    "failed": (_("The backups of before are untouched."), "ckan db backup"),
    "empty": (_("There is no copy to go back to."), "ckan db backup"),
    "lacking": (
        _("Each of them lacks a part of the portal, or is not sound."),
        "ckan db backup",
    ),
    "damaged": (
        _(
            "The disk may be failing: look at what each says, and take a new backup "
            "elsewhere."
        ),
        "ckan db verify --all",
    ),
    "disproved": (
        _("It could not be restored as it should."),
        "ckan db backups latest",
    ),
    "overdue": (
        _("The timer may not run: `systemctl list-timers` shows it."),
        "ckan db backup",
    ),
    "full": (_("It needs about {size}, and {free} are free."), "ckan db prune"),
    "push-failed": (_("The newest backups are on this machine alone."), "ckan db push"),
    "uncopied": (_("The newest backups are on this machine alone."), "ckan db push"),
    "unended": (
        _(
            "It was killed, the server went down, or the disk was full. The next night "
            "begins anew."
        ),
        "ckan db nightly",
    ),
    "unreadable": (
        _(
            "They belong to another user of the server: each says the command that "
            "mends it."
        ),
        "ckan db verify --all",
    ),
    "unproven": (
        _("Nobody knows yet whether a backup could be brought back."),
        "ckan db verify --prove",
    ),
    "stale": (
        _("Nobody knows whether the newer ones could be brought back."),
        "ckan db verify --prove",
    ),
    "proof-failed": (
        _("Nobody knows whether the newer ones could be brought back."),
        "ckan db verify --prove",
    ),
    "publish-failed": (
        _("Visitors still see the old public dumps."),
        "ckan db publish",
    ),
    "unpublished": (_("Visitors still see the old public dumps."), "ckan db publish"),
    "prune-failed": (_("Backups fill the disk until it works."), "ckan db prune"),
    "future": (
        _("A clock was wrong when they were taken, or is wrong now."),
        "ckan db doctor",
    ),
}
_LAST = _("The last one: {time}")
_SINCE, _WHY, _TO_DO = _("Since: {time}"), _("Why: {why}"), _("What to do: {command}")
_READ = _("To read: {page}, “{title}”")
_AGAIN, _STILL = _("Well again: {sentence}"), _("Still so: {sentence}")
_MORE = _("{sentence} And {n} more.")
_TEST = _("This is a test")
_TEST_TEXT = _("Somebody tries whether this reaches you. Nothing is wrong, nor mended.")
_SENT = _("Told by {who} for {title}, {url}")


@dataclass(frozen=True)
class Trouble:
    """Something that is not well: a state of `SENTENCES`, and what is known of it.

    `since` is a stamp, `last` that of the newest one where one is late; `why` is what
    failed, as it said it, in English; `facts` fill in the state's advice.
    """

    state: str
    colour: str
    n: int = 0
    count: int = 0
    since: str = ""
    last: str = ""
    why: str = ""
    facts: Mapping[str, str] | None = None

    @property
    def english(self) -> str:
        """The sentence, in English."""
        return SENTENCES[self.state].format(n=self.n, count=self.count)

    def is_worse(self, colour: str, n: int) -> bool:
        """Whether it is worse than it was: red now, or more than so many."""
        return (self.colour == RED and colour != RED) or self.n > n


@dataclass(frozen=True)
class Message:
    """What goes through a door."""

    subject: str
    text: str


class Writer:
    """Writes messages of a site, in its language."""

    def __init__(self, options: Options) -> None:
        self._options, self._ckan = options, on_server(options)
        language = options.text("ckan.locale_default") or "en"
        found = gettext.translation(_DOMAIN, _I18N, [language], fallback=True)
        self._: Callable[[str], str] = found.gettext

    def news(
        self, new: Sequence[Trouble], over: Sequence[str], still: Sequence[Trouble]
    ) -> Message:
        """What has changed: what is not well, the worst first, and what is again.

        `over` are states that were told and have gone, `still` those that stay.
        """
        first = self._sentence(new[0]) if new else self._again(over[0])
        more = len(new) - 1 if new else len(over) - 1
        subject = self._(_MORE).format(sentence=first, n=more) if more else first
        blocks = [self._trouble(each) for each in new]
        blocks += [self._again(state) for state in over]
        blocks += [
            self._(_STILL).format(sentence=self._sentence(each)) for each in still
        ]
        return self._message(subject, blocks)

    def test(self) -> Message:
        """What `notify --test` sends."""
        return self._message(self._(_TEST), [self._(_TEST_TEXT)])

    def _message(self, subject: str, blocks: Sequence[str]) -> Message:
        title, url = self._options.site_title, self._options.site_url
        sent = self._(_SENT).format(who=who(), title=one_line(title), url=url)
        where = one_line(self._options.site_address)
        return Message(f"[{where}] {subject}", "\n\n".join([*blocks, f"-- \n{sent}\n"]))

    def _sentence(self, trouble: Trouble) -> str:
        said = self._(SENTENCES[trouble.state])
        return said.format(n=trouble.n, count=trouble.count)

    def _again(self, state: str) -> str:
        said = self._(SENTENCES[state]).format(n="…", count="…")
        return self._(_AGAIN).format(sentence=said)

    def _trouble(self, trouble: Trouble) -> str:
        advice, command = ADVICE[trouble.state]
        lines = [self._sentence(trouble)]
        lines.append(self._(advice).format(**(trouble.facts or {})))
        if trouble.since:
            lines.append(self._(_SINCE).format(time=_time(trouble.since)))
        if trouble.last:
            lines.append(self._(_LAST).format(time=_time(trouble.last)))
        if trouble.why:
            lines.append(self._(_WHY).format(why=pasted(trouble.why, self._ckan)))
        lines.append(self._(_TO_DO).format(command=pasted(command, self._ckan)))
        lines.append(self._(_READ).format(page=PAGE, title=titled(trouble.state)))
        return "\n".join(lines)


def titled(state: str) -> str:
    """The title of the entry of a state in the manual."""
    return SENTENCES[state].format(n="…", count="…")


def _time(moment: str) -> str:
    """A moment in figures, which are the same in all languages."""
    return f"{parse_stamp(moment):%Y-%m-%d %H:%M} UTC"
