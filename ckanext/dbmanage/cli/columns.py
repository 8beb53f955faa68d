"""What is shown on a terminal: a line that is too long goes on below, indented.

In a pipe nothing is broken. What stands in backticks is to be pasted: it stays whole.
"""

import os
import re
import sys
import unicodedata
from contextlib import suppress
from typing import Any


def width(stream: Any = None) -> int:
    """How many columns stdout, or another stream, has; 0 where it is no terminal."""
    stream = stream or sys.stdout
    if stream.isatty():
        with suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno()).columns
    return 0


def taken(text: str) -> int:
    """How many columns a text takes: a letter of East Asia two, an accent none."""
    return sum(
        0
        if unicodedata.combining(letter)
        else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def fitted(line: str, indent: int, columns: int) -> str:
    """A line in as many as it needs, those after the first indented.

    Where the indent would leave little room it is a small one.
    """
    if not columns or taken(line) <= columns:
        return line
    margin = " " * (indent if indent <= columns // 2 else 2)
    lines = [""]
    # the columns of a table stay apart
    for space, word in re.findall(r"(\s*)((?:`[^`]*`|[^\s`]|`)+)", line):
        whole = lines[-1] + space + word
        if taken(whole) <= columns or not lines[-1]:
            lines[-1] = whole
        else:
            lines.append(margin + word)
    return "\n".join(lines)
