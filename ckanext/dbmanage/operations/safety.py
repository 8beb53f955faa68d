"""Is the portal's data safe? One rule for the page, the API and the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..engine.clock import is_older, parse_stamp, stamp

#: the states of a backup that can be relied on
GOOD = ("verified", "proven")
#: a backup a night, with two hours for it to end; more than a week is a fault
FRESH, STALE = timedelta(hours=26), timedelta(days=7)
#: a proof a month
PROVEN = timedelta(days=31)

GREEN, AMBER, RED = "green", "amber", "red"

Described = dict[str, Any]


def _(message: str) -> str:
    """Marks a message for translation where it is looked up by name."""
    return message


#: the one sentence of each state; `{n}` are the backups that it is about
SENTENCES = {
    "failed": _("The last backup failed."),
    "empty": _("No backup yet."),
    "lacking": _("No backup is whole and sound."),
    "damaged": _("Damaged backups: {n} of {count}."),
    "disproved": _("The newest backup did not pass its proof."),
    "overdue": _("A backup is overdue."),
    "full": _("There is no room for the next backup."),
    "night": _("Something failed last night."),
    "unended": _("Last night did not come to its end."),
    "unreadable": _("Backups that cannot be read: {n} of {count}."),
    "unproven": _("Backed up, but not proven."),
    "stale": _("Backed up, but not proven for a month."),
    "offline": _("The background worker does not answer."),
    "running": _("A job is running."),
    "ok": _("Protected."),
}


@dataclass(frozen=True)
class Known:
    """What is known of a site: all its backups, and the `whole` ones of these.

    Both as `Backup.describe` tells, the newest first. `failed`: the last backup did;
    `night`: what was wrong with the last one, `night` or `unended`, or empty;
    `free` are bytes on the disk of the backups, `workers` how many there are: both None
    where nobody looked; `redis` says that it does not answer.
    """

    backups: list[Described]
    whole: list[Described]
    failed: bool = False
    night: str = ""
    free: int | None = None
    redis: bool = False
    workers: int | None = None
    running: bool = False
    good: list[Described] = field(init=False)

    def __post_init__(self) -> None:
        sound = [e for e in self.whole if e["state"] in GOOD and not e["future"]]
        object.__setattr__(self, "good", sound)

    @property
    def newest(self) -> Described | None:
        """The newest whole and sound one."""
        return next(iter(self.good), None)

    @property
    def proven(self) -> Described | None:
        """The newest of them that is proven."""
        return next((each for each in self.good if each["state"] == "proven"), None)

    def count(self, state: str) -> int:
        """How many backups there are of a state."""
        return sum(each["state"] == state for each in self.backups)


@dataclass(frozen=True)
class Headline:
    """What matters most: `state` is a key of `SENTENCES`, `n` the backups it counts."""

    state: str
    colour: str
    n: int = 0
    count: int = 0

    @property
    def text(self) -> str:
        """The sentence, in English."""
        return SENTENCES[self.state].format(n=self.n, count=self.count)


def headline(known: Known) -> Headline:
    """What matters most of what is known; the first of these that is so.

    1. ``failed`` (red): the last backup failed, and so will the next one.
    2. ``empty`` (red): there is no backup at all; ``lacking``: none that is whole and
       sound, so nothing to go back to. No worker, no proof weigh less.
    3. ``damaged`` (red): some are not what they were: the disk may go on losing more.
    4. ``disproved`` (red): the newest whole one could not be brought back.
    5. ``overdue`` (amber, after a week red): last night's is missing.
    6. ``full`` (amber): the next one, as large as the newest, finds no room.
    7. ``night`` (amber): a step of the last night failed, as the copy to the other
       place; ``unended``: it was killed.
    8. ``unreadable`` (amber): some are another user's: nobody knows how they are.
    9. ``unproven``, ``stale`` (amber): none was ever proven, or none for a month.
    10. ``offline`` (amber): no worker runs, or Redis does not answer, so that what is
        asked for on the page waits.
    11. ``running``, ``ok`` (green).

    Only whole backups count as protection. One with a date in the future was taken
    while a clock was wrong: it is not last night's, nor the newest.
    """
    newest, count = known.newest, len(known.backups)
    damaged, unreadable = known.count("damaged"), known.count("unreadable")
    if known.failed:
        return Headline("failed", RED)
    if newest is None:
        return Headline("lacking" if count else "empty", RED, count, count)
    if damaged:
        return Headline("damaged", RED, damaged, count)
    if newest["state"] != "proven" and newest["proved"]:
        return Headline("disproved", RED)
    if is_older(newest["created"], FRESH):
        late = is_older(newest["created"], STALE)
        return Headline("overdue", RED if late else AMBER)
    if known.free is not None and known.free < needed(newest):
        return Headline("full", AMBER)
    if known.night:
        return Headline(known.night, AMBER)
    if unreadable:
        return Headline("unreadable", AMBER, unreadable, count)
    if known.proven is None:
        return Headline("unproven", AMBER)
    if is_older(known.proven["proved"], PROVEN):
        return Headline("stale", AMBER)
    if known.redis or known.workers == 0:
        return Headline("offline", AMBER)
    return Headline("running" if known.running else "ok", GREEN)


def needed(newest: Mapping[str, Any]) -> int:
    """The bytes that the next backup takes on the disk, as the newest one says.

    Its dumps as if no piece could be used again, and a tenth more; hardly any uploads
    are new.
    """
    return (newest["bytes"] - newest["sizes"].get("files", 0)) * 11 // 10


def after(time: str, delta: timedelta) -> str:
    """The stamp of a moment after another one."""
    return stamp(parse_stamp(time) + delta)
