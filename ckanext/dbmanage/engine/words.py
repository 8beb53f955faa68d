"""How things are told to people: sizes, parts, lists. One rule for each.

In plain English, for terminals, logs and messages; the pages say the same in the
visitor's language (`web/helpers.py`).
"""

from collections.abc import Iterable
from itertools import islice

from .layout import PARTS
from .printable import one_line
from .report import name_of

#: names that are looked through for those that are like one
_MOST = 50_000


def size(count: float) -> str:
    """A number of bytes: 52.4 MB, in powers of 1000."""
    if count < 1000:
        return f"{count:.0f} byte{'s' * (count != 1)}"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:  # what would be rounded to 1000.0 is one of the next unit
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def many(count: int, thing: str) -> str:
    """A number of things: `1 dataset`, `12 datasets`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def parts(names: Iterable[str]) -> str:
    """The parts of a backup by their names: `database, DataStore and uploads`."""
    return listed(map(name_of, names))


def stage_name(name: str) -> str:
    """A stage, as people call it: load DataStore."""
    stage, _, part = one_line(name).partition(" ")
    return f"{stage} {name_of(part)}" if part in PARTS else stage


def listed(names: Iterable[str]) -> str:
    """Names as a sentence has them: `a, b and c`; empty when there is none."""
    *some, last = [*names] or [""]
    return f"{', '.join(some)} and {last}" if some else last


def alike(name: str, known: Iterable[str], most: int = 3) -> str:
    """The names that are most like one, as the end of a sentence; else empty."""
    import difflib  # what lists backups starts without it

    near = difflib.get_close_matches(name, list(islice(known, _MOST)), most, 0.6)
    return f". Did you mean {' or '.join(map(one_line, near))}?" if near else ""
