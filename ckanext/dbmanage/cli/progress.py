"""The one line that tells on a terminal how far a command is."""

from collections.abc import Callable

from ..engine.course import Course, rough
from ..engine.words import stage_name

#: columns of a bar, where there is room for one
_BAR = 20


def line(course: Course, shown: Callable[[float], str], width: int) -> str:
    """How far it is, in at most so many columns: what matters least goes first.

    `shown` gives bytes or rows as words.
    """
    share, left = course.share(), course.left()
    stage = f"{course.number}/{course.count_all} {stage_name(course.name)}"
    percent, bar = f"{share * 100:.0f} %", "#" * round(share * _BAR)
    counted = shown(course.done) if course.done else ""
    if counted and course.whole > course.done:
        counted = f"{counted} of {shown(course.whole)}"
    time = f"about {rough(left)} left" if left is not None else ""
    for pieces in (
        (f"{stage:18}", f"[{bar:-<{_BAR}}]", percent, counted, time),
        (stage, percent, counted, time),
        (stage, percent, time),
        (stage, percent, time.removeprefix("about ")),
        (stage, percent, rough(left) if left is not None else ""),
        (stage, percent),
    ):
        said = "  ".join(filter(None, pieces))
        if len(said) < width:
            return said
    return f"{stage}  {percent}"[: width - 1]
