"""Is the portal's data safe? One rule for the page, the API and the terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..portal.config import Options
from .ages import BACKUP, PROOF, PUBLISH, PUSH, Age, known_time

#: the states of a backup that can be relied on
GOOD = ("verified", "proven")
#: a night, with two hours for it to end; a month
FRESH, PROVEN = timedelta(hours=26), timedelta(days=31)

GREEN, AMBER, RED = "green", "amber", "red"

Described = dict[str, Any]


def _(message: str) -> str:
    """Marks a message for translation where it is looked up by name."""
    return message


#: the one sentence of each state; `{n}` are the backups that it is about
SENTENCES = {
    "away": _("The backups cannot be read."),
    "failed": _("The last backup failed."),
    "empty": _("No backup yet."),
    "lacking": _("No backup is whole and sound."),
    "damaged": _("Damaged backups: {n} of {count}."),
    "disproved": _("The newest backup did not pass its proof."),
    "overdue": _("A backup is overdue."),
    "full": _("There is no room for the next backup."),
    "unended": _("Last night did not come to its end."),
    "unreadable": _("Backups that cannot be read: {n} of {count}."),
    "push-failed": _("The last copy to the other place failed."),
    "uncopied": _("A copy to the other place is overdue."),
    "unproven": _("Backed up, but not proven."),
    "stale": _("Backed up, but not proven lately."),
    "proof-failed": _("The last proof could not be made."),
    "publish-failed": _("The public dumps could not be written."),
    "unpublished": _("The public dumps are overdue."),
    "prune-failed": _("Old backups could not be thinned out."),
    "future": _("Backups with a date in the future: {n} of {count}."),
    "offline": _("The background worker does not answer."),
    "running": _("A job is running."),
    "ok": _("Protected."),
}


@dataclass(frozen=True)
class Known:
    """What is known of a site: all its backups, and the `whole` ones of these.

    Both as `Backup.describe` tells, the newest first. `failed`: the last backup did;
    `unended`: the last night was killed;
    `free` are bytes on the disk of the backups, `workers` how many there are: both None
    where nobody looked; `redis` says that it does not answer. `copied` and `published`
    are the ages of the copy elsewhere and of the public dumps, None where there is no
    such thing; `steps` are those that failed the last time, each with why; `limits`
    say how old things may be; `away`: the repository cannot be read.
    """

    backups: list[Described]
    whole: list[Described]
    failed: bool = False
    unended: bool = False
    free: int | None = None
    redis: bool = False
    workers: int | None = None
    running: bool = False
    copied: Age | None = None
    published: Age | None = None
    steps: Mapping[str, str] = field(default_factory=dict)
    away: bool = False
    limits: Mapping[str, timedelta] = field(default_factory=lambda: Options({}).limits)
    good: list[Described] = field(init=False)
    #: by what they are of, those that there are
    ages: dict[str, Age] = field(init=False)

    def __post_init__(self) -> None:
        sound = [e for e in self.whole if e["state"] in GOOD and not e["future"]]
        object.__setattr__(self, "good", sound)
        newest, proven = self.newest or {}, self.proven or {}
        backup = known_time(newest.get("created"))
        proof = known_time(proven.get("proved"))
        ages = {
            BACKUP: Age(self.limits[BACKUP], backup),
            PROOF: Age(self.limits[PROOF], proof, first_of(sound)),
            PUSH: self.copied,
            PUBLISH: self.published,
        }
        known = {what: age for what, age in ages.items() if age}
        object.__setattr__(self, "ages", known)

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
    """What matters most of what is known: the first of `every`."""
    return next(every(known))


def every(known: Known) -> Iterator[Headline]:
    """All that is so, what matters most first; one of the last three at least.

    1. ``away`` (red): nobody knows; ``failed`` (red): the last backup failed, and so
       will the next one.
    2. ``empty`` (red): there is no backup at all; ``lacking``: none that is whole and
       sound, so nothing to go back to. No worker, no proof weigh less.
    3. ``damaged`` (red): some are not what they were: the disk may go on losing more.
    4. ``disproved`` (red): the newest whole one could not be brought back.
    5. ``overdue`` (amber, after a week red): last night's is missing.
    6. ``full`` (amber): the next one, as large as the newest, finds no room.
    7. ``push-failed``, ``uncopied`` (amber, the second after a week red): the newest
       are here alone.
    8. ``unended`` (amber): the last night was killed.
    9. ``unreadable`` (amber): some are another user's: nobody knows how they are.
    10. ``unproven``, ``stale``, ``proof-failed`` (amber): none was ever proven, or none
       for a month, or the last proof could not be made.
    11. ``publish-failed``, ``unpublished``, ``prune-failed`` (amber): no data is at
        risk, yet.
    12. ``future`` (amber): a clock was wrong, or is wrong now.
    13. ``offline`` (amber): no worker runs, or Redis does not answer, so that what is
        asked for on the page waits; ``running``, ``ok`` (green).

    Only whole backups count as protection. One with a date in the future was taken
    while a clock was wrong: it is not last night's, nor the newest. What is late
    because it failed is said to be late only after a week.
    """
    newest, count, ages = known.newest, len(known.backups), known.ages
    disproved = newest and newest["state"] != "proven" and newest["proved"]

    def late(what: str, failed: bool) -> bool:
        age = ages.get(what)
        return age is not None and (age.stale if failed else age.overdue)

    def worse_when_stale(state: str, what: str) -> Headline:
        return Headline(state, RED if ages[what].stale else AMBER)

    if known.away:
        yield Headline("away", RED)
    if known.failed:
        yield Headline("failed", RED)
    if newest is None and not known.away:
        yield Headline("lacking" if count else "empty", RED, count, count)
    if damaged := known.count("damaged"):
        yield Headline("damaged", RED, damaged, count)
    if disproved:
        yield Headline("disproved", RED)
    if newest and late(BACKUP, known.failed):
        yield worse_when_stale("overdue", BACKUP)
    if newest and known.free is not None and known.free < needed(newest):
        yield Headline("full", AMBER)
    if "push" in known.steps:
        yield Headline("push-failed", AMBER)
    if late(PUSH, "push" in known.steps):
        yield worse_when_stale("uncopied", PUSH)
    if known.unended:
        yield Headline("unended", AMBER)
    if unreadable := known.count("unreadable"):
        yield Headline("unreadable", AMBER, unreadable, count)
    if newest and known.proven is None:
        yield Headline("unproven", AMBER)
    elif newest and late(PROOF, False):
        yield Headline("stale", AMBER)
    if "prove" in known.steps and not disproved:
        yield Headline("proof-failed", AMBER)
    if "publish" in known.steps:
        yield Headline("publish-failed", AMBER)
    if late(PUBLISH, "publish" in known.steps):
        yield Headline("unpublished", AMBER)
    if "prune" in known.steps:
        yield Headline("prune-failed", AMBER)
    if future := sum(each["future"] for each in known.backups):
        yield Headline("future", AMBER, future, count)
    if known.redis or known.workers == 0:
        yield Headline("offline", AMBER)
    yield Headline("running" if known.running else "ok", GREEN)


def first_of(backups: list[Described]) -> str | None:
    """When the oldest of some backups was taken, a stamp; None where nobody knows."""
    times = [known_time(each["created"]) for each in backups if not each["future"]]
    return min(filter(None, times), default=None)


def needed(newest: Mapping[str, Any]) -> int:
    """The bytes that the next backup takes on the disk, as the newest one says.

    Its dumps as if no piece could be used again, and a tenth more; hardly any uploads
    are new.
    """
    return (newest["bytes"] - newest["sizes"].get("files", 0)) * 11 // 10
