"""Where backups are: options and words that what lists them can do with."""

import re
from collections.abc import Callable
from typing import Any

import click

from ..engine.clock import parse_stamp
from ..engine.offsite.look import Seen
from ..engine.printable import one_line
from .columns import fitted, width
from .output import when


def remote_option(help: str) -> Callable[[Any], Any]:
    """`--remote`: of the other place, not of what is here."""
    return click.option("--remote", is_flag=True, help=help)


def _percent(_: click.Context, __: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0
    found = re.fullmatch(r"(\d{1,3})%?", value)
    if not found or not 1 <= int(found[1]) <= 100:
        raise click.BadParameter(f"{value!r} is not a part such as 10%")
    return int(found[1])


sample_option = click.option(
    "--sample",
    metavar="N%",
    callback=_percent,
    help="With --remote: also read so much of the data there again.",
)


def last_look(seen: Seen) -> str:
    """When somebody has looked at the other place, and where it is."""
    return f"there: {one_line(seen.place)}, as seen {when(parse_stamp(seen.time))}"


def place_fact(about: dict[str, Any], seen: Seen) -> str:
    """The line of a backup's facts that says where it is."""
    said = ", ".join(about["where"])
    if seen.time:
        said += f" ({last_look(seen)})"
    return fitted(f"{'where':9} {said}", 10, width())
