"""What a monitor reads: one line and an exit code, by the protocol of Nagios's plugins.

    DBMANAGE WARNING - proof: … | backup_age=3600s;93600;604800;0 problems=0;;0;0

Icinga, Checkmk, Zabbix and others read the same. The line is all that there is: what
others wrote begins no second one, and no figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..engine.printable import one_line
from ..operations.ages import BACKUP, PUSH, STALE
from ..operations.safety import needed
from ..operations.watched import Watched
from .finding import HINT, PROBLEM, Finding

#: letters of what is said; a monitor cuts a line at some thousands
_MOST = 2000
#: the exit code of each word, and what it means
CODES = {
    "OK": (0, "all is well"),
    "WARNING": (1, "there is a hint"),
    "CRITICAL": (2, "there is a problem"),
    "UNKNOWN": (
        3,
        "the doctor cannot know: the configuration cannot be read, or this user may "
        "not look",
    ),
}


@dataclass(frozen=True)
class Report:
    """One line, and the exit code that belongs to it."""

    line: str
    code: int


def monitored(found: Sequence[Finding], watched: Watched) -> Report:
    """What the doctor found, for a monitor.

    A problem that is known weighs most, then what nobody could look at.
    """
    problems = [each for each in found if each.state == PROBLEM and each.known]
    unseen = [each for each in found if not each.known]
    hints = [each for each in found if each.state == HINT]
    levels = {"CRITICAL": problems, "UNKNOWN": unseen, "WARNING": hints, "OK": ()}
    state = next(name for name, of in levels.items() if of or name == "OK")
    said = "; ".join(f"{each.name}: {each.text}" for each in levels[state])
    figures = [
        *_of_ages(watched),
        f"problems={len(problems)};;0;0",
        f"hints={len(hints)};0;;0",
    ]
    return _report(state, said or f"{len(found)} checks", figures)


def unknown(why: str) -> Report:
    """What a monitor is told when the doctor itself cannot know."""
    return _report("UNKNOWN", why, ())


def _report(state: str, said: str, figures: Sequence[str]) -> Report:
    # what comes after a bar would be taken for figures
    words = one_line(said).replace("|", "/")
    words = words if len(words) <= _MOST else f"{words[:_MOST]} …"
    line = f"DBMANAGE {state} - {words}" + (
        f" | {' '.join(figures)}" if figures else ""
    )
    return Report(line, CODES[state][0])


def _of_ages(watched: Watched) -> Iterator[str]:
    """Figures as `name=value unit;warning;critical;least`."""
    for what, age in watched.known.ages.items():
        if age.seconds is not None:
            limit, most = age.limit.total_seconds(), ""
            if what in (BACKUP, PUSH) and limit:
                most = f"{max(age.limit, STALE).total_seconds():.0f}"
            late = f"{limit:.0f}" if limit else ""
            yield f"{what}_age={age.seconds:.0f}s;{late};{most};0"
    if watched.disk:
        newest = watched.known.newest
        # below it is too little
        least = f"{needed(newest)}:" if newest else ""
        yield f"free={watched.disk['free']}B;;{least};0;{watched.disk['total']}"
