"""reStructuredText: headings, tables, what Python's backquotes are there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 96


def title(text: str, line: str = "-") -> str:
    """A heading, with a line below."""
    return f"{text}\n{line * len(text)}\n"


def page(name: str, written_of: str, about: str) -> str:
    """The head of a page."""
    warning = (
        f".. Written by docs/generate out of {written_of}: change that, not this file."
    )
    return "\n".join([warning, "", title(name, "="), wrapped(about)])


def wrapped(text: str) -> str:
    """A paragraph, or several."""
    parts = (" ".join(each.split()) for each in text.split("\n\n"))
    return (
        "\n\n".join(
            textwrap.fill(each, WIDTH, break_on_hyphens=False, break_long_words=False)
            for each in parts
        )
        + "\n"
    )


def literal(text: str) -> str:
    """`so` is ``so`` on these pages."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; an empty cell is one."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [heads, *rows]:
        for number, cell in enumerate(row):
            lines += textwrap.wrap(
                cell or "\\", WIDTH, break_on_hyphens=False, break_long_words=False,
                initial_indent="     - " if number else "   * - ",
                subsequent_indent="       ",
            )  # fmt: skip
    return "\n".join(lines) + "\n"


def tree(docstring: str | None) -> str:
    """The indented lines of a docstring, as a block: a directory with what is in there."""
    lines = re.findall(r"(?m)^    +\S.*$", docstring or "")
    return "\n".join(["::", "", *lines, ""])
